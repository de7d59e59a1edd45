//! Images through the codec and back.

use proptest::prelude::*;

use super::coefficients::{BLOCK, Coefficients, Component, blocks_along};
use super::decode::Decoder;
use super::encode::{Coding, Encoder, Statistics};
use super::payload::{ComponentHead, Entropy, Head};
use super::streams::{GROUPS, STREAMS, stream};
use super::tables::Tables;
use crate::planes::{Area, Colour, Planes, Resolution};
use crate::rans::EncodeTable;
use crate::simd::Simd;

/// Returns a made-up image: smooth in places, busy in others, now and then a huge coefficient.
fn image(width: u32, height: u32, colour: Colour, factors: &[(u8, u8)], seed: u64) -> Coefficients {
    let (h, v) = factors
        .iter()
        .fold((1, 1), |(h, v), f| (h.max(f.0), v.max(f.1)));
    let component = |(number, factors): (usize, &(u8, u8))| {
        let (blocks_wide, blocks_high) = (
            blocks_along(width, factors.0, h),
            blocks_along(height, factors.1, v),
        );
        let draw = |at: usize| {
            xxhash_rust::xxh3::xxh3_64_with_seed(
                &[number, at].map(usize::to_le_bytes).concat(),
                seed,
            )
        };
        let blocks = (0..BLOCK * blocks_wide * blocks_high).map(|at| {
            let random = draw(at);
            let limit = match random >> 56 {
                0..4 => 1000,
                4..100 => 20 / (1 + at % BLOCK / 8) as i64 + 1,
                _ => 1,
            };
            ((random as u32) as i64 % limit - limit / 2) as i16
        });
        Component {
            h: factors.0,
            v: factors.1,
            quantization: std::array::from_fn(|at| 1 + (at as u16) / 40 + u16::from(number > 0)),
            blocks_wide,
            blocks_high,
            blocks: blocks.collect(),
        }
    };
    Coefficients {
        width,
        height,
        colour,
        components: factors.iter().enumerate().map(component).collect(),
    }
}

/// Returns ways to code that fit the image.
fn codings(image: &Coefficients) -> (Vec<Coding>, Tables) {
    let mut statistics = Statistics::default();
    Encoder::new(Simd::best())
        .count(image, &mut statistics)
        .unwrap();
    let frequencies = statistics.frequencies();
    let encode = frequencies.iter().map(|f| EncodeTable::new(f).unwrap());
    let codings = vec![
        Coding::Rans(encode.collect()),
        Coding::Zstd(0),
        Coding::Zstd(3),
    ];
    (
        codings,
        Tables::parse(&Tables::write(&frequencies)).unwrap(),
    )
}

fn sampling() -> impl Strategy<Value = (Colour, Vec<(u8, u8)>)> {
    let factors = || (1u8..=4, 1u8..=4);
    let three = (factors(), factors(), factors()).prop_map(|(a, b, c)| vec![a, b, c]);
    prop_oneof![
        Just((Colour::Gray, vec![(1, 1)])),
        Just((Colour::YCbCr, vec![(1, 1); 3])),
        Just((Colour::YCbCr, vec![(2, 2), (1, 1), (1, 1)])),
        Just((Colour::YCbCr, vec![(2, 1), (1, 1), (1, 1)])),
        Just((Colour::Rgb, vec![(1, 1); 3])),
        three.prop_map(|factors| (Colour::YCbCr, factors)),
    ]
}

/// Copies everything that planes say.
fn copy(planes: &Planes<'_>) -> Vec<(usize, usize, [f64; 4], Vec<u8>)> {
    let planes = planes.planes[..planes.colour.planes()].iter();
    planes
        .map(|plane| {
            let lines = plane.samples.chunks(plane.stride).take(plane.rows);
            let samples = lines
                .flat_map(|line| &line[..plane.columns])
                .copied()
                .collect();
            let area = [plane.left, plane.top, plane.width, plane.height];
            (plane.columns, plane.rows, area, samples)
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn coefficients_come_back((colour, factors) in sampling(), width in 1u32..120, height in 1u32..90, seed: u64) {
        let image = image(width, height, colour, &factors, seed);
        let (codings, tables) = codings(&image);
        for coding in &codings {
            let mut payload = Vec::new();
            Encoder::new(Simd::best()).encode(&image, coding, &mut payload).unwrap();
            let mut decoder = Decoder::new(Simd::best());
            let back = decoder.coefficients(&payload, Some(&tables), (width, height)).unwrap();
            prop_assert_eq!(&back, &image);
        }
    }

    #[test]
    fn a_crop_is_the_same_by_every_path(
        (colour, factors) in sampling(),
        (width, height) in (1u32..120, 1u32..90),
        place in any::<[f64; 4]>(),
        wanted in prop_oneof![Just(None), (1u32..60).prop_map(Some)],
        seed: u64,
    ) {
        let unit = |x: f64| (x.to_bits() >> 11) as f64 / (1u64 << 53) as f64;
        let span = |start: f64, length: f64, limit: u32| {
            let length = f64::from(limit) * (0.05 + 0.95 * unit(length));
            ((f64::from(limit) - length) * unit(start), length)
        };
        let (left, wide) = span(place[0], place[1], width);
        let (top, high) = span(place[2], place[3], height);
        let area = Area { left, top, width: wide, height: high };
        let resolution = wanted.map_or(Resolution::Full, |side| Resolution::Fit { side, margin: 1.0 });

        let image = image(width, height, colour, &factors, seed);
        let (codings, tables) = codings(&image);
        let mut expected = None;
        for coding in &codings {
            let mut payload = Vec::new();
            Encoder::new(Simd::best()).encode(&image, coding, &mut payload).unwrap();
            for &simd in Simd::available() {
                let mut decoder = Decoder::new(simd);
                // Something else first: its remains must not show.
                let all = Area { left: 0.0, top: 0.0, width: f64::from(width), height: f64::from(height) };
                decoder.decode(&payload, Some(&tables), (width, height), all, Resolution::Full).unwrap();
                let planes = decoder.decode(&payload, Some(&tables), (width, height), area, resolution).unwrap();
                for plane in planes.planes {
                    prop_assert!(plane.left >= 0.0 && plane.top >= 0.0);
                    prop_assert!(plane.left + plane.width <= plane.columns as f64);
                    prop_assert!(plane.top + plane.height <= plane.rows as f64);
                }
                let got = copy(&planes);
                prop_assert_eq!(&got, expected.get_or_insert_with(|| got.clone()), "{:?} {:?}", simd, coding);
            }
        }
    }

    #[test]
    fn damage_is_survived(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut: Option<prop::sample::Index>,
        seed: u64,
    ) {
        let (width, height) = (70, 50);
        let image = image(width, height, Colour::YCbCr, &[(2, 2), (1, 1), (1, 1)], seed);
        let (codings, tables) = codings(&image);
        for coding in &codings {
            let mut payload = Vec::new();
            Encoder::new(Simd::best()).encode(&image, coding, &mut payload).unwrap();
            for (at, byte) in &damage {
                let at = at.index(payload.len());
                payload[at] = *byte;
            }
            if let Some(cut) = cut {
                payload.truncate(cut.index(payload.len()));
            }
            let area = Area { left: 10.0, top: 5.0, width: 40.0, height: 40.0 };
            let mut outcomes = Simd::available().iter().map(|&simd| {
                let mut decoder = Decoder::new(simd);
                let fit = Resolution::Fit { side: 30, margin: 1.1 };
                let planes = decoder.decode(&payload, Some(&tables), (width, height), area, fit);
                planes.map(|planes| copy(&planes))
            });
            let first = outcomes.next().unwrap();
            for other in outcomes {
                prop_assert_eq!(&other, &first);
            }
            let _ = Decoder::new(Simd::best()).coefficients(&payload, Some(&tables), (width, height));
        }
    }
}

#[test]
fn areas_outside_the_image_are_refused() {
    let image = image(40, 30, Colour::Gray, &[(1, 1)], 1);
    let (codings, tables) = codings(&image);
    let mut payload = Vec::new();
    Encoder::new(Simd::best())
        .encode(&image, &codings[0], &mut payload)
        .unwrap();
    for area in [
        [-1.0, 0.0, 10.0, 10.0],
        [0.0, 0.0, 41.0, 10.0],
        [0.0, 25.0, 10.0, 5.1],
        [0.0, 0.0, 0.0, 10.0],
        [f64::NAN, 0.0, 10.0, 10.0],
        [0.0, 0.0, f64::INFINITY, 10.0],
    ] {
        let [left, top, width, height] = area;
        let area = Area {
            left,
            top,
            width,
            height,
        };
        let mut decoder = Decoder::new(Simd::best());
        let error = decoder.decode(&payload, Some(&tables), (40, 30), area, Resolution::Full);
        assert!(error.is_err(), "{area:?}");
    }
}

/// A payload of one component without differences, whose masks of one frequency announce more values than there are, by
/// far: reading on would end behind all streams.
#[test]
fn masks_that_announce_too_much_are_refused() {
    let blocks = 20 * 20;
    for u in 0..8 {
        let mut component = ComponentHead {
            h: 1,
            v: 1,
            blocks_wide: 20,
            blocks_high: 20,
            quantization: [1; BLOCK],
            detail: [[0; 6]; 2],
            lengths: [0; STREAMS],
            tables: [0; STREAMS],
        };
        for number in [stream::DC_LOW, stream::DC_HIGH] {
            component.lengths[number] = blocks;
        }
        (0..8).for_each(|u| component.lengths[stream::masks(u)] = blocks);
        let mut head = Head::new(Entropy::Zstd, Colour::Gray, &[component]);
        let mut groups: [Vec<u8>; GROUPS] = Default::default();
        for (group, _, number) in head.order() {
            let byte = if number == stream::masks(u) { 255 } else { 0 };
            groups[group].extend(vec![byte; component.lengths[number]]);
        }
        let mut frames = Vec::new();
        for (group, length) in groups.iter().zip(&mut head.frames) {
            let frame = zstd::bulk::compress(group, 1).unwrap();
            *length = frame.len();
            frames.extend(frame);
        }
        let mut payload = Vec::new();
        head.write(&mut payload);
        payload.extend(frames);
        for top in [0.0, 80.0, 152.0] {
            let area = Area {
                left: 100.0,
                top,
                width: 8.0,
                height: 8.0,
            };
            for &simd in Simd::available() {
                let mut decoder = Decoder::new(simd);
                let planes = decoder.decode(&payload, None, (160, 160), area, Resolution::Full);
                let reason = planes.map(|_| ()).unwrap_err();
                assert!(reason.to_string().contains("fewer values"), "{reason}");
            }
        }
    }
}
