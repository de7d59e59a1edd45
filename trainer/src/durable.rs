//! Small files that a crash or a power cut leaves as they were, or as they should be: nothing in between.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

/// Beginning of the names of files and directories that are being written or removed.
pub(crate) const TEMPORARY: &str = ".tmp-";

/// Replaces `path` by a file of these bytes, on disk when this returns; a crash leaves the old content or the new.
///
/// # Errors
/// What the file system says; `path` is then as it was.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = parent(path);
    let name = path.file_name().ok_or(ErrorKind::InvalidFilename)?;
    let aside = folder.join(format!("{TEMPORARY}{}", name.to_string_lossy()));
    // A link that somebody left there must not be written through.
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::create_new(&aside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    File::open(folder)?.sync_all()
}

/// Returns the directory that holds `path`. The parent of a relative name is the empty path, which cannot be opened.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
