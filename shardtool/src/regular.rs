//! Files from elsewhere, opened only if they are regular ones.
//!
//! A named pipe in the place of a file would be waited for without end, and a device has no end. Weights, manifests,
//! shards and checkpoints are regular files. (A configuration need not be one: `--config <(…)` is a pipe.)

use std::fs::{File, FileType, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// Opens the regular file `path` for reading.
///
/// # Errors
/// What the system says, or [`ErrorKind::InvalidInput`] with what `path` is instead of a file.
pub fn open(path: &Path) -> io::Result<File> {
    // Without this flag, opening a pipe waits for somebody who writes to it. Regular files do not heed it.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(path);
    let file = match opened {
        // Sockets, and devices that are not there.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => {
            return Err(irregular("a socket or device"));
        }
        opened => opened?,
    };
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        Ok(file)
    } else {
        Err(irregular(describe(kind)))
    }
}

/// Reads the regular file `path`, of at most `limit` bytes.
///
/// # Errors
/// Those of [`open`] and of reading, or [`ErrorKind::InvalidData`] for a larger file.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        let reason = format!("larger than {limit} bytes, which no such file needs");
        return Err(io::Error::new(ErrorKind::InvalidData, reason));
    }
    Ok(bytes)
}

fn irregular(what: &str) -> io::Error {
    io::Error::new(
        ErrorKind::InvalidInput,
        format!("{what}, not a regular file"),
    )
}

fn describe(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a named pipe"
    } else {
        "a device"
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_regular_files_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "four").unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(read(&link, 4).unwrap(), b"four");
        let fault = read(&file, 3).unwrap_err();
        assert!(fault.to_string().contains("larger than 3 bytes"), "{fault}");

        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let socket = folder.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        for (path, what) in [
            (pipe.as_path(), "a named pipe, not a regular file"),
            (folder.path(), "a directory, not a regular file"),
            (Path::new("/dev/zero"), "a device, not a regular file"),
            (&socket, "a socket or device, not a regular file"),
        ] {
            // Without the check the pipe would be waited for without end.
            assert_eq!(open(path).unwrap_err().to_string(), what);
        }
        let missing = folder.path().join("missing");
        assert_eq!(open(&missing).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
