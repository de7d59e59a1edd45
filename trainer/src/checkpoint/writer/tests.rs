//! When checkpoints are due, and what a full disk does to them.

use std::path::Path;

use serde_json::Map;
use tch::Tensor;

use super::super::files::{Content, Disk, Files};
use super::super::verify;
use super::*;

/// A disk of so many bytes below a directory, whose files are not waited for.
#[derive(Debug)]
struct Small {
    folder: std::path::PathBuf,
    bytes: u64,
}

impl Small {
    fn used(&self) -> u64 {
        let mut folders = vec![self.folder.clone()];
        let mut used = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                let meta = entry.metadata().unwrap();
                if meta.is_dir() {
                    folders.push(entry.path());
                } else {
                    used += meta.len();
                }
            }
        }
        used
    }
}

impl Files for Small {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        Disk.create_dir(path)
    }

    fn write(&self, path: &Path, content: Content<'_>) -> io::Result<()> {
        let mut bytes = Vec::new();
        content(&mut bytes)?;
        if self.used() + bytes.len() as u64 > self.bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        std::fs::write(path, bytes)
    }

    fn sync(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        Disk.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        Disk.remove_dir(path)
    }
}

/// Returns tensors of 40 kB in all.
fn parts() -> Parts {
    let tensor = || Tensor::zeros([2500], (tch::Kind::Float, tch::Device::Cpu));
    super::super::PARTS
        .iter()
        .map(|part| (*part, vec![("w".to_owned(), tensor())]))
        .collect()
}

/// Returns a writer with a disk of so many bytes.
fn writer(folder: &Path, bytes: u64, when: Checkpoint) -> Writer {
    let small = Small {
        folder: folder.to_owned(),
        bytes,
    };
    let store = Store::new(folder, "jepa").on(Arc::new(small));
    Writer::new(store, when, 0, &parts()).unwrap()
}

fn save(writer: &mut Writer, step: u64) {
    let state = State::new(step, 10, Map::new());
    writer.save(state, &parts(), || Ok(Vec::new())).unwrap();
    writer.settle().unwrap();
}

fn steps(writer: &Writer) -> Vec<u64> {
    let list = writer.store.list().unwrap();
    list.into_iter().map(|(step, _)| step).collect()
}

#[test]
fn a_full_disk_is_given_room_by_what_the_new_checkpoint_supersedes() {
    let folder = tempfile::tempdir().unwrap();
    let when = Checkpoint {
        keep_every_epochs: 2,
        ..Checkpoint::default()
    };
    // Room for three of them, of 41 kB, and not for a fourth.
    let mut writer = writer(folder.path(), 150_000, when);
    for (step, left) in [
        (20, &[20][..]),
        (21, &[20, 21]),
        (22, &[20, 21, 22]),
        (23, &[20, 22, 23]),
        (24, &[20, 23, 24]),
    ] {
        save(&mut writer, step);
        assert_eq!(steps(&writer), left, "20 is kept for good");
        assert!(writer.has_written(step));
    }
}

#[test]
fn the_last_whole_checkpoint_is_never_removed_for_room() {
    let folder = tempfile::tempdir().unwrap();
    let mut small = writer(folder.path(), 90_000, Checkpoint::default());
    save(&mut small, 1);
    save(&mut small, 2);
    // The latest is damaged: the one before it is all there is.
    std::fs::write(small.store.path(2).join("encoder.safetensors"), "").unwrap();
    save(&mut small, 3);
    assert_eq!(steps(&small), [1, 2], "the third did not fit");
    verify(&small.store.path(1)).unwrap();
    // One alone stays, whatever is to be kept.
    let folder = tempfile::tempdir().unwrap();
    let when = Checkpoint {
        keep: 1,
        ..Checkpoint::default()
    };
    let mut tiny = writer(folder.path(), 60_000, when);
    save(&mut tiny, 1);
    save(&mut tiny, 2);
    assert_eq!(steps(&tiny), [1]);
}

#[test]
fn checkpoints_of_very_short_epochs_are_minutes_apart() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = writer(folder.path(), u64::MAX, Checkpoint::default());
    let minutes = |minutes: u64| Instant::now().checked_sub(Duration::from_secs(60 * minutes));
    // Epochs of one step: every step would be one, and every 50th kept for good.
    assert!((1..=200).all(|step| !writer.is_due(step, 1)));
    writer.last.0 = minutes(2).expect("the machine has been up for a while");
    let due: Vec<u64> = (45..=55).filter(|step| writer.is_due(*step, 1)).collect();
    assert_eq!(
        due,
        [45, 46, 47, 48, 49, 51, 52, 53, 54, 55],
        "50 would be kept for good"
    );
    writer.last.0 = Instant::now();
    writer.kept = minutes(6).expect("the machine has been up for a while");
    let due: Vec<u64> = (45..=105).filter(|step| writer.is_due(*step, 1)).collect();
    assert_eq!(due, [50, 100]);
    // Without floors every epoch counts.
    writer.when.min_minutes = 0.0;
    writer.when.keep_min_minutes = 0.0;
    assert!((1..=200).all(|step| writer.is_due(step, 1)));
}

#[test]
fn a_checkpoint_needs_no_descriptor_but_those_in_reserve() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = writer(folder.path(), u64::MAX, Checkpoint::default());
    assert_eq!(writer.reserve.len(), RESERVE);
    let state = State::new(1, 10, Map::new());
    let reserved = writer.save(state, &parts(), || Ok(Vec::new())).unwrap();
    assert!(
        reserved.is_some() && writer.reserve.is_empty(),
        "free while it is written"
    );
    writer.settle().unwrap();
    assert_eq!(writer.reserve.len(), RESERVE);
}
