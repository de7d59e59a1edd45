use super::super::testing::{definition, filtered, picture, pillow, psnr, view};
use super::*;
use proptest::prelude::*;

/// Planes of their own grids, with room behind the last row and none before the first.
struct Owned {
    colour: Colour,
    planes: Vec<OwnedPlane>,
}

#[derive(Debug, Clone)]
struct OwnedPlane {
    samples: Vec<u8>,
    stride: usize,
    columns: usize,
    rows: usize,
    /// Left, top, width, height.
    part: [f64; 4],
}

impl OwnedPlane {
    /// Returns noise of full contrast, for the arithmetic's extremes.
    fn noise(size: [usize; 2], spare: usize, part: [f64; 4], seed: u64) -> OwnedPlane {
        let [columns, rows] = size;
        let stride = columns + spare;
        let samples = (0..(rows - 1) * stride + columns + Plane::PADDING)
            .map(|at| {
                let noise = xxhash_rust::xxh3::xxh3_64_with_seed(&(at as u64).to_le_bytes(), seed);
                match noise % 4 {
                    0 => 0,
                    1 => 255,
                    _ => (noise >> 8) as u8,
                }
            })
            .collect();
        OwnedPlane {
            samples,
            stride,
            columns,
            rows,
            part,
        }
    }

    /// Returns a channel of a smooth picture.
    fn smooth(size: [usize; 2], part: [f64; 4], channel: usize) -> OwnedPlane {
        let [columns, rows] = size;
        let mut samples: Vec<u8> = picture(columns, rows)
            .chunks(3)
            .map(|pixel| pixel[channel])
            .collect();
        samples.resize(samples.len() + Plane::PADDING, 0);
        OwnedPlane {
            samples,
            stride: columns,
            columns,
            rows,
            part,
        }
    }

    fn plane(&self) -> Plane<'_> {
        let [left, top, width, height] = self.part;
        Plane {
            samples: &self.samples,
            stride: self.stride,
            columns: self.columns,
            rows: self.rows,
            left,
            top,
            width,
            height,
        }
    }

    fn filtered(&self, side: usize) -> Vec<f64> {
        filtered(|x, y| self.samples[y * self.stride + x], self.part, side)
    }
}

impl Owned {
    fn resized(&self, simd: Simd, side: usize, mirror: bool) -> Vec<u8> {
        let planes = Planes {
            colour: self.colour,
            planes: [0, 1, 2].map(|plane| self.planes[plane.min(self.planes.len() - 1)].plane()),
        };
        let mut out = vec![0; 3 * side * side];
        PlanarResizer::new(simd).resize(&planes, side as u32, mirror, &mut out);
        out
    }

    /// Returns what it should be, in floating point and before clamping.
    fn defined(&self, side: usize) -> Vec<f64> {
        let planes: Vec<Vec<f64>> = self
            .planes
            .iter()
            .map(|plane| plane.filtered(side))
            .collect();
        match self.colour {
            Colour::Gray => planes[0].repeat(3),
            Colour::Rgb => planes.concat(),
            Colour::YCbCr => {
                let convert = |[red, blue]: [f64; 2]| {
                    (0..side * side)
                        .map(|at| {
                            let [cb, cr] = [1, 2].map(|plane| planes[plane][at] - 128.0);
                            planes[0][at] + red * cr + blue * cb
                        })
                        .collect::<Vec<f64>>()
                };
                [[1.402, 0.0], [-0.714136, -0.344136], [0.0, 1.772]]
                    .map(convert)
                    .concat()
            }
        }
    }
}

fn colours() -> impl Strategy<Value = Colour> {
    prop_oneof![Just(Colour::Gray), Just(Colour::YCbCr), Just(Colour::Rgb)]
}

/// Returns a plane with a box somewhere in it: fractional, whole, or all of it.
fn planes() -> impl Strategy<Value = OwnedPlane> {
    let sizes = prop_oneof![6 => 1_usize..200, 2 => 200_usize..700, 1 => 700_usize..3000];
    (
        (sizes, 1_usize..150),
        any::<bool>(),
        0_usize..70,
        [0.0..1.0_f64, 0.0..1.0_f64],
        [1e-6..1.0_f64, 1e-6..1.0_f64],
        0..3,
        any::<u64>(),
    )
        .prop_map(|((long, short), tall, spare, at, part, kind, seed)| {
            let size = if tall { [short, long] } else { [long, short] };
            let along = |axis: usize| {
                let samples = size[axis] as f64;
                match kind {
                    0 => (0.0, samples),
                    1 => {
                        let start = (at[axis] * (samples - 1.0)).floor();
                        (start, ((samples - start) * part[axis]).ceil())
                    }
                    _ => {
                        let start = at[axis] * samples;
                        (start, (samples - start) * part[axis])
                    }
                }
            };
            let ((left, width), (top, height)) = (along(0), along(1));
            OwnedPlane::noise(size, spare, [left, top, width, height], seed)
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// The vector paths write the bytes of the scalar one, mirrored or not.
    #[test]
    fn all_instructions_give_the_same_bytes(
        colour in colours(),
        planes in [planes(), planes(), planes()],
        alike: bool,
        side in prop_oneof![1_usize..100, Just(224)],
        mirror: bool,
    ) {
        let mut planes = planes.to_vec();
        if alike {
            planes = vec![planes.swap_remove(0); 3];
        }
        planes.truncate(colour.planes());
        let owned = Owned { colour, planes };
        let expected = owned.resized(Simd::Scalar, side, mirror);
        for &simd in &Simd::available()[1..] {
            prop_assert!(owned.resized(simd, side, mirror) == expected, "{simd:?}");
        }
    }

    /// Packed RGB is resized as its three planes are.
    #[test]
    fn packed_pixels_give_the_bytes_of_their_planes(
        width in 1_usize..300,
        height in 1_usize..100,
        spare in 0_usize..5,
        side in 1_usize..100,
        mirror: bool,
    ) {
        let stride = width + spare;
        let pixels = picture(stride, height);
        let part = [0.0, 0.0, width as f64, height as f64];
        let planes = [0, 1, 2].map(|channel| {
            OwnedPlane { columns: width, ..OwnedPlane::smooth([stride, height], part, channel) }
        });
        let owned = Owned { colour: Colour::Rgb, planes: planes.to_vec() };
        let pixels = &pixels[..3 * (stride * (height - 1) + width)];
        let view = view(pixels, stride, width as u32, height as u32);
        for &simd in Simd::available() {
            let mut out = vec![0; 3 * side * side];
            PlanarResizer::new(simd).resize_packed(&view, side as u32, mirror, &mut out);
            prop_assert!(out == owned.resized(simd, side, mirror), "{simd:?}");
        }
    }
}

/// Returns a plane of a smooth picture, with a box that lies on no grid.
fn part_of(columns: usize, rows: usize, channel: usize) -> OwnedPlane {
    let (width, height) = (columns as f64 * 0.83, rows as f64 * 0.91);
    let part = [columns as f64 * 0.11, rows as f64 * 0.04, width, height];
    OwnedPlane::smooth([columns, rows], part, channel)
}

#[test]
fn resizing_matches_its_definition() {
    for (luma, chroma, side) in [
        ([260, 260], [260, 260], 224),
        ([300, 290], [150, 145], 224),
        ([450, 333], [450, 333], 224),
        ([700, 500], [350, 250], 224),
        ([61, 90], [31, 45], 64),
        ([1900, 1300], [950, 650], 96),
        ([30, 20], [15, 20], 48),
        ([20_000, 50], [10_000, 50], 32),
        ([50, 20_000], [25, 20_000], 32),
        ([1, 200], [1, 100], 16),
        ([1, 1], [1, 1], 8),
    ] {
        for colour in [Colour::Gray, Colour::Rgb, Colour::YCbCr] {
            let sizes = match colour {
                Colour::Gray => vec![luma],
                Colour::Rgb => vec![luma; 3],
                Colour::YCbCr => vec![luma, chroma, chroma],
            };
            let planes = sizes
                .into_iter()
                .enumerate()
                .map(|(channel, [columns, rows])| part_of(columns, rows, channel))
                .collect();
            let owned = Owned { colour, planes };
            let expected: Vec<f64> = owned
                .defined(side)
                .iter()
                .map(|value| value.clamp(0.0, 255.0))
                .collect();
            let likeness = psnr(&owned.resized(Simd::best(), side, false), &expected);
            eprintln!("{colour:?} {luma:?} {chroma:?} to {side}: {likeness:.1} dB");
            assert!(
                likeness >= 57.0,
                "{colour:?} {luma:?} {chroma:?} to {side}: {likeness:.1} dB"
            );
        }
    }
}

/// Full contrast from sample to sample is the worst that coarse weights can meet.
#[test]
fn noise_is_resized_nearly_as_well() {
    for size in [[260, 260], [400, 330], [900, 700], [3000, 2000]] {
        let part = [0.7, 1.2, size[0] as f64 - 2.0, size[1] as f64 - 1.9];
        let plane = OwnedPlane::noise(size, 0, part, 1);
        let owned = Owned {
            colour: Colour::Gray,
            planes: vec![plane],
        };
        let likeness = psnr(
            &owned.resized(Simd::best(), 224, false),
            &owned.defined(224),
        );
        eprintln!("{size:?}: {likeness:.1} dB");
        assert!(likeness >= 56.0, "{size:?}: {likeness:.1} dB");
    }
}

#[test]
fn flat_planes_stay_flat() {
    for value in [0, 1, 127, 128, 200, 255] {
        for size in [[1, 1], [100, 7], [260, 260], [2000, 1500]] {
            let mut plane = OwnedPlane::noise(size, 3, [0.0; 4], 1);
            plane.part = [0.3, 0.2, size[0] as f64 - 0.5, size[1] as f64 - 0.6];
            plane.samples.fill(value);
            let owned = Owned {
                colour: Colour::Gray,
                planes: vec![plane],
            };
            let out = owned.resized(Simd::best(), 100, false);
            assert!(out.iter().all(|&byte| byte == value), "{value}, {size:?}");
        }
    }
}

#[test]
fn a_crop_of_the_right_size_is_copied() {
    let pixels = picture(48, 48);
    let planes = (0..3)
        .map(|channel| OwnedPlane::smooth([48, 48], [5.0, 9.0, 32.0, 32.0], channel))
        .collect();
    let owned = Owned {
        colour: Colour::Rgb,
        planes,
    };
    for &simd in Simd::available() {
        let out = owned.resized(simd, 32, false);
        for (at, bytes) in out.iter().enumerate() {
            let (channel, y, x) = (at / 1024, at / 32 % 32, at % 32);
            assert_eq!(*bytes, pixels[3 * ((y + 9) * 48 + x + 5) + channel]);
        }
    }
}

#[test]
fn samples_outside_the_box_have_no_influence() {
    let part = [10.25, 7.5, 60.5, 41.25];
    let mut inner = OwnedPlane::noise([100, 80], 9, part, 5);
    let owned = |plane: &OwnedPlane| Owned {
        colour: Colour::Gray,
        planes: vec![plane.clone()],
    };
    let expected = owned(&inner).resized(Simd::best(), 40, false);
    for at in 0..inner.samples.len() {
        let (x, y) = (at % inner.stride, at / inner.stride);
        if !(10..71).contains(&x) || !(7..49).contains(&y) {
            inner.samples[at] ^= 0xff;
        }
    }
    assert_eq!(owned(&inner).resized(Simd::best(), 40, false), expected);
}

#[test]
fn mirroring_reverses_every_row() {
    let planes = vec![
        part_of(260, 200, 0),
        part_of(130, 100, 1),
        part_of(130, 100, 2),
    ];
    let owned = Owned {
        colour: Colour::YCbCr,
        planes,
    };
    for &simd in Simd::available() {
        let straight = owned.resized(simd, 96, false);
        let mut mirrored = owned.resized(simd, 96, true);
        assert_ne!(straight, mirrored);
        mirrored.chunks_exact_mut(96).for_each(|row| row.reverse());
        assert_eq!(straight, mirrored);
    }
}

/// Buffers keep what larger images left behind; it must not show.
#[test]
fn earlier_images_leave_no_trace() {
    let images: Vec<Owned> = [(900, 40), (3, 500), (260, 260), (2000, 1), (30, 30)]
        .iter()
        .map(|&(columns, rows)| Owned {
            colour: Colour::Gray,
            planes: vec![part_of(columns, rows, 0)],
        })
        .collect();
    for &simd in Simd::available() {
        let mut kept = PlanarResizer::new(simd);
        for (image, side) in images.iter().zip([64, 224, 10, 33, 100]) {
            let planes = Planes {
                colour: Colour::Gray,
                planes: [image.planes[0].plane(); 3],
            };
            let mut out = vec![0; 3 * side * side];
            kept.resize(&planes, side as u32, false, &mut out);
            assert!(out == image.resized(simd, side, false), "{simd:?} {side}");
        }
    }
}

#[test]
fn packed_resizing_matches_its_definition() {
    for (width, height, side) in [(500, 333, 224), (61, 90, 64), (30, 20, 48), (3, 200, 16)] {
        let pixels = picture(width, height);
        let mut planes = vec![0; 3 * side * side];
        PlanarResizer::new(Simd::best()).resize_packed(
            &view(&pixels, width, width as u32, height as u32),
            side as u32,
            false,
            &mut planes,
        );
        let likeness = psnr(&planes, &definition(&pixels, width, height, side));
        assert!(
            likeness >= 57.0,
            "{width}x{height} to {side}: {likeness:.1} dB"
        );
    }
}

#[test]
fn packed_resizing_matches_pillow() {
    let mut resizer = PlanarResizer::new(Simd::best());
    pillow(|view, planes| resizer.resize_packed(view, 224, false, planes));
}

#[test]
#[should_panic(expected = "samples for")]
fn missing_samples_are_refused() {
    let mut plane = OwnedPlane::noise([20, 20], 0, [0.0, 0.0, 20.0, 20.0], 1);
    plane.samples.pop();
    Owned {
        colour: Colour::Gray,
        planes: vec![plane],
    }
    .resized(Simd::best(), 8, false);
}

#[test]
#[should_panic(expected = "a part of")]
fn a_box_beyond_the_plane_is_refused() {
    let plane = OwnedPlane::noise([20, 20], 0, [0.5, 0.0, 20.0, 20.0], 1);
    Owned {
        colour: Colour::Gray,
        planes: vec![plane],
    }
    .resized(Simd::best(), 8, false);
}
