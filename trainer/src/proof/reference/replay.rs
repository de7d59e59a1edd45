//! Replaying a reference set through the functions that training uses.

use std::path::Path;

use tch::{Device, Tensor};

use super::compare::{BF16_ROUNDING, Group, Own, Report};
use super::precision::Precision;
use super::recorded::Checker;
use super::set::{Set, Tensors};
use super::split::Split;
use super::yardstick::{Backward, autocast};
use crate::Error;
use crate::method::hooks::{Hooks, NoHooks};
use crate::method::ijepa::IJepa;
use crate::method::optimizer::Optimizer;
use crate::method::schedule::Schedule;

/// Steps after which a set records states and gradients.
const RECORDED: [u64; 2] = [1, 5];

/// Replays the set in `folder` on `device` and compares everything it records.
///
/// # Errors
/// [`Error::Reference`] for a file that is missing or not what it should be, [`Error::OutOfMemory`] and
/// [`Error::Torch`] from the device. A difference is no error: the report has it.
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

impl Checker<'_> {
    /// Compares the embeddings that a fresh model computes with those the official code computed.
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

    /// Replays and compares the whole run: every recorded step.
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
            let images = images.f_to_device(device)?;
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

    /// Compares the intermediate results of the first step.
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

    /// Replays and compares two context masks over one batch, on the initial weights.
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

    /// Loads a file that may be absent, which is then noted.
    fn optional(&mut self, file: &str) -> Result<Option<Tensors>, Error> {
        let tensors = self.set.load_optional(file)?;
        if tensors.is_none() {
            self.absent.push(file.to_string());
        }
        Ok(tensors)
    }
}
