//! Text from outside, made safe to show.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

/// A displayed name, path or text that a file or a peer chose.
///
/// Everything that could drive a terminal or break a line is shown as an escape: control characters, the characters
/// that turn the direction of writing, and bytes that are not UTF-8 (`\xe9`). All else, a backslash too, is shown as it
/// is, so that an ordinary path can be copied from a message.
///
/// ```
/// use shardtool::Escaped;
/// assert_eq!(Escaped::new("dog\x1b[2J\n.jpg").to_string(), r"dog\u{1b}[2J\n.jpg");
/// assert_eq!(Escaped::new("/data/Fjällräven 1.jpg").to_string(), "/data/Fjällräven 1.jpg");
/// ```
#[derive(Clone, Copy)]
pub struct Escaped<'a>(&'a [u8]);

impl<'a> Escaped<'a> {
    /// Wraps text, a path, or any other name that the operating system gives.
    pub fn new<T: AsRef<OsStr> + ?Sized>(text: &'a T) -> Escaped<'a> {
        Escaped(text.as_ref().as_bytes())
    }

    /// Wraps bytes that should be text.
    pub fn bytes(bytes: &'a [u8]) -> Escaped<'a> {
        Escaped(bytes)
    }
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                write_char(out, character, false)?;
            }
            for byte in chunk.invalid() {
                write!(out, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Escaped<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "\"{self}\"")
    }
}

/// Writes `character`, as an escape if it could do harm; `lines` lets the end of a line through.
pub(crate) fn write_char(out: &mut impl fmt::Write, character: char, lines: bool) -> fmt::Result {
    let harmful = match character {
        '\n' => !lines,
        // Marks, embeddings, overrides and isolates of the bidirectional algorithm; separators of lines and paragraphs.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            true
        }
        other => other.is_control(),
    };
    if harmful {
        write!(out, "{}", character.escape_default())
    } else {
        out.write_char(character)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_drives_a_terminal_is_shown_as_an_escape() {
        for (raw, shown) in [
            ("plain", "plain"),
            ("a\tb", r"a\tb"),
            ("\u{9b}2J", r"\u{9b}2J"),
            ("abc\u{202e}gpj", r"abc\u{202e}gpj"),
            ("\u{7f}", r"\u{7f}"),
            ("犬 🐕", "犬 🐕"),
            (r"back\slash", r"back\slash"),
        ] {
            assert_eq!(Escaped::new(raw).to_string(), shown);
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_named() {
        let name = OsStr::from_bytes(b"sh\xe9ards");
        assert_eq!(Escaped::new(name).to_string(), r"sh\xe9ards");
        assert_eq!(format!("{:?}", Escaped::bytes(b"\xff\n")), r#""\xff\n""#);
    }
}
