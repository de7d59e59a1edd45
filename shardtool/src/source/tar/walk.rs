//! A walk through the members of a tar archive, and of archives inside it, in their order.
//!
//! One walk serves files and streams: it asks its reader for headers, and to skip what is between them. The `tar`
//! crate reads the headers; what is here adds that nothing is lost quietly. An archive has to end with a block of
//! zeros, and whatever follows one is looked at too.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tar::{Archive, EntryType};

use crate::source::{Error, records};

/// Size of a header, and what all lengths are rounded up to.
pub const BLOCK: u64 = 512;

/// Largest sum of the headers and long names of one member.
const MOST_HEADERS: u64 = 1 << 20;

/// How many archives may lie in each other, the outermost not counted.
const DEPTH: usize = 2;

/// A reader that a walk goes through.
pub trait Input: Read {
    /// Goes forward.
    ///
    /// # Errors
    /// If there are fewer bytes than that, or the system refuses.
    fn skip(&mut self, count: u64) -> io::Result<()>;

    /// Returns the number of bytes, if it is known beforehand.
    fn length(&self) -> Option<u64>;
}

impl Input for Box<dyn Input + '_> {
    fn skip(&mut self, count: u64) -> io::Result<()> {
        (**self).skip(count)
    }

    fn length(&self) -> Option<u64> {
        (**self).length()
    }
}

/// What an archive says of one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name, with `/` between components and nothing else about it changed but `.` left away; below the name of
    /// the inner archive, if it lies in one.
    pub path: String,
    /// What it is.
    pub what: What,
    /// Where its bytes begin.
    pub position: u64,
    /// How many there are.
    pub size: u64,
}

/// A kind of member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A file.
    File,
    /// A folder, or an archive that is entered like one.
    Folder,
    /// A name for another member.
    Link {
        /// The other's path, below the outermost archive.
        to: String,
    },
    /// What cannot be used, and why.
    Unusable(String),
}

/// A walk that is under way.
pub struct Walk<R> {
    input: R,
    place: PathBuf,
    /// How far the input has been read.
    at: u64,
    /// Where the next header is.
    next: u64,
    /// The archives that the walk is inside of.
    levels: Vec<Level>,
}

/// An archive that the walk is inside of.
struct Level {
    /// What its members' paths begin with: empty, or a path with a slash at the end.
    prefix: String,
    /// Where it ends.
    end: u64,
    /// Where the next header of the archive around it is.
    behind: u64,
}

impl<R: Input> Walk<R> {
    /// Begins at the first byte of an archive. `place` is for messages.
    pub fn new(input: R, place: &Path) -> Walk<R> {
        let end = input.length().unwrap_or(u64::MAX);
        Walk {
            input,
            place: place.to_owned(),
            at: 0,
            next: 0,
            levels: vec![Level {
                prefix: String::new(),
                end,
                behind: end,
            }],
        }
    }

    /// Goes to the next member; none behind the last one, nor behind an error. An inner archive that `enters` agrees
    /// to comes as a folder, then its members.
    ///
    /// # Errors
    /// If the archive is cut or damaged.
    pub fn next(&mut self, enters: impl Fn(&str) -> bool) -> Option<Result<Member, Error>> {
        let next = self.step(enters);
        if !matches!(next, Ok(Some(_))) {
            self.levels.clear();
        }
        next.transpose()
    }

    fn step(&mut self, enters: impl Fn(&str) -> bool) -> Result<Option<Member>, Error> {
        while let Some(level) = self.levels.last() {
            let end = level.end;
            if self.next > end {
                self.at = end;
                return Err(self.damaged("ends within a member"));
            }
            if let Err(error) = self.input.skip(self.next - self.at) {
                return Err(self.damaged(&format!("ends within a member: {error}")));
            }
            self.at = self.next;
            let mut headers = Headers {
                input: &mut self.input,
                left: end - self.at,
                read: 0,
                counted: 0,
                zeros: 0,
            };
            let found = header(&mut headers);
            let (read, zeros) = (headers.read, headers.zeros);
            let start = self.at;
            self.at += read;
            match found {
                Err(error) => {
                    self.at = start;
                    return Err(self.damaged(&error.to_string()));
                }
                Ok(None) if zeros < BLOCK => {
                    return Err(self.damaged("no mark of the end: the archive is cut off"));
                }
                Ok(None) => {
                    self.next = self.levels.pop().map_or(end, |level| level.behind);
                }
                Ok(Some(found)) => {
                    let padded = found.size.checked_next_multiple_of(BLOCK);
                    let next = padded.and_then(|padded| self.at.checked_add(padded));
                    let Some(next) = next.filter(|_| found.size <= end - self.at) else {
                        return Err(self.damaged("ends within a member"));
                    };
                    self.next = next;
                    if let Some(member) = self.member(found, &enters) {
                        return Ok(Some(member));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Makes a member of a header, if it is one.
    fn member(&mut self, found: Found, enters: impl Fn(&str) -> bool) -> Option<Member> {
        let prefix = self.levels.last()?.prefix.clone();
        let (path, fault) = match normal(&found.name) {
            Ok(path) if path.is_empty() && found.what == Type::Folder => return None,
            Ok(path) if path.is_empty() => (prefix.clone(), Some("has no name")),
            Ok(path) => (format!("{prefix}{path}"), None),
            Err((path, fault)) => (format!("{prefix}{path}"), Some(fault)),
        };
        let mut member = Member {
            path,
            what: What::File,
            position: self.at,
            size: found.size,
        };
        member.what = match (fault, found.what) {
            (_, Type::None) => return None,
            (Some(fault), _) => What::Unusable(fault.to_owned()),
            (None, Type::Folder) => What::Folder,
            (None, Type::Unusable(reason)) => What::Unusable(reason.to_owned()),
            (None, Type::Symbolic) => link(&prefix, member.path.rsplit_once('/'), &found.link),
            (None, Type::Hard) => link(&prefix, None, &found.link),
            (None, Type::File) => match stem(&member.path) {
                Some(stem) if self.levels.len() <= DEPTH && enters(&member.path) => {
                    self.levels.push(Level {
                        prefix: format!("{stem}/"),
                        end: self.at + found.size,
                        behind: self.next,
                    });
                    self.next = self.at;
                    member.path = stem.to_owned();
                    What::Folder
                }
                _ => What::File,
            },
        };
        Some(member)
    }

    /// Makes an error of what is wrong where the walk is.
    fn damaged(&self, reason: &str) -> Error {
        let within = self.levels.last().map_or("", |level| &level.prefix);
        let within = within.trim_end_matches('/');
        let archive = if within.is_empty() {
            String::new()
        } else {
            format!(" (archive {within}.tar in it)")
        };
        Error::Damaged {
            path: self.place.clone(),
            reason: format!("at byte {}{archive}: {reason}", self.at),
        }
    }
}

/// Returns a path without the extension of an archive, if it has that.
pub fn stem(path: &str) -> Option<&str> {
    let (stem, extension) = path.rsplit_once('.')?;
    let named = !stem.is_empty() && !stem.ends_with('/');
    (named && extension.eq_ignore_ascii_case("tar")).then_some(stem)
}

/// Finds the member that a link means: one below `prefix`, by its path from there or from the link's own folder.
fn link(prefix: &str, symbolic: Option<(&str, &str)>, target: &[u8]) -> What {
    let outside = || What::Unusable("a link that leads out of the archive".to_owned());
    let Ok(target) = std::str::from_utf8(target) else {
        return What::Unusable("a link whose target is not UTF-8".to_owned());
    };
    if target.starts_with('/') {
        return outside();
    }
    let folder = symbolic.map_or("", |(folder, _)| folder);
    let folder = folder.strip_prefix(prefix).unwrap_or_default();
    let mut names: Vec<&str> = folder.split('/').filter(|name| !name.is_empty()).collect();
    for name in target.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                if names.pop().is_none() {
                    return outside();
                }
            }
            name => names.push(name),
        }
    }
    What::Link {
        to: format!("{prefix}{}", names.join("/")),
    }
}

/// Brings a member's name into the form that paths have here. An error is the name, and what is wrong with it.
fn normal(name: &[u8]) -> Result<String, (String, &'static str)> {
    if name.len() > records::MOST_NAME {
        return Err((records::shortened(name), "name has more than 4096 bytes"));
    }
    let shown = String::from_utf8_lossy(name);
    let wrong = |fault| Err((shown.clone().into_owned(), fault));
    if std::str::from_utf8(name).is_err() {
        return wrong("file name is not UTF-8");
    }
    if shown.starts_with('/') {
        return wrong("name is absolute");
    }
    let names = shown.split('/').filter(|name| !matches!(*name, "" | "."));
    let names: Vec<&str> = names.collect();
    if names.contains(&"..") {
        return wrong("name leads out of a folder (..)");
    }
    Ok(names.join("/"))
}

/// What a header says.
struct Found {
    name: Vec<u8>,
    link: Vec<u8>,
    what: Type,
    size: u64,
}

/// What a header says its member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    File,
    Folder,
    Symbolic,
    Hard,
    Unusable(&'static str),
    /// No member.
    None,
}

/// Reads one header with all that belongs to it; none at the end.
fn header<R: Read>(input: R) -> io::Result<Option<Found>> {
    let mut archive = Archive::new(input);
    archive.set_ignore_zeros(true);
    let Some(entry) = archive.entries()?.next() else {
        return Ok(None);
    };
    let mut entry = entry?;
    let mut is_sparse = entry.header().entry_type().is_gnu_sparse();
    let mut name = None;
    if let Some(extensions) = entry.pax_extensions()? {
        for extension in extensions {
            let extension = extension?;
            is_sparse |= extension.key_bytes().starts_with(b"GNU.sparse.");
            if extension.key_bytes() == b"GNU.sparse.name" {
                name = Some(extension.value_bytes().to_vec());
            }
        }
    }
    let name = name.unwrap_or_else(|| entry.path_bytes().into_owned());
    let what = match entry.header().entry_type() {
        _ if is_sparse => Type::Unusable("a sparse file, stored with holes"),
        EntryType::Regular | EntryType::Continuous if name.ends_with(b"/") => Type::Folder,
        EntryType::Regular | EntryType::Continuous => Type::File,
        EntryType::Directory => Type::Folder,
        EntryType::Symlink => Type::Symbolic,
        EntryType::Link => Type::Hard,
        EntryType::XGlobalHeader => Type::None,
        // GNU tar's list of a folder, in incremental archives; and the name of a whole archive.
        other if other.as_byte() == b'D' => Type::Folder,
        other if other.as_byte() == b'V' => Type::None,
        _ => Type::Unusable("not a regular file"),
    };
    // The crate gives sparse files the size that they have without holes.
    let size = if entry.header().entry_type().is_gnu_sparse() {
        entry.header().entry_size()?
    } else {
        entry.size()
    };
    let link = entry.link_name_bytes();
    let link = link.map_or_else(Vec::new, |link| link.into_owned());
    Ok(Some(Found {
        name,
        link,
        what,
        size,
    }))
}

/// The input for as long as a header is read: bounded, and watched for the zeros that end an archive.
struct Headers<'a, R> {
    input: &'a mut R,
    /// Bytes up to the end of the archive.
    left: u64,
    read: u64,
    /// Bytes read, blocks of zeros not among them.
    counted: u64,
    /// How many of the last bytes were zeros.
    zeros: u64,
}

impl<R: Read> Read for Headers<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.input.read(&mut buffer[..most])?;
        self.left -= count as u64;
        self.read += count as u64;
        match buffer[..count].iter().rposition(|&byte| byte != 0) {
            None => self.zeros += count as u64,
            Some(last) => {
                self.zeros = (count - 1 - last) as u64;
                self.counted += count as u64;
            }
        }
        if self.counted > MOST_HEADERS {
            return Err(io::Error::other(format!(
                "a member's name and headers have more than {MOST_HEADERS} bytes"
            )));
        }
        Ok(count)
    }
}
