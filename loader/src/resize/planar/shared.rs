//! The second half of the vector paths, filtering down and converting colour, written once for every width of
//! registers.

use shardtool::planes::Colour;

// Colours as constants to compile for.
pub const GRAY: u8 = Colour::Gray as u8;
pub const YCBCR: u8 = Colour::YCbCr as u8;
pub const RGB: u8 = Colour::Rgb as u8;

/// Defines `down` of a vector path.
///
/// The path defines `write`, which rounds a block of outputs to bytes and stores those that exist. It names its
/// instructions, for `#[target_feature]`, and imports them under short names: the type `Vector`; `zero` and `load`; for
/// its lanes of 16 bits `add`, `adds`, `subs`, `mulhrs`, `splat`; for those of 32 bits `add32`, `splat32`, `shift15`;
/// and from 16 to 32 bits and back `interleave_low`, `interleave_high`, `madd`, `narrow`.
macro_rules! shared {
    ($features:literal) => {
        /// Values in a register.
        const LANES: usize = size_of::<Vector>() / size_of::<i16>();

        /// Filters down and converts colour: one row of output from the rows that each plane's strand names.
        #[target_feature(enable = $features)]
        pub fn down(strands: &[Strand<'_>; 3], colour: Colour, out: [&mut [u8]; 3]) {
            let planes = &strands[..colour.planes()];
            let most = planes.iter().map(|strand| strand.count).max();
            match most.expect("at least one plane") {
                1..=2 => coloured::<2>(strands, colour, out),
                3 => coloured::<3>(strands, colour, out),
                4 => coloured::<4>(strands, colour, out),
                5 => coloured::<5>(strands, colour, out),
                6 => coloured::<6>(strands, colour, out),
                7..=SHORT => coloured::<SHORT>(strands, colour, out),
                _ => coloured::<0>(strands, colour, out),
            }
        }

        #[target_feature(enable = $features)]
        fn coloured<const TAPS: usize>(
            strands: &[Strand<'_>; 3],
            colour: Colour,
            out: [&mut [u8]; 3],
        ) {
            match colour {
                Colour::Gray => rows::<TAPS, GRAY>(strands, out),
                Colour::YCbCr => rows::<TAPS, YCBCR>(strands, out),
                Colour::Rgb => rows::<TAPS, RGB>(strands, out),
            }
        }

        /// A strand with its rows looked up: `TAPS` of them, or any number where that is 0.
        #[derive(Clone, Copy)]
        struct Column<'a, const TAPS: usize> {
            strand: &'a Strand<'a>,
            rows: [&'a [i16]; TAPS],
            weights: [Vector; TAPS],
        }

        impl<'a, const TAPS: usize> Column<'a, TAPS> {
            #[inline]
            #[target_feature(enable = $features)]
            fn new(strand: &'a Strand<'a>) -> Column<'a, TAPS> {
                let mut column = Column {
                    strand,
                    rows: [&[]; TAPS],
                    weights: [zero(); TAPS],
                };
                for tap in 0..TAPS {
                    // Where a strand has fewer taps, its first row is read again, with no weight.
                    let exists = tap < strand.count;
                    let weight = if exists { strand.weight(tap) } else { 0 };
                    column.rows[tap] = strand.row(if exists { tap } else { 0 });
                    column.weights[tap] = splat(weight);
                }
                column
            }

            /// Returns the values of a register of outputs.
            ///
            /// # Safety
            /// `at + LANES` is at most the rows' length.
            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn values(&self, at: usize) -> Vector {
                let value = |row: &[i16]| {
                    debug_assert!(at + LANES <= row.len());
                    // SAFETY: as the caller promises.
                    unsafe { load(row.as_ptr().add(at).cast()) }
                };
                if TAPS > 0 {
                    let mut sum = mulhrs(value(self.rows[0]), self.weights[0]);
                    for tap in 1..TAPS {
                        sum = add(sum, mulhrs(value(self.rows[tap]), self.weights[tap]));
                    }
                    return sum;
                }
                let strand = self.strand;
                if strand.short {
                    let mut sum = zero();
                    for tap in 0..strand.count {
                        let weight = splat(strand.weight(tap));
                        sum = add(sum, mulhrs(value(strand.row(tap)), weight));
                    }
                    return sum;
                }
                let mut sums = [splat32(1 << 14); 2];
                for tap in (0..strand.count).step_by(2) {
                    let upper = value(strand.row(tap));
                    let (lower, second) = if tap + 1 < strand.count {
                        (value(strand.row(tap + 1)), strand.weight(tap + 1))
                    } else {
                        (upper, 0)
                    };
                    let weights = splat32(i32::from(strand.weight(tap)) | i32::from(second) << 16);
                    let pairs = [interleave_low(upper, lower), interleave_high(upper, lower)];
                    for (sum, pairs) in sums.iter_mut().zip(pairs) {
                        *sum = add32(*sum, madd(pairs, weights));
                    }
                }
                narrow(shift15(sums[0]), shift15(sums[1]))
            }
        }

        #[target_feature(enable = $features)]
        fn rows<const TAPS: usize, const COLOUR: u8>(
            strands: &[Strand<'_>; 3],
            out: [&mut [u8]; 3],
        ) {
            let mut columns = [Column::<TAPS>::new(&strands[0]); 3];
            if COLOUR != GRAY {
                columns[1] = Column::new(&strands[1]);
                columns[2] = Column::new(&strands[2]);
            }
            let padded = columns[0].strand.row(0).len();
            assert!(
                columns
                    .iter()
                    .all(|column| column.strand.row(0).len() == padded)
            );
            let [red, green, blue] = out;
            let side = red.len();
            assert!(
                padded.is_multiple_of(BLOCK)
                    && side <= padded
                    && green.len() == side
                    && blue.len() == side
            );
            for at in (0..padded).step_by(BLOCK) {
                let mut block = [[zero(); BLOCK / LANES]; 3];
                for part in 0..BLOCK / LANES {
                    // SAFETY: all rows are `padded` long, a multiple of a block.
                    let pixels = unsafe { pixels::<TAPS, COLOUR>(&columns, at + LANES * part) };
                    for (values, pixels) in block.iter_mut().zip(pixels) {
                        values[part] = pixels;
                    }
                }
                write(red, at, block[0]);
                write(green, at, block[1]);
                write(blue, at, block[2]);
            }
        }

        /// Returns a register of pixels, with 7 fractional bits and 128 taken off.
        ///
        /// # Safety
        /// `at + LANES` is at most the length of the columns' rows.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn pixels<const TAPS: usize, const COLOUR: u8>(
            columns: &[Column<'_, TAPS>; 3],
            at: usize,
        ) -> [Vector; 3] {
            // SAFETY: as the caller promises.
            let value = |plane: usize| unsafe { columns[plane].values(at) };
            if COLOUR == GRAY {
                return [value(0); 3];
            }
            let [y, cb, cr] = [value(0), value(1), value(2)];
            if COLOUR == RGB {
                return [y, cb, cr];
            }
            // Saturation changes only what is far outside a byte's range, on the same side of it.
            let red = adds(y, adds(cr, mulhrs(cr, splat(CR_TO_RED))));
            let green = subs(y, mulhrs(cb, splat(CB_TO_GREEN)));
            let green = subs(green, mulhrs(cr, splat(CR_TO_GREEN)));
            let blue = adds(y, adds(cb, mulhrs(cb, splat(CB_TO_BLUE))));
            [red, green, blue]
        }
    };
}

pub(super) use shared;
