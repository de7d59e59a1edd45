//! From decoded pixels to the model's input: antialiased bilinear resize of a crop, laid out as three planes in place.
//!
//! Used by the workers, one [`Resizer`] each. The filter is Pillow's `BILINEAR`, which widens when shrinking. Its two
//! passes, with 8 bits between them, come within 54.6 to 72 dB of Pillow's own output; torchvision's tensor route comes
//! within 55 to 59. The crop comes first: the filter never sees a pixel outside the view it is given, even where the
//! view is a window in a larger image. Buffers are kept from image to image; only the filter's tables are made anew.

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
    /// A resizer with empty buffers.
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

// SAFETY: the trait asks that every row be at least `width` long; each is cut to exactly `width`, which panics where the
// pixels were too few, and `Window::new` made sure that they are not.
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
    use std::io::Read;

    use crate::testing::{reference, reference_json};

    fn view(pixels: &[u8], stride: usize, width: u32, height: u32) -> RgbView<'_> {
        RgbView {
            pixels,
            stride_px: stride,
            width,
            height,
        }
    }

    /// The definition: Pillow's bilinear filter in floating point, without its rounding between the passes.
    fn definition(pixels: &[u8], width: usize, height: usize, side: usize) -> Vec<f64> {
        let taps = |length: usize| -> Vec<Vec<(usize, f64)>> {
            let scale = length as f64 / side as f64;
            let reach = scale.max(1.0);
            (0..side)
                .map(|at| {
                    let centre = (at as f64 + 0.5) * scale;
                    let weights: Vec<(usize, f64)> = (0..length)
                        .map(|from| (from, 1.0 - ((from as f64 + 0.5 - centre) / reach).abs()))
                        .filter(|(_, weight)| *weight > 0.0)
                        .collect();
                    let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
                    weights
                        .into_iter()
                        .map(|(from, weight)| (from, weight / total))
                        .collect()
                })
                .collect()
        };
        let (columns, rows) = (taps(width), taps(height));
        let mut planes = Vec::with_capacity(3 * side * side);
        for channel in 0..3 {
            for row in &rows {
                for column in &columns {
                    planes.push(
                        row.iter()
                            .map(|(y, down)| {
                                let across: f64 = column
                                    .iter()
                                    .map(|(x, weight)| {
                                        weight * f64::from(pixels[3 * (y * width + x) + channel])
                                    })
                                    .sum();
                                down * across
                            })
                            .sum(),
                    );
                }
            }
        }
        planes
    }

    fn psnr(seen: &[u8], expected: &[f64]) -> f64 {
        assert_eq!(seen.len(), expected.len());
        let squares: f64 = seen
            .iter()
            .zip(expected)
            .map(|(&one, other)| (f64::from(one) - other).powi(2))
            .sum();
        10.0 * (255.0 * 255.0 * seen.len() as f64 / squares).log10()
    }

    /// Smooth colour with fine texture, so that both missing and misplaced filtering would show.
    fn picture(width: usize, height: usize) -> Vec<u8> {
        (0..width * height * 3)
            .map(|at| {
                let (pixel, channel) = (at / 3, at % 3);
                let (x, y) = (pixel % width, pixel / width);
                let noise = (xxhash_rust::xxh3::xxh3_64(&(at as u64).to_le_bytes()) % 60) as f64;
                let wave = (x as f64 * 0.13 + channel as f64).sin()
                    + (y as f64 * 0.07 * (channel + 1) as f64).cos();
                (98.0 + 40.0 * wave + noise) as u8
            })
            .collect()
    }

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

    /// An array of bytes in an `.npz` file: its shape and its elements.
    fn array(archive: &std::path::Path, name: &str) -> (Vec<usize>, Vec<u8>) {
        let mut archive = zip::ZipArchive::new(std::fs::File::open(archive).unwrap()).unwrap();
        let mut bytes = Vec::new();
        archive
            .by_name(&format!("{name}.npy"))
            .unwrap()
            .read_to_end(&mut bytes)
            .unwrap();
        // Version 1.0: magic, version, length of the header in two bytes, header as a Python literal.
        assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
        let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        let header = std::str::from_utf8(&bytes[10..start]).unwrap();
        assert!(
            header.contains("'|u1'") && header.contains("'fortran_order': False"),
            "{header}"
        );
        let shape = header
            .split_once("'shape': (")
            .unwrap()
            .1
            .split_once(')')
            .unwrap()
            .0;
        let shape = shape
            .split(',')
            .map(|side| side.trim().parse().unwrap())
            .collect();
        (shape, bytes.split_off(start))
    }

    #[test]
    fn resizing_matches_pillow() {
        let (Some(sources), Some(results), Some(listing)) = (
            reference("crops/resize_public_src.npz"),
            reference("crops/resize_public.npz"),
            reference_json("crops/resize_public.json"),
        ) else {
            return;
        };
        let mut resizer = Resizer::new();
        let items = listing["items"].as_array().unwrap().len();
        assert!(items > 0);
        for item in 0..items {
            let (size, pixels) = array(&sources, &format!("src{item}"));
            let (square, expected) = array(&results, &format!("out{item}"));
            assert_eq!(square, [224, 224, 3]);
            let mut planes = vec![0; 3 * 224 * 224];
            let (height, width) = (size[0] as u32, size[1] as u32);
            resizer.resize(
                &view(&pixels, width as usize, width, height),
                224,
                false,
                &mut planes,
            );
            let expected: Vec<f64> = (0..3)
                .flat_map(|channel| {
                    expected
                        .iter()
                        .skip(channel)
                        .step_by(3)
                        .map(|&value| f64::from(value))
                })
                .collect();
            let likeness = psnr(&planes, &expected);
            eprintln!("{width}x{height}: {likeness:.1} dB");
            assert!(
                likeness >= 50.0,
                "item {item}, {width}x{height}: {likeness:.1} dB"
            );
        }
    }
}
