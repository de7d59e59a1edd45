//! The transpose of 8 × 8 numbers of 16 bits, one for every width of registers.

/// Defines `transpose`, which swaps rows and columns of the 8 × 8 numbers in every 128 bits of eight registers.
///
/// It takes the register's type, the instructions' names for `#[target_feature]`, and what interleaves the lower and
/// the upper halves of every 128 bits by 16, 32 and 64.
macro_rules! transpose {
    (
        $vector:ty,
        $features:literal,
        $low16:ident $high16:ident
        $low32:ident $high32:ident
        $low64:ident $high64:ident
    ) => {
        #[inline]
        #[target_feature(enable = $features)]
        fn transpose(r: [$vector; 8]) -> [$vector; 8] {
            let pair16 = |a, b| ($low16(a, b), $high16(a, b));
            let pair32 = |a, b| ($low32(a, b), $high32(a, b));
            let pair64 = |a, b| ($low64(a, b), $high64(a, b));
            let ((a0, a1), (b0, b1)) = (pair16(r[0], r[1]), pair16(r[2], r[3]));
            let ((c0, c1), (d0, d1)) = (pair16(r[4], r[5]), pair16(r[6], r[7]));
            let ((e0, e1), (e2, e3)) = (pair32(a0, b0), pair32(a1, b1));
            let ((f0, f1), (f2, f3)) = (pair32(c0, d0), pair32(c1, d1));
            let ((x0, x1), (x2, x3)) = (pair64(e0, f0), pair64(e1, f1));
            let ((x4, x5), (x6, x7)) = (pair64(e2, f2), pair64(e3, f3));
            [x0, x1, x2, x3, x4, x5, x6, x7]
        }
    };
}

pub(super) use transpose;
