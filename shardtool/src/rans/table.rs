//! Frequencies of byte values, and what encoder and decoder make of them.

use super::{SCALE_BITS, SLOTS};

/// How many of the [`SCALE_BITS`] slots each byte value has.
pub type Frequencies = [u16; 256];

/// The frequencies do not make a table: each must be less than `1 << SCALE_BITS`, and their sum exactly that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "frequencies sum to {sum} with a largest of {largest}; expected a sum of {SLOTS} and each less than that"
)]
pub struct BadFrequencies {
    sum: u32,
    largest: u16,
}

/// Returns frequencies in proportion to `counts`.
///
/// A value that was counted always gets at least 1; with `every`, all the others do too, so that any byte string can be
/// coded. Slots go one by one to the value whose count is the largest in proportion to what it has. This is Webster's
/// method, within a few millionths of the shortest code. It compares only integers, so every machine agrees.
pub fn normalize(counts: &[u32; 256], every: bool) -> Frequencies {
    let mut frequencies: Frequencies =
        std::array::from_fn(|symbol| u16::from(every || counts[symbol] > 0));
    // No value may have all the slots; a second one costs the first nothing that could be measured.
    match frequencies.iter().filter(|f| **f > 0).count() {
        0 => frequencies[..2].fill(1),
        1 => {
            let only = usize::from(frequencies[0] > 0);
            frequencies[only] = 1;
        }
        _ => {}
    }
    let taken: usize = frequencies.iter().map(|f| usize::from(*f)).sum();
    for _ in taken..SLOTS {
        let mut best = 0;
        for symbol in 1..256 {
            let claim =
                |a: usize, b: usize| u64::from(counts[a]) * (2 * u64::from(frequencies[b]) + 1);
            if claim(symbol, best) > claim(best, symbol) {
                best = symbol;
            }
        }
        frequencies[best] += 1;
    }
    frequencies
}

/// Checks the frequencies and returns where each value's slots start.
fn starts(frequencies: &Frequencies) -> Result<[u16; 256], BadFrequencies> {
    let sum: u32 = frequencies.iter().map(|f| u32::from(*f)).sum();
    let largest = *frequencies.iter().max().expect("256 values");
    if sum as usize != SLOTS || usize::from(largest) == SLOTS {
        return Err(BadFrequencies { sum, largest });
    }
    let mut start = 0;
    Ok(frequencies.map(|frequency| {
        start += frequency;
        start - frequency
    }))
}

/// What a decoder looks up: for each slot its symbol, the symbol's frequency and the slot's place among its slots.
#[derive(Debug, Clone)]
pub struct DecodeTable {
    /// Symbol in bits 0–7, slot - start in bits 8–19, frequency in bits 20–31.
    pub(super) slots: Box<[u32; SLOTS]>,
}

impl DecodeTable {
    /// Makes the table of these frequencies.
    ///
    /// # Errors
    /// If they do not sum to `1 << SCALE_BITS`, or one value has all of that.
    pub fn new(frequencies: &Frequencies) -> Result<DecodeTable, BadFrequencies> {
        starts(frequencies)?;
        let slots: Box<[u32]> = (0u32..)
            .zip(frequencies)
            .flat_map(|(symbol, &frequency)| {
                let frequency = u32::from(frequency);
                (0..frequency).map(move |offset| symbol | offset << 8 | frequency << 20)
            })
            .collect();
        let slots = slots.try_into().expect("the sum was checked");
        Ok(DecodeTable { slots })
    }
}

/// What an encoder looks up for each symbol.
#[derive(Debug, Clone)]
pub struct EncodeTable {
    /// Start in bits 0–11, frequency in bits 12–23; all zero if the symbol cannot be coded.
    pub(super) symbols: [u32; 256],
    /// Bits that a symbol takes, in 65536ths.
    costs: [u32; 256],
}

impl EncodeTable {
    /// Makes the table of these frequencies.
    ///
    /// # Errors
    /// If they do not sum to `1 << SCALE_BITS`, or one value has all of that.
    pub fn new(frequencies: &Frequencies) -> Result<EncodeTable, BadFrequencies> {
        let starts = starts(frequencies)?;
        Ok(EncodeTable {
            symbols: std::array::from_fn(|symbol| match frequencies[symbol] {
                // Its start may be 4096, which has no room.
                0 => 0,
                frequency => u32::from(starts[symbol]) | u32::from(frequency) << SCALE_BITS,
            }),
            costs: frequencies.map(|frequency| match frequency {
                0 => 0,
                _ => 65536 * SCALE_BITS - log2(frequency),
            }),
        })
    }

    /// Returns how many bits a segment with this histogram takes, rounded up, or `None` if the table lacks a symbol of
    /// it.
    pub fn cost(&self, histogram: &[u32; 256]) -> Option<u64> {
        let (mut cost, mut uncodable) = (0, 0);
        for ((count, bits), entry) in histogram.iter().zip(&self.costs).zip(&self.symbols) {
            cost += u64::from(*count) * u64::from(*bits);
            let codable = entry >> SCALE_BITS > 0;
            uncodable |= if codable { 0 } else { *count };
        }
        (uncodable == 0).then_some(cost.div_ceil(65536))
    }
}

/// Returns the base-2 logarithm in 65536ths, rounded down. It uses integers alone: the choice of a table must not
/// depend on the machine.
fn log2(value: u16) -> u32 {
    let whole = value.ilog2();
    // The mantissa in [1, 2), with 31 bits after the point. Squaring it doubles its logarithm: the next bit is set if
    // the square reaches 2.
    let mut mantissa = u64::from(value) << (31 - whole);
    let mut log = whole;
    for _ in 0..16 {
        mantissa = (mantissa * mantissa) >> 31;
        let bit = mantissa >> 32;
        mantissa >>= bit;
        log = log << 1 | bit as u32;
    }
    log
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns mostly small counts, many of them zero, as streams have them.
    fn counts() -> impl Strategy<Value = [u32; 256]> {
        let count = prop_oneof![3 => Just(0u32), 3 => 0u32..20, 2 => 0u32..5000, 1 => any::<u32>()];
        proptest::collection::vec(count, 256).prop_map(|counts| counts.try_into().unwrap())
    }

    proptest! {
        #[test]
        fn every_counted_value_can_be_coded(counts in counts(), every: bool) {
            let frequencies = normalize(&counts, every);
            DecodeTable::new(&frequencies).unwrap();
            let table = EncodeTable::new(&frequencies).unwrap();
            prop_assert!(table.cost(&counts).is_some());
            prop_assert_eq!(table.cost(&[1; 256]).is_some(), every || counts.iter().all(|c| *c > 0));
        }

        #[test]
        fn no_exchange_of_two_slots_shortens_the_code_noticeably(counts in counts()) {
            let frequencies = normalize(&counts, true);
            let cost = |f: &Frequencies| -> f64 {
                let bits = |(c, f): (&u32, &u16)| f64::from(*c) * (12.0 - f64::from(*f).log2());
                counts.iter().zip(f).map(bits).sum()
            };
            let best = cost(&frequencies);
            for from in (0..256).filter(|s| frequencies[*s] > 1) {
                for to in 0..256 {
                    let mut other = frequencies;
                    other[from] -= 1;
                    other[to] += 1;
                    prop_assert!(cost(&other) > best * 0.999, "{from} -> {to}");
                }
            }
        }
    }

    #[test]
    fn frequencies_that_do_not_fill_the_slots_are_refused() {
        let mut frequencies = [16u16; 256];
        assert!(DecodeTable::new(&frequencies).is_ok());
        frequencies[7] += 1;
        assert!(DecodeTable::new(&frequencies).is_err());
        assert!(EncodeTable::new(&frequencies).is_err());
        let mut all = [0; 256];
        all[9] = 4096;
        assert_eq!(
            DecodeTable::new(&all).unwrap_err(),
            BadFrequencies {
                sum: 4096,
                largest: 4096
            }
        );
        // A sum that would wrap around to the right one in 16 bits.
        let mut wrapped = [0xffff; 256];
        wrapped[0] = 4096 + 255;
        assert!(DecodeTable::new(&wrapped).is_err());
    }

    #[test]
    fn extreme_counts_leave_no_value_with_all_the_slots() {
        for only in [0, 1, 255] {
            let mut counts = [0; 256];
            counts[only] = u32::MAX;
            let frequencies = normalize(&counts, false);
            assert_eq!(frequencies[only], 4095);
            assert!(DecodeTable::new(&frequencies).is_ok());
        }
        assert!(DecodeTable::new(&normalize(&[0; 256], false)).is_ok());
        assert_eq!(normalize(&[u32::MAX; 256], true), [16; 256]);
    }

    #[test]
    fn the_cost_is_the_sum_of_logarithms() {
        for value in 1..4096u16 {
            let exact = f64::from(value).log2() * 65536.0;
            let error = exact - f64::from(log2(value));
            assert!((-0.01..1.1).contains(&error), "{value}: {error}");
        }
        let mut frequencies = [0; 256];
        (frequencies[3], frequencies[4], frequencies[5]) = (2048, 1024, 1024);
        let table = EncodeTable::new(&frequencies).unwrap();
        let mut histogram = [0; 256];
        (histogram[3], histogram[4]) = (5, 7);
        assert_eq!(table.cost(&histogram), Some(19));
        histogram[6] = 1;
        assert_eq!(table.cost(&histogram), None);
    }
}
