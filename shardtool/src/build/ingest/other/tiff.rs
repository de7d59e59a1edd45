//! TIFF files that the `image` crate refuses or gets wrong: of more than 8 bits a sample, which it makes black or
//! white, and with colours that are multiplied by their alpha, which it leaves dark.

use std::io::Cursor;

use tiff::ColorType;
use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::Tag;

use super::super::size::check_size;
use super::{MAX_ALLOCATION, Other, depth, pixels_and_more};
use crate::build::budget::Taken;

/// Decodes a file's first image, if it is of such a kind; else gives nothing.
pub fn decode(
    bytes: &[u8],
    room: &dyn Fn(u64) -> Result<Taken, String>,
) -> Result<Option<Other>, String> {
    let wrong = |error: tiff::TiffError| error.to_string();
    let mut limits = Limits::default();
    limits.decoding_buffer_size = MAX_ALLOCATION as usize;
    limits.intermediate_buffer_size = MAX_ALLOCATION as usize;
    let mut decoder = Decoder::new(Cursor::new(bytes))
        .map_err(wrong)?
        .with_limits(limits);
    let (width, height) = decoder.dimensions().map_err(wrong)?;
    check_size(width, height)?;
    // Bits of a byte in the other order, which no decoder here turns.
    if decoder
        .find_tag_unsigned::<u16>(Tag::FillOrder)
        .map_err(wrong)?
        == Some(2)
    {
        return Err("fill order 2: not read".to_owned());
    }
    let extra: Option<Vec<u16>> = decoder
        .find_tag_unsigned_vec(Tag::ExtraSamples)
        .map_err(wrong)?;
    let is_multiplied = extra.is_some_and(|kinds| kinds.first() == Some(&1));
    let colours = decoder.colortype().map_err(wrong)?;
    let channels = match colours {
        ColorType::RGBA(8) if is_multiplied => 4,
        ColorType::Gray(9..) => 1,
        ColorType::GrayA(9..) => 2,
        ColorType::RGB(9..) => 3,
        ColorType::RGBA(9..) => 4,
        _ => return Ok(None),
    };
    let layout = decoder.image_buffer_layout().map_err(wrong)?;
    if layout.planes > 1 {
        let reason =
            "more than 8 bits a sample or multiplied colours, a plane for each channel: not read";
        return Err(reason.to_owned());
    }
    let _held = room(layout.complete_len as u64 * 3 + pixels_and_more(width, height))?;
    let orientation = decoder.find_tag_unsigned(Tag::Orientation).map_err(wrong)?;
    let (samples, how) = match decoder.read_image().map_err(wrong)? {
        DecodingResult::U8(samples) => {
            let how = "colours divided by their alpha";
            (opaque(divided(samples), channels), how.to_owned())
        }
        DecodingResult::U16(samples) => depth::integers(&opaque(samples, channels)),
        DecodingResult::U32(samples) => depth::integers(&opaque(samples, channels)),
        DecodingResult::I16(samples) => depth::integers(&opaque(samples, channels)),
        DecodingResult::I32(samples) => depth::integers(&opaque(samples, channels)),
        DecodingResult::F32(samples) => depth::floats(&opaque(samples, channels)),
        DecodingResult::F64(samples) => {
            let samples: Vec<f32> = samples.into_iter().map(|sample| sample as f32).collect();
            depth::floats(&opaque(samples, channels))
        }
        DecodingResult::F16(samples) => {
            let samples: Vec<f32> = samples.into_iter().map(f32::from).collect();
            depth::floats(&opaque(samples, channels))
        }
        _ => return Err("samples of 64 bits: not read".to_owned()),
    };
    Ok(Some(Other {
        pixels: samples,
        size: (width, height),
        gray: channels < 3,
        orientation: orientation
            .filter(|value| (1..=8).contains(value))
            .unwrap_or(1),
        scaled: Some(how),
        flaw: (is_multiplied && channels > 3 && colours != ColorType::RGBA(8))
            .then(|| "its colours are multiplied by their alpha".to_owned()),
    }))
}

/// Divides colours by the alpha that they were multiplied with, as Pillow does.
fn divided(mut samples: Vec<u8>) -> Vec<u8> {
    for [colours @ .., alpha] in samples.as_chunks_mut::<4>().0 {
        for colour in colours.iter_mut().filter(|_| *alpha > 0) {
            let whole = u32::from(*colour) * 255 / u32::from(*alpha);
            *colour = whole.min(255) as u8;
        }
    }
    samples
}

/// Drops the last channel of those that have transparency.
fn opaque<T: Copy>(samples: Vec<T>, channels: usize) -> Vec<T> {
    if channels % 2 == 1 {
        return samples;
    }
    let colours = |pixel: &[T]| pixel[..channels - 1].to_vec();
    samples.chunks_exact(channels).flat_map(colours).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::budget::Budget;
    use tiff::encoder::{TiffEncoder, colortype};

    /// Writes two samples of 12 bits in 16, or two of 8, with the bits of bytes in either order.
    fn file(is_deep: bool, fill_order: u16) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        let mut encoder = TiffEncoder::new(&mut bytes).unwrap();
        if is_deep {
            let mut image = encoder.new_image::<colortype::Gray16>(2, 1).unwrap();
            image
                .encoder()
                .write_tag(Tag::FillOrder, fill_order)
                .unwrap();
            image.write_data(&[0, 4095]).unwrap();
        } else {
            let mut image = encoder.new_image::<colortype::Gray8>(2, 1).unwrap();
            image
                .encoder()
                .write_tag(Tag::FillOrder, fill_order)
                .unwrap();
            image.write_data(&[1, 2]).unwrap();
        }
        bytes.into_inner()
    }

    #[test]
    fn multiplied_colours_are_divided() {
        let file = |kind: u16| {
            let mut bytes = Cursor::new(Vec::new());
            let mut encoder = TiffEncoder::new(&mut bytes).unwrap();
            let mut image = encoder.new_image::<colortype::RGBA8>(2, 1).unwrap();
            let tags = image.encoder();
            tags.write_tag(Tag::ExtraSamples, kind).unwrap();
            image.write_data(&[100, 50, 0, 128, 9, 8, 7, 0]).unwrap();
            bytes.into_inner()
        };
        let budget = Budget::new(1 << 20);
        let decode = |bytes: &[u8]| decode(bytes, &|bytes| Ok(budget.take(bytes)));
        let divided = decode(&file(1)).unwrap().unwrap();
        assert_eq!(divided.pixels, [199, 99, 0, 9, 8, 7]);
        assert!(
            decode(&file(2)).unwrap().is_none(),
            "they are not multiplied"
        );
    }

    #[test]
    fn deep_samples_are_scaled_and_turned_bits_refused() {
        let budget = Budget::new(1 << 20);
        let decode = |bytes: &[u8]| decode(bytes, &|bytes| Ok(budget.take(bytes)));
        let deep = decode(&file(true, 1)).unwrap().unwrap();
        assert_eq!(
            (deep.pixels, deep.size, deep.gray),
            (vec![0, 255], (2, 1), true)
        );
        assert!(decode(&file(false, 1)).unwrap().is_none(), "not deep");
        for is_deep in [true, false] {
            let error = decode(&file(is_deep, 2)).err().unwrap();
            assert!(error.contains("fill order"), "{error}");
        }
    }
}
