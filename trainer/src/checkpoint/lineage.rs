//! The history of a run that went on otherwise than it began.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shardtool::Escaped;

/// A turn in the history of a run: it went on under other values, or in another directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// Steps done by then.
    pub step: u64,
    /// The checkpoint that it went on from.
    pub checkpoint: String,
    /// Steps of an epoch up to there.
    pub epoch_len: u64,
    /// What changed there.
    pub changes: Vec<Change>,
}

/// A key of the configuration with the values that it had and has. Displayed, it is a line of a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The key with its section.
    pub key: String,
    /// The value before.
    pub then: Value,
    /// The value since.
    pub now: Value,
}

impl fmt::Display for Change {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [now, then] = [&self.now, &self.then].map(Value::to_string);
        let (now, then) = (Escaped::new(&now), Escaped::new(&then));
        write!(out, "{}: {now} now, {then} then", Escaped::new(&self.key))
    }
}

/// Returns the steps of the checkpoints at which the length of epochs changed, with the length before; then the one
/// since, `now`.
pub fn epoch_lengths(lineage: &[Turn], now: u64) -> Vec<(u64, u64)> {
    let turns = lineage.iter().map(|turn| (turn.step, turn.epoch_len));
    turns.chain([(u64::MAX, now)]).collect()
}
