//! The order of an epoch: a keyed bijection of `0..samples`, evaluated at any index without an array.
//!
//! A Feistel network on a rectangle `rows × columns` that just covers `samples` (Black and Rogaway, "Ciphers with
//! arbitrary finite domains", 2002): the two coordinates take turns in being shifted by a keyed hash of the other.
//! An index that leaves `0..samples` is sent through again until it comes back ("cycle walking"). Since the rectangle
//! exceeds `samples` by less than a row, that hardly ever happens: cost is one pass, below 100 ns, at any size.
//!
//! The permutation is a contract, since a resumed run must see the same images: the tests freeze it.

use crate::random::{Purpose, Stream};

/// Rounds of the network. Four suffice against statistics on large domains; a handful of samples mixes more slowly.
const ROUNDS: usize = 16;

/// An epoch's permutation of the samples.
#[derive(Clone, Debug)]
pub struct Order {
    samples: u64,
    rows: u64,
    columns: u64,
    keys: [u64; ROUNDS],
}

impl Order {
    /// Makes the permutation of `0..samples` in `epoch` under `seed`.
    ///
    /// # Panics
    /// If `samples` is 0 or above 2^62, where the rectangle could not be represented.
    pub fn new(seed: u64, epoch: u64, samples: u64) -> Order {
        assert!(
            samples > 0 && samples <= 1 << 62,
            "cannot order {samples} samples"
        );
        let mut rows = samples.isqrt();
        rows += u64::from(rows * rows < samples);
        let columns = samples.div_ceil(rows);
        let mut draws = Stream::new(seed, Purpose::Order, 0).at(epoch, 0);
        Order {
            samples,
            rows,
            columns,
            keys: std::array::from_fn(|_| draws.bits64()),
        }
    }

    /// Returns the sample at `index` of the epoch.
    ///
    /// # Panics
    /// If `index` is not below the number of samples.
    pub fn sample(&self, index: u64) -> u64 {
        assert!(
            index < self.samples,
            "index {index} in an epoch of {} samples",
            self.samples
        );
        let mut value = index;
        loop {
            value = self.pass(value);
            if value < self.samples {
                return value;
            }
        }
    }

    fn pass(&self, value: u64) -> u64 {
        let (mut row, mut column) = (value / self.columns, value % self.columns);
        for pair in self.keys.chunks_exact(2) {
            row = shifted(row, self.rows, mixed(column ^ pair[0]));
            column = shifted(column, self.columns, mixed(row ^ pair[1]));
        }
        row * self.columns + column
    }
}

/// Moves `value` round a ring of `size` by a hash. The high half of a product takes the place of a division; its bias,
/// at most size / 2^64, is far below anything measurable.
fn shifted(value: u64, size: u64, hash: u64) -> u64 {
    let moved = value + ((u128::from(hash) * u128::from(size)) >> 64) as u64;
    if moved >= size { moved - size } else { moved }
}

/// Applies the finalizer of SplitMix64, a bijection in which every input bit moves half of the output.
fn mixed(mut value: u64) -> u64 {
    value = (value ^ value >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ value >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ value >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(seed: u64, epoch: u64, samples: u64) -> Vec<u64> {
        let order = Order::new(seed, epoch, samples);
        (0..samples).map(|index| order.sample(index)).collect()
    }

    fn is_permutation(mut order: Vec<u64>) -> bool {
        order.sort_unstable();
        order
            .iter()
            .enumerate()
            .all(|(index, &id)| id == index as u64)
    }

    #[test]
    fn every_small_size_is_permuted() {
        for samples in 1..=300 {
            assert!(is_permutation(whole(3, 1, samples)), "{samples} samples");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_size_is_permuted(seed: u64, epoch in 0u64..1000, samples in 1u64..50_000) {
            prop_assert!(is_permutation(whole(seed, epoch, samples)));
        }

        #[test]
        fn huge_sizes_stay_in_range(seed: u64, samples in 1u64..=1 << 62, at: u64) {
            let order = Order::new(seed, 0, samples);
            prop_assert!(order.rows * order.columns - samples < order.rows);
            prop_assert!(order.sample(at % samples) < samples);
        }
    }

    /// Over many seeds every one of the n! orders of a few samples comes equally often.
    #[test]
    fn all_orders_of_a_few_samples_are_equally_likely() {
        for (samples, orders, limit) in [
            (2, 2.0, 15.0),
            (3, 6.0, 25.0),
            (4, 24.0, 58.0),
            (5, 120.0, 185.0),
        ] {
            let mut seen = std::collections::HashMap::<Vec<u64>, u32>::new();
            const SEEDS: u64 = 60_000;
            for seed in 0..SEEDS {
                *seen.entry(whole(seed, 7, samples)).or_default() += 1;
            }
            assert_eq!(seen.len() as f64, orders);
            let expected = SEEDS as f64 / orders;
            let chi: f64 = seen
                .values()
                .map(|&count| (f64::from(count) - expected).powi(2) / expected)
                .sum();
            assert!(chi < limit, "{samples} samples: chi-square {chi}");
        }
    }

    /// Within one order of a real size: where a sample lands does not depend on where it comes from, and the distance
    /// between neighbours is spread as evenly as chance would have it.
    #[test]
    fn one_large_order_looks_like_chance() {
        const SAMPLES: u64 = 1_281_167;
        let order = whole(0, 0, SAMPLES);
        const CELLS: usize = 16;
        let cell = |value: u64| (value * CELLS as u64 / SAMPLES) as usize;
        let (mut landing, mut distance) = (vec![0u32; CELLS * CELLS], vec![0u32; CELLS]);
        for (index, pair) in order.windows(2).enumerate() {
            landing[cell(index as u64) * CELLS + cell(pair[0])] += 1;
            distance[cell((pair[1] + SAMPLES - pair[0]) % SAMPLES)] += 1;
        }
        let chi = |cells: &[u32]| {
            let expected = (SAMPLES - 1) as f64 / cells.len() as f64;
            cells
                .iter()
                .map(|&seen| (f64::from(seen) - expected).powi(2) / expected)
                .sum::<f64>()
        };
        assert!(chi(&landing) < 340.0, "landing {}", chi(&landing)); // 225 free cells: mean 225, deviation 21
        assert!(chi(&distance) < 40.0, "distance {}", chi(&distance)); // 15 free cells
    }

    #[test]
    fn epochs_and_seeds_differ() {
        let base = whole(0, 0, 1000);
        assert_ne!(base, whole(0, 1, 1000));
        assert_ne!(base, whole(1, 0, 1000));
        let fixed = base
            .iter()
            .zip(whole(0, 1, 1000))
            .filter(|(one, other)| **one == *other)
            .count();
        assert!(fixed < 10, "{fixed} samples kept their place");
    }

    #[test]
    fn the_order_is_frozen() {
        assert_eq!(whole(0, 0, 10), [0, 2, 5, 4, 6, 7, 1, 8, 3, 9]);
        let order = Order::new(42, 299, 1_281_167);
        let seen = [0, 1, 2, 1_281_166].map(|index| order.sample(index));
        assert_eq!(seen, [809_374, 610_205, 1_119_006, 387_624]);
    }
}
