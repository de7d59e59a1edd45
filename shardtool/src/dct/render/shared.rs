//! What the vector paths have in common, written once for every width of registers.

/// Defines `row`, `apply` and `inverse` of a vector path, and `BLOCKS`, how many blocks a register holds.
///
/// The path defines `across` and `down`, which really differ. It names its instructions, for `#[target_feature]`, and
/// imports them under short names: the type `Vector` and, for its 16-bit lanes, `adds`, `subs`, `mulhrs`, `splat`;
/// further `zero`, `load`, `store` and `transpose`.
macro_rules! shared {
    ($features:literal) => {
        /// Blocks in a register.
        const BLOCKS: usize = size_of::<Vector>() / 16;

        /// Renders one row of blocks: all of it along the horizontal frequencies, then along the vertical ones.
        ///
        /// # Panics
        /// If `halfway` has no room for whole groups, or `samples` none for all rows.
        ///
        /// # Safety
        /// The machine must have this path's instructions.
        pub(super) unsafe fn row(row: &Row<'_>, halfway: &mut [Halfway], samples: &mut [u8]) {
            assert!(samples.len() >= row.scale.rows * row.stride);
            assert!(halfway.len() >= row.blocks.next_multiple_of(GROUP));
            // SAFETY: the instructions are there, says the caller.
            unsafe {
                match row.scale.columns {
                    1 => across::<1>(row, halfway),
                    2 => across::<2>(row, halfway),
                    3 => across::<3>(row, halfway),
                    4 => across::<4>(row, halfway),
                    5 => across::<5>(row, halfway),
                    6 => across::<6>(row, halfway),
                    7 => across::<7>(row, halfway),
                    _ => across::<8>(row, halfway),
                }
                match row.scale.rows {
                    1 => down::<1>(row, halfway, samples),
                    2 => down::<2>(row, halfway, samples),
                    3 => down::<3>(row, halfway, samples),
                    4 => down::<4>(row, halfway, samples),
                    5 => down::<5>(row, halfway, samples),
                    6 => down::<6>(row, halfway, samples),
                    7 => down::<7>(row, halfway, samples),
                    _ => down::<8>(row, halfway, samples),
                }
            }
        }

        /// Adds the high bytes of a register's escapes; returns those of the blocks behind it.
        #[cold]
        #[target_feature(enable = $features)]
        fn apply<'a>(
            escapes: &'a [Escape],
            block: usize,
            vectors: &mut [Vector; 8],
        ) -> &'a [Escape] {
            let count = escapes.partition_point(|escape| (escape.block as usize) < block + BLOCKS);
            for escape in &escapes[..count] {
                let (u, v) = (
                    usize::from(escape.place >> 3),
                    usize::from(escape.place & 7),
                );
                let lane = 8 * (escape.block as usize - block) + v;
                let mut lanes = [0i16; 8 * BLOCKS];
                // SAFETY: a register has eight 16-bit lanes for each of its blocks.
                unsafe {
                    store(lanes.as_mut_ptr().cast(), vectors[u]);
                    lanes[lane] = lanes[lane].wrapping_add(i16::from(escape.high) << 8);
                    vectors[u] = load(lanes.as_ptr().cast());
                }
            }
            &escapes[count..]
        }

        /// Does the inverse DCT along one dimension, lane by lane; see [`crate::dct::idct::inverse`].
        #[inline]
        #[target_feature(enable = $features)]
        fn inverse<const LENGTH: usize>(x: [Vector; 8]) -> [Vector; 8] {
            let mut samples = [zero(); 8];
            let weigh = |n: usize, u: usize| mulhrs(x[u], splat(COSINES[LENGTH - 1][n][u]));
            for n in 0..LENGTH.div_ceil(2) {
                let mut even = weigh(n, 0);
                for u in (2..LENGTH).step_by(2) {
                    even = adds(even, weigh(n, u));
                }
                if 2 * n + 1 == LENGTH {
                    samples[n] = even;
                    continue;
                }
                let mut odd = weigh(n, 1);
                for u in (3..LENGTH).step_by(2) {
                    odd = adds(odd, weigh(n, u));
                }
                samples[n] = adds(even, odd);
                samples[LENGTH - 1 - n] = subs(even, odd);
            }
            samples
        }
    };
}

pub(super) use shared;
