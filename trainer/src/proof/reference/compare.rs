//! Measuring differences and judging them.
//!
//! The yardstick is torch itself: `meta.json` says how far its own float32 lies from float64, tensor by tensor. Two
//! correct float32 implementations differ by about as much, in another direction; an error in the method differs by
//! orders of magnitude more. So a difference passes up to [`MULTIPLE`] times that error, which counts as at least one
//! rounding of the tensor's largest element. The gradient of key biases is nothing but rounding noise, of which a few
//! numbers are recorded; they pass up to [`KEYS_MULTIPLE`] times the largest of those.
//!
//! Under autocast to bfloat16 the reference is still the float32 run, and the measure the relative l2 norm of the
//! difference in roundings to bfloat16, with bounds of its own: [`super::yardstick::autocast`].

use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::set::Statistics;

/// How many times torch's own float32 error a difference may reach.
pub const MULTIPLE: f64 = 4.0;

/// How many times that error it may reach in the key third of qkv.bias, and in what follows from its gradient.
pub const KEYS_MULTIPLE: f64 = 8.0;

/// A rounding to bfloat16, relative.
pub const BF16_ROUNDING: f64 = 1.0 / 256.0;

/// Half a unit in the last place of 1.0, relative: one rounding to float32.
pub const ROUNDING: f64 = 1.0 / (1u64 << 24) as f64;

/// Torch's own error in one tensor, which a difference is measured by.
#[derive(Clone, Copy, Debug)]
pub enum Own {
    /// The error of float32.
    Float32 {
        /// In its worst element.
        max_abs: f64,
        /// Root mean square, where it was recorded.
        rms: Option<f64>,
    },
    /// The error of autocast to bfloat16, in roundings to it.
    Autocast {
        /// How far from float32 it may be, as a relative l2 norm.
        allowed: f64,
    },
    /// Noise, which says nothing.
    Noise,
}

impl Own {
    /// Makes an error of float32 of which only the largest is known.
    pub fn at_most(max_abs: f64) -> Self {
        Self::Float32 { max_abs, rms: None }
    }
}

/// Differences of one kind, over many tensors or numbers.
#[derive(Serialize, Clone, Debug)]
pub struct Group {
    /// What was compared.
    pub name: String,
    /// How many tensors or numbers.
    pub count: usize,
    /// The largest absolute difference.
    pub max_abs: f64,
    /// The largest absolute difference of a tensor over its largest element.
    pub max_rel: f64,
    /// The largest difference over torch's own error there; under autocast in roundings to bfloat16.
    pub ratio: f64,
    /// The tensor in which that was.
    pub worst: String,
    /// How large the ratio may be; 0 where equality is asked for.
    pub allowed: f64,
    /// Passed: the ratio is not larger.
    pub pass: bool,
}

impl Group {
    /// Makes an empty group whose differences may be `MULTIPLE` times torch's own error.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            count: 0,
            max_abs: 0.0,
            max_rel: 0.0,
            ratio: 0.0,
            worst: String::new(),
            allowed: MULTIPLE,
            pass: true,
        }
    }

    /// Makes an empty group under autocast, for numbers: their error counts in roundings to bfloat16.
    pub fn autocast(name: impl Into<String>, allowed: f64) -> Self {
        Self {
            allowed,
            ..Self::new(name)
        }
    }

    /// Makes an empty group of key biases.
    pub fn keys(name: impl Into<String>) -> Self {
        Self {
            allowed: KEYS_MULTIPLE,
            ..Self::new(name)
        }
    }

    /// Makes an empty group that passes only if everything is equal.
    pub fn exact(name: impl Into<String>) -> Self {
        Self {
            allowed: 0.0,
            ..Self::new(name)
        }
    }

    /// Compares two tensors of the same shape: in float32 in the worst element and, where torch's error is known, in
    /// the mean; under autocast in the mean.
    pub fn tensors(&mut self, name: &str, ours: &Tensor, reference: &Tensor, own: Own) {
        let ours = ours
            .detach()
            .to_device(reference.device())
            .to_kind(Kind::Double);
        let reference = reference.to_kind(Kind::Double);
        let difference = ours - &reference;
        let largest = |tensor: &Tensor| tensor.abs().max().double_value(&[]);
        let mean = |tensor: &Tensor| tensor.square().mean(None).sqrt().double_value(&[]);
        let ratio = match own {
            Own::Noise => return,
            Own::Float32 { max_abs, rms } => {
                let worst = ratio(largest(&difference), max_abs, largest(&reference));
                match rms {
                    None => worst,
                    Some(rms) => worse(worst, ratio(mean(&difference), rms, mean(&reference))),
                }
            }
            Own::Autocast { allowed } => {
                self.allowed = allowed;
                match mean(&difference) {
                    0.0 => 0.0,
                    difference => difference / (mean(&reference) * BF16_ROUNDING),
                }
            }
        };
        self.note(name, largest(&difference), largest(&reference), ratio);
    }

    /// Compares two series of numbers in the root mean square of their relative differences; `own` is that of torch's
    /// errors in it, recorded from a few of them. A single number's error is small by luck too often to be a measure.
    pub fn series(&mut self, names: &[String], ours: &[f64], reference: &[f64], own: f64) {
        let relative = |(ours, reference): (&f64, &f64)| (ours / reference - 1.0).abs();
        let differences: Vec<f64> = ours.iter().zip(reference).map(relative).collect();
        let squares: f64 = differences.iter().map(|one| one * one).sum();
        let rms = (squares / differences.len().max(1) as f64).sqrt();
        for ((name, one), reference) in names.iter().zip(&differences).zip(reference) {
            // The worst one is named; all have the ratio of the whole.
            let share = if rms > 0.0 { one / rms } else { 0.0 };
            self.note(name, one * reference.abs(), reference.abs(), share);
        }
        self.ratio = if rms == 0.0 {
            0.0
        } else {
            rms / own.max(ROUNDING)
        };
        self.pass = self.ratio <= self.allowed;
    }

    /// Compares two numbers; `own` is torch's error in it.
    pub fn numbers(&mut self, name: &str, ours: f64, reference: f64, own: f64) {
        let difference = (ours - reference).abs();
        self.note(
            name,
            difference,
            reference.abs(),
            ratio(difference, own, reference.abs()),
        );
    }

    /// Compares the statistics of a whole tensor, of which a reduced set holds only samples, with recorded ones. The
    /// bounds follow from torch's largest and root-mean-square error of float32 in an element; other errors give none.
    pub fn statistics(&mut self, name: &str, ours: &Tensor, reference: Statistics, own: Own) {
        let Own::Float32 { max_abs, rms } = own else {
            return;
        };
        let x = ours
            .detach()
            .to_device(Device::Cpu)
            .to_kind(Kind::Double)
            .flatten(0, -1);
        let count = x.numel() as f64;
        let cosines = Tensor::arange(x.numel() as i64, (Kind::Double, Device::Cpu)).cos();
        let rms = rms
            .unwrap_or(max_abs)
            .max(ROUNDING * reference.l2 / count.sqrt());
        let largest = max_abs.max(ROUNDING * reference.absmax);
        for (what, ours, recorded, own) in [
            ("sum", x.sum(None), reference.sum, count * rms),
            ("l2", x.norm(), reference.l2, count.sqrt() * rms),
            ("absmax", x.abs().max(), reference.absmax, largest),
            (
                "dotcos",
                (&x * cosines).sum(None),
                reference.dotcos,
                count * rms,
            ),
        ] {
            self.numbers(
                &format!("{name}: {what}"),
                ours.double_value(&[]),
                recorded,
                own,
            );
        }
    }

    fn note(&mut self, name: &str, difference: f64, scale: f64, ratio: f64) {
        self.count += 1;
        self.max_abs = worse(self.max_abs, difference);
        self.max_rel = worse(
            self.max_rel,
            if difference == 0.0 {
                0.0
            } else {
                difference / scale
            },
        );
        if self.worst.is_empty() || worse(ratio, self.ratio) != self.ratio && !self.ratio.is_nan() {
            self.worst = name.to_string();
        }
        self.ratio = worse(self.ratio, ratio);
        self.pass = self.ratio <= self.allowed;
    }
}

/// Returns how many times torch's own error a difference is; `scale` is the size of what is compared.
fn ratio(difference: f64, own: f64, scale: f64) -> f64 {
    if difference == 0.0 {
        0.0
    } else {
        difference / own.max(ROUNDING * scale)
    }
}

/// Returns the larger one, where not-a-number is worse than everything.
fn worse(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        f64::NAN
    } else {
        a.max(b)
    }
}

/// What a check found.
#[derive(Serialize, Clone, Debug)]
pub struct Report {
    /// Passed: every group did.
    pub pass: bool,
    /// Everything that was compared.
    pub groups: Vec<Group>,
    /// What matrix products were computed in: `float32` or `bf16`.
    pub dtype: &'static str,
    /// What a complete set has and this one lacks, and what this precision cannot tell.
    pub absent: Vec<String>,
}

impl std::fmt::Display for Report {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let heads = [
            "compared",
            "count",
            "max abs",
            "max rel",
            match self.dtype {
                "bf16" => "roundings",
                _ => "x torch's",
            },
            "allowed",
        ];
        writeln!(
            out,
            "{:<44} {:>5} {:>9} {:>9} {:>9} {:>7}  ",
            heads[0], heads[1], heads[2], heads[3], heads[4], heads[5]
        )?;
        for group in &self.groups {
            let Group {
                name,
                count,
                max_abs,
                max_rel,
                ratio,
                allowed,
                ..
            } = group;
            write!(
                out,
                "{name:<44} {count:>5} {max_abs:>9.1e} {max_rel:>9.1e} {ratio:>9.2} {allowed:>7}  "
            )?;
            if group.pass {
                writeln!(out, "ok")?;
            } else {
                writeln!(out, "FAULT in {}", group.worst)?;
            }
        }
        for name in &self.absent {
            writeln!(out, "not compared: {name}")?;
        }
        let yardstick = match self.dtype {
            "bf16" => {
                "the relative distance from the float32 run, as l2 norms, in roundings to bfloat16 (1/256)"
            }
            _ => "the difference over torch's own float32 error there, at least one rounding",
        };
        writeln!(out, "\n\"{}\": {yardstick}.", heads[4])?;
        let faults = self.groups.iter().filter(|group| !group.pass).count();
        match faults {
            0 => write!(out, "pass: all {} groups agree", self.groups.len()),
            _ => write!(
                out,
                "FAULT: {faults} of {} groups disagree",
                self.groups.len()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_passes_up_to_the_multiple() {
        let mut group = Group::new("losses");
        group.numbers("one", 1.0 + 3.9e-6, 1.0, 1e-6);
        assert!(group.pass, "{group:?}");
        group.numbers("two", 1.0 + 4.1e-6, 1.0, 1e-6);
        assert!(
            !group.pass && group.worst == "two" && group.count == 2,
            "{group:?}"
        );
    }

    #[test]
    fn a_series_is_measured_as_a_whole_and_names_its_worst() {
        let names: Vec<String> = (0..16).map(|i| format!("step {i}")).collect();
        let reference = [0.5; 16];
        let mut ours = reference;
        ours[3] = 0.5 * (1.0 + 15e-6);
        let judged = |ours: &[f64]| {
            let mut group = Group::new("losses");
            group.series(&names, ours, &reference, 1e-6);
            group
        };
        let group = judged(&ours);
        assert!((group.ratio - 3.75).abs() < 1e-3 && group.pass, "{group:?}");
        assert!(group.worst == "step 3" && group.count == 16, "{group:?}");
        ours[3] = 0.5 * (1.0 + 17e-6);
        assert!(!judged(&ours).pass);
        ours[3] = f64::NAN;
        assert!(!judged(&ours).pass);
        assert!(judged(&reference).pass);
    }

    #[test]
    fn autocast_is_measured_by_norms() {
        let reference = Tensor::from_slice(&[3.0, 4.0, 0.0, 0.0]);
        let judged = |by: f64| {
            let mut group = Group::new("outputs");
            let own = Own::Autocast { allowed: 4.0 };
            group.tensors("one", &(&reference * by), &reference, own);
            group
        };
        let allowed = 4.0 * BF16_ROUNDING;
        assert!(judged(1.0 + 0.99 * allowed).pass);
        assert!(!judged(1.0 + 1.01 * allowed).pass && !judged(f64::NAN).pass);
        assert_eq!(judged(1.0).ratio, 0.0);
    }

    #[test]
    fn not_a_number_never_passes() {
        let mut group = Group::new("losses");
        group.numbers("one", f64::NAN, 1.0, 1.0);
        group.numbers("two", 1.0, 1.0, 1.0);
        assert!(!group.pass && group.worst == "one", "{group:?}");
    }

    #[test]
    fn exact_groups_allow_nothing() {
        let mut group = Group::exact("lr");
        group.numbers("one", 0.5, 0.5, 0.0);
        assert!(group.pass);
        group.numbers("two", 0.5 + f64::EPSILON, 0.5, 0.0);
        assert!(!group.pass);
    }
}
