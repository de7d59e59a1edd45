//! A component's blocks taken apart into streams, when a dataset is built.

use super::coefficients::{BLOCK, Component};
use super::streams::{STREAMS, stream, zigzag};
#[cfg(target_arch = "x86_64")]
use super::transpose::transpose;
use crate::simd::Simd;

/// The largest dequantized coefficient that the readers' 16-bit arithmetic takes: JPEG's own limit for 8-bit samples.
pub const MAX_DEQUANTIZED: i32 = 2047;

/// A component's streams.
#[derive(Debug, Clone, Default)]
pub struct Packed {
    /// The streams, by number.
    pub streams: [Vec<u8>; STREAMS],
}

/// A coefficient is larger than any that an 8-bit image can give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a coefficient is beyond what 8-bit samples can give")]
pub struct TooLarge;

impl Packed {
    /// Takes a component apart. Buffers are reused.
    ///
    /// # Errors
    /// If a dequantized coefficient is beyond [`MAX_DEQUANTIZED`].
    ///
    /// # Panics
    /// If the component does not have as many blocks as it says.
    pub fn fill(&mut self, component: &Component, simd: Simd) -> Result<(), TooLarge> {
        self.streams.iter_mut().for_each(Vec::clear);
        let limits = limits(&component.quantization);
        self.differences(component, limits[0])?;
        let (blocks, rest) = component.blocks.as_chunks::<BLOCK>();
        assert!(
            rest.is_empty() && blocks.len() == component.blocks_wide * component.blocks_high,
            "blocks"
        );
        let large = match simd.min(Simd::best()) {
            Simd::Scalar => self.blocks(blocks, &limits),
            // SAFETY: `simd` was cut to a family that the machine has.
            #[cfg(target_arch = "x86_64")]
            _ => unsafe { self.blocks_avx2(blocks, &limits) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => unreachable!("no such family on this machine"),
        };
        if large { Err(TooLarge) } else { Ok(()) }
    }

    /// Codes the DC coefficients: each as its difference to the one on its left, the first of a row to the one above.
    fn differences(&mut self, component: &Component, limit: i16) -> Result<(), TooLarge> {
        let mut above = 0i16;
        for row in component.blocks.chunks_exact(BLOCK * component.blocks_wide) {
            let mut before = above;
            above = row[0];
            for &dc in row.iter().step_by(BLOCK) {
                if i32::from(dc).abs() > i32::from(limit) {
                    return Err(TooLarge);
                }
                let [low, high] = zigzag(dc.wrapping_sub(before)).to_le_bytes();
                self.streams[stream::DC_LOW].push(low);
                self.streams[stream::DC_HIGH].push(high);
                before = dc;
            }
        }
        Ok(())
    }

    /// Codes all other coefficients. Returns `true` if one is too large.
    fn blocks(&mut self, blocks: &[[i16; BLOCK]], limits: &[i16; BLOCK]) -> bool {
        let mut since = 0;
        let mut large = false;
        for block in blocks {
            for u in 0..8 {
                let mut mask = 0;
                for v in usize::from(u == 0)..8 {
                    let coefficient = block[8 * v + u];
                    large |= coefficient.unsigned_abs() > limits[8 * v + u] as u16;
                    if coefficient != 0 {
                        mask |= 1 << v;
                        self.streams[stream::values(u)].push(coefficient as u8);
                    }
                }
                self.streams[stream::masks(u)].push(mask);
            }
            self.escapes(block, &mut since);
            since += 1;
        }
        large
    }

    /// Codes the coefficients of a block that do not fit a byte. `since` counts the blocks since the last escape.
    fn escapes(&mut self, block: &[i16; BLOCK], since: &mut usize) {
        for place in 1..BLOCK {
            let coefficient = block[8 * (place % 8) + place / 8];
            let Ok(high) = i8::try_from((coefficient - i16::from(coefficient as i8)) >> 8) else {
                continue; // too large, and reported as such
            };
            if high != 0 {
                let steps = &mut self.streams[stream::ESCAPE_STEPS];
                steps.resize(steps.len() + *since / 255, 255);
                steps.push((*since % 255) as u8);
                self.streams[stream::ESCAPE_PLACES].push(place as u8);
                self.streams[stream::ESCAPE_HIGHS].push(high as u8);
                *since = 0;
            }
        }
    }

    /// Does what `blocks` does, with AVX2 and BMI2.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    fn blocks_avx2(&mut self, blocks: &[[i16; BLOCK]], limits: &[i16; BLOCK]) -> bool {
        use std::arch::x86_64::*;

        transpose!(
            __m128i,
            "avx2",
            _mm_unpacklo_epi16 _mm_unpackhi_epi16
            _mm_unpacklo_epi32 _mm_unpackhi_epi32
            _mm_unpacklo_epi64 _mm_unpackhi_epi64
        );
        // Room for every coefficient, so that eight bytes can be stored before it is known how many of them count.
        for u in 0..8 {
            self.streams[stream::masks(u)].resize(blocks.len(), 0);
            self.streams[stream::values(u)].resize(8 * blocks.len() + 8, 0);
        }
        let mut masks: [*mut u8; 8] =
            std::array::from_fn(|u| self.streams[stream::masks(u)].as_mut_ptr());
        let mut values: [*mut u8; 8] =
            std::array::from_fn(|u| self.streams[stream::values(u)].as_mut_ptr());
        let starts = values;
        let mut since = 0;
        let mut large = _mm_setzero_si128();
        let zero = _mm_setzero_si128();
        for block in blocks {
            let mut beyond = zero;
            let rows: [__m128i; 8] = std::array::from_fn(|v| {
                // SAFETY: eight numbers from 8 v on, of 64.
                let (row, limit) = unsafe {
                    (
                        _mm_loadu_si128(block.as_ptr().add(8 * v).cast()),
                        _mm_loadu_si128(limits.as_ptr().add(8 * v).cast()),
                    )
                };
                // The absolute value of i16::MIN is itself, which is below every limit: it is compared apart.
                large = _mm_or_si128(large, _mm_cmpgt_epi16(_mm_abs_epi16(row), limit));
                large = _mm_or_si128(large, _mm_cmpeq_epi16(row, _mm_set1_epi16(i16::MIN)));
                let row = if v == 0 {
                    _mm_insert_epi16::<0>(row, 0)
                } else {
                    row
                };
                let low = _mm_srai_epi16::<8>(_mm_slli_epi16::<8>(row));
                beyond = _mm_or_si128(beyond, _mm_xor_si128(low, row));
                row
            });
            let columns = transpose(rows);
            for pair in 0..4 {
                let (first, second) = (columns[2 * pair], columns[2 * pair + 1]);
                let byte = _mm_set1_epi16(255);
                let bytes =
                    _mm_packus_epi16(_mm_and_si128(first, byte), _mm_and_si128(second, byte));
                let zeros =
                    _mm_packs_epi16(_mm_cmpeq_epi16(first, zero), _mm_cmpeq_epi16(second, zero));
                let bits = !_mm_movemask_epi8(zeros) as u16;
                let halves = [
                    (
                        _mm_cvtsi128_si64(bytes),
                        _mm_cvtsi128_si64(zeros),
                        bits as u8,
                    ),
                    (
                        _mm_extract_epi64::<1>(bytes),
                        _mm_extract_epi64::<1>(zeros),
                        (bits >> 8) as u8,
                    ),
                ];
                for (half, (bytes, zeros, mask)) in halves.into_iter().enumerate() {
                    let u = 2 * pair + half;
                    let packed = _pext_u64(bytes as u64, !(zeros as u64));
                    // SAFETY: there is room for a mask and eight values per block, and eight bytes more.
                    unsafe {
                        masks[u].write(mask);
                        values[u].cast::<u64>().write_unaligned(packed.to_le());
                        masks[u] = masks[u].add(1);
                        values[u] = values[u].add(mask.count_ones() as usize);
                    }
                }
            }
            if _mm_testz_si128(beyond, beyond) == 0 {
                self.escapes(block, &mut since);
            }
            since += 1;
        }
        for u in 0..8 {
            // SAFETY: both point into the same stream, the second not before the first.
            let length = unsafe { values[u].offset_from_unsigned(starts[u]) };
            self.streams[stream::values(u)].truncate(length);
        }
        _mm_testz_si128(large, large) == 0
    }
}

/// Returns the largest coefficient for each quantization step.
fn limits(quantization: &[u16; BLOCK]) -> [i16; BLOCK] {
    quantization.map(|step| (MAX_DEQUANTIZED / i32::from(step.max(1))) as i16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn component(wide: usize, high: usize, blocks: Vec<i16>, step: u16) -> Component {
        Component {
            h: 1,
            v: 1,
            quantization: [step; BLOCK],
            blocks_wide: wide,
            blocks_high: high,
            blocks,
        }
    }

    fn sparse() -> impl Strategy<Value = i16> {
        prop_oneof![6 => Just(0i16), 3 => -5i16..=5, 1 => -300i16..=300, 1 => -2047i16..=2047]
    }

    proptest! {
        #[test]
        fn vector_path_packs_the_same_bytes(
            (wide, high) in (1usize..5, 1usize..4),
            values in prop::collection::vec(sparse(), 64 * 12),
        ) {
            let component = component(wide, high, values[..64 * wide * high].to_vec(), 1);
            let mut expected = Packed::default();
            expected.fill(&component, Simd::Scalar).unwrap();
            for &simd in Simd::available() {
                // Buffers that were in use must not show.
                let mut packed = expected.clone();
                packed.fill(&component, simd).unwrap();
                prop_assert_eq!(&packed.streams[..], &expected.streams[..], "{:?}", simd);
            }
        }
    }

    #[test]
    fn what_eight_bit_samples_cannot_give_is_refused() {
        for (place, value, step, fits) in [
            (0, 2047, 1, true),
            (0, -2047, 1, true),
            (0, 1024, 2, false),
            (9, 1023, 2, true),
            (9, -1024, 2, false),
            (63, i16::MIN, 1, false),
            (63, i16::MIN, 65_535, false),
            (40, 1, 2048, false),
        ] {
            let mut blocks = vec![0; 64];
            blocks[place] = value;
            for &simd in Simd::available() {
                let packed = Packed::default().fill(&component(1, 1, blocks.clone(), step), simd);
                assert_eq!(
                    packed.is_ok(),
                    fits,
                    "{value} at {place} by {step}, {simd:?}"
                );
            }
        }
    }
}
