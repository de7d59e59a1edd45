//! Where an archive's bytes come from: a file that is read anywhere, or one that has to be unpacked from its beginning.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use flate2::read::MultiGzDecoder;

use super::walk::Input;
use crate::source::{Error, Files, SourceFile};

/// What a file compressed by gzip begins with.
pub(super) const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The bytes of an archive, to many threads at a time.
pub trait Container: Send + Sync {
    /// Reads so many bytes from a place.
    ///
    /// # Errors
    /// If the system refuses, the file has become shorter, or it is damaged.
    fn read(&self, position: u64, length: usize) -> io::Result<Vec<u8>>;

    /// Tells whether reading backwards means unpacking all anew.
    fn is_sequential(&self) -> bool;

    /// Begins at the first byte, for a walk.
    ///
    /// # Errors
    /// If the system refuses.
    fn walk(&self) -> io::Result<Box<dyn Input + '_>>;
}

/// Opens an archive, compressed by gzip or not.
///
/// # Errors
/// If the system refuses.
pub fn open(path: &Path) -> Result<Box<dyn Container>, Error> {
    let file = File::open(path).map_err(Error::io(path, "open"))?;
    let mut start = [0; 2];
    let is_gzip = matches!(file.read_at(&mut start, 0), Ok(2)) && start == GZIP;
    Ok(if is_gzip {
        Box::new(Packed::new(path.to_owned()))
    } else {
        Box::new(file)
    })
}

/// The files of containers, by number and position.
pub struct Containers(pub Vec<Box<dyn Container>>);

impl Files for Containers {
    fn read(&self, file: &SourceFile) -> io::Result<Vec<u8>> {
        self.head(file, usize::MAX)
    }

    fn head(&self, file: &SourceFile, length: usize) -> io::Result<Vec<u8>> {
        let container = self
            .0
            .get(file.container as usize)
            .ok_or(io::ErrorKind::NotFound)?;
        let size = usize::try_from(file.size).unwrap_or(usize::MAX);
        container.read(file.position, length.min(size))
    }
}

impl Container for File {
    fn read(&self, position: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.read_exact_at(&mut bytes, position)?;
        Ok(bytes)
    }

    fn is_sequential(&self) -> bool {
        false
    }

    fn walk(&self) -> io::Result<Box<dyn Input + '_>> {
        let length = self.metadata()?.len();
        Ok(Box::new(Anywhere {
            file: self,
            length,
            at: 0,
        }))
    }
}

/// A file read from wherever the walk is.
struct Anywhere<'a> {
    file: &'a File,
    length: u64,
    at: u64,
}

impl Read for Anywhere<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Input for Anywhere<'_> {
    fn skip(&mut self, count: u64) -> io::Result<()> {
        let at = self.at.checked_add(count);
        let at = at.filter(|&at| at <= self.length);
        self.at = at.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(())
    }

    fn length(&self) -> Option<u64> {
        Some(self.length)
    }
}

/// Bytes that are unpacked at a time.
const PIECE: usize = 1 << 20;

/// Unpacked bytes that are kept for threads that come a little late.
const KEPT: u64 = 256 << 20;

/// A file compressed by gzip. Threads that read forward together share one pass over it; whoever goes back further than
/// what is kept begins anew.
struct Packed {
    path: PathBuf,
    unpacking: Mutex<Option<Unpacking>>,
}

/// A pass over a compressed file.
struct Unpacking {
    stream: Box<dyn Read + Send>,
    /// Position behind the last piece.
    at: u64,
    /// The last pieces, without gaps.
    pieces: VecDeque<Vec<u8>>,
}

impl Packed {
    fn new(path: PathBuf) -> Packed {
        Packed {
            path,
            unpacking: Mutex::new(None),
        }
    }

    fn stream(&self) -> io::Result<Box<dyn Read + Send>> {
        let file = BufReader::with_capacity(1 << 18, File::open(&self.path)?);
        Ok(Box::new(MultiGzDecoder::new(file)))
    }
}

impl Container for Packed {
    fn read(&self, position: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut held = self.unpacking.lock().expect("no thread panics with it");
        if held
            .as_ref()
            .is_none_or(|unpacking| position < unpacking.first())
        {
            *held = Some(Unpacking {
                stream: self.stream()?,
                at: 0,
                pieces: VecDeque::new(),
            });
        }
        let unpacking = held.as_mut().expect("just made");
        let read = unpacking.read(position, length);
        if read.is_err() {
            *held = None; // what is behind a damage is not to be trusted
        }
        read
    }

    fn is_sequential(&self) -> bool {
        true
    }

    fn walk(&self) -> io::Result<Box<dyn Input + '_>> {
        Ok(Box::new(Forward(self.stream()?)))
    }
}

impl Unpacking {
    /// Returns the position of the first byte that is kept.
    fn first(&self) -> u64 {
        let kept: usize = self.pieces.iter().map(Vec::len).sum();
        self.at - kept as u64
    }

    /// Reads what lies at or behind [`Unpacking::first`].
    fn read(&mut self, position: u64, length: usize) -> io::Result<Vec<u8>> {
        let end = position
            .checked_add(length as u64)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        while self.at < end {
            let mut piece = Vec::new();
            (&mut self.stream)
                .take(PIECE as u64)
                .read_to_end(&mut piece)?;
            if piece.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.at += piece.len() as u64;
            self.pieces.push_back(piece);
            while let Some(oldest) = self.pieces.front() {
                let behind = self.first() + oldest.len() as u64;
                if behind > position || self.at - behind < KEPT {
                    break;
                }
                self.pieces.pop_front();
            }
        }
        let mut bytes = Vec::with_capacity(length);
        let mut start = self.first();
        for piece in &self.pieces {
            let behind = start + piece.len() as u64;
            if behind > position && start < end {
                let from = position.saturating_sub(start) as usize;
                let to = (end.min(behind) - start) as usize;
                bytes.extend_from_slice(&piece[from..to]);
            }
            start = behind;
        }
        Ok(bytes)
    }
}

/// A reader that skips by reading.
pub struct Forward<R>(pub R);

impl<R: Read> Read for Forward<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R: Read> Input for Forward<R> {
    fn skip(&mut self, count: u64) -> io::Result<()> {
        let skipped = io::copy(&mut (&mut self.0).take(count), &mut io::sink())?;
        if skipped < count {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    fn length(&self) -> Option<u64> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn what_is_packed_is_read_forwards_backwards_and_by_many() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.gz");
        let bytes: Vec<u8> = (0..5_000_000u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        // Two members, as concatenating gives.
        let mut packed = Vec::new();
        for half in bytes.chunks(3_000_000) {
            let mut encoder =
                flate2::write::GzEncoder::new(&mut packed, flate2::Compression::fast());
            encoder.write_all(half).unwrap();
            encoder.finish().unwrap();
        }
        std::fs::write(&path, packed).unwrap();
        let container = open(&path).unwrap();
        assert!(container.is_sequential());
        for (position, length) in [
            (0, 10),
            (2_999_990, 20),
            (1_048_570, 2_100_000),
            (5, 0),
            (4_999_999, 1),
        ] {
            let read = container.read(position as u64, length).unwrap();
            assert!(read == bytes[position..position + length], "{position}");
        }
        assert!(container.read(4_999_999, 2).is_err());
        assert!(container.read(u64::MAX, 2).is_err());
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (container, bytes) = (&container, &bytes);
                scope.spawn(move || {
                    for i in (thread..400).step_by(4) {
                        let position = i * 12_000;
                        let read = container.read(position as u64, 9_000).unwrap();
                        assert!(read == bytes[position..position + 9_000]);
                    }
                });
            }
        });
    }
}
