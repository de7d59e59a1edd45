//! Regions of payloads, and payloads that are not what their entry says.

use proptest::prelude::*;

use super::*;

const WIDTH: u32 = 21;
const HEIGHT: u32 = 13;

fn pixels() -> Vec<u8> {
    (0..3 * WIDTH * HEIGHT)
        .map(|i| (i * 7 % 251) as u8)
        .collect()
}

fn raw() -> Vec<u8> {
    zstd::bulk::compress(&pixels(), 1).unwrap()
}

fn jpeg() -> Vec<u8> {
    let mut bytes = Vec::new();
    let color = image::ExtendedColorType::Rgb8;
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 95)
        .encode(&pixels(), WIDTH, HEIGHT, color)
        .unwrap();
    bytes
}

fn whole() -> Region {
    region(0, 0, WIDTH, HEIGHT)
}

fn region(x: u32, y: u32, width: u32, height: u32) -> Region {
    Region {
        x,
        y,
        width,
        height,
    }
}

#[test]
fn raw_gives_its_pixels() {
    let mut decoder = Decoder::new();
    let view = decoder
        .decode_payload(Codec::Raw, &raw(), WIDTH, HEIGHT, whole())
        .unwrap();
    assert!(view.pixels == pixels());
    assert_eq!((view.stride_px, view.width, view.height), (21, 21, 13));
}

#[test]
fn jpeg_is_near_its_pixels() {
    let flat = image::RgbImage::from_pixel(40, 30, image::Rgb([200, 30, 90]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    flat.write_to(&mut bytes, image::ImageFormat::Jpeg).unwrap();
    let mut decoder = Decoder::new();
    let view = decoder
        .decode_payload(Codec::Jpeg, bytes.get_ref(), 40, 30, region(33, 20, 7, 10))
        .unwrap();
    assert_eq!(view.rows().count(), 10);
    for pixel in view.rows().flat_map(|row| row.chunks_exact(3)) {
        let near = |i: usize, value: u8| pixel[i].abs_diff(value) <= 3;
        assert!(near(0, 200) && near(1, 30) && near(2, 90), "{pixel:?}");
    }
}

#[test]
fn regions_outside_the_image_are_refused() {
    let mut decoder = Decoder::new();
    for outside in [
        region(0, 0, WIDTH + 1, 1),
        region(0, 0, 1, HEIGHT + 1),
        region(WIDTH, 0, 1, 1),
        region(u32::MAX, 0, 2, 1),
        region(0, 0, 0, 1),
        region(0, 0, 1, 0),
    ] {
        let result = decoder.decode_payload(Codec::Raw, &raw(), WIDTH, HEIGHT, outside);
        assert!(
            result.unwrap_err().to_string().contains("is not inside"),
            "{outside:?}"
        );
    }
}

#[test]
fn other_dimensions_than_the_entrys_are_refused() {
    let mut decoder = Decoder::new();
    let one = region(0, 0, 1, 1);
    let mut reason = |codec, payload: &[u8], width, height| {
        decoder
            .decode_payload(codec, payload, width, height, one)
            .unwrap_err()
    };
    for (width, height) in [(WIDTH + 1, HEIGHT), (WIDTH, HEIGHT - 1), (WIDTH, 65_535)] {
        let raw = reason(Codec::Raw, &raw(), width, height);
        assert!(raw.to_string().contains("819 bytes of pixels"), "{raw}");
        reason(Codec::Jpeg, &jpeg(), width, height);
    }
    let huge = reason(Codec::Raw, &raw(), 65_535, 65_535);
    assert!(
        huge.to_string().contains("larger than an image may be"),
        "{huge}"
    );
    reason(Codec::Raw, &jpeg(), WIDTH, HEIGHT);
    reason(Codec::Jpeg, &raw(), WIDTH, HEIGHT);
    let cut = raw();
    reason(Codec::Raw, &cut[..cut.len() - 1], WIDTH, HEIGHT);
}

/// Returns what a JPEG decodes to in a decoder whose buffer is full of one value.
fn decode_over(before: u8, payload: &[u8], side: (u32, u32)) -> Result<Vec<u8>, Corrupt> {
    let mut decoder = Decoder::new();
    let flat = zstd::bulk::compress(&[before; 3 * 100 * 100], 1).unwrap();
    let square = region(0, 0, 100, 100);
    decoder
        .decode_payload(Codec::Raw, &flat, 100, 100, square)
        .unwrap();
    let all = region(0, 0, side.0, side.1);
    let view = decoder.decode_payload(Codec::Jpeg, payload, side.0, side.1, all)?;
    Ok(view.pixels.to_vec())
}

/// Pixels are a function of the payload alone: where a scan ends early, nothing of the image
/// decoded before shows through.
#[test]
fn nothing_is_left_of_the_image_before() {
    let noise = |i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8;
    let pixels: Vec<u8> = (0..3 * 100 * 100).map(noise).collect();
    let mut payload = Vec::new();
    let color = image::ExtendedColorType::Rgb8;
    image::codecs::jpeg::JpegEncoder::new(&mut payload)
        .encode(&pixels, 100, 100, color)
        .unwrap();
    payload.truncate(payload.len() / 2);
    payload.extend_from_slice(&[0xff, 0xd9]);
    let side = (100, 100);
    assert!(decode_over(1, &payload, side).unwrap() == decode_over(2, &payload, side).unwrap());
}

proptest! {
    /// A region is that part of the whole image, whatever the decoder decoded before.
    #[test]
    fn a_region_is_a_part_of_the_whole(
        (x, width) in (0..WIDTH).prop_flat_map(|x| (Just(x), 1..=WIDTH - x)),
        (y, height) in (0..HEIGHT).prop_flat_map(|y| (Just(y), 1..=HEIGHT - y)),
        is_jpeg in any::<bool>(),
    ) {
        let (codec, payload) = if is_jpeg { (Codec::Jpeg, jpeg()) } else { (Codec::Raw, raw()) };
        let mut fresh = Decoder::new();
        let image = fresh.decode_payload(codec, &payload, WIDTH, HEIGHT, whole()).unwrap();
        let mut used = Decoder::new();
        let larger = zstd::bulk::compress(&vec![9; 3 * 50 * 50], 1).unwrap();
        used.decode_payload(Codec::Raw, &larger, 50, 50, region(0, 0, 50, 50)).unwrap();
        let part = used
            .decode_payload(codec, &payload, WIDTH, HEIGHT, region(x, y, width, height))
            .unwrap();
        prop_assert_eq!(part.rows().count(), height as usize);
        for (row, full) in part.rows().zip(image.rows().skip(y as usize)) {
            let full = &full[3 * x as usize..3 * (x + width) as usize];
            prop_assert!(row == full);
        }
    }

    /// A damaged payload gives wrong pixels or an error; the same ones each time.
    #[test]
    fn damage_does_no_harm(
        changes in proptest::collection::vec((0usize..5000, any::<u8>()), 1..10),
        is_jpeg in any::<bool>(),
    ) {
        let mut payload = if is_jpeg { jpeg() } else { raw() };
        for (at, value) in changes {
            let at = at % payload.len();
            payload[at] = value;
        }
        if is_jpeg {
            let side = (WIDTH, HEIGHT);
            prop_assert!(decode_over(1, &payload, side) == decode_over(2, &payload, side));
        } else if let Ok(view) =
            Decoder::new().decode_payload(Codec::Raw, &payload, WIDTH, HEIGHT, whole())
        {
            prop_assert_eq!(view.pixels.len(), pixels().len());
        }
    }
}

#[test]
fn a_decoder_that_panics_costs_the_sample_alone() {
    // Found by fuzzing: sampling factors that make zune-jpeg 0.5.15 index out of a slice.
    let jpeg = include_bytes!("../../tests/fixtures/decoder-panics.jpg");
    let mut decoder = Decoder::new();
    let error = decoder
        .decode_payload(Codec::Jpeg, jpeg, 61, 52, region(0, 0, 61, 52))
        .unwrap_err();
    assert!(matches!(error, Corrupt::Panicked(_)), "{error}");
    // And the decoder is good for the next.
    let next = decoder.decode_payload(Codec::Jpeg, &self::jpeg(), WIDTH, HEIGHT, whole());
    assert!(next.is_ok());
}
