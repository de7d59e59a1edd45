//! Directories of this user alone, in places where anybody may make one: the socket's in `/tmp`, a copy of shards.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use shardtool::Escaped;

/// The reason why a directory cannot be had, or not be trusted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The directory cannot be made or looked at.
    #[error("{}: {cause}", Escaped::new(path))]
    Io {
        /// The directory.
        path: PathBuf,
        /// The system's answer.
        cause: io::Error,
    },
    /// Somebody else has made it, or may use it.
    #[error(
        "{}: must be a directory of user {user} {rule}; it has user {owner} and mode {mode:04o}",
        Escaped::new(path)
    )]
    NotPrivate {
        /// The directory.
        path: PathBuf,
        /// This process's user.
        user: u32,
        /// What its mode has to be.
        rule: &'static str,
        /// The owner found.
        owner: u32,
        /// The mode found.
        mode: u32,
    },
}

/// What other users may do with a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Others {
    /// Nothing.
    Excluded,
    /// They may read, but not write.
    MayRead,
}

/// Makes a directory with mode 0700, or checks one that exists.
///
/// In a public directory anybody may have been faster: a link, a foreign directory, or one with a wider mode is
/// refused.
///
/// # Errors
/// If it cannot be made, is no directory of this user, or is open to others.
pub(crate) fn make(path: &Path, others: Others) -> Result<(), Error> {
    let failed = |cause| Error::Io {
        path: path.to_owned(),
        cause,
    };
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    let found = fs::symlink_metadata(path).map_err(failed)?;
    let user = rustix::process::geteuid().as_raw();
    let (forbidden, rule) = match others {
        Others::Excluded => (0o077, "with mode 0700"),
        Others::MayRead => (0o022, "to which nobody else may write"),
    };
    if !found.is_dir() || found.uid() != user || found.mode() & forbidden != 0 {
        return Err(Error::NotPrivate {
            path: path.to_owned(),
            user,
            rule,
            owner: found.uid(),
            mode: found.mode() & 0o7777,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_directory_open_to_others_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("ijepa");
        make(&directory, Others::Excluded).unwrap();
        make(&directory, Others::Excluded).unwrap();
        assert_eq!(fs::metadata(&directory).unwrap().mode() & 0o777, 0o700);
        let refused = |mode, others| {
            fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).unwrap();
            make(&directory, others)
                .err()
                .map(|error| error.to_string())
        };
        let message = refused(0o755, Others::Excluded).unwrap();
        assert!(message.contains("mode 0755"), "{message}");
        assert_eq!(refused(0o755, Others::MayRead), None);
        let message = refused(0o777, Others::MayRead).unwrap();
        assert!(message.contains("mode 0777"), "{message}");
    }

    #[test]
    fn a_link_is_no_directory() {
        let parent = tempfile::tempdir().unwrap();
        let link = parent.path().join("link");
        symlink(parent.path(), &link).unwrap();
        let error = make(&link, Others::MayRead).unwrap_err();
        assert!(matches!(error, Error::NotPrivate { .. }), "{error}");
    }
}
