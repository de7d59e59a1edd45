//! An archive on standard input. A file that a shell has opened there is read where it lies; what comes through a pipe
//! is kept in a file without a name, since it comes once and an archive is read twice.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Seek, Write};
use std::os::fd::AsFd;
use std::path::Path;

use flate2::read::MultiGzDecoder;
use tracing::info;

use super::container::GZIP;
use crate::Escaped;
use crate::source::Error;

/// The path that stands for standard input.
pub const STDIN: &str = "-";

/// Bytes that are copied at a time.
const PIECE: usize = 1 << 20;

/// Opens standard input for reading anywhere; what comes through a pipe is kept in a folder meanwhile, unpacked.
///
/// # Errors
/// If it cannot be read, or the folder has no room for it.
pub fn open(scratch: &Path) -> Result<File, Error> {
    let stdin = io::stdin().as_fd().try_clone_to_owned().map(File::from);
    let stdin = stdin.map_err(Error::io(STDIN.as_ref(), "open"))?;
    if lies_whole(&stdin) {
        return Ok(stdin);
    }
    let shown = Escaped::new(scratch);
    info!("{shown}: has to have room for what comes through standard input, until the end");
    keep(stdin, scratch)
}

/// Tells whether this is a file at its beginning that needs no unpacking.
fn lies_whole(mut stdin: &File) -> bool {
    let is_file = stdin.metadata().is_ok_and(|meta| meta.is_file());
    let mut start = [0; 2];
    is_file
        && stdin.stream_position().is_ok_and(|at| at == 0)
        && std::os::unix::fs::FileExt::read_at(stdin, &mut start, 0).is_ok()
        && start != GZIP
}

/// Copies a stream into a file in a folder that is gone when it is closed, however the program ends.
fn keep(stream: impl Read, scratch: &Path) -> Result<File, Error> {
    let kept = || Error::io(scratch, "keep what comes through standard input");
    let read = || Error::io(STDIN.as_ref(), "read");
    let mut stream = unpacked(stream).map_err(read())?;
    let mut file = tempfile::tempfile_in(scratch).map_err(kept())?;
    let mut piece = vec![0; PIECE];
    loop {
        let length = match stream.read(&mut piece) {
            Ok(0) => return Ok(file),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            length => length.map_err(read())?,
        };
        file.write_all(&piece[..length]).map_err(kept())?;
    }
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
