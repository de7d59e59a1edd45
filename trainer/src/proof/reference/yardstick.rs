//! Torch's own error in everything a set records, in float32 or under autocast: the yardstick of the check. Where
//! `meta.json` has no number, it follows from those it has; for autocast, from those that other sets have.

use std::collections::BTreeMap;

use super::compare::{Own, ROUNDING};
use super::precision::Precision;
use super::set::{Deviation, Meta};

/// How far autocast may lie from float32, as relative l2 norms in roundings to bfloat16 (2⁻⁸).
///
/// A product is rounded once or twice, so an intermediate result is off by about one rounding, and a gradient, which
/// has passed all blocks twice, by a few. AdamW makes full steps of gradients that nearly vanish, so what five steps
/// change is off by more. The official autocast, on a CPU, in the worst tensor of twelve sets of other sizes and seeds:
/// results 1.2, gradients 8.2, updates 20, moments 3.1, losses 0.11. These are 2.4 to 4.5 times as much; a fault of the
/// method is off by a hundred or more. `make_reference.py` records the official figures of each set under
/// `bf16_vs_f32`.
pub mod autocast {
    /// An intermediate result.
    pub const OUTPUT: f64 = 4.0;
    /// A gradient, or the norm of one.
    pub const GRADIENT: f64 = 20.0;
    /// What five steps changed of a weight.
    pub const UPDATE: f64 = 50.0;
    /// A moment.
    pub const MOMENT: f64 = 10.0;
    /// The losses, in the root mean square.
    pub const LOSS: f64 = 0.5;
}

/// A backward pass whose gradients are recorded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Backward {
    /// That of a step, from 1.
    Step(u64),
    /// The one with two context masks.
    TwoContexts,
}

/// Torch's own error in one tensor.
#[derive(Clone, Copy)]
pub struct Yardstick {
    /// In all of it, or in all but `keys`.
    pub values: Own,
    /// In the key third of a qkv.bias, where it differs from the rest.
    pub keys: Option<Own>,
}

impl Yardstick {
    /// Returns the error that covers the whole tensor.
    pub fn whole(&self) -> Own {
        match (self.values, self.keys) {
            (Own::Float32 { max_abs, rms }, Some(Own::Float32 { max_abs: keys, .. })) => {
                Own::Float32 {
                    max_abs: max_abs.max(keys),
                    rms,
                }
            }
            (values, _) => values,
        }
    }

    fn autocast(allowed: f64) -> Self {
        Self {
            values: Own::Autocast { allowed },
            keys: Some(Own::Noise),
        }
    }
}

impl Meta {
    fn is_mixed(&self) -> bool {
        self.precision == Precision::Bfloat16
    }

    /// Returns torch's error in an intermediate result.
    pub fn output_error(&self, name: &str) -> Own {
        if self.is_mixed() {
            return Own::Autocast {
                allowed: autocast::OUTPUT,
            };
        }
        Own::at_most(
            self.f32_vs_f64
                .outputs
                .get(name)
                .map_or(0.0, |deviation| deviation.max_abs),
        )
    }

    /// Returns torch's error in the norm of a gradient.
    pub fn norm_error(&self, norm: f64) -> f64 {
        let relative = self
            .f32_vs_f64
            .grads
            .values()
            .map(|deviation| deviation.rel_l2);
        norm * relative.fold(0.0, f64::max)
    }

    /// Returns torch's relative error in a loss, in the root mean square of the steps that were also run in float64.
    pub fn loss_error(&self) -> f64 {
        let rows = self.steps.iter().zip(&self.tolerance.loss_f64);
        let squares: Vec<f64> = rows
            .map(|(row, exact)| (row.loss / exact - 1.0).powi(2))
            .collect();
        (squares.iter().sum::<f64>() / squares.len().max(1) as f64).sqrt()
    }

    /// Returns torch's error in a gradient: the recorded one, but no less than a typical share of the largest element,
    /// since in a small tensor it may be small by luck.
    pub fn gradient_error(&self, backward: Backward, name: &str) -> Yardstick {
        if self.is_mixed() {
            return Yardstick::autocast(autocast::GRADIENT);
        }
        Yardstick {
            values: Own::at_most(self.gradient_float32(backward, name)),
            keys: self.key_noise().map(Own::at_most),
        }
    }

    fn gradient_float32(&self, backward: Backward, name: &str) -> f64 {
        let table = self.gradients(backward);
        let Deviation {
            max_abs,
            ref_absmax,
            ..
        } = table.get(name).copied().unwrap_or_default();
        let mut shares: Vec<f64> = table
            .values()
            .filter(|row| row.ref_absmax > 0.0)
            .map(|row| row.max_abs / row.ref_absmax)
            .collect();
        shares.sort_by(f64::total_cmp);
        let typical = shares.get(shares.len() / 2).copied().unwrap_or_default();
        max_abs.max(typical * ref_absmax)
    }

    /// Returns torch's error in a weight after some steps.
    ///
    /// Where a gradient is of the size of AdamW's epsilon, its rounding noise decides the step: such outliers may turn
    /// up in any tensor, so the worst of all trained tensors (or of the target encoder's) is the yardstick. The root
    /// mean square is the sharp test: it is some ten thousand times smaller than what a step changes.
    ///
    /// Under autocast it is the error in what training changed.
    pub fn state_error(&self, step: u64, name: &str) -> Yardstick {
        if self.is_mixed() {
            return Yardstick::autocast(autocast::UPDATE);
        }
        let table = if step == 1 {
            &self.tolerance.state_step1
        } else {
            &self.tolerance.state_step5
        };
        if name.ends_with("pos_embed") {
            // Never trained; the target encoder's own is rounded at every step.
            let Deviation { max_abs, rms, .. } = table.get(name).copied().unwrap_or_default();
            return Yardstick {
                values: Own::Float32 {
                    max_abs,
                    rms: Some(rms),
                },
                keys: None,
            };
        }
        let is_target = |name: &str| name.starts_with("target_encoder.");
        let peers = || {
            let peers = table
                .iter()
                .filter(|(peer, _)| is_target(peer) == is_target(name));
            peers
                .filter(|(peer, _)| !peer.ends_with("qkv.bias") && !peer.ends_with("pos_embed"))
                .map(|(_, row)| row)
        };
        let max_abs = peers().map(|row| row.max_abs).fold(0.0, f64::max);
        let rms = peers().map(|row| row.rms).fold(0.0, f64::max);
        let parts = &self.tolerance.qkv_bias_k_part;
        let moved = parts.values().map(|part| {
            if step == 1 {
                part.state1_k_maxdiff
            } else {
                part.state5_k_maxdiff
            }
        });
        let recorded = parts
            .values()
            .map(|part| part.k_absmax_f32)
            .fold(0.0, f64::max);
        let keys = self
            .key_noise()
            .zip(moved.reduce(f64::max))
            .filter(|_| parts.contains_key(name));
        // AdamW moves in proportion to noise far below its epsilon.
        let keys = keys.map(|(noise, moved)| Own::at_most(moved * noise / recorded));
        Yardstick {
            values: Own::Float32 {
                max_abs,
                rms: Some(rms),
            },
            keys,
        }
    }

    /// Moments are sums of gradients and of their squares: their error follows from that of the gradients.
    pub fn moment_error(&self, name: &str) -> Yardstick {
        if self.is_mixed() {
            return Yardstick::autocast(autocast::MOMENT);
        }
        let (squared, parameter) = match name.strip_prefix("exp_avg_sq.") {
            Some(parameter) => (true, parameter),
            None => (false, name.strip_prefix("exp_avg.").unwrap_or(name)),
        };
        let steps = [1, 5].map(Backward::Step);
        let errors = steps.map(|step| self.gradient_float32(step, parameter));
        let sizes = steps.map(|step| {
            self.gradients(step)
                .get(parameter)
                .map_or(0.0, |row| row.ref_absmax)
        });
        // Five terms 0.001 g², each off by 0.002 g δ.
        let moment = |size: f64, error: f64| {
            Own::at_most(if squared {
                5.0 * 0.002 * size * error
            } else {
                error
            })
        };
        Yardstick {
            values: moment(sizes[0].max(sizes[1]), errors[0].max(errors[1])),
            keys: self.key_noise().map(|noise| moment(noise, noise)),
        }
    }

    /// Returns the yardstick of a key bias's gradient, which is 0 but for rounding: the largest of all layers, or one
    /// rounding of the query's where that was small by luck.
    fn key_noise(&self) -> Option<f64> {
        let parts = self.tolerance.qkv_bias_k_part.values();
        parts
            .map(|part| part.k_absmax_f32.max(ROUNDING * part.q_absmax))
            .reduce(f64::max)
    }

    fn gradients(&self, backward: Backward) -> &BTreeMap<String, Deviation> {
        match backward {
            Backward::TwoContexts if !self.tolerance.grads_nenc2.is_empty() => {
                &self.tolerance.grads_nenc2
            }
            // Of the same size, where nothing was recorded.
            Backward::TwoContexts | Backward::Step(1) => &self.tolerance.grads_step1,
            Backward::Step(_) => &self.tolerance.grads_step5,
        }
    }
}
