//! Files in places where others may have put something else, opened only if they are regular ones.
//!
//! A named pipe in the place of a file would be waited for without end, and a device has no end. Weights, manifests,
//! shards and checkpoints are regular files. (A configuration need not be one: `--config <(…)` is a pipe.)

use std::fs::{File, FileType, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

/// Opens the regular file `path` for reading.
///
/// # Errors
/// What the system says, or [`ErrorKind::InvalidInput`] with what `path` is instead of a file.
pub fn open(path: &Path) -> io::Result<File> {
    only_regular(OpenOptions::new().read(true), OFlags::empty(), path)
}

/// Opens the regular file `path` for adding to its end, and makes it if there is none. A link is not followed: what it
/// leads to would grow.
///
/// # Errors
/// As of [`open`].
pub fn append(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    only_regular(options.append(true).create(true), OFlags::NOFOLLOW, path)
}

fn only_regular(options: &mut OpenOptions, more: OFlags, path: &Path) -> io::Result<File> {
    // Without this flag, opening a pipe waits for somebody at its other end. Regular files do not heed it.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY | more;
    let opened = options.custom_flags(flags.bits() as i32).open(path);
    let file = opened.map_err(|error| {
        let errno = error.raw_os_error().map(Errno::from_raw_os_error);
        match errno {
            Some(Errno::NXIO) => irregular("a pipe, socket or device"),
            Some(Errno::LOOP) if more.contains(OFlags::NOFOLLOW) => irregular("a link"),
            _ => error,
        }
    })?;
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
    use std::io::Write;
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
            (&socket, "a pipe, socket or device, not a regular file"),
        ] {
            // Without the check the pipe would be waited for without end.
            assert_eq!(open(path).unwrap_err().to_string(), what);
        }
        let missing = folder.path().join("missing");
        assert_eq!(open(&missing).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn only_regular_files_grow() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        for _ in 0..2 {
            append(&file).unwrap().write_all(b"two\n").unwrap();
        }
        assert_eq!(std::fs::read(&file).unwrap(), b"two\ntwo\n");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let dangling = folder.path().join("dangling");
        let nothing = folder.path().join("nothing");
        std::os::unix::fs::symlink(&nothing, &dangling).unwrap();
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        for path in [&link, &dangling, &pipe, Path::new("/dev/null")] {
            let error = append(path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        }
        // Somebody who reads does not make a file of it.
        let _reader = OpenOptions::new().read(true).write(true).open(&pipe);
        let error = append(&pipe).unwrap_err().to_string();
        assert_eq!(error, "a named pipe, not a regular file");
        assert_eq!(
            append(folder.path()).unwrap_err().kind(),
            ErrorKind::IsADirectory
        );
        assert!(!nothing.exists());
    }
}
