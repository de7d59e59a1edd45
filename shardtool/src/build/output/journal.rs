//! What an unfinished build has done, so that the next one goes on from there: `journal.jsonl` among its shards.
//!
//! The first line says what is being built. Each further one is a shard that is complete and on the disk, with all that
//! became of the files up to its last. A shard counts only after its line is written; the next build believes a line
//! only if the shard is as it says, to the last payload.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::super::{Error, Options, Report};
use super::staging::Staging;
use crate::dataset::{CodecOptions, Order, ShardRecord, SourceRecord};
use crate::format::{Shard, VERSION};
use crate::source::Source;
use crate::{Error as DatasetError, Escaped, disk};

/// Name of the journal in the directory being written.
pub const JOURNAL_FILE: &str = "journal.jsonl";

/// What a build builds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Head {
    program: String,
    version: u32,
    source: SourceRecord,
    codec: CodecOptions,
    order: Order,
    /// The listing's identity.
    identity: u64,
    /// What the user named, with their full paths; quoted, since a path need not be text.
    places: Vec<String>,
    /// Nanoseconds since 1970 at which the source was listed.
    began: u64,
}

/// A finished shard, and what became of the files of its split since the one before it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Done {
    /// The split.
    pub split: String,
    /// The shard.
    pub shard: ShardRecord,
    /// How many files of the split were dealt with since the shard before.
    pub files: u64,
    /// What became of them.
    pub report: Report,
    /// Bytes of the payloads.
    pub payload_bytes: u64,
    /// Numbers of classes and how many images were kept of each.
    pub of_class: Vec<(u32, u64)>,
}

/// A journal being written.
pub struct Journal {
    file: File,
    done: Vec<Done>,
}

impl Journal {
    /// Opens the journal of an unfinished build of the same thing, and removes all that it does not vouch for; or
    /// begins one. `codec_data` are what shards must hold.
    pub fn open(
        staging: &Staging,
        source: &Source,
        options: &Options,
        codec_data: &[u8],
    ) -> Result<Journal, Error> {
        let path = staging.dir().join(JOURNAL_FILE);
        let listing = source.listing();
        let head = Head {
            program: env!("CARGO_PKG_VERSION").to_owned(),
            version: VERSION,
            source: listing.record.clone(),
            codec: options.codec.clone(),
            order: listing.order,
            identity: listing.identity,
            places: source
                .places()
                .iter()
                .map(|place| fs::canonicalize(place).unwrap_or(place.clone()))
                .map(|place| format!("{place:?}"))
                .collect(),
            began: nanoseconds(options.began),
        };
        let (began, done) = read(&path, &head, listing.newest);
        let began = began.filter(|_| !done.is_empty());
        let done = vouched_for(staging.dir(), done, codec_data);
        let mut kept: Vec<String> = done.iter().map(|done| done.shard.file.clone()).collect();
        kept.push(JOURNAL_FILE.to_owned());
        staging.keep_only(&kept)?;
        // Written anew, since its end may be torn.
        let head = Head {
            began: began.unwrap_or(head.began),
            ..head
        };
        let mut journal = Journal {
            file: disk::create(&path).map_err(DatasetError::io(&path, "create"))?,
            done: Vec::new(),
        };
        journal.write(staging, &head)?;
        for done in done {
            journal.append(staging, done)?;
        }
        Ok(journal)
    }

    /// Returns what had been done before.
    pub fn done(&self) -> &[Done] {
        &self.done
    }

    /// Notes a finished shard.
    pub fn append(&mut self, staging: &Staging, done: Done) -> Result<(), Error> {
        self.write(staging, &done)?;
        self.done.push(done);
        Ok(())
    }

    fn write(&mut self, staging: &Staging, value: &impl Serialize) -> Result<(), Error> {
        let mut line = serde_json::to_string(value).expect("plain data");
        line.push('\n');
        let written = self
            .file
            .write_all(line.as_bytes())
            .and_then(|()| disk::sync(&self.file));
        written.map_err(DatasetError::io(&staging.dir().join(JOURNAL_FILE), "write"))?;
        Ok(())
    }
}

/// Reads a journal, if it is of what `head` builds and nothing in the source has changed since. Returns when that build
/// began.
fn read(path: &Path, head: &Head, newest: Option<SystemTime>) -> (Option<u64>, Vec<Done>) {
    let Ok(file) = File::open(path) else {
        return (None, Vec::new());
    };
    let mut lines = BufReader::new(file).lines().map_while(Result::ok);
    let first = lines
        .next()
        .and_then(|line| serde_json::from_str::<Head>(&line).ok());
    let Some(first) = first else {
        return (None, Vec::new());
    };
    let same = Head {
        began: head.began,
        ..first.clone()
    } == *head;
    let changed = newest.is_some_and(|newest| nanoseconds(newest) > first.began);
    if !same || changed {
        return (None, Vec::new());
    }
    let done = lines
        .map_while(|line| serde_json::from_str(&line).ok())
        .collect();
    (Some(first.began), done)
}

/// Returns the lines whose shards are what they say, without those of a split that come after another that is not.
fn vouched_for(dir: &Path, lines: Vec<Done>, codec_data: &[u8]) -> Vec<Done> {
    let mut kept: Vec<Done> = Vec::new();
    let mut ended: Vec<String> = Vec::new();
    for done in lines {
        if ended.contains(&done.split) {
            continue;
        }
        match check(&dir.join(&done.shard.file), &done, codec_data) {
            Ok(()) => kept.push(done),
            Err(reason) => {
                tracing::warn!("{}: made again: {reason}", Escaped::new(&done.shard.file));
                ended.push(done.split);
            }
        }
    }
    kept
}

/// Checks all of a shard.
fn check(path: &Path, done: &Done, codec_data: &[u8]) -> Result<(), String> {
    if disk::is_link(path) {
        return Err("a link".to_owned());
    }
    let shard = Shard::open(path).map_err(|error| error.to_string())?;
    let got = (shard.len(), shard.bytes(), shard.checksum());
    if got != (done.shard.samples, done.shard.bytes, done.shard.checksum) {
        return Err("not the shard that was written".to_owned());
    }
    if shard.codec_data() != codec_data {
        return Err("other tables".to_owned());
    }
    let mut buffer = Vec::new();
    (0..shard.len())
        .try_for_each(|i| shard.read(i, &mut buffer).map(drop))
        .map_err(|error| error.to_string())
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    since.as_nanos() as u64
}

/// Returns the names of the files that an unfinished build has finished, its journal first; nothing if it has none.
pub fn finished(dir: &Path) -> Vec<String> {
    let text = fs::read_to_string(dir.join(JOURNAL_FILE)).unwrap_or_default();
    let lines = text
        .lines()
        .skip(1)
        .map_while(|line| serde_json::from_str::<Done>(line).ok());
    let shards: Vec<String> = lines.map(|done| done.shard.file).collect();
    if shards.is_empty() {
        shards
    } else {
        [vec![JOURNAL_FILE.to_owned()], shards].concat()
    }
}
