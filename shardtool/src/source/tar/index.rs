//! The list of an archive's files, made from its headers alone.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::container::Container;
use super::walk::{Member, Walk, What};
use crate::source::{Error, Note, Options, kind};

/// How many links may lead to each other.
const MOST_LINKS: usize = 8;

/// What is in an archive: files, each with its place.
#[derive(Debug, Default)]
pub struct Index {
    /// The files in the archive's order, no two with the same path. Links stand for the files they lead to.
    pub files: Vec<Member>,
    /// All folders.
    pub folders: Vec<String>,
    /// What the user has excluded, or is never meant.
    pub ignored: Vec<Note>,
    /// What cannot be used.
    pub left_out: Vec<Note>,
}

impl Index {
    /// Lists an archive and those inside it.
    ///
    /// # Errors
    /// If it cannot be read, or is cut or damaged.
    pub fn read(archive: &dyn Container, path: &Path, options: &Options) -> Result<Index, Error> {
        let input = archive.walk().map_err(Error::io(path, "read"))?;
        let mut walk = Walk::new(input, path);
        let mut index = Index::default();
        let mut reported = HashSet::new();
        let mut folders = HashSet::new();
        while let Some(member) = walk.next(|inner| unwanted(inner, options).is_none()) {
            let member = member?;
            if let Some((path, reason)) = unwanted(&member.path, options) {
                if reported.insert(path.to_owned()) {
                    index.ignored.push(Note::new(path, reason));
                }
                continue;
            }
            match &member.what {
                What::File | What::Link { .. } => index.files.push(member),
                What::Folder => {
                    if folders.insert(member.path.clone()) {
                        index.folders.push(member.path);
                    }
                }
                What::Unusable(reason) => {
                    index.left_out.push(Note::new(member.path, reason.as_str()));
                }
            }
        }
        index.keep_last();
        index.follow();
        Ok(index)
    }

    /// Returns the names of the first files of an archive.
    ///
    /// # Errors
    /// If it cannot be read, or is damaged before them.
    pub fn first_names(
        archive: &dyn Container,
        path: &Path,
        count: usize,
    ) -> Result<Vec<String>, Error> {
        let input = archive.walk().map_err(Error::io(path, "read"))?;
        let mut walk = Walk::new(input, path);
        let mut names = Vec::new();
        while names.len() < count {
            match walk.next(|_| false).transpose()? {
                None => break,
                Some(member) if member.what == What::File => names.push(member.path),
                Some(_) => {}
            }
        }
        Ok(names)
    }

    /// Leaves out files whose name a later one has.
    fn keep_last(&mut self) {
        let mut seen = HashSet::new();
        let backwards = self.files.iter().rev();
        let is_last: Vec<bool> = backwards
            .map(|member| seen.insert(member.path.as_str()))
            .collect();
        let mut is_last = is_last.into_iter().rev();
        let left_out = &mut self.left_out;
        self.files.retain(|member| {
            let is_last = is_last.next().unwrap_or(true);
            if !is_last {
                let reason = "a later member of the archive has the same name";
                left_out.push(Note::new(member.path.as_str(), reason));
            }
            is_last
        });
    }

    /// Gives links the place of what they lead to.
    fn follow(&mut self) {
        let is_link = |member: &Member| matches!(member.what, What::Link { .. });
        if !self.files.iter().any(is_link) {
            return;
        }
        let by_path = self
            .files
            .iter()
            .map(|member| (member.path.as_str(), member));
        let by_path: HashMap<&str, &Member> = by_path.collect();
        let end = |member: &Member| {
            let mut here = member;
            for _ in 0..MOST_LINKS {
                match &here.what {
                    What::Link { to } => here = by_path.get(to.as_str())?,
                    _ => return Some((here.position, here.size)),
                }
            }
            None
        };
        let links = self.files.iter().filter(|member| is_link(member));
        let ends: Vec<Option<(u64, u64)>> = links.map(end).collect();
        let mut ends = ends.into_iter();
        let left_out = &mut self.left_out;
        self.files.retain_mut(|member| {
            let What::Link { to } = &member.what else {
                return true;
            };
            let Some((position, size)) = ends.next().flatten() else {
                let reason = format!("a link to \"{to}\", which is no file in the archive");
                left_out.push(Note::new(member.path.as_str(), reason));
                return false;
            };
            *member = Member {
                path: std::mem::take(&mut member.path),
                what: What::File,
                position,
                size,
            };
            true
        });
    }

    /// Puts everything into a folder, unless it was packed with that folder.
    pub fn move_into(&mut self, folder: &str) {
        let prefix = format!("{folder}/");
        if self.files.iter().all(|file| file.path.starts_with(&prefix)) && !self.files.is_empty() {
            return;
        }
        let paths = self.files.iter_mut().map(|file| &mut file.path);
        let notes = self.ignored.iter_mut().chain(&mut self.left_out);
        let notes = notes.map(|note| &mut note.path);
        for path in paths.chain(notes).chain(&mut self.folders) {
            path.insert_str(0, &prefix);
        }
        self.folders.push(folder.to_owned());
    }
}

/// Returns the file or folder on the way to `path` that is not to be looked at, if there is one, and the reason.
pub fn unwanted<'a>(path: &'a str, options: &Options) -> Option<(&'a str, &'static str)> {
    let ends = path.match_indices('/').map(|(at, _)| at);
    let mut start = 0;
    for end in ends.chain([path.len()]) {
        let (above, name) = (&path[..end], &path[start..end]);
        if options.excludes(above) {
            return Some((above, "excluded"));
        }
        if name != ".." && kind::is_junk(name) {
            return Some((above, "known not to be meant, by its name"));
        }
        start = end + 1;
    }
    None
}
