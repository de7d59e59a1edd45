//! A file system whose power goes after a given number of operations, for tests.
//!
//! Writing a file counts three times: the empty file, half of its bytes, all of them. After the cut every operation
//! fails, and what was not synchronised is lost as [`Loss`] says: three corners of all that a real disk may do.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use shardtool::disk::parent;

use super::Store;
use super::files::{Content, Disk, Files};

/// The loss by a power cut.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Loss {
    /// Nothing is lost, as when the process is killed.
    Nothing,
    /// Content that was not synchronised; names are there.
    Content,
    /// Content and names that were not synchronised.
    All,
}

/// A file system whose power goes.
#[derive(Clone, Debug)]
pub(crate) struct PowerCut(Arc<Mutex<Machine>>);

#[derive(Debug)]
struct Machine {
    /// Operations left.
    left: usize,
    done: usize,
    dead: bool,
    loss: Loss,
    /// What undoes each operation that is not on disk yet, oldest first.
    pending: Vec<Undo>,
}

#[derive(Debug)]
enum Undo {
    /// The content of this file is not there.
    Content(PathBuf),
    /// This new file or directory is not there.
    Create(PathBuf),
    /// The second name is still the first.
    Rename(PathBuf, PathBuf),
    /// This file, or directory, is still there.
    Remove(PathBuf, Option<Vec<u8>>),
}

impl PowerCut {
    /// Returns a file system that works for `operations`.
    pub(crate) fn after(operations: usize, loss: Loss) -> PowerCut {
        PowerCut(Arc::new(Mutex::new(Machine {
            left: operations,
            done: 0,
            dead: false,
            loss,
            pending: Vec::new(),
        })))
    }

    /// Returns a file system whose power stays: much faster than a real disk, which it does not wait for.
    pub(crate) fn never() -> PowerCut {
        PowerCut::after(usize::MAX, Loss::Nothing)
    }

    /// Returns the checkpoints of `store` on this file system.
    pub(crate) fn under(&self, store: &Store) -> Store {
        store.clone().on(Arc::new(self.clone()))
    }

    /// Tells whether the power is gone.
    pub(crate) fn happened(&self) -> bool {
        self.0.lock().unwrap().dead
    }

    /// Operations that were done.
    pub(crate) fn operations(&self) -> usize {
        self.0.lock().unwrap().done
    }

    fn step(&self, operation: impl FnOnce(&mut Machine) -> io::Result<()>) -> io::Result<()> {
        let mut machine = self.0.lock().unwrap();
        if machine.dead {
            return Err(io::Error::other("the power is gone"));
        }
        if machine.left == 0 {
            machine.cut();
            return Err(io::Error::other("the power goes"));
        }
        machine.left -= 1;
        machine.done += 1;
        operation(&mut machine)
    }
}

impl Machine {
    fn cut(&mut self) {
        self.dead = true;
        for undo in std::mem::take(&mut self.pending).into_iter().rev() {
            match undo {
                Undo::Content(path) if self.loss != Loss::Nothing && path.exists() => {
                    fs::write(&path, "").unwrap();
                }
                Undo::Create(path) if self.loss == Loss::All => {
                    if path.is_dir() {
                        fs::remove_dir_all(&path).unwrap();
                    } else {
                        fs::remove_file(&path).unwrap();
                    }
                }
                Undo::Rename(from, to) if self.loss == Loss::All => fs::rename(to, from).unwrap(),
                // A directory that is gone for good took its files along.
                Undo::Remove(path, Some(bytes))
                    if self.loss == Loss::All && parent(&path).is_dir() =>
                {
                    fs::write(path, bytes).unwrap();
                }
                Undo::Remove(path, None) if self.loss == Loss::All => fs::create_dir(path).unwrap(),
                _ => {}
            }
        }
    }
}

impl Files for PowerCut {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.step(|machine| {
            machine.pending.push(Undo::Create(path.to_owned()));
            Disk.create_dir(path)
        })
    }

    fn write(&self, path: &Path, content: Content<'_>) -> io::Result<()> {
        let mut bytes = Vec::new();
        content(&mut bytes)?;
        self.step(|machine| {
            machine.pending.push(Undo::Create(path.to_owned()));
            machine.pending.push(Undo::Content(path.to_owned()));
            fs::write(path, "")
        })?;
        for part in [&bytes[..bytes.len() / 2], &bytes[bytes.len() / 2..]] {
            self.step(|_| {
                fs::OpenOptions::new()
                    .append(true)
                    .open(path)?
                    .write_all(part)
            })?;
        }
        Ok(())
    }

    /// Leaves the real disk in peace: nobody cuts its power.
    fn sync(&self, path: &Path) -> io::Result<()> {
        let is_dir = fs::metadata(path)?.is_dir();
        self.step(|machine| {
            machine.pending.retain(|undo| match undo {
                Undo::Content(file) => is_dir || file != path,
                Undo::Create(name) | Undo::Rename(_, name) | Undo::Remove(name, _) => {
                    !is_dir || parent(name) != path
                }
            });
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(|machine| {
            machine
                .pending
                .push(Undo::Rename(from.to_owned(), to.to_owned()));
            Disk.rename(from, to)
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.step(|machine| {
            let bytes = fs::read(path)?;
            machine
                .pending
                .push(Undo::Remove(path.to_owned(), Some(bytes)));
            Disk.remove_file(path)
        })
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.step(|machine| {
            machine.pending.push(Undo::Remove(path.to_owned(), None));
            Disk.remove_dir(path)
        })
    }
}
