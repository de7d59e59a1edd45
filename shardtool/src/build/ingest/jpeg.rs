//! What is asked of a JPEG file besides its picture.

use image::metadata::Orientation;

use crate::codec::RgbView;

/// Returns the EXIF orientation, 1 to 8; 1 where the markers tell none. libjpeg alone judges whether the file is whole.
pub fn orientation(bytes: &[u8]) -> u8 {
    exif(bytes).unwrap_or(Orientation::NoTransforms).to_exif()
}

fn exif(bytes: &[u8]) -> Option<Orientation> {
    let mut found = None;
    let mut at = 2;
    loop {
        // As libjpeg does: what lies between segments is skipped, and any number of FF may come before a marker.
        let rest = bytes.get(at..)?;
        at += rest
            .windows(2)
            .position(|pair| pair[0] == 0xff && !matches!(pair[1], 0x00 | 0xff))?;
        let marker = bytes[at + 1];
        match marker {
            0x01 | 0xd0..=0xd8 => {
                at += 2; // a marker without a segment
                continue;
            }
            0xd9 | 0xda => return found,
            _ => {}
        }
        let length = bytes.get(at + 2..at + 4)?;
        let end = at + 2 + usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
        let segment = bytes.get(at + 4..end)?;
        if marker == 0xe1 {
            let exif = segment.strip_prefix(b"Exif\0\0");
            found = exif.and_then(Orientation::from_exif_chunk).or(found);
        }
        at = end;
    }
}

/// Tells if two decoders made the same picture of a file. They round differently, and may make finer chroma of coarse
/// in different ways, but nowhere do areas differ.
pub fn are_alike(one: &[u8], other: &RgbView<'_>) -> bool {
    /// Levels that an area's mean may differ by. Decoders that are right differ by less than a third of it.
    const TOLERANCE: u64 = 6;
    const CELL: usize = 16;
    let width = other.width as usize;
    let columns = width.div_ceil(CELL);
    let mut sums = vec![[[0u64; 3]; 2]; columns];
    let mut rows = one.chunks_exact(3 * width).zip(other.rows()).peekable();
    let mut height = 0;
    while let Some(pair) = rows.next() {
        for (which, row) in [pair.0, pair.1].into_iter().enumerate() {
            for (cell, sums) in row.chunks(3 * CELL).zip(&mut sums) {
                for pixel in cell.chunks_exact(3) {
                    for (sum, value) in sums[which].iter_mut().zip(pixel) {
                        *sum += u64::from(*value);
                    }
                }
            }
        }
        height += 1;
        if height < CELL && rows.peek().is_some() {
            continue;
        }
        for (column, [one, other]) in sums.iter().enumerate() {
            let pixels = (height * CELL.min(width - column * CELL)) as u64;
            let differ = |(one, other): (&u64, &u64)| one.abs_diff(*other) > TOLERANCE * pixels;
            if one.iter().zip(other).any(differ) {
                return false;
            }
        }
        sums.fill([[0; 3]; 2]);
        height = 0;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orientation_is_found_wherever_it_stands_and_nothing_else_is_taken_for_it() {
        let exif = [
            &b"Exif\0\0MM\0\x2a\0\0\0\x08"[..],
            &[0, 1, 0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        let segment = |marker: u8, data: &[u8]| {
            let length = (data.len() as u16 + 2).to_be_bytes();
            [&[0xff, marker, length[0], length[1]], data].concat()
        };
        let whole = [
            &[0xff, 0xd8][..],
            &segment(0xfe, b"junk"),
            &[0x55, 0x55, 0xff],
            &segment(0xe1, &exif),
            &segment(0xda, b""),
        ]
        .concat();
        assert_eq!(orientation(&whole), 6);
        let behind = [
            &[0xff, 0xd8][..],
            &segment(0xda, b""),
            &segment(0xe1, &exif),
        ]
        .concat();
        assert_eq!(orientation(&behind), 1);
        for length in 0..whole.len() {
            orientation(&whole[..length]);
        }
        assert_eq!(orientation(&[0xff, 0xd8, 0xff, 0xe0, 0, 0, 0xff, 0xd9]), 1);
    }
}
