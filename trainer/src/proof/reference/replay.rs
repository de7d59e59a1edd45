//! Replaying a reference set through the functions that training uses.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::compare::{BF16_ROUNDING, Group, Own, Report};
use super::set::{GradientNorms, Set, Tensors, sampling_stride};
use super::yardstick::{Backward, Yardstick, autocast};
use crate::Error;
use crate::method::hooks::{Hooks, NoHooks};
use crate::method::ijepa::IJepa;
use crate::method::optimizer::Optimizer;
use crate::method::schedule::Schedule;
use crate::torch::shim::Autocast;

/// Steps after which a set records states and gradients.
const RECORDED: [u64; 2] = [1, 5];

/// What matrix products are computed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// As the set was recorded.
    #[default]
    Float32,
    /// Under autocast, as `meta.use_bfloat16` has it.
    Bfloat16,
}

impl Precision {
    /// Enters autocast on the device of `images`, where that is asked for, until the result is dropped.
    fn enter(self, images: &Tensor) -> Result<Option<Autocast>, Error> {
        match self {
            Precision::Float32 => Ok(None),
            Precision::Bfloat16 => Autocast::bfloat16(images).map(Some),
        }
    }
}

/// Replays the set in `folder` on `device` and compares everything it records.
pub fn check(folder: &Path, device: Device, precision: Precision) -> Result<Report, Error> {
    let set = Set::open(folder, precision)?;
    let init = set.load("init")?;
    let inputs = set.load("inputs")?;

    let mut absent = Vec::new();
    let dtype = match precision {
        Precision::Float32 => "float32",
        Precision::Bfloat16 => {
            absent.push(
                "in bfloat16: key biases, whose gradients are noise; weights after step 1, a step of \
                 signs; sums over whole tensors"
                    .to_owned(),
            );
            "bf16"
        }
    };
    let mut checker = Checker {
        set: &set,
        init: &init,
        groups: Vec::new(),
        absent,
    };
    let mut ijepa = IJepa::zeroed(&set.model(), device)?;
    checker.position_embeddings(&ijepa, &init)?;
    ijepa
        .load_state(&init)
        .map_err(|error| set.fault("init", error))?;
    checker.two_contexts(&ijepa, &inputs, device)?;
    checker.run(&mut ijepa, &inputs, device)?;

    let Checker { groups, absent, .. } = checker;
    Ok(Report {
        pass: groups.iter().all(|group| group.pass),
        groups,
        dtype,
        absent,
    })
}

struct Checker<'a> {
    set: &'a Set,
    init: &'a Tensors,
    groups: Vec<Group>,
    absent: Vec<String>,
}

impl Checker<'_> {
    /// Embeddings that a fresh model computes, against those the official code computed.
    fn position_embeddings(&mut self, ijepa: &IJepa, init: &Tensors) -> Result<(), Error> {
        let mut group = Group::new("position embeddings");
        for (name, ours) in ijepa
            .state()
            .iter()
            .filter(|(name, _)| name.ends_with("pos_embed"))
        {
            let reference = self.set.named("init", init, name)?;
            if ours.size() != reference.size() {
                return Err(self.set.fault(
                    "init",
                    format!(
                        "`{name}` is {:?}, expected {:?}",
                        reference.size(),
                        ours.size()
                    ),
                ));
            }
            group.tensors(name, ours, reference, Own::at_most(0.0));
        }
        self.groups.push(group);
        Ok(())
    }

    /// The whole run: every recorded step.
    fn run(&mut self, ijepa: &mut IJepa, inputs: &Tensors, device: Device) -> Result<(), Error> {
        let set = self.set;
        let schedule = Schedule::new(&set.schedule(), set.steps_per_epoch())?;
        let mut optimizer = Optimizer::new(ijepa.parameter_groups())?;
        self.optimizer_groups(&optimizer);

        let mut rates = ["learning rate", "weight decay", "momentum"].map(Group::exact);
        let (mut names, mut ours) = (Vec::new(), Vec::new());
        let is_mixed = set.meta.precision == Precision::Bfloat16;
        let numbers = |name: &str, allowed: f64| {
            if is_mixed {
                Group::autocast(name, allowed)
            } else {
                Group::new(name)
            }
        };
        let mut norms = numbers("gradient norms", autocast::GRADIENT);
        for (row, i) in set.meta.steps.iter().zip(0..) {
            let name = format!("step {}", row.step);
            let (images, context, targets) = set.batch(inputs, row.step)?;
            let images = images.to_device(device);
            let [context, targets] = [context, targets].map(|masks| {
                masks
                    .iter()
                    .map(|mask| mask.to_device(device))
                    .collect::<Vec<Tensor>>()
            });

            let mut hooks = Tensors::new();
            let loss = {
                let _mixed = set.meta.precision.enter(&images)?;
                let hooks: &mut dyn Hooks = if i == 0 { &mut hooks } else { &mut NoHooks };
                ijepa.forward(&images, &context, &targets, hooks)?
            };
            if i == 0 {
                self.forward(&hooks)?;
            }
            loss.f_backward()?;
            let gradients = optimizer.gradients();

            let (lr, weight_decay, momentum) = (
                schedule.lr(i),
                schedule.weight_decay(i),
                schedule.momentum(i),
            );
            optimizer.step(lr, weight_decay)?;
            optimizer.zero_grad()?;
            ijepa.update_target(momentum)?;

            for (group, (ours, recorded)) in rates.iter_mut().zip([
                (lr, row.lr),
                (weight_decay, row.wd),
                (momentum, row.momentum),
            ]) {
                group.numbers(&name, ours, recorded, 0.0);
            }
            names.push(name.clone());
            ours.push(loss.double_value(&[]));
            if let Some(recorded) = &row.grad_stats {
                self.gradient_norms(&mut norms, &name, &gradients, recorded);
            }
            if RECORDED.contains(&row.step) {
                self.gradients(row.step, &gradients)?;
                // AdamW's first step has the sign of each gradient, also of those that are nothing but noise.
                if !is_mixed || row.step > 1 {
                    self.states(row.step, &ijepa.state())?;
                }
            }
            if row.step == RECORDED[1] {
                self.moments(&optimizer.state())?;
            }
        }
        let recorded: Vec<f64> = set.meta.steps.iter().map(|row| row.loss).collect();
        let mut losses = numbers("losses", autocast::LOSS);
        let own = if is_mixed {
            BF16_ROUNDING
        } else {
            set.meta.loss_error()
        };
        losses.series(&names, &ours, &recorded, own);
        self.groups.push(losses);
        self.groups.push(norms);
        self.groups.extend(rates);
        Ok(())
    }

    /// Which parameters are in which group, and which groups decay.
    fn optimizer_groups(&mut self, optimizer: &Optimizer) {
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

    /// Intermediate results of the first step.
    fn forward(&mut self, hooks: &Tensors) -> Result<(), Error> {
        for (file, title) in [
            ("forward", "forward, step 1"),
            ("forward_f64", "forward, step 1, against float64"),
        ] {
            let Some(recorded) = self.optional(file)? else {
                continue;
            };
            self.outputs(file, title, hooks, recorded.iter())?;
        }
        Ok(())
    }

    /// Two context masks over one batch, on the initial weights.
    fn two_contexts(
        &mut self,
        ijepa: &IJepa,
        inputs: &Tensors,
        device: Device,
    ) -> Result<(), Error> {
        let file = "nenc2";
        let Some(recorded) = self.optional(file)? else {
            return Ok(());
        };
        let masks = |kind: &str| -> Vec<Tensor> {
            let found = (0..).map_while(|i| recorded.get(&format!("masks_{kind}.{i}")));
            found.map(|mask| mask.to_device(device)).collect()
        };
        let (context, targets) = (masks("enc"), masks("pred"));
        if context.is_empty() || targets.is_empty() {
            return Err(self.set.fault(file, "no masks in it"));
        }
        let images = self
            .set
            .named("inputs", inputs, "images.1")?
            .to_device(device);
        let mut optimizer = Optimizer::new(ijepa.parameter_groups())?;
        let mut hooks = Tensors::new();
        let loss = {
            let _mixed = self.set.meta.precision.enter(&images)?;
            ijepa.forward(&images, &context, &targets, &mut hooks)?
        };
        loss.f_backward()?;
        let outputs = recorded
            .iter()
            .filter(|(name, _)| !name.starts_with("masks_") && !name.starts_with("grad."));
        self.outputs(file, "two context masks: forward", &hooks, outputs)?;

        let mut values = Split::new("two context masks: gradients");
        for (name, gradient) in optimizer.gradients() {
            if let Some(reference) = recorded.get(&format!("grad.{name}")) {
                let own = self.set.meta.gradient_error(Backward::TwoContexts, &name);
                values.tensors(self.set, file, &name, &gradient, reference, None, own)?;
            }
        }
        self.groups.extend(values.groups());
        optimizer.zero_grad()
    }

    fn outputs<'t>(
        &mut self,
        file: &str,
        title: &str,
        hooks: &Tensors,
        recorded: impl Iterator<Item = (&'t String, &'t Tensor)>,
    ) -> Result<(), Error> {
        let mut group = Group::new(title);
        for (name, reference) in recorded {
            let unknown = || {
                self.set.fault(
                    file,
                    format!("nothing in the forward pass is called `{name}`"),
                )
            };
            // A loss of shape [1] or [] alike.
            let ours = hooks.get(name).ok_or_else(unknown)?.f_view_as(reference);
            let ours =
                ours.map_err(|_| self.set.fault(file, format!("`{name}` has another shape")))?;
            group.tensors(name, &ours, reference, self.set.meta.output_error(name));
        }
        self.groups.push(group);
        Ok(())
    }

    fn gradients(&mut self, step: u64, ours: &[(String, Tensor)]) -> Result<(), Error> {
        let meta = &self.set.meta;
        let title = format!("gradients, step {step}");
        let files = [&*format!("grads_step{step}")];
        self.recorded(&title, ours, &files, None, |name| {
            meta.gradient_error(Backward::Step(step), name)
        })
    }

    fn states(&mut self, step: u64, ours: &[(String, Tensor)]) -> Result<(), Error> {
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

    fn moments(&mut self, state: &[(String, Tensor)]) -> Result<(), Error> {
        let meta = &self.set.meta;
        let moments = state.iter().filter(|(name, _)| name != "step");
        let moments: Vec<_> = moments
            .map(|(name, tensor)| (name.clone(), tensor.shallow_clone()))
            .collect();
        self.recorded("moments, step 5", &moments, &["adam_step5"], None, |name| {
            meta.moment_error(name)
        })
    }

    /// Compares `ours` with what `files` and their sampled forms `FILE_sub` hold, both less `base` where there is one, and
    /// names what none of them holds.
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

    /// Norms of the gradients of the encoder's matrices, as the official log has them.
    fn gradient_norms(
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

    /// The tensors of a file that may be absent, which is then noted.
    fn optional(&mut self, file: &str) -> Result<Option<Tensors>, Error> {
        let tensors = self.set.load_optional(file)?;
        if tensors.is_none() {
            self.absent.push(file.to_string());
        }
        Ok(tensors)
    }
}

/// Two groups: the gradient of the key third of every qkv.bias is mathematically 0, its rounding noise is blown up by
/// AdamW, and so it is measured apart.
struct Split {
    values: Group,
    keys: Group,
}

impl Split {
    fn new(title: &str) -> Self {
        Self {
            values: Group::new(title),
            keys: Group::keys(format!("{title}: key biases")),
        }
    }

    /// Compares a tensor with a whole or sampled one, both less `base`.
    #[allow(clippy::too_many_arguments)] // what, with what, by which measure, and where to tell of faults
    fn tensors(
        &mut self,
        set: &Set,
        file: &str,
        name: &str,
        ours: &Tensor,
        reference: &Tensor,
        base: Option<&Tensor>,
        own: Yardstick,
    ) -> Result<(), Error> {
        let (mut reference, count) = (reference.flatten(0, -1), ours.numel() as i64);
        let stride = if reference.numel() as i64 == count {
            1
        } else {
            sampling_stride(count)
        };
        let sample = |tensor: &Tensor| tensor.detach().flatten(0, -1).slice(0, None, None, stride);
        let mut ours = sample(ours).to_device(Device::Cpu);
        let length = ours.size()[0];
        if reference.size()[0] != length {
            let found = reference.size()[0];
            return Err(set.fault(
                file,
                format!("`{name}` has {found} elements, expected {count} or {length} of them"),
            ));
        }
        if let Some(base) = base {
            let base = sample(base).to_kind(Kind::Double);
            (ours, reference) = (ours - &base, reference - &base);
        }
        let compare = |group: &mut Group, from: i64, to: i64, own: Own| {
            let part = |tensor: &Tensor| tensor.narrow(0, from, to - from);
            group.tensors(name, &part(&ours), &part(&reference), own);
        };
        match own.keys {
            Some(keys) if name.ends_with("attn.qkv.bias") => {
                let place = |element: i64| (element + stride - 1) / stride;
                let (first, last) = (place(count / 3), place(2 * count / 3));
                compare(&mut self.keys, first, last, keys);
                if let Own::Autocast { .. } = own.values {
                    // A norm is one of all that is compared.
                    let rest = |tensor: &Tensor| {
                        let parts = [(0, first), (last, length)];
                        let parts = parts.map(|(from, to)| tensor.narrow(0, from, to - from));
                        Tensor::cat(&parts, 0)
                    };
                    self.values
                        .tensors(name, &rest(&ours), &rest(&reference), own.values);
                } else {
                    compare(&mut self.values, 0, first, own.values);
                    compare(&mut self.values, last, length, own.values);
                }
            }
            _ => compare(&mut self.values, 0, length, own.values),
        }
        Ok(())
    }

    fn groups(self) -> impl Iterator<Item = Group> {
        [self.values, self.keys]
            .into_iter()
            .filter(|group| group.count > 0)
    }
}
