//! PNG files that lack their end, or hold more text than anybody wrote.

use std::io::Read;

use flate2::read::ZlibDecoder;

/// The IEND chunk: no data, its type, its checksum.
const END: [u8; 12] = [0, 0, 0, 0, b'I', b'E', b'N', b'D', 0xae, 0x42, 0x60, 0x82];

/// Returns a file with the end that it lacks, if that is all it lacks: it ends where a chunk ends.
pub fn with_end(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut at = 8;
    let mut has_data = false;
    for (kind, data) in chunks(bytes) {
        if kind == *b"IEND" {
            return None;
        }
        has_data |= kind == *b"IDAT";
        at = data.end + 4;
    }
    // What is left may be the beginning of the end.
    let left = bytes.get(at..)?;
    (has_data && END.starts_with(left)).then(|| [&bytes[..at], &END].concat())
}

/// Says so if a text in a file is a decompression bomb. The picture is none the worse for it, but other programs refuse
/// such a file.
pub fn bomb(bytes: &[u8]) -> Option<String> {
    /// Pillow's limit.
    const MOST: u64 = 1 << 20;
    chunks(bytes).find_map(|(kind, data)| {
        let text = bytes
            .get(data)
            .filter(|_| kind == *b"zTXt" || kind == *b"iTXt")?;
        // The keyword ends with a zero; zlib's first byte is 78 for every window that is in use.
        let start = text.iter().position(|&byte| byte == 0x78)?;
        let start = if kind == *b"zTXt" {
            text.iter().position(|&byte| byte == 0)? + 2
        } else {
            start
        };
        let mut inflated = ZlibDecoder::new(text.get(start..)?).take(MOST + 1);
        let length = std::io::copy(&mut inflated, &mut std::io::sink()).ok()?;
        (length > MOST).then(|| format!("a text in it inflates to more than {MOST} bytes"))
    })
}

/// Returns the kinds of a file's chunks, and where their data are; the last may end behind the file.
fn chunks(bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], std::ops::Range<usize>)> {
    let mut at = 8usize;
    std::iter::from_fn(move || {
        let [l0, l1, l2, l3, kind @ ..] = *bytes.get(at..)?.first_chunk::<8>()?;
        let start = at + 8;
        let end = start + u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        at = end + 4;
        Some((kind, start..end))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_may_be_missing() {
        let chunk = |kind: &[u8; 4]| [&[0, 0, 0, 1][..], kind, b"x", b"crc!"].concat();
        let open = [&b"\x89PNG\r\n\x1a\n"[..], &chunk(b"IHDR"), &chunk(b"IDAT")].concat();
        let whole = [&open[..], &END].concat();
        assert_eq!(with_end(&whole), None);
        for length in 0..whole.len() {
            let completed = with_end(&whole[..length]);
            let expected = (length >= open.len()).then(|| whole.clone());
            // A length of 0 and the type IEND end a file, whatever becomes of the checksum behind them.
            let expected = expected.filter(|_| length < open.len() + 8);
            assert_eq!(completed, expected, "{length} bytes");
        }
    }
}
