//! A tar archive that comes as a stream: compressed, or through a pipe.
//!
//! There is no way back in a stream, so every member that may matter is handed on whole, in the archive's order. At
//! most one is in memory.

use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::Error;
use super::tar::container::Forward;
use super::tar::walk::{Member, Walk, What};

/// Largest member that is read into memory.
const MOST: u64 = 1 << 30;

/// The members of a tar archive that is read once, from front to back. Archives inside it are folders.
pub struct TarStream<R: Read> {
    walk: Walk<Forward<R>>,
    place: PathBuf,
}

impl<R: Read> TarStream<R> {
    /// Begins at the first byte of an archive. `place` is its name, for messages.
    pub fn new(reader: R, place: &Path) -> TarStream<R> {
        TarStream {
            walk: Walk::new(Forward(reader), place),
            place: place.to_owned(),
        }
    }

    /// Reads the next file: its path, and all its bytes. There is none behind the last one, nor behind a damage.
    ///
    /// # Errors
    /// If the archive is cut or damaged, and that is the end. For a member that cannot be used: a link, something
    /// that is no file, an unsafe name, more than 1 GiB; the stream then goes on behind it.
    pub fn next_member(&mut self) -> Option<Result<(String, Vec<u8>), Error>> {
        loop {
            let member = match self.walk.next(|_| true)? {
                Ok(member) => member,
                Err(error) => return Some(Err(error)),
            };
            return Some(match &member.what {
                What::Folder => continue,
                What::File if member.size <= MOST => {
                    self.walk.read(&member).map(|bytes| (member.path, bytes))
                }
                What::File => Err(self.unusable(
                    &member,
                    &format!("{} bytes, the limit is {MOST}", member.size),
                )),
                What::Link { to } => Err(self.unusable(
                    &member,
                    &format!("a link to \"{to}\", which a stream cannot go back to"),
                )),
                What::Unusable(reason) => Err(self.unusable(&member, reason)),
            });
        }
    }

    /// Tells if the stream has ended, well or not: an error before that concerns one member.
    pub fn has_ended(&self) -> bool {
        self.walk.has_ended()
    }

    fn unusable(&self, member: &Member, reason: &str) -> Error {
        Error::Damaged {
            path: self.place.join(&member.path),
            reason: reason.to_owned(),
        }
    }
}

/// Unpacks a stream if it is compressed by gzip, in one piece or several.
///
/// # Errors
/// If its first bytes cannot be read.
pub fn unpacked<'a>(reader: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut reader = BufReader::with_capacity(1 << 16, reader);
    let mut start = Vec::new();
    (&mut reader).take(2).read_to_end(&mut start)?;
    let is_gzip = start == [0x1f, 0x8b];
    let whole = io::Cursor::new(start).chain(reader);
    Ok(if is_gzip {
        Box::new(BufReader::with_capacity(
            1 << 16,
            MultiGzDecoder::new(whole),
        ))
    } else {
        Box::new(whole)
    })
}

#[cfg(test)]
mod tests;
