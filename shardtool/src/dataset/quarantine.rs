//! `quarantine.json`: damaged samples that are known, so that readers leave them out without meeting them.
//!
//! `shardtool verify --quarantine` writes it, and the loader heeds it. The manifest does not know of it.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::manifest::{Manifest, SplitRecord, hex};
use crate::{Error, disk, regular};

/// Name of the quarantine in a dataset's directory.
pub const QUARANTINE_FILE: &str = "quarantine.json";
/// The largest share of a split's samples that may be in quarantine, unless its file says otherwise.
pub const MOST_QUARANTINED: f64 = 0.01;
const FORMAT: &str = "ijepa-quarantine";
const VERSION: u32 = 1;
/// More than a file takes that lists every sample of a large dataset.
const MOST_BYTES: u64 = 1 << 30;

/// The damaged samples of a dataset that somebody has taken note of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quarantine {
    format: String,
    version: u32,
    /// The manifest's checksum.
    #[serde(with = "hex")]
    dataset: u64,
    /// The largest share of a split's samples that may be listed.
    pub at_most: f64,
    /// The samples.
    pub samples: Vec<Quarantined>,
}

/// A sample in quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// File name of its shard.
    pub shard: String,
    /// Its number inside the shard.
    pub sample: u32,
    /// What is wrong with it.
    pub cause: String,
    /// The day on which that was found, as 2026-11-26.
    pub date: String,
}

impl Quarantine {
    /// Makes the quarantine of a dataset.
    pub fn new(manifest: &Manifest, at_most: f64, samples: Vec<Quarantined>) -> Quarantine {
        Quarantine {
            format: FORMAT.to_owned(),
            version: VERSION,
            dataset: manifest.checksum(),
            at_most,
            samples,
        }
    }

    /// Reads and checks the quarantine in a dataset's directory; none if there is none.
    ///
    /// # Errors
    /// What the system says, or what is wrong with it: it is of another dataset, or lists too many samples.
    pub fn read(dir: &Path, manifest: &Manifest) -> Result<Option<Quarantine>, Error> {
        let path = dir.join(QUARANTINE_FILE);
        let bytes = match regular::read(&path, MOST_BYTES) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => read.map_err(Error::io(&path, "read"))?,
        };
        let quarantine: Quarantine =
            serde_json::from_slice(&bytes).map_err(|cause| Error::Json {
                path: path.clone(),
                cause,
            })?;
        quarantine.check(dir, manifest)?;
        Ok(Some(quarantine))
    }

    /// Checks that this is a quarantine of the dataset in `dir`, and of no more samples than may be.
    ///
    /// # Errors
    /// [`Error::Manifest`] with the key that is wrong.
    pub fn check(&self, dir: &Path, manifest: &Manifest) -> Result<(), Error> {
        let wrong = |key: &str, expected: String, got: String| {
            Err(Error::Manifest {
                path: dir.join(QUARANTINE_FILE),
                key: key.to_owned(),
                expected,
                got,
            })
        };
        if (self.format.as_str(), self.version) != (FORMAT, VERSION) {
            let got = format!("{:?}, version {}", self.format, self.version);
            return wrong("format", format!("{FORMAT:?}, version {VERSION}"), got);
        }
        if self.dataset != manifest.checksum() {
            let (expected, got) = (manifest.checksum(), self.dataset);
            let expected =
                format!("{expected:016x}, this dataset's; verify --quarantine lists anew");
            return wrong("dataset", expected, format!("{got:016x}"));
        }
        if !(0.0..=1.0).contains(&self.at_most) {
            return wrong("at_most", "0 to 1".to_owned(), self.at_most.to_string());
        }
        for split in &manifest.splits {
            let listed = self.ids(split).len();
            let most = self.at_most * split.samples as f64;
            if listed as f64 > most {
                let share = 100.0 * self.at_most;
                let expected = format!(
                    "at most {share} % of the {} of split {:?}; verify --quarantine --at-most SHARE permits more",
                    split.samples, split.name
                );
                return wrong("samples", expected, format!("{listed} of them"));
            }
        }
        Ok(())
    }

    /// Returns the numbers, in their split, of the samples that are in quarantine.
    pub fn ids(&self, split: &SplitRecord) -> HashSet<u64> {
        let mut first = 0;
        let mut shards = HashMap::new();
        for shard in &split.shards {
            shards.insert(&*shard.file, (first, shard.samples));
            first += u64::from(shard.samples);
        }
        let listed = self.samples.iter().filter_map(|listed| {
            let &(first, samples) = shards.get(&*listed.shard)?;
            (listed.sample < samples).then(|| first + u64::from(listed.sample))
        });
        listed.collect()
    }

    /// Writes the quarantine into a dataset's directory, or removes the one there if this one is empty.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, dir: &Path) -> Result<(), Error> {
        let path = dir.join(QUARANTINE_FILE);
        if self.samples.is_empty() {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                removed => removed.map_err(Error::io(&path, "remove")),
            };
        }
        let mut json = serde_json::to_string_pretty(self).expect("plain data becomes JSON");
        json.push('\n');
        disk::write(&path, json.as_bytes()).map_err(Error::io(&path, "write"))
    }
}

/// Returns today's date, in Greenwich, as 2026-11-26.
pub fn today() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    date(since.unwrap_or_default().as_secs() / 86_400)
}

/// Returns the date of a day after 1970-01-01.
fn date(days: u64) -> String {
    // Years that begin in March have their leap day at the end, and five months of 153 days each time.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    format!("{:04}-{month:02}-{day:02}", era * 400 + year + next)
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn days_have_dates() {
        for (days, text) in [
            (0, "1970-01-01"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (20_783, "2026-11-26"),
            (47_540, "2100-02-28"),
            (47_541, "2100-03-01"),
        ] {
            assert_eq!(date(days), text);
        }
    }
}
