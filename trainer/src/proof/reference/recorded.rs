//! What a step leaves, held against what a set records of it: gradients, states, moments, groups.

use std::collections::{BTreeMap, BTreeSet};

use tch::Tensor;

use super::compare::{BF16_ROUNDING, Group};
use super::precision::Precision;
use super::set::{GradientNorms, Set, Tensors};
use super::split::Split;
use super::yardstick::{Backward, Yardstick};
use crate::Error;
use crate::method::optimizer::Optimizer;

/// A set, and what its comparison with a replay has found so far.
pub(super) struct Checker<'a> {
    pub set: &'a Set,
    /// The initial weights.
    pub init: &'a Tensors,
    pub groups: Vec<Group>,
    /// What the set lacks.
    pub absent: Vec<String>,
}

impl Checker<'_> {
    /// Compares which parameters are in which group, and which groups decay.
    pub(super) fn optimizer_groups(&mut self, optimizer: &Optimizer) {
        let mut group = Group::exact("optimizer groups");
        let ours = optimizer.groups();
        let theirs = &self.set.meta.adamw.groups;
        group.numbers(
            "number of groups",
            ours.len() as f64,
            theirs.len() as f64,
            0.0,
        );
        for (i, ((decayed, names), recorded)) in ours.iter().zip(theirs).enumerate() {
            let equal = *decayed != recorded.wd_exclude && *names == recorded.params;
            group.numbers(&format!("group {i}"), f64::from(u8::from(!equal)), 0.0, 0.0);
        }
        self.groups.push(group);
    }

    /// Compares the gradients of a step.
    pub(super) fn gradients(&mut self, step: u64, ours: &[(String, Tensor)]) -> Result<(), Error> {
        let meta = &self.set.meta;
        let title = format!("gradients, step {step}");
        let files = [&*format!("grads_step{step}")];
        self.recorded(&title, ours, &files, None, |name| {
            meta.gradient_error(Backward::Step(step), name)
        })
    }

    /// Compares the weights after a step.
    pub(super) fn states(&mut self, step: u64, ours: &[(String, Tensor)]) -> Result<(), Error> {
        let meta = &self.set.meta;
        let title = format!("states, step {step}");
        // A reduced set may keep the target encoder in a file of its own.
        let files = [
            &*format!("state_step{step}"),
            &*format!("target_step{step}"),
        ];
        // Weights hardly move in a few steps, so under autocast what they moved by is compared.
        let base = (meta.precision == Precision::Bfloat16).then_some(self.init);
        self.recorded(&title, ours, &files, base, |name| {
            meta.state_error(step, name)
        })
    }

    /// Compares the optimiser's moments.
    pub(super) fn moments(&mut self, state: &[(String, Tensor)]) -> Result<(), Error> {
        let meta = &self.set.meta;
        let moments = state.iter().filter(|(name, _)| name != "step");
        let moments: Vec<_> = moments
            .map(|(name, tensor)| (name.clone(), tensor.shallow_clone()))
            .collect();
        self.recorded("moments, step 5", &moments, &["adam_step5"], None, |name| {
            meta.moment_error(name)
        })
    }

    /// Compares `ours` with what `files` and their sampled forms `FILE_sub` hold, both less `base` where there is one,
    /// and names what none of them holds.
    fn recorded(
        &mut self,
        title: &str,
        ours: &[(String, Tensor)],
        files: &[&str],
        base: Option<&Tensors>,
        own: impl Fn(&str) -> Yardstick,
    ) -> Result<(), Error> {
        let ours: BTreeMap<&str, &Tensor> = ours
            .iter()
            .map(|(name, tensor)| (name.as_str(), tensor))
            .collect();
        let mut missing: BTreeSet<&str> = ours.keys().copied().collect();
        let mut values = Split::new(title);
        let mut whole = Group::new(format!("{title}: statistics"));
        for file in files {
            for name in [file.to_string(), format!("{file}_sub")] {
                for (tensor, reference) in self.set.load_optional(&name)?.unwrap_or_default() {
                    let unknown = || {
                        self.set.fault(
                            &name,
                            format!("no tensor of the model is called `{tensor}`"),
                        )
                    };
                    let (&known, &mine) =
                        ours.get_key_value(tensor.as_str()).ok_or_else(unknown)?;
                    missing.remove(known);
                    let base = base.and_then(|base| base.get(&tensor));
                    let own_error = own(&tensor);
                    values.tensors(self.set, &name, &tensor, mine, &reference, base, own_error)?;
                    if let Some(&statistics) = self
                        .set
                        .meta
                        .tensor_stats
                        .get(&format!("{file}_full:{tensor}"))
                    {
                        whole.statistics(&tensor, mine, statistics, own(&tensor).whole());
                    }
                }
            }
        }
        if !missing.is_empty() {
            self.absent.push(format!(
                "{}: {} of {} tensors",
                files.join(", "),
                missing.len(),
                ours.len()
            ));
        }
        self.groups.extend(values.groups());
        self.groups.extend((whole.count > 0).then_some(whole));
        Ok(())
    }

    /// Compares the norms of the gradients of the encoder's matrices, as the official log has them.
    pub(super) fn gradient_norms(
        &self,
        group: &mut Group,
        step: &str,
        gradients: &[(String, Tensor)],
        recorded: &GradientNorms,
    ) {
        let matrices = gradients.iter().filter(|(name, gradient)| {
            name.starts_with("encoder.") && !name.ends_with(".bias") && gradient.dim() > 1
        });
        let norms: Vec<(&str, f64)> = matrices
            .map(|(name, gradient)| (name.as_str(), gradient.norm().double_value(&[])))
            .collect();
        let attention = || {
            norms
                .iter()
                .filter(|(name, _)| name.contains("qkv"))
                .map(|&(_, norm)| norm)
        };
        let all = || norms.iter().map(|&(_, norm)| norm);
        for (what, ours, theirs) in [
            (
                "first",
                attention().next().unwrap_or(f64::NAN),
                recorded.first_layer,
            ),
            (
                "last",
                attention().next_back().unwrap_or(f64::NAN),
                recorded.last_layer,
            ),
            ("least", all().fold(f64::INFINITY, f64::min), recorded.min),
            ("largest", all().fold(0.0, f64::max), recorded.max),
            (
                "mean",
                all().sum::<f64>() / norms.len() as f64,
                recorded.avg,
            ),
        ] {
            group.numbers(
                &format!("{step}: {what}"),
                ours,
                theirs,
                match self.set.meta.precision {
                    Precision::Float32 => self.set.meta.norm_error(theirs),
                    Precision::Bfloat16 => theirs * BF16_ROUNDING,
                },
            );
        }
    }
}
