//! What a local copy of shards was made of: samples that are damaged in the copy are read from there.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use shardtool::{Escaped, Sample, Shard};

/// The data set that was copied. Its shards are opened when one of their copies is found damaged.
#[derive(Debug)]
pub(super) struct Original {
    dir: PathBuf,
    shards: Mutex<HashMap<PathBuf, Opened>>,
}

#[derive(Debug)]
struct Opened {
    /// None if it is not there, or not the one that was copied.
    shard: Option<Arc<Shard>>,
    /// Whether its copy was removed.
    is_renewed: bool,
}

impl Original {
    pub(super) fn new(dir: &Path) -> Original {
        Original {
            dir: dir.to_owned(),
            shards: Mutex::default(),
        }
    }

    /// Returns the shard of which that of this sample is a copy, if it can be opened.
    pub(super) fn shard(&self, copied: &Sample<'_>) -> Option<Arc<Shard>> {
        let copy = copied.shard();
        let opened = self.locked(copy, |opened| opened.shard.clone());
        if opened.is_none() {
            tracing::debug!("{}: has no original", Escaped::new(copy.path()));
        }
        opened
    }

    /// Removes the damaged copy of a shard, which is open and stays so: the next start makes it anew. Called when a
    /// sample could be read from the original, so that there is something to make it of.
    pub(super) fn renew(&self, copied: &Sample<'_>, damage: &shardtool::Error) {
        let copy = copied.shard();
        if self.locked(copy, |opened| {
            std::mem::replace(&mut opened.is_renewed, true)
        }) {
            return;
        }
        // Another loader that was started since may have made it anew already.
        let removed = if copy.is_at_its_path() {
            fs::remove_file(copy.path())
                .map_or_else(|error| format!(" ({error})"), |()| String::new())
        } else {
            String::new()
        };
        tracing::warn!(
            "{damage}; such samples of this shard are read from {}, and the next start copies it again{removed}",
            Escaped::new(&self.dir)
        );
    }

    fn locked<T>(&self, copy: &Shard, work: impl FnOnce(&mut Opened) -> T) -> T {
        let mut shards = self.shards.lock().expect("nothing panics while holding it");
        let opened = shards.entry(copy.path().to_owned()).or_insert_with(|| {
            let name = copy.path().file_name().unwrap_or_default();
            let shard = Shard::open_beside(&self.dir.join(name), Some(copy)).ok();
            Opened {
                shard: shard
                    .filter(|shard| shard.checksum() == copy.checksum())
                    .map(Arc::new),
                is_renewed: false,
            }
        });
        work(opened)
    }
}
