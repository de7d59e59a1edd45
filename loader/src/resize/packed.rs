//! Packed RGB by the fast_image_resize library: what benchmarks and tests hold [`super::PlanarResizer`] against.
//!
//! The filter is Pillow's `BILINEAR`, which widens when shrinking. Its two passes, with 8 bits between them, come
//! within 54.6 to 72 dB of Pillow's own output; torchvision's tensor route comes within 55 to 59. The crop comes first:
//! the filter never sees a pixel outside the view it is given, even where the view is a window in a larger image.
//! Buffers are kept from image to image; only the filter's tables are made for each.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ImageView, ResizeAlg, ResizeOptions};
use shardtool::codec::RgbView;

/// Resizes crops to squares.
pub struct Resizer {
    inner: fast_image_resize::Resizer,
    options: ResizeOptions,
    /// The square in packed RGB, before it is taken apart into planes.
    packed: Vec<u8>,
}

impl Default for Resizer {
    fn default() -> Resizer {
        Resizer::new()
    }
}

impl Resizer {
    /// Returns a resizer with empty buffers.
    pub fn new() -> Resizer {
        Resizer {
            inner: fast_image_resize::Resizer::new(),
            options: ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear)),
            packed: Vec::new(),
        }
    }

    /// Fills `planes` (red, green, blue, each `side` × `side`) with the resized view, mirrored left to right if asked.
    ///
    /// # Panics
    /// If `planes` is not three times `side` × `side` bytes, `side` is 0, or the view's pixels do not fit its size.
    pub fn resize(&mut self, view: &RgbView<'_>, side: u32, mirror: bool, planes: &mut [u8]) {
        let row = side as usize;
        assert!(
            row > 0 && planes.len() == 3 * row * row,
            "{} bytes for planes of side {side}",
            planes.len()
        );
        let window = Window::new(view);
        self.packed.resize(planes.len(), 0);
        let mut square = TypedImage::<U8x3>::from_buffer(side, side, &mut self.packed)
            .expect("the size was just set");
        self.inner
            .resize_typed(&window, &mut square, &self.options)
            .expect("no crop box, so none that could lie outside the image");

        let (red, rest) = planes.split_at_mut(row * row);
        let (green, blue) = rest.split_at_mut(row * row);
        let rows = red
            .chunks_exact_mut(row)
            .zip(green.chunks_exact_mut(row))
            .zip(blue.chunks_exact_mut(row));
        for (packed, ((red, green), blue)) in self.packed.chunks_exact(3 * row).zip(rows) {
            let planes = red.iter_mut().zip(green).zip(blue);
            let spread = |(pixel, ((red, green), blue)): (&[u8], ((&mut u8, &mut u8), &mut u8))| {
                (*red, *green, *blue) = (pixel[0], pixel[1], pixel[2]);
            };
            if mirror {
                packed.chunks_exact(3).rev().zip(planes).for_each(spread);
            } else {
                packed.chunks_exact(3).zip(planes).for_each(spread);
            }
        }
    }
}

/// A view as the resizer library wants to see it: whole rows of pixels, however far apart they lie.
struct Window<'a> {
    pixels: TypedImageRef<'a, U8x3>,
    stride: usize,
    width: u32,
    height: u32,
}

impl<'a> Window<'a> {
    fn new(view: &RgbView<'a>) -> Window<'a> {
        let stride = view.stride_px;
        let needed = stride * (view.height as usize - 1) + view.width as usize;
        assert!(
            view.width > 0 && stride >= view.width as usize,
            "rows of {} in steps of {stride}",
            view.width
        );
        let pixels = TypedImageRef::from_buffer(needed as u32, 1, view.pixels)
            .expect("as many pixels as the view says");
        Window {
            pixels,
            stride,
            width: view.width,
            height: view.height,
        }
    }
}

// SAFETY: the trait asks that every row be at least `width` long. Each is cut to exactly `width`, which panics where
// the pixels are too few; `Window::new` made sure that they are not.
unsafe impl ImageView for Window<'_> {
    type Pixel = U8x3;

    fn width(&self) -> u32 {
        self.width
    }

    fn height(&self) -> u32 {
        self.height
    }

    fn iter_rows(&self, start_row: u32) -> impl Iterator<Item = &[U8x3]> {
        let width = self.width as usize;
        self.pixels
            .pixels()
            .chunks(self.stride)
            .skip(start_row as usize)
            .map(move |row| &row[..width])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resize::testing::{definition, picture, pillow, psnr, view};

    #[test]
    fn resizing_matches_its_definition() {
        let mut resizer = Resizer::new();
        for (width, height, side) in [
            (500, 333, 64),
            (61, 90, 64),
            (30, 20, 48),
            (64, 300, 64),
            (1, 1, 8),
            (3, 200, 16),
        ] {
            let pixels = picture(width, height);
            let mut planes = vec![0; 3 * side * side];
            resizer.resize(
                &view(&pixels, width, width as u32, height as u32),
                side as u32,
                false,
                &mut planes,
            );
            let likeness = psnr(&planes, &definition(&pixels, width, height, side));
            assert!(
                likeness > 52.0,
                "{width}x{height} to {side}: {likeness:.1} dB"
            );
        }
    }

    #[test]
    fn a_crop_of_the_right_size_is_copied() {
        let pixels = picture(32, 32);
        let mut planes = vec![0; 3 * 32 * 32];
        Resizer::new().resize(&view(&pixels, 32, 32, 32), 32, false, &mut planes);
        for (at, pixel) in pixels.chunks(3).enumerate() {
            assert_eq!([planes[at], planes[1024 + at], planes[2048 + at]], pixel);
        }
    }

    #[test]
    fn pixels_outside_the_view_have_no_influence() {
        let (width, height, side) = (90, 70, 32);
        let inner = picture(width, height);
        let mut alone = vec![0; 3 * side * side];
        let mut resizer = Resizer::new();
        resizer.resize(
            &view(&inner, width, width as u32, height as u32),
            side as u32,
            false,
            &mut alone,
        );
        for surroundings in [0, 255] {
            let stride = 130;
            let mut outer = vec![surroundings; 3 * stride * (height + 20)];
            for (row, pixels) in inner.chunks(3 * width).enumerate() {
                let start = 3 * ((row + 10) * stride + 25);
                outer[start..start + pixels.len()].copy_from_slice(pixels);
            }
            let first = 3 * (10 * stride + 25);
            let last = first + 3 * (stride * (height - 1) + width);
            let mut windowed = vec![0; 3 * side * side];
            let window = view(&outer[first..last], stride, width as u32, height as u32);
            resizer.resize(&window, side as u32, false, &mut windowed);
            assert_eq!(windowed, alone);
        }
    }

    #[test]
    fn mirroring_reverses_every_row() {
        let pixels = picture(50, 40);
        let (mut straight, mut mirrored) = (vec![0; 3 * 24 * 24], vec![0; 3 * 24 * 24]);
        let mut resizer = Resizer::new();
        resizer.resize(&view(&pixels, 50, 50, 40), 24, false, &mut straight);
        resizer.resize(&view(&pixels, 50, 50, 40), 24, true, &mut mirrored);
        assert_ne!(straight, mirrored);
        mirrored.chunks_exact_mut(24).for_each(|row| row.reverse());
        assert_eq!(straight, mirrored);
    }

    #[test]
    fn resizing_matches_pillow() {
        let mut resizer = Resizer::new();
        pillow(|view, planes| resizer.resize(view, 224, false, planes));
    }
}
