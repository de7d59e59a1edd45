//! Which keys may differ between a checkpoint and the run that goes on from it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Checkpoint, Config, Error, Eval, Logging, Meta, Method, Optimization, Trainer};
use crate::checkpoint::Change;

/// What becomes of a run whose key differs from that of the checkpoint it goes on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnResume {
    /// It goes on, with the same results.
    Free,
    /// It goes on where the key is allowed to differ, with other results.
    Allowed,
    /// It cannot: networks of other sizes take no weights of these.
    Fixed,
}

/// The keys of each section that may differ without being asked for.
const FREE: [(&str, &[&str]); 10] = [
    ("checkpoint", Checkpoint::FREE_ON_RESUME),
    ("data", ::loader::config::Data::FREE_ON_RESUME),
    ("eval", Eval::FREE_ON_RESUME),
    ("loader", ::loader::config::Loader::FREE_ON_RESUME),
    ("logging", Logging::FREE_ON_RESUME),
    ("mask", ::loader::config::Mask::FREE_ON_RESUME),
    ("meta", Meta::FREE_ON_RESUME),
    ("method", Method::FREE_ON_RESUME),
    ("optimization", Optimization::FREE_ON_RESUME),
    ("trainer", Trainer::FREE_ON_RESUME),
];

/// The keys that decide the sizes of the networks.
const FIXED: [(&str, &[&str]); 2] = [
    ("mask", ::loader::config::Mask::FIXED_ON_RESUME),
    ("meta", Meta::FIXED_ON_RESUME),
];

/// The key under which other data than before are allowed. Its value may differ: shards can be moved.
pub const DATA: &str = "loader.shards";
/// The key of the images of a step, which follow from others where it is not set.
pub const GLOBAL_BATCH: &str = "optimization.global_batch";

impl OnResume {
    /// Returns what becomes of a run in which `key` differs.
    pub fn of(key: &str) -> OnResume {
        if is_among(&FIXED, key) {
            OnResume::Fixed
        } else if is_among(&FREE, key) {
            OnResume::Free
        } else {
            OnResume::Allowed
        }
    }
}

impl Config {
    /// Returns each key in which `self` and `earlier` would give different results.
    ///
    /// The images of a step are left out: they depend on the number of ranks as well.
    pub fn differences(&self, earlier: &Config) -> Vec<Change> {
        let (mine, mut theirs) = (self.leaves(), earlier.leaves());
        let differing = mine.into_iter().filter_map(|(key, now)| {
            // Defaults are filled in on both sides, so that a key is missing on neither.
            let then = theirs.remove(&key).unwrap_or_default();
            let differs =
                then != now && key != GLOBAL_BATCH && OnResume::of(&key) != OnResume::Free;
            differs.then_some(Change { key, then, now })
        });
        differing.collect()
    }

    /// Refuses `keys` that are none, or that no permission makes differ.
    ///
    /// # Errors
    /// The first of them.
    pub fn check_allowed(&self, keys: &[String]) -> Result<(), Error> {
        let known = self.leaves();
        for key in keys {
            let reason = if !known.contains_key(key) {
                let section = key.split('.').next().unwrap_or_default();
                let inside = |known: &&String| known.starts_with(&format!("{section}."));
                let near = Vec::from_iter(known.keys().filter(inside).map(String::as_str));
                match near.is_empty() {
                    true => "is no key; one has a section, as optimization.epochs".to_owned(),
                    false => format!("is no key; those of this section are {}", near.join(", ")),
                }
            } else if OnResume::of(key) == OnResume::Fixed {
                "decides the sizes of the networks, and a checkpoint fits no others".to_owned()
            } else {
                continue;
            };
            return Err(Error::Allow {
                key: key.clone(),
                reason,
            });
        }
        Ok(())
    }

    /// Returns every key of every section with its value, which may be a list or a map.
    fn leaves(&self) -> BTreeMap<String, Value> {
        let mut leaves = BTreeMap::new();
        for (section, keys) in self.resolved() {
            let Value::Object(keys) = keys else {
                unreachable!("every section is a struct");
            };
            let keys = keys.into_iter();
            leaves.extend(keys.map(|(key, value)| (format!("{section}.{key}"), value)));
        }
        leaves
    }
}

/// Tells whether `key` is in `table`.
fn is_among(table: &[(&str, &[&str])], key: &str) -> bool {
    let (section, name) = key.split_once('.').unwrap_or((key, ""));
    table
        .iter()
        .any(|(other, names)| *other == section && names.contains(&name))
}
