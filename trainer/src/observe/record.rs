//! The record of a step: what every log of a run is made from.

use serde::{Deserialize, Deserializer, Serialize};

use super::Signs;

/// Version of [`Record`]. A field whose meaning changes raises it; a new one does not.
pub const RECORD_VERSION: u32 = 1;

/// All that is logged about a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`RECORD_VERSION`] of the program that wrote it. Logs of before it was written have version 1.
    #[serde(default = "first")]
    pub version: u32,
    /// 0-based number of the step in the whole run.
    pub step: u64,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// 1-based, as in the official log.
    pub epoch: u64,
    /// 0-based number of the step in its epoch.
    pub itr: u64,
    /// Mean over the global batch. Not finite in a step that was skipped for it: `null` in JSON.
    #[serde(deserialize_with = "null_is_nan")]
    pub loss: f64,
    /// The part of the loss that options of the method add; not there where the loss is the official one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regularizer: Option<f64>,
    /// Euclidean norm of the whole gradient.
    #[serde(default = "nan", deserialize_with = "null_is_nan")]
    pub gradient_norm: f64,
    /// True if the step moved nothing, because its loss or gradient was not finite.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skipped: bool,
    /// Context patches per image, mean over the groups.
    pub context_len: f64,
    /// Patches per target block, mean over the groups.
    pub target_len: f64,
    /// Learning rate of this step.
    pub lr: f64,
    /// Weight decay of this step.
    pub weight_decay: f64,
    /// Momentum of the target encoder's update.
    pub momentum: f64,
    /// Images in this step.
    pub images: u64,
    /// Samples of this step that stand in for a damaged one.
    pub replaced: u64,
    /// Wall time of the step, waiting included.
    pub step_ms: f64,
    /// Time in which the step waited for data.
    pub wait_ms: f64,
    /// Images per second of wall time.
    pub images_per_s: f64,
    /// Bytes that rank 0 has taken: of a GPU what torch has, on a CPU the memory of the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// How the ranks differ, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranks: Option<AcrossRanks>,
    /// Share of the images, in per cent, whose class a linear head beside the training told (`eval.online`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub online_top1: Option<f64>,
    /// The signs of collapse, where this step has a measurement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signs: Option<Signs>,
}

/// How the ranks of a step differ, as least, mean and most.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AcrossRanks {
    /// Time in which a rank waited for data.
    pub wait_ms: [f64; 3],
    /// Time after which a rank had only its last backward pass to do, in which each waits for the others.
    pub ready_ms: [f64; 3],
    /// The rank that was ready last.
    pub slowest: u32,
}

impl AcrossRanks {
    /// Sums up the seconds that each rank, in order, waited and took to be ready; there is at least one.
    pub fn of(ranks: impl Iterator<Item = (f64, f64)> + Clone) -> AcrossRanks {
        let spread = |values: &dyn Fn((f64, f64)) -> f64| {
            let values = ranks.clone().map(|rank| values(rank) * 1e3);
            let least = values.clone().fold(f64::INFINITY, f64::min);
            let most = values.clone().fold(0.0, f64::max);
            let mean = values.clone().sum::<f64>() / values.count() as f64;
            [least, mean, most]
        };
        let slowest = ranks.clone().enumerate();
        let slowest = slowest.max_by(|(_, one), (_, other)| one.1.total_cmp(&other.1));
        AcrossRanks {
            wait_ms: spread(&|rank| rank.0),
            ready_ms: spread(&|rank| rank.1),
            slowest: slowest.map_or(0, |(rank, _)| rank as u32),
        }
    }
}

/// Returns the version of rows that have none.
fn first() -> u32 {
    1
}

/// Returns what stands for a number that a row lacks.
fn nan() -> f64 {
    f64::NAN
}

/// Reads a number, or `null` for one that is not finite: JSON has none.
pub(super) fn null_is_nan<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Returns the record of a step of a made-up run.
    pub(in super::super) fn record(step: u64) -> Record {
        Record {
            version: RECORD_VERSION,
            step,
            total_steps: 20,
            epoch: step / 5 + 1,
            itr: step % 5,
            loss: 0.123456789 + step as f64,
            regularizer: None,
            gradient_norm: 0.5,
            skipped: false,
            context_len: 12.0,
            target_len: 9.5,
            lr: 1e-3,
            weight_decay: 0.04,
            momentum: 0.996,
            images: 32,
            replaced: 0,
            step_ms: 20.9,
            wait_ms: 0.5,
            images_per_s: 1600.0,
            memory: Some(3 << 29),
            ranks: None,
            signs: None,
            online_top1: None,
        }
    }

    #[test]
    fn the_slowest_rank_is_the_one_that_is_ready_last() {
        let ranks = [(0.1, 1.0), (0.5, 4.0), (0.0, 1.0)];
        let across = AcrossRanks::of(ranks.into_iter());
        assert_eq!(across.slowest, 1);
        assert_eq!(across.wait_ms, [0.0, 200.0, 500.0]);
        assert_eq!(across.ready_ms, [1000.0, 2000.0, 4000.0]);
    }

    #[test]
    fn rows_of_older_programs_are_read() {
        let row = serde_json::to_string(&record(3)).unwrap();
        let old = row
            .replace("\"version\":1,", "")
            .replace("\"gradient_norm\":0.5,", "");
        assert!(old.len() + 30 < row.len(), "{old}");
        let read: Record = serde_json::from_str(&old).unwrap();
        assert_eq!((read.version, read.step), (1, 3));
        assert!(read.gradient_norm.is_nan());
        assert_eq!(serde_json::from_str::<Record>(&row).unwrap(), record(3));
    }
}
