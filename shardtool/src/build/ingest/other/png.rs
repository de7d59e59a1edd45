//! PNG files that lack their end.

/// The IEND chunk: no data, its type, its checksum.
const END: [u8; 12] = [0, 0, 0, 0, b'I', b'E', b'N', b'D', 0xae, 0x42, 0x60, 0x82];

/// Returns a file with the end that it lacks, if that is all it lacks: it ends where a chunk ends.
pub fn with_end(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut at = 8;
    let mut has_data = false;
    while let Some(head) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let [l0, l1, l2, l3, kind @ ..] = *head;
        if kind == *b"IEND" {
            return None;
        }
        has_data |= kind == *b"IDAT";
        at = at.checked_add(12 + u32::from_be_bytes([l0, l1, l2, l3]) as usize)?;
    }
    // What is left may be the beginning of the end.
    let left = bytes.get(at..)?;
    (has_data && END.starts_with(left)).then(|| [&bytes[..at], &END].concat())
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
