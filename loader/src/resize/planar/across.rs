//! The first half of every path: rows of bytes, filtered across.

use shardtool::simd::Simd;

#[cfg(target_arch = "x86_64")]
use super::avx2;
#[cfg(target_arch = "x86_64")]
use super::avx512;
use super::scalar;
use super::taps::{Axis, Taps};
use super::windows::Windows;

/// Taps across, in the form that the family's instructions want.
#[derive(Default)]
pub struct Across {
    /// The taps, as the definition has them.
    pub taps: Taps,
    windows: Windows,
}

impl Across {
    /// Computes the tables of an axis. The machine must have `simd`.
    pub fn prepare(&mut self, axis: &Axis, simd: Simd) {
        self.taps.prepare(axis, simd);
        #[cfg(target_arch = "x86_64")]
        match simd {
            Simd::Scalar => {}
            Simd::Avx2 => self.windows.prepare(&self.taps, avx2::LANE_ORDER, false),
            Simd::Avx512 => self.windows.prepare(&self.taps, [0, 1, 2, 3], true),
        }
    }

    /// Filters two rows to two rows of `out`, one behind the other. The machine must have `simd`, and tables must be
    /// made for it.
    pub fn filter(&self, simd: Simd, rows: [&[u8]; 2], out: &mut [i16]) {
        match simd {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the resizer made sure that the machine has this family.
            Simd::Avx2 => unsafe { avx2::across(&self.windows, rows, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Simd::Avx512 => unsafe { avx512::across(&self.windows, rows, out) },
            _ => {
                let width = out.len() / 2;
                for (row, out) in rows.into_iter().zip(out.chunks_exact_mut(width)) {
                    scalar::across(&self.taps, row, out);
                }
            }
        }
    }
}

/// Takes a row of packed RGB apart, to planes that begin `pitch` apart.
pub fn split_row(simd: Simd, packed: &[u8], split: &mut [u8], pitch: usize) {
    let (red, rest) = split.split_at_mut(pitch);
    let (green, blue) = rest.split_at_mut(pitch);
    let done = match simd {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the resizer made sure that the machine has this family.
        Simd::Avx2 | Simd::Avx512 => unsafe { avx2::split(packed, [red, green, blue]) },
        _ => 0,
    };
    for (at, pixel) in packed.chunks_exact(3).enumerate().skip(done) {
        (red[at], green[at], blue[at]) = (pixel[0], pixel[1], pixel[2]);
    }
}
