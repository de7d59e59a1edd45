//! An archive on standard input. A file that a shell has opened there is read where it lies; what comes through a pipe
//! is kept in a file without a name, since it comes once and an archive is read twice.

use std::fs::{File, Metadata};
use std::io::{self, BufReader, Cursor, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::SystemTime;

use flate2::read::MultiGzDecoder;
use tracing::info;
use xxhash_rust::xxh3::Xxh3;

use super::container::GZIP;
use crate::Escaped;
use crate::source::{Error, folder};

/// The path that stands for standard input.
pub const STDIN: &str = "-";

/// Bytes that are copied at a time.
const PIECE: usize = 1 << 20;

/// An archive that came on standard input.
pub struct Stdin {
    /// It, unpacked.
    pub file: File,
    /// When it was changed last, if it is a file of the user's.
    pub changed: Option<SystemTime>,
    /// Checksum of its bytes, if it came through a pipe and so has no date.
    pub checksum: Option<u64>,
}

/// Opens standard input for reading anywhere; what comes through a pipe is kept in a folder meanwhile, unpacked.
///
/// # Errors
/// If it cannot be read, or the folder has no room for it.
pub fn open(scratch: &Path) -> Result<Stdin, Error> {
    let stdin = io::stdin().as_fd().try_clone_to_owned().map(File::from);
    let mut stdin = stdin.map_err(Error::io(STDIN.as_ref(), "open"))?;
    if let Some(meta) = stdin.metadata().ok().filter(Metadata::is_file)
        && is_at_start_and_plain(&mut stdin)
    {
        return Ok(Stdin {
            file: stdin,
            changed: Some(folder::changed(&meta)),
            checksum: None,
        });
    }
    let shown = Escaped::new(scratch);
    info!("{shown}: has to have room for what comes through standard input, until the end");
    keep(stdin, scratch)
}

/// Tells whether a file can be read where it lies.
fn is_at_start_and_plain(file: &mut File) -> bool {
    let mut start = [0; GZIP.len()];
    file.stream_position().is_ok_and(|at| at == 0)
        && file.read_at(&mut start, 0).is_ok()
        && start != GZIP
}

/// Copies a stream into a file in a folder that is gone when it is closed, however the program ends.
fn keep(stream: impl Read, scratch: &Path) -> Result<Stdin, Error> {
    let kept = || Error::io(scratch, "keep what comes through standard input");
    let read = || Error::io(STDIN.as_ref(), "read");
    let mut stream = unpacked(stream).map_err(read())?;
    let mut file = tempfile::tempfile_in(scratch).map_err(kept())?;
    let mut checksum = Xxh3::new();
    let mut piece = vec![0; PIECE];
    loop {
        let length = match stream.read(&mut piece) {
            Ok(0) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            length => length.map_err(read())?,
        };
        checksum.update(&piece[..length]);
        file.write_all(&piece[..length]).map_err(kept())?;
    }
    Ok(Stdin {
        file,
        changed: None,
        checksum: Some(checksum.digest()),
    })
}

/// Unpacks a stream if it is compressed by gzip, in one piece or several.
///
/// # Errors
/// If its first bytes cannot be read.
fn unpacked<'a>(stream: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut stream = BufReader::with_capacity(PIECE, stream);
    let mut start = Vec::new();
    (&mut stream)
        .take(GZIP.len() as u64)
        .read_to_end(&mut start)?;
    let is_gzip = start == GZIP;
    let whole = Cursor::new(start).chain(stream);
    Ok(if is_gzip {
        Box::new(MultiGzDecoder::new(BufReader::new(whole)))
    } else {
        Box::new(whole)
    })
}
