use std::f64::consts::PI;

use proptest::prelude::*;

use super::*;
use crate::codec::Region;
use crate::dct::coefficients::{BLOCK, Coefficients, blocks_along};
use crate::planes::Colour;
use crate::testing::{fixture, fixtures, photographs};

const UNSUPPORTED: [(&str, &str); 3] = [
    ("12-bit", "precision 12"),
    ("cmyk", "CMYK"),
    ("ycck", "CMYK"),
];

fn empty() -> Coefficients {
    Coefficients {
        width: 0,
        height: 0,
        colour: Colour::Gray,
        components: Vec::new(),
    }
}

fn read(jpeg: &[u8]) -> Result<(Coefficients, Reading), Error> {
    let mut coefficients = empty();
    let reading = Reader::new().read_coefficients(jpeg, &mut coefficients)?;
    Ok((coefficients, reading))
}

fn decode(jpeg: &[u8]) -> (u32, u32, Vec<u8>) {
    let mut pixels = Vec::new();
    let (width, height) = Decoder::new().decode_full(jpeg, &mut pixels).unwrap();
    (width, height, pixels)
}

/// Returns the fixtures whose coefficients can be read.
fn readable() -> Vec<(String, Vec<u8>)> {
    let mut files = fixtures();
    files.retain(|(name, _)| UNSUPPORTED.iter().all(|(not, _)| name != not));
    assert!(files.len() >= 15);
    files
}

fn assert_rewritten_alike(name: &str, jpeg: &[u8]) {
    let (coefficients, _) = read(jpeg).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut written = Vec::new();
    write_jpeg(&coefficients, &mut written).unwrap_or_else(|error| panic!("{name}: {error}"));
    let (again, reading) = read(&written).unwrap();
    assert!(again == coefficients, "{name}: other coefficients");
    assert_eq!(reading.flaw, None, "{name}");
    assert!(decode(&written) == decode(jpeg), "{name}: other pixels");
}

#[test]
fn rewriting_keeps_coefficients_and_pixels() {
    for (name, jpeg) in readable() {
        assert_rewritten_alike(&name, &jpeg);
    }
    for (name, jpeg) in photographs(10) {
        assert_rewritten_alike(&name, &jpeg);
    }
}

#[test]
fn one_reader_serves_files_of_all_kinds() {
    let mut reader = Reader::new();
    let mut coefficients = empty();
    for (name, jpeg) in fixtures().into_iter().chain(fixtures().into_iter().rev()) {
        let got = reader.read_coefficients(&jpeg, &mut coefficients);
        match UNSUPPORTED.iter().find(|(not, _)| name == *not) {
            Some((_, why)) => match got {
                Err(Error::Unsupported(reason)) => assert!(reason.contains(why), "{reason}"),
                other => panic!("{name}: {other:?}"),
            },
            None => {
                let reading = got.unwrap();
                assert_eq!(reading.flaw, None, "{name}");
                assert_eq!(reading.progressive, name.contains("progressive"));
                assert_eq!(coefficients, read(&jpeg).unwrap().0, "{name}");
            }
        }
    }
}

#[test]
fn components_are_described_as_the_file_says() {
    let sampling = |name: &str| -> Vec<(u8, u8)> {
        let (coefficients, _) = read(&fixture(name)).unwrap();
        let (h, v) = coefficients.sampling();
        for component in &coefficients.components {
            let wide = blocks_along(coefficients.width, component.h, h);
            let high = blocks_along(coefficients.height, component.v, v);
            assert_eq!((component.blocks_wide, component.blocks_high), (wide, high));
            assert_eq!(component.blocks.len(), wide * high * BLOCK);
        }
        let factors = coefficients.components.iter();
        factors
            .map(|component| (component.h, component.v))
            .collect()
    };
    assert_eq!(sampling("444"), [(1, 1), (1, 1), (1, 1)]);
    assert_eq!(sampling("422"), [(2, 1), (1, 1), (1, 1)]);
    assert_eq!(sampling("440"), [(1, 2), (1, 1), (1, 1)]);
    assert_eq!(sampling("411"), [(4, 1), (1, 1), (1, 1)]);
    assert_eq!(sampling("progressive-420"), [(2, 2), (1, 1), (1, 1)]);
    assert_eq!(sampling("mixed-sampling"), [(2, 2), (2, 1), (1, 2)]);
    assert_eq!(sampling("third-sampling"), [(3, 1), (1, 1), (1, 1)]);
    assert_eq!(sampling("separate-scans"), [(4, 4), (1, 1), (1, 1)]);
    assert_eq!(sampling("gray").len(), 1);
    assert_eq!(sampling("1x1").len(), 3);
    let colour = |name: &str| read(&fixture(name)).unwrap().0.colour;
    assert_eq!(colour("420"), Colour::YCbCr);
    assert_eq!(colour("gray-progressive"), Colour::Gray);
    assert_eq!(colour("rgb"), Colour::Rgb);
    let steps = read(&fixture("extended")).unwrap().0.components[0].quantization;
    assert!(steps.iter().any(|&step| step > 255));
}

/// Returns the samples of a component by the inverse transform's definition.
fn samples(coefficients: &Coefficients, component: usize, x: u32, y: u32) -> f64 {
    let component = &coefficients.components[component];
    let (x, y) = (x as usize, y as usize);
    let block = (y / 8 * component.blocks_wide + x / 8) * BLOCK;
    let wave = |frequency: usize, at: usize| {
        let scale = if frequency == 0 { 0.5_f64.sqrt() } else { 1.0 };
        scale * ((2 * (at % 8) + 1) as f64 * frequency as f64 * PI / 16.0).cos() / 2.0
    };
    let term = |i: usize| {
        let level = i32::from(component.blocks[block + i]) * i32::from(component.quantization[i]);
        f64::from(level) * wave(i % 8, x) * wave(i / 8, y)
    };
    128.0 + (0..BLOCK).map(term).sum::<f64>()
}

#[test]
fn coefficients_are_those_of_the_pixels() {
    for name in ["gray", "gray-2x2", "gray-progressive", "rgb"] {
        let jpeg = fixture(name);
        let (coefficients, _) = read(&jpeg).unwrap();
        let (width, height, pixels) = decode(&jpeg);
        for y in 0..height {
            for x in 0..width {
                for channel in 0..3 {
                    let component = channel.min(coefficients.components.len() - 1);
                    let exact = samples(&coefficients, component, x, y).clamp(0.0, 255.0);
                    let pixel = pixels[3 * (y * width + x) as usize + channel];
                    let off = (exact - f64::from(pixel)).abs();
                    assert!(off < 1.01, "{name} at {x},{y}: {exact} and {pixel}");
                }
            }
        }
    }
}

fn assert_partial_is_crop(name: &str, jpeg: &[u8], regions: usize) {
    let (width, height, full) = decode(jpeg);
    let mut decoder = Decoder::new();
    let mut partial = Vec::new();
    let mut random = 1u32;
    let mut below = |bound: u32| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 8) % bound
    };
    for _ in 0..regions {
        let (x, y) = (below(width), below(height));
        let region = Region {
            x,
            y,
            width: 1 + below(width - x),
            height: 1 + below(height - y),
        };
        decoder.decode_partial(jpeg, region, &mut partial).unwrap();
        let row = 3 * region.width as usize;
        for (i, got) in partial.chunks_exact(row).enumerate() {
            let at = 3 * ((y as usize + i) * width as usize + x as usize);
            assert!(got == &full[at..at + row], "{name}: {region:?} row {i}");
        }
        assert_eq!(partial.len(), row * region.height as usize);
    }
}

#[test]
fn partial_decoding_gives_the_pixels_of_full_decoding() {
    for (name, jpeg) in readable() {
        assert_partial_is_crop(&name, &jpeg, 100);
    }
    for (name, jpeg) in photographs(20) {
        assert_partial_is_crop(&name, &jpeg, 3);
    }
    let outside = Region {
        x: 60,
        y: 0,
        width: 2,
        height: 1,
    };
    let mut decoder = Decoder::new();
    let got = decoder.decode_partial(&fixture("420"), outside, &mut Vec::new());
    assert!(matches!(got, Err(Error::Damaged(reason)) if reason.contains("61x45")));
    assert_eq!(
        decoder.decode_full(&fixture("420"), &mut Vec::new()),
        Ok((61, 45))
    );
}

/// Returns a smooth picture; `channels` bytes a pixel.
fn picture(width: u32, height: u32, channels: u32) -> Vec<u8> {
    let sample = |i: u32| {
        let (x, y, c) = (i / channels % width, i / channels / width, i % channels);
        (40.0 + 60.0 * c as f64 + 50.0 * (x as f64 / 9.0).sin() * (y as f64 / 7.0).cos()) as u8
    };
    (0..width * height * channels).map(sample).collect()
}

fn psnr(one: &[u8], other: &[u8]) -> f64 {
    let square = |(&a, &b): (&u8, &u8)| (f64::from(a) - f64::from(b)).powi(2);
    let mean = one.iter().zip(other).map(square).sum::<f64>() / one.len() as f64;
    10.0 * (255.0 * 255.0 / mean).log10()
}

#[test]
fn encoding_keeps_the_picture() {
    let mut coefficients = empty();
    let mut jpeg = Vec::new();
    for (width, height) in [(64, 48), (61, 45), (17, 1), (1, 17), (1, 1)] {
        let rgb = picture(width, height, 3);
        for chroma in [Chroma::Yuv444, Chroma::Yuv420] {
            encode_rgb(&rgb, width, height, 95, chroma, &mut coefficients).unwrap();
            write_jpeg(&coefficients, &mut jpeg).unwrap();
            assert_eq!(read(&jpeg).unwrap().0, coefficients);
            let (got_width, got_height, pixels) = decode(&jpeg);
            assert_eq!((got_width, got_height), (width, height));
            let psnr = psnr(&rgb, &pixels);
            assert!(psnr > 38.0, "{width}x{height} {chroma:?}: {psnr:.1} dB");
        }
        let gray = picture(width, height, 1);
        encode_gray(&gray, width, height, 95, &mut coefficients).unwrap();
        assert_eq!(coefficients.colour, Colour::Gray);
        write_jpeg(&coefficients, &mut jpeg).unwrap();
        let (_, _, pixels) = decode(&jpeg);
        let luma: Vec<u8> = pixels.iter().copied().step_by(3).collect();
        assert!(psnr(&gray, &luma) > 38.0);
    }
    encode_gray(&picture(8, 8, 1), 8, 8, 50, &mut coefficients).unwrap();
    // The standard's own luma table, which quality 50 leaves as it is.
    assert_eq!(
        coefficients.components[0].quantization[..8],
        [16, 11, 10, 16, 24, 40, 51, 61]
    );
    assert!(encode_gray(&[0; 63], 8, 8, 50, &mut coefficients).is_err());
    assert!(encode_gray(&[], 0, 8, 50, &mut coefficients).is_err());
}

#[test]
fn what_no_jpeg_can_hold_is_not_written() {
    let (good, _) = read(&fixture("420")).unwrap();
    let spoiled = |spoil: fn(&mut Coefficients)| {
        let mut coefficients = good.clone();
        spoil(&mut coefficients);
        write_jpeg(&coefficients, &mut Vec::new()).unwrap_err()
    };
    let reason = spoiled(|image| image.components[0].blocks[3] = 1024).to_string();
    assert!(reason.contains("DCT coefficient out of range"), "{reason}");
    spoiled(|image| image.components[0].blocks[0] = i16::MIN);
    spoiled(|image| image.components[1].blocks.truncate(64));
    spoiled(|image| image.components[1].blocks_wide += 1);
    spoiled(|image| image.components[2].h = 5);
    spoiled(|image| image.components[2].h = 0);
    spoiled(|image| image.components.truncate(2));
    spoiled(|image| image.colour = Colour::Gray);
    spoiled(|image| image.width = 0);
    spoiled(|image| image.height += 16);
    assert_eq!(write_jpeg(&good, &mut Vec::new()), Ok(()));
}

#[test]
fn what_is_missing_is_filled_up_with_a_warning() {
    for name in ["420", "progressive-420"] {
        let jpeg = fixture(name);
        let (whole, _) = read(&jpeg).unwrap();
        let (cut, reading) = read(&jpeg[..jpeg.len() * 2 / 3]).unwrap();
        let warning = reading.flaw.unwrap().complaint;
        assert!(warning.contains("Premature end"), "{warning}");
        assert_eq!((cut.width, cut.height), (whole.width, whole.height));
        assert_ne!(cut, whole);
        let (early, late) = (&cut.components[0].blocks, &whole.components[0].blocks);
        assert_eq!(early[..1], late[..1]);
        // Without its end-of-image marker, or with something behind it, a file is whole all the same.
        assert_eq!(read(&jpeg[..jpeg.len() - 2]).unwrap().0, whole);
        let (longer, reading) = read(&[&jpeg[..], &[1, 2, 3]].concat()).unwrap();
        assert_eq!((longer, reading.flaw), (whole, None));
    }
    for length in 0..200 {
        assert!(read(&fixture("420")[..length]).is_err());
    }
}

#[test]
fn absurdly_many_scans_are_given_up() {
    let jpeg = fixture("progressive-420");
    let start = jpeg
        .windows(2)
        .rposition(|two| two == [0xff, 0xda])
        .unwrap();
    let (front, last) = jpeg[..jpeg.len() - 2].split_at(start);
    let reason = read(&[front, &last.repeat(300), &[0xff, 0xd9]].concat()).unwrap_err();
    assert!(reason.to_string().contains("scans"), "{reason}");
}

#[test]
fn absurdly_large_images_are_refused_by_their_header() {
    let mut jpeg = fixture("gray");
    let frame = jpeg.windows(2).position(|two| two == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xf0, 0, 0xf0, 0]);
    let reason = read(&jpeg).unwrap_err();
    assert!(reason.to_string().contains("61440x61440"), "{reason}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Run under AddressSanitizer too.
    #[test]
    fn no_damage_does_harm(
        file in 0..readable().len(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        end in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let (_, mut jpeg) = readable().swap_remove(file);
        for (at, byte) in damage {
            let at = at.index(jpeg.len());
            jpeg[at] = byte;
        }
        if cut {
            jpeg.truncate(end.index(jpeg.len()));
        }
        if let Ok((coefficients, _)) = read(&jpeg) {
            let mut written = Vec::new();
            if write_jpeg(&coefficients, &mut written).is_ok() {
                prop_assert!(read(&written).unwrap().0 == coefficients);
            }
            let mut pixels = Vec::new();
            let mut decoder = Decoder::new();
            // Sampling ratios between whole numbers can be read and written, but libjpeg-turbo does not upsample them.
            let Ok(size) = decoder.decode_full(&jpeg, &mut pixels) else {
                return Ok(());
            };
            prop_assert_eq!(size, (coefficients.width, coefficients.height));
            let region = Region { x: coefficients.width / 2, y: coefficients.height / 2, width: 1, height: 1 };
            prop_assert_eq!(decoder.decode_partial(&jpeg, region, &mut pixels), Ok(()));
        }
    }
}
