//! What the variants showed, side by side.

use std::fmt;

use serde::Serialize;

use super::process::Answer;
use crate::cmd::bench::report::Subject;
use crate::cmd::bench::step::median;

/// All variants, measured.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// What was measured, and where.
    #[serde(flatten)]
    pub subject: Subject,
    /// The PyTorch that ran the official code.
    pub pytorch: String,
    /// Turns of each.
    pub rounds: u64,
    /// Timed steps of a turn.
    pub steps: u64,
    /// Whether a turn started and ended its process; otherwise all processes were there throughout.
    pub one_at_a_time: bool,
    /// The official code first, ours last.
    pub variants: Vec<Variant>,
}

/// What one variant showed.
#[derive(Clone, Debug, Serialize)]
pub struct Variant {
    /// What it is.
    pub name: &'static str,
    /// Why it has no result.
    pub failed: Option<String>,
    /// What the steps come to, without a failure.
    pub result: Option<Summary>,
    /// The most memory that its tensors had on the GPU, or that its process had resident, in bytes.
    pub peak_memory_bytes: Option<u64>,
    /// Of each round, the duration of each step in milliseconds.
    pub each_ms: Vec<Vec<f64>>,
}

/// What the steps of a variant come to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Median duration of a step in milliseconds.
    pub step_ms: f64,
    /// Images per second, from that.
    pub images_per_s: f64,
    /// Share of the machine's peak that the method's arithmetic comes to.
    pub mfu: Option<f64>,
    /// How many times as fast as the official code: the median of the rounds' ratios, so that what slows the machine
    /// for a while slows both.
    pub speedup: Option<f64>,
}

impl Variant {
    pub(super) fn new(name: &'static str) -> Variant {
        Variant {
            name,
            failed: None,
            result: None,
            peak_memory_bytes: None,
            each_ms: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, answer: Answer) {
        self.each_ms.push(answer.step_ms);
        self.peak_memory_bytes = self.peak_memory_bytes.max(answer.peak_memory_bytes);
    }

    /// Medians of the rounds, unless one is missing.
    fn medians(&self) -> Option<Vec<f64>> {
        let all = self.failed.is_none() && !self.each_ms.is_empty();
        all.then(|| {
            let rounds = self.each_ms.iter();
            rounds.map(|steps| median(steps.iter().copied())).collect()
        })
    }
}

impl Comparison {
    /// Tells whether ours and some variant of the official code were measured.
    pub fn is_one(&self) -> bool {
        match self.variants.split_last() {
            Some((ours, theirs)) => {
                ours.result.is_some() && theirs.iter().any(|variant| variant.result.is_some())
            }
            None => false,
        }
    }

    pub(super) fn summarise(&mut self) {
        let official = self.variants.first().and_then(Variant::medians);
        for variant in &mut self.variants {
            let Some(medians) = variant.medians() else {
                continue;
            };
            let step_ms = median(variant.each_ms.iter().flatten().copied());
            let images_per_s = self.subject.batch as f64 / step_ms * 1e3;
            variant.result = Some(Summary {
                step_ms,
                images_per_s,
                mfu: self.subject.mfu(images_per_s),
                speedup: official.as_ref().map(|official| {
                    let rounds = official.iter().zip(&medians);
                    median(rounds.map(|(official, own)| official / own))
                }),
            });
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{}", self.subject)?;
        writeln!(
            out,
            "{:<42} {:>9} {:>9} {:>7} {:>11} {:>10}",
            "variant", "images/s", "ms/step", "MFU", "peak memory", "× official"
        )?;
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        for variant in &self.variants {
            let Some(result) = variant.result else {
                let reason = variant.failed.as_deref().unwrap_or("not measured");
                writeln!(out, "{:<42} failed: {reason}", variant.name)?;
                continue;
            };
            let memory = variant.peak_memory_bytes;
            writeln!(
                out,
                "{:<42} {:>9.2} {:>9.1} {:>7} {:>11} {:>10}",
                variant.name,
                result.images_per_s,
                result.step_ms,
                or_none(result.mfu.map(|share| format!("{:.1} %", 100.0 * share))),
                or_none(
                    memory.map(|bytes| format!("{:.2} GiB", bytes as f64 / f64::from(1 << 30)))
                ),
                or_none(result.speedup.map(|speedup| format!("{speedup:.2}")))
            )?;
        }
        writeln!(
            out,
            "medians of {} round(s) of {} steps, in turns, {}; PyTorch {} runs the official code",
            self.rounds,
            self.steps,
            if self.one_at_a_time {
                "one process at a time"
            } else {
                "each in a process that waits for its turn"
            },
            self.pytorch
        )?;
        write!(
            out,
            "ours includes bringing the images to the device, the official code has them there; memory: {}",
            if self.one_at_a_time {
                "of tensors on the GPU"
            } else {
                "resident"
            }
        )?;
        if let Some(peak) = &self.subject.peak {
            let giga = peak.flops_per_s / 1e9;
            write!(out, "; MFU: of {giga:.0} GFLOP/s ({})", peak.what)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmd::bench::machine::Peak;

    fn comparison(rounds: [(&'static str, &[f64]); 3]) -> Comparison {
        Comparison {
            subject: Subject {
                model: "vit_tiny".to_owned(),
                patch_size: 8,
                image_size: 96,
                batch: 4,
                device: "cpu".to_owned(),
                dtype: "float32",
                threads: 1,
                context_len: 20.0,
                target_len: 10.0,
                flops_per_image: 1e9,
                peak: Some(Peak {
                    flops_per_s: 1e12,
                    what: "a guess".to_owned(),
                }),
            },
            pytorch: "2.11.0".to_owned(),
            rounds: 2,
            steps: 1,
            one_at_a_time: false,
            variants: rounds
                .map(|(name, ms)| Variant {
                    each_ms: ms.iter().map(|&ms| vec![ms]).collect(),
                    ..Variant::new(name)
                })
                .into(),
        }
    }

    #[test]
    fn ratios_are_of_the_same_round_and_a_failure_has_none() {
        // The second round took twice as long for everybody.
        let rounds = [
            ("official", &[10.0, 20.0][..]),
            ("half", &[5.0]),
            ("ours", &[4.0, 10.0]),
        ];
        let mut found = comparison(rounds);
        found.variants[1].failed = Some("out of memory".to_owned());
        found.summarise();
        let ours = found.variants[2].result.unwrap();
        assert_eq!(ours.step_ms, 7.0);
        assert_eq!(ours.speedup, Some(2.25));
        assert_eq!(ours.images_per_s, 4e3 / 7.0);
        assert_eq!(ours.mfu, Some(4e3 / 7.0 * 1e9 / 1e12));
        assert_eq!(found.variants[0].result.unwrap().speedup, Some(1.0));
        assert_eq!(found.variants[1].result, None);
        assert!(found.is_one());
        let text = found.to_string();
        let row = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(row("half").ends_with("failed: out of memory"), "{text}");
        assert!(row("ours").ends_with("2.25"), "{text}");
        assert!(row("ours").contains(" 57.1 % "), "{text}");
    }

    #[test]
    fn without_the_official_code_nothing_is_compared() {
        let rounds = [
            ("official", &[][..]),
            ("fused", &[]),
            ("ours", &[4.0, 10.0]),
        ];
        let mut found = comparison(rounds);
        for variant in &mut found.variants[..2] {
            variant.failed = Some("no".to_owned());
        }
        found.summarise();
        assert!(!found.is_one());
        assert_eq!(found.variants[2].result.unwrap().speedup, None);
    }
}
