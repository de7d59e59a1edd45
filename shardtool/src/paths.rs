//! Paths as people write them, in arguments and configurations: with `~` and variables of the environment.
//!
//! A shell expands both, but only where it sees them: not in a file, not behind the `=` of `--out=~/x`, not in quotes.
//! Taken literally, such a path is a directory called `~` or `$HOME` below the current one. So all programs read paths
//! through [`expand`], with a shell's rules in their simplest form:
//!
//! * `~` and `~/…` begin with `$HOME`. `~user` is refused; `./~x` is the file `~x`, and further on `~` is itself.
//! * `$NAME` and `${NAME}` are variables. One that is not set, or empty, is refused: the path would be another.
//! * `$$` is one `$`. A `$` before anything else that is no name stays as it is.
//! * `$(…)` and other forms in braces are refused: no command is run, and no default is taken.
//!
//! What a variable holds is not looked at again. [`literal`] writes a path such that it reads back as itself.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::Escaped;

/// A path that cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A variable that the environment does not have, or that is empty.
    #[error(
        "the environment variable {name} is {}; set it, write the path out, or $$ for a dollar sign",
        if *is_empty { "empty" } else { "not set" }
    )]
    NotSet {
        /// The variable's name.
        name: String,
        /// Whether it is set, to nothing.
        is_empty: bool,
    },
    /// `~`, and the environment does not tell where home is.
    #[error(
        "~ stands for the environment variable HOME, which is not set or empty; write the path out"
    )]
    NoHome,
    /// `~user`.
    #[error(
        "only ~ and ~/… are expanded; write the home directory of a user out, or ./{} for a file of that name",
        Escaped::new(name)
    )]
    User {
        /// The first component of the path.
        name: OsString,
    },
    /// A form of a shell's that has no meaning here.
    #[error(
        "{} has no meaning here, only $NAME and ${{NAME}}; $$ stands for a dollar sign",
        Escaped::new(form)
    )]
    Form {
        /// What stands there.
        form: OsString,
    },
    /// Where text is needed, a variable whose value is none.
    #[error("{}: not UTF-8", Escaped::new(path))]
    NotText {
        /// The expanded path.
        path: PathBuf,
    },
}

/// Returns the path that `written` stands for.
///
/// # Errors
/// What it says cannot be found out, or has no meaning here.
pub fn expand(written: &OsStr) -> Result<PathBuf, Error> {
    expand_in(written, |name| env::var_os(name))
}

/// Returns the path that `written` stands for as text, for those who store it.
///
/// # Errors
/// As for [`expand`], and if a variable's value is no text.
pub fn expand_text(written: &str) -> Result<String, Error> {
    let path = expand(written.as_ref())?.into_os_string();
    path.into_string()
        .map_err(|path| Error::NotText { path: path.into() })
}

/// Returns the path that an argument stands for. Beside [`expand`]'s rules, dollar signs mean nothing in a path that
/// is there as it stands: a shell that completes its name has had its say.
///
/// # Errors
/// As for [`expand`].
pub fn expand_argument(written: &OsStr) -> Result<PathBuf, Error> {
    if !written.as_bytes().starts_with(b"~") && Path::new(written).symlink_metadata().is_ok() {
        return Ok(written.into());
    }
    expand(written)
}

/// Writes `path` such that [`expand`] returns it.
pub fn literal(path: &Path) -> OsString {
    let bytes = path.as_os_str().as_bytes();
    let mut written = Vec::with_capacity(bytes.len());
    if bytes.starts_with(b"~") {
        written.extend(b"./");
    }
    for &byte in bytes {
        written.push(byte);
        if byte == b'$' {
            written.push(byte);
        }
    }
    OsString::from_vec(written)
}

fn expand_in(
    written: &OsStr,
    variable: impl Fn(&OsStr) -> Option<OsString>,
) -> Result<PathBuf, Error> {
    let mut rest = written.as_bytes();
    let mut path = Vec::with_capacity(rest.len());
    if rest.starts_with(b"~") {
        let first = rest.split(|&byte| byte == b'/').next().unwrap_or_default();
        if first != b"~" {
            let name = OsStr::from_bytes(first).to_owned();
            return Err(Error::User { name });
        }
        let home = variable("HOME".as_ref()).filter(|home| !home.is_empty());
        path.extend(home.ok_or(Error::NoHome)?.as_bytes());
        rest = &rest[1..];
    }
    while let Some(at) = rest.iter().position(|&byte| byte == b'$') {
        path.extend(&rest[..at]);
        rest = &rest[at + 1..];
        let (name, length) = match rest {
            [b'$', ..] => {
                path.push(b'$');
                rest = &rest[1..];
                continue;
            }
            [b'{', inside @ ..] => {
                let end = inside.iter().position(|&byte| byte == b'}');
                let name = &inside[..end.unwrap_or(inside.len())];
                if end.is_none() || name.is_empty() || name_length(name) < name.len() {
                    return Err(form(rest, end.map_or(rest.len(), |end| end + 2)));
                }
                (name, name.len() + 2)
            }
            [b'(', ..] => return Err(form(rest, rest.len())),
            _ => {
                let length = name_length(rest);
                (&rest[..length], length)
            }
        };
        if name.is_empty() {
            path.push(b'$');
            continue;
        }
        let value = variable(OsStr::from_bytes(name));
        match value.filter(|value| !value.is_empty()) {
            Some(value) => path.extend(value.as_bytes()),
            None => {
                return Err(Error::NotSet {
                    name: String::from_utf8_lossy(name).into_owned(),
                    is_empty: variable(OsStr::from_bytes(name)).is_some(),
                });
            }
        }
        rest = &rest[length..];
    }
    path.extend(rest);
    Ok(OsString::from_vec(path).into())
}

/// Returns how many of the first bytes are the name of a variable.
fn name_length(bytes: &[u8]) -> usize {
    let ends = |&(at, &byte): &(usize, &u8)| {
        let first = byte == b'_' || byte.is_ascii_alphabetic();
        !(first || at > 0 && byte.is_ascii_digit())
    };
    let end = bytes.iter().enumerate().find(ends);
    end.map_or(bytes.len(), |(at, _)| at)
}

/// Refuses the `length` bytes after a `$`.
fn form(rest: &[u8], length: usize) -> Error {
    let mut form = OsString::from("$");
    form.push(OsStr::from_bytes(&rest[..length]));
    Error::Form { form }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn variable(name: &OsStr) -> Option<OsString> {
        let value: &[u8] = match name.to_str()? {
            "HOME" => b"/home/me",
            "A_1" => b"$B/~",
            "LATIN" => b"caf\xe9",
            "EMPTY" => b"",
            _ => return None,
        };
        Some(OsStr::from_bytes(value).to_owned())
    }

    #[test]
    fn home_and_variables_are_expanded() {
        for (written, path) in [
            ("~", "/home/me"),
            ("~/", "/home/me/"),
            ("~/a b/~", "/home/me/a b/~"),
            ("./~x", "./~x"),
            ("./~/x", "./~/x"),
            ("a~/x", "a~/x"),
            ("$HOME/x", "/home/me/x"),
            ("${HOME}x/${HOME}", "/home/mex//home/me"),
            // Once: what a variable holds is a path already.
            ("x/$A_1/y", "x/$B/~/y"),
            ("cost$5", "cost$5"),
            ("a$", "a$"),
            ("a$/b", "a$/b"),
            ("a$$HOME", "a$HOME"),
            ("$$$$", "$$"),
            ("", ""),
            ("é$HOMEé", "é/home/meé"),
        ] {
            let found = expand_in(OsStr::new(written), variable);
            assert_eq!(found, Ok(PathBuf::from(path)), "{written}");
        }
        let latin = expand_in(OsStr::from_bytes(b"\xe8/$LATIN/\xe7"), variable).unwrap();
        assert_eq!(latin.as_os_str().as_bytes(), b"\xe8/caf\xe9/\xe7");
    }

    #[test]
    fn what_cannot_be_expanded_is_refused_by_name() {
        for (written, expected) in [
            ("$NONE/x", "variable NONE is not set"),
            ("x/${NONE}", "variable NONE is not set"),
            ("$EMPTY/x", "variable EMPTY is empty"),
            ("~bob/x", "./~bob"),
            ("~+", "./~+"),
            ("~$HOME", "./~$HOME"),
            ("${HOME", "${HOME has no meaning"),
            ("${}", "${} has no meaning"),
            ("${HOME:-/x}/y", "${HOME:-/x} has no meaning"),
            ("${1}", "${1} has no meaning"),
            ("run-$(date)", "$(date) has no meaning"),
        ] {
            let message = expand_in(OsStr::new(written), variable)
                .expect_err(written)
                .to_string();
            assert!(message.contains(expected), "{written}: {message}");
        }
        let homeless = expand_in(OsStr::new("~/x"), |_| None).unwrap_err();
        assert_eq!(homeless, Error::NoHome);
    }

    #[test]
    fn a_dollar_in_the_name_of_what_is_there_is_no_variable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cost$NONE_OF_THIS_NAME");
        let found = || expand_argument(path.as_os_str());
        assert!(matches!(found(), Err(Error::NotSet { .. })));
        std::fs::create_dir(&path).unwrap();
        assert_eq!(found(), Ok(path.clone()));
    }

    proptest! {
        #[test]
        fn what_is_written_literally_reads_back(bytes in proptest::collection::vec(
            prop_oneof![Just(b'$'), Just(b'~'), Just(b'{'), Just(b'/'), any::<u8>()], 0..12)
        ) {
            let path = PathBuf::from(OsString::from_vec(bytes));
            let read = expand_in(&literal(&path), variable).unwrap();
            prop_assert_eq!(read.strip_prefix(".").unwrap_or(&read), path.strip_prefix(".").unwrap_or(&path));
        }
    }
}
