//! What a run directory holds beside its log: configuration, checkpoints, evaluations, a picture of the masks.
//!
//! Whatever cannot be read is named in a note, and the rest is shown.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};
use shardtool::{Escaped, regular};

use super::{EVALUATIONS, thin};
use crate::checkpoint::{self, State, Store};
use crate::run::PARAMS;

/// The names that a picture of crops and masks may have, as `loader show --out` writes it.
const PICTURES: [&str; 2] = ["crops.png", "masks.png"];
/// The most bytes that are read of each.
const MOST_CONFIG: u64 = 1 << 20;
const MOST_EVALUATIONS: u64 = 16 << 20;
const MOST_PICTURE: u64 = 4 << 20;
/// The most checkpoints that are looked into, the latest ones.
const MOST_CHECKPOINTS: usize = 100;
/// The most keys of a configuration, and characters of a value, that are shown.
const MOST_KEYS: usize = 1000;
const MOST_TEXT: usize = 1000;

/// What a run directory holds beside its log.
#[derive(Debug, Default)]
pub(super) struct Facts {
    config: BTreeMap<String, String>,
    environment: Map<String, Value>,
    checkpoints: Vec<Value>,
    turns: Vec<Value>,
    picture: Option<String>,
    scores: BTreeMap<String, Vec<(u64, f64)>>,
    notes: Vec<String>,
}

impl Facts {
    /// Reads what there is in a run directory; nothing of a log that stands alone.
    pub(super) fn read(run: &Path) -> Facts {
        let mut facts = Facts::default();
        if run.is_dir() {
            facts.read_config(run);
            facts.read_checkpoints(run);
            facts.read_evaluations(run);
            facts.read_picture(run);
        }
        facts
    }

    /// Returns them for the page.
    pub(super) fn to_value(&self) -> Value {
        let scores = self.scores.iter().map(|(name, points)| {
            let name = format!("scores/{}", Escaped::new(name));
            (name, thin::curve(points))
        });
        json!({
            "config": self.config,
            "environment": self.environment,
            "checkpoints": self.checkpoints,
            "turns": self.turns,
            "picture": self.picture,
            "scores": scores.collect::<Map<_, _>>(),
            "notes": self.notes,
        })
    }

    fn note(&mut self, path: &Path, what: impl std::fmt::Display) {
        let what = what.to_string();
        self.notes
            .push(format!("{}: {}", Escaped::new(path), Escaped::new(&what)));
    }

    /// Reads a file that need not be there.
    fn read_file(&mut self, path: &Path, most: u64) -> Option<Vec<u8>> {
        match regular::read(path, most) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                self.note(path, error);
                None
            }
        }
    }

    fn read_config(&mut self, run: &Path) {
        let path = run.join(PARAMS);
        let Some(bytes) = self.read_file(&path, MOST_CONFIG) else {
            return;
        };
        let text = String::from_utf8_lossy(&bytes);
        match serde_saphyr::from_str::<Value>(&text) {
            Ok(config) => flatten("", &config, &mut self.config),
            Err(error) => self.note(&path, error),
        }
    }

    fn read_checkpoints(&mut self, run: &Path) {
        let mut found = match Store::new(run, "").list() {
            Ok(found) => found,
            Err(error) => return self.note(run, error),
        };
        let mut latest: Option<State> = None;
        found.drain(..found.len().saturating_sub(MOST_CHECKPOINTS));
        for (_, path) in found {
            match checkpoint::read_state(&path) {
                Ok(state) => {
                    let bytes: u64 = state.files.values().map(|file| file.bytes).sum();
                    let name = path.file_name().unwrap_or_default();
                    self.checkpoints.push(json!({
                        "name": Escaped::new(name).to_string(),
                        "step": state.step,
                        "epoch": state.epoch,
                        "loss": state.loss,
                        "bytes": bytes,
                        "trainer": shown(&state.trainer),
                    }));
                    latest = Some(state);
                }
                Err(error) => self.note(&path, error),
            }
        }
        let Some(state) = latest else { return };
        let hash = |sum: Option<u64>| sum.map(|sum| format!("{sum:016x}"));
        let all = json!({
            "trainer": shown(&state.trainer),
            "images of a step": state.global_batch,
            "steps of an epoch": state.epoch_len,
            "threads of libtorch": state.threads,
            "checksum of the shards": hash(state.manifest_checksum),
            "hash of the sampling": hash(state.sampling_hash),
            "layout of checkpoints": state.version,
        });
        let known = all.as_object().cloned().unwrap_or_default();
        let known = known.into_iter().filter(|(_, value)| !value.is_null());
        self.environment = known.collect();
        for turn in &state.lineage {
            let changes: Vec<String> = turn
                .changes
                .iter()
                .map(|change| shown(&change.to_string()))
                .collect();
            self.turns.push(
                json!({"step": turn.step, "from": shown(&turn.checkpoint), "changes": changes}),
            );
        }
    }

    fn read_evaluations(&mut self, run: &Path) {
        let path = run.join(EVALUATIONS);
        let Some(bytes) = self.read_file(&path, MOST_EVALUATIONS) else {
            return;
        };
        let (mut foreign, mut scores) = (0_u64, BTreeMap::<String, BTreeMap<u64, f64>>::new());
        for line in bytes.split(|byte| *byte == b'\n') {
            if line.trim_ascii().is_empty() {
                continue;
            }
            let row: Value = serde_json::from_slice(line).unwrap_or_default();
            let step = row.get("step").and_then(Value::as_u64);
            let found = row.get("scores").and_then(Value::as_object);
            let (Some(step), Some(found)) = (step, found) else {
                foreign += 1;
                continue;
            };
            for (name, score) in found {
                let has_room = scores.len() < 64 || scores.contains_key(name);
                if let Some(score) = score.as_f64().filter(|_| has_room) {
                    scores.entry(name.clone()).or_default().insert(step, score);
                }
            }
        }
        if foreign > 0 {
            self.note(&path, format_args!("{foreign} line(s) are no evaluations"));
        }
        let points = scores.into_iter();
        self.scores = points
            .map(|(name, points)| (name, points.into_iter().collect()))
            .collect();
    }

    fn read_picture(&mut self, run: &Path) {
        for name in PICTURES {
            let path = run.join(name);
            let Some(bytes) = self.read_file(&path, MOST_PICTURE) else {
                continue;
            };
            if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
                let picture = format!("data:image/png;base64,{}", BASE64.encode(&bytes));
                self.picture = Some(picture);
                return;
            }
            self.note(&path, "no PNG file");
        }
    }
}

/// Returns text as it may be shown: no control characters, and not without end.
pub(super) fn shown(text: &str) -> String {
    let mut shown: String = Escaped::new(text).to_string();
    if let Some((end, _)) = shown.char_indices().nth(MOST_TEXT) {
        shown.truncate(end);
        shown.push('…');
    }
    shown
}

/// Puts the values of a configuration under their keys with sections.
fn flatten(name: &str, value: &Value, out: &mut BTreeMap<String, String>) {
    match value {
        // Maps of a value, as sizes by epoch, have no names for keys.
        Value::Object(members) if !members.keys().all(|key| key.parse::<u64>().is_ok()) => {
            for (key, value) in members {
                let name = match name {
                    "" => key.clone(),
                    name => format!("{name}.{key}"),
                };
                flatten(&name, value, out);
            }
        }
        _ if out.len() >= MOST_KEYS => {}
        Value::String(text) => drop(out.insert(shown(name), shown(text))),
        other => drop(out.insert(shown(name), shown(&other.to_string()))),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_there_is_read_and_the_rest_is_noted() {
        let run = tempfile::tempdir().unwrap();
        let at = |name: &str| run.path().join(name);
        fs::write(
            at(PARAMS),
            "data:\n  crop_size:\n    0: 64\n    5: 96\n  x: [1, 2]\nlogging:\n  write_tag: \"a\\e[2J\"\n",
        )
        .unwrap();
        fs::write(
            at(EVALUATIONS),
            "{\"step\":5,\"scores\":{\"knn\":0.5,\"bad\":null}}\n\nnonsense\n{\"step\":9,\"scores\":{\"knn\":0.75}}\n",
        )
        .unwrap();
        fs::write(at("crops.png"), "no picture").unwrap();
        fs::write(at("masks.png"), b"\x89PNG\r\n\x1a\nrest").unwrap();
        fs::create_dir_all(at("checkpoints/jepa-step00000004")).unwrap();
        let facts = Facts::read(run.path());
        assert_eq!(facts.config["data.crop_size"], "{\"0\":64,\"5\":96}");
        assert_eq!(facts.config["data.x"], "[1,2]");
        assert_eq!(facts.config["logging.write_tag"], "a\\u{1b}[2J");
        assert_eq!(facts.scores["knn"], [(5, 0.5), (9, 0.75)]);
        let picture = facts.picture.clone().unwrap();
        assert_eq!(picture, "data:image/png;base64,iVBORw0KGgpyZXN0");
        let notes = facts.notes.join("\n");
        for said in [
            "crops.png: no PNG file",
            "1 line(s) are no",
            "checkpoint.json",
        ] {
            assert!(notes.contains(said), "{notes}");
        }
        assert!(Facts::read(&at(PARAMS)).to_value()["config"] == json!({}));
    }

    #[test]
    fn a_configuration_that_is_none_is_a_note() {
        let run = tempfile::tempdir().unwrap();
        fs::write(run.path().join(PARAMS), "a: [\n").unwrap();
        let facts = Facts::read(run.path());
        assert_eq!((facts.config.len(), facts.notes.len()), (0, 1));
    }
}
