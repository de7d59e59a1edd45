//! What the markers of a JPEG file say, whatever its kind: none of the decoders knows every one.

use image::metadata::Orientation;

use super::size::check_size;

/// Tells if a file is JPEG, by its first bytes.
pub fn is_jpeg(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xff, 0xd8, 0xff])
}

/// Returns size and EXIF orientation.
pub fn read_header(bytes: &[u8]) -> Result<((u32, u32), u8), String> {
    let no_frame = || "JPEG: no frame header".to_owned();
    let mut orientation = Orientation::NoTransforms;
    let mut at = 2;
    loop {
        // As libjpeg does: what lies between segments is skipped, and any number of FF may come before a marker.
        let skipped = bytes[at.min(bytes.len())..]
            .windows(2)
            .position(|pair| pair[0] == 0xff && !matches!(pair[1], 0x00 | 0xff));
        at += skipped.ok_or_else(no_frame)?;
        let marker = bytes[at + 1];
        if matches!(marker, 0x01 | 0xd0..=0xd8) {
            at += 2; // a marker without a segment
            continue;
        }
        let length = bytes.get(at + 2..at + 4).ok_or_else(no_frame)?;
        let end = at + 2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
        let segment = bytes.get(at + 4..end).ok_or_else(no_frame)?;
        match marker {
            0xe1 => {
                let exif = segment.strip_prefix(b"Exif\0\0");
                let found = exif.and_then(Orientation::from_exif_chunk);
                orientation = found.unwrap_or(orientation);
            }
            // Huffman tables, extensions and arithmetic conditioning lie among the markers of frames.
            0xc4 | 0xc8 | 0xcc => {}
            0xc0..=0xcf => {
                let &[_, h1, h0, w1, w0] = segment.first_chunk().ok_or_else(no_frame)?;
                let height = u32::from(u16::from_be_bytes([h1, h0]));
                let width = u32::from(u16::from_be_bytes([w1, w0]));
                check_size(width, height)?;
                return Ok(((width, height), orientation.to_exif()));
            }
            0xda => return Err(no_frame()),
            _ => {}
        }
        at = end;
    }
}

/// Refuses a JPEG file that ends before its end-of-image marker.
///
/// The decoder would fill the missing part with gray; Pillow, and with it torchvision, refuses such a file too.
pub fn check_complete(bytes: &[u8]) -> Result<(), String> {
    const END_OF_IMAGE: u8 = 0xd9;
    let truncated = || format!("truncated: no end-of-image marker in {} bytes", bytes.len());
    let mut at = 2;
    loop {
        // Entropy-coded data holds FF only before 00 or a restart marker, so that a search for
        // the next other marker serves behind a scan's header as well as between segments.
        let rest = bytes.get(at..).unwrap_or_default();
        at += memchr::memchr(0xff, rest).ok_or_else(truncated)? + 1;
        match bytes.get(at) {
            None => return Err(truncated()),
            Some(&END_OF_IMAGE) => return Ok(()),
            Some(0xff) => {}
            Some(0x00 | 0x01 | 0xd0..=0xd8) => at += 1,
            Some(_) => {
                let length = bytes.get(at + 1..at + 3).ok_or_else(truncated)?;
                at += 1 + usize::from(u16::from_be_bytes([length[0], length[1]]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_found_behind_segments_and_scans() {
        let jpeg = [
            &[0xff, 0xd8][..],
            &[0xff, 0xe1, 0, 6, 0xff, 0xd9, 0xff, 0xd9], // a thumbnail's end is not the image's
            &[0xff, 0xda, 0, 2, 1, 2, 0xff, 0, 3, 0xff, 0xd0, 4],
            &[0xff, 0xff, 0xc4, 0, 2],
            &[0xff, 0xda, 0, 2, 5],
            &[0xff, 0xd9],
        ]
        .concat();
        assert_eq!(check_complete(&jpeg), Ok(()));
        for length in 0..jpeg.len() {
            assert!(check_complete(&jpeg[..length]).is_err(), "{length} bytes");
        }
        assert_eq!(check_complete(&[&jpeg[..], &[0, 0]].concat()), Ok(()));
    }
}
