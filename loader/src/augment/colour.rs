//! Pillow's arithmetic of colours on planes of bytes.
//!
//! Each operation is written once, pixel by pixel and without branches, so that the compiler can make vector code of
//! it, and is compiled once for each family of instructions. Nothing is reordered and nothing fused: Rust rounds every
//! operation by itself whatever the family, so all of them give the same bytes. For that to work everything below is
//! inlined into the function of a family; closures and function pointers would not be.

use shardtool::simd::Simd;

use super::Change;

/// Makes one change to the red, green and blue planes of an image.
pub(super) fn change(simd: Simd, change: Change, planes: &mut [u8]) {
    match change {
        // Pillow copies the image then.
        Change::Brightness(1.0) | Change::Contrast(1.0) | Change::Saturation(1.0) => {}
        Change::Brightness(factor) => {
            let from = 0;
            perform(simd, EachPixel(AwayFrom { from, factor }), planes);
        }
        Change::Contrast(factor) => {
            let from = mean_grey(simd, planes);
            perform(simd, EachPixel(AwayFrom { from, factor }), planes);
        }
        Change::Saturation(factor) => perform(simd, EachPixel(Saturate(factor)), planes),
        Change::Hue(shift) => perform(simd, EachPixel(Turn(shift)), planes),
    }
}

/// Gives every pixel the grey of its own brightness.
pub(super) fn grey(simd: Simd, planes: &mut [u8]) {
    perform(simd, EachPixel(Grey), planes);
}

/// Returns the mean of the grey image, rounded to the nearest.
fn mean_grey(simd: Simd, planes: &mut [u8]) -> u8 {
    let count = planes.len() / 3;
    (perform(simd, GreySum, planes) as f64 / count as f64 + 0.5) as u8
}

/// Something to do with three planes.
trait Work {
    type Output;
    fn run(self, planes: &mut [u8]) -> Self::Output;
}

/// Does it with the instructions of a family.
fn perform<W: Work>(simd: Simd, work: W, planes: &mut [u8]) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt,fma")]
    fn avx2<W: Work>(work: W, planes: &mut [u8]) -> W::Output {
        work.run(planes)
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    fn avx512<W: Work>(work: W, planes: &mut [u8]) -> W::Output {
        work.run(planes)
    }
    match simd {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `Augmenter::with` made sure that the machine has this family.
        Simd::Avx2 => unsafe { avx2(work, planes) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Simd::Avx512 => unsafe { avx512(work, planes) },
        _ => work.run(planes),
    }
}

/// A function of one pixel's red, green and blue.
trait Pixelwise: Copy {
    fn of(self, pixel: [u8; 3]) -> [u8; 3];
}

/// Puts the value of the function in place of every pixel.
struct EachPixel<F>(F);

impl<F: Pixelwise> Work for EachPixel<F> {
    type Output = ();

    #[inline(always)]
    fn run(self, planes: &mut [u8]) {
        let size = planes.len() / 3;
        let (red, rest) = planes.split_at_mut(size);
        let (green, blue) = rest.split_at_mut(size);
        for ((red, green), blue) in red.iter_mut().zip(green).zip(blue) {
            [*red, *green, *blue] = self.0.of([*red, *green, *blue]);
        }
    }
}

/// The sum of all pixels' greys.
struct GreySum;

impl Work for GreySum {
    type Output = u64;

    #[inline(always)]
    fn run(self, planes: &mut [u8]) -> u64 {
        /// So many that their sum fits 32 bits, which are faster to add.
        const PIXELS: usize = 1 << 16;
        let size = planes.len() / 3;
        let (red, rest) = planes.split_at(size);
        let (green, blue) = rest.split_at(size);
        let mut sum = 0;
        let parts = red.chunks(PIXELS).zip(green.chunks(PIXELS));
        for ((red, green), blue) in parts.zip(blue.chunks(PIXELS)) {
            let mut part = 0;
            for ((red, green), blue) in red.iter().zip(green).zip(blue) {
                part += u32::from(luma([*red, *green, *blue]));
            }
            sum += u64::from(part);
        }
        sum
    }
}

/// Away from one value, or towards it.
#[derive(Clone, Copy)]
struct AwayFrom {
    from: u8,
    factor: f32,
}

impl Pixelwise for AwayFrom {
    #[inline(always)]
    fn of(self, [red, green, blue]: [u8; 3]) -> [u8; 3] {
        let AwayFrom { from, factor } = self;
        [
            blend(from, red, factor),
            blend(from, green, factor),
            blend(from, blue, factor),
        ]
    }
}

/// Away from the pixel's own grey.
#[derive(Clone, Copy)]
struct Saturate(f32);

impl Pixelwise for Saturate {
    #[inline(always)]
    fn of(self, pixel: [u8; 3]) -> [u8; 3] {
        let (from, factor) = (luma(pixel), self.0);
        AwayFrom { from, factor }.of(pixel)
    }
}

#[derive(Clone, Copy)]
struct Grey;

impl Pixelwise for Grey {
    #[inline(always)]
    fn of(self, pixel: [u8; 3]) -> [u8; 3] {
        [luma(pixel); 3]
    }
}

/// Around the circle of hues, by so many 256ths.
#[derive(Clone, Copy)]
struct Turn(u8);

impl Pixelwise for Turn {
    #[inline(always)]
    fn of(self, pixel: [u8; 3]) -> [u8; 3] {
        let [hue, saturation, value] = to_hsv(pixel);
        to_rgb([hue.wrapping_add(self.0), saturation, value])
    }
}

/// Goes from one value towards another, as far as `share`; beyond the end for shares above 1. Cut to a whole number and
/// to a byte.
#[inline(always)]
fn blend(from: u8, to: u8, share: f32) -> u8 {
    let way = i32::from(to) - i32::from(from);
    cut(f64::from(
        (f32::from(from) + share * way as f32).clamp(0.0, 255.0),
    ))
}

/// Returns ITU-R 601-2 luma in 16 bits of fraction.
#[inline(always)]
fn luma([red, green, blue]: [u8; 3]) -> u8 {
    let (red, green, blue) = (u32::from(red), u32::from(green), u32::from(blue));
    ((19_595 * red + 38_470 * green + 7_471 * blue + 0x8000) >> 16) as u8
}

/// Returns hue in 255ths of the circle, saturation and value, all cut to bytes. Single and double precision alternate
/// as the types of Pillow's C code make them.
#[inline(always)]
fn to_hsv([red, green, blue]: [u8; 3]) -> [u8; 3] {
    let largest = red.max(green).max(blue);
    let range = largest - red.min(green).min(blue);
    // Without a range there is no hue, and saturation is 0: dividing by 1 gives both.
    let divisor = f32::from(range.max(1));
    let saturation = f32::from(range) / f32::from(largest.max(1));
    let to_red = f32::from(largest - red) / divisor;
    let to_green = f32::from(largest - green) / divisor;
    let to_blue = f32::from(largest - blue) / divisor;
    // All three are computed: to choose between values needs no branch.
    let at_red = to_blue - to_green;
    let at_green = (2.0 + f64::from(to_red) - f64::from(to_blue)) as f32;
    let at_blue = (4.0 + f64::from(to_green) - f64::from(to_red)) as f32;
    let elsewhere = if green == largest { at_green } else { at_blue };
    let sixths = if red == largest { at_red } else { elsewhere };
    // From 5/6 to 11/6, of which the fraction counts.
    let turns = f64::from(sixths) / 6.0 + 1.0;
    let hue = (if turns >= 1.0 { turns - 1.0 } else { turns }) as f32;
    [
        cut(f64::from(hue) * 255.0),
        cut(f64::from(saturation) * 255.0),
        largest,
    ]
}

/// Returns the colour of a hue, saturation and value.
#[inline(always)]
fn to_rgb([hue, saturation, value]: [u8; 3]) -> [u8; 3] {
    let sixths = f64::from(hue) * 6.0 / 255.0;
    let sector = cut(sixths); // 0 to 6
    let fraction = (sixths - f64::from(sector)) as f32;
    let saturation = (f64::from(saturation) / 255.0) as f32;
    let bright = f64::from(value);
    let low = rounded(bright * (1.0 - f64::from(saturation)));
    let falling = rounded(bright * (1.0 - f64::from(saturation * fraction)));
    let rising = rounded(bright * (1.0 - f64::from(saturation) * (1.0 - f64::from(fraction))));
    [
        choose(sector, [value, falling, low, low, rising, value]),
        choose(sector, [rising, value, value, falling, low, low]),
        choose(sector, [low, low, rising, value, value, falling]),
    ]
}

/// Returns the value of a sector; that of sector 0 also for sector 6.
#[inline(always)]
fn choose(sector: u8, values: [u8; 6]) -> u8 {
    let chosen = if sector == 1 { values[1] } else { values[0] };
    let chosen = if sector == 2 { values[2] } else { chosen };
    let chosen = if sector == 3 { values[3] } else { chosen };
    let chosen = if sector == 4 { values[4] } else { chosen };
    if sector == 5 { values[5] } else { chosen }
}

/// Rounds to the nearest byte, halves away from 0.
#[inline(always)]
fn rounded(value: f64) -> u8 {
    let whole = cut(value);
    whole + u8::from(value - f64::from(whole) >= 0.5)
}

/// Returns the whole part of a number from 0 to 255.
#[inline(always)]
fn cut(value: f64) -> u8 {
    debug_assert!((0.0..256.0).contains(&value));
    // SAFETY: the callers' numbers lie in this range, all of them being made of bytes: shares of 255, clamped blends,
    // hues over 42.5 (see the tests, which try all of a grid). `as`, which needs no promise, also asks whether there is
    // a number, and is not made into vector code for that.
    unsafe { value.to_int_unchecked::<i32>() as u8 }
}
