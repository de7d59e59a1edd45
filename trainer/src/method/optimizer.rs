//! AdamW over groups of parameters, each with or without weight decay.
//!
//! The official groups are those of [`IJepa::parameter_groups`](crate::method::ijepa::IJepa::parameter_groups):
//! matrices decay, biases and everything one-dimensional do not (`init_opt` of `src/helper.py`; paper, appendix A.1).
//! One fused step per group: it rounds a little differently from the unfused one (a unit in the last place of the
//! parameter), well within the error of float32 training.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use crate::Error;
use crate::error::{During, MAKING_MOMENTS};
use crate::method::parameters::ParameterGroup;
use crate::method::state_dict;
use crate::torch::shim;

/// Decay of the moments and the term that keeps the division finite: PyTorch's defaults, which the official code uses.
pub(crate) const BETA1: f64 = 0.9;
pub(crate) const BETA2: f64 = 0.999;
pub(crate) const EPS: f64 = 1e-8;

/// A parameter and its moments.
struct Member {
    name: String,
    parameter: Tensor,
    /// None where the parameter is never trained.
    moments: Option<Moments>,
}

struct Moments {
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
}

/// Parameters that share their weight decay.
struct Group {
    decayed: bool,
    members: Vec<Member>,
}

/// The optimiser of one run; it holds handles to the parameters it was made for.
pub struct Optimizer {
    groups: Vec<Group>,
    /// Steps done, as libtorch wants it: float32 on the parameters' device.
    step: Tensor,
}

impl Optimizer {
    /// Makes an optimiser with zero moments for those of the named parameters that require gradients.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] where there is no room for the moments.
    pub fn new(groups: Vec<ParameterGroup<(String, Tensor)>>) -> Result<Self, Error> {
        let first = groups.iter().flat_map(|group| &group.members).next();
        let device = first.map_or(Device::Cpu, |(_, tensor)| tensor.device());
        let member = |(name, parameter): (String, Tensor)| -> Result<Member, Error> {
            let zeros = || parameter.f_zeros_like()?.f_detach();
            let moments = if parameter.requires_grad() {
                let (exp_avg, exp_avg_sq) = (zeros()?, zeros()?);
                Some(Moments {
                    exp_avg,
                    exp_avg_sq,
                })
            } else {
                None
            };
            Ok(Member {
                name,
                parameter,
                moments,
            })
        };
        let groups = groups.into_iter().map(|group| {
            Ok(Group {
                decayed: group.decayed,
                members: group
                    .members
                    .into_iter()
                    .map(member)
                    .collect::<Result<_, _>>()?,
            })
        });
        let groups: Result<_, Error> = groups.collect();
        Ok(Self {
            groups: groups.during(|| MAKING_MOMENTS.into())?,
            step: Tensor::f_zeros([] as [i64; 0], (Kind::Float, device))?,
        })
    }

    /// Moves every trained parameter along its gradient. `lr` and `weight_decay` are those of this step.
    ///
    /// # Errors
    /// [`Error::NoGradient`] where a parameter has none (nothing is moved then), [`Error::OutOfMemory`] and
    /// [`Error::Torch`] from the device.
    pub fn step(&mut self, lr: f64, weight_decay: f64) -> Result<(), Error> {
        // Before anything moves: a step is done for all parameters or for none.
        let gradients = self
            .groups
            .iter()
            .map(Group::gradients)
            .collect::<Result<Vec<_>, Error>>()?;
        tch::no_grad(|| self.step.f_add_scalar_(1.0).map(drop))?;
        for (group, gradients) in self.groups.iter().zip(&gradients) {
            let trained = || group.trained().map(|(_, moments)| moments);
            let parameters: Vec<&Tensor> = group
                .trained()
                .map(|(member, _)| &member.parameter)
                .collect();
            let exp_avg: Vec<&Tensor> = trained().map(|moments| &moments.exp_avg).collect();
            let exp_avg_sq: Vec<&Tensor> = trained().map(|moments| &moments.exp_avg_sq).collect();
            let weight_decay = if group.decayed { weight_decay } else { 0.0 };
            let constants = shim::AdamW {
                lr,
                beta1: BETA1,
                beta2: BETA2,
                weight_decay,
                eps: EPS,
            };
            shim::adamw(
                &parameters,
                gradients,
                &exp_avg,
                &exp_avg_sq,
                &self.step,
                constants,
            )
            .during(|| "the optimiser's step".into())?;
        }
        Ok(())
    }

    /// Returns the Euclidean norms of the last step of all trained parameters and of the parameters before it.
    ///
    /// Both follow from what the step left, one parameter after the other. `lr` and `weight_decay` are that step's.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] and [`Error::Torch`] from the device.
    pub fn last_update(&self, lr: f64, weight_decay: f64) -> Result<(f64, f64), Error> {
        let step = f64::try_from(&self.step)?;
        let (first, second) = (1.0 - BETA1.powf(step), 1.0 - BETA2.powf(step));
        let norms = || -> Result<(f64, f64), Error> {
            let (mut moved, mut before) = (Vec::new(), Vec::new());
            for group in &self.groups {
                let kept = match group.decayed {
                    true => 1.0 - lr * weight_decay,
                    false => 1.0,
                };
                for (member, moments) in group.trained() {
                    let mut root = moments.exp_avg_sq.f_sqrt()?;
                    root = root.f_div_scalar_(second.sqrt())?.f_add_scalar_(EPS)?;
                    let along = moments.exp_avg.f_mul_scalar(lr / first)?.f_div(&root)?;
                    // new = kept · old - along
                    let old = member.parameter.f_add(&along)?.f_div_scalar_(kept)?;
                    moved.push(old.f_sub(&member.parameter)?.f_norm()?);
                    before.push(old.f_norm()?);
                }
            }
            Ok((norm_of(&moved)?, norm_of(&before)?))
        };
        tch::no_grad(norms).during(|| "the norm of the optimiser's step".into())
    }

    /// Drops all gradients: the next backward pass stores its own instead of adding to them.
    ///
    /// # Errors
    /// From libtorch.
    pub fn zero_grad(&mut self) -> Result<(), Error> {
        shim::clear_gradients(self.trained().map(|member| &member.parameter))
    }

    /// Returns the Euclidean norm of the whole gradient: not finite if any part of it is not, or if its square
    /// overflows.
    ///
    /// # Errors
    /// [`Error::NoGradient`] where a parameter has none, [`Error::OutOfMemory`] and [`Error::Torch`] from the device.
    pub fn gradient_norm(&self) -> Result<f64, Error> {
        let gradients = self
            .groups
            .iter()
            .map(Group::gradients)
            .collect::<Result<Vec<_>, Error>>()?;
        shim::norm(&gradients.into_iter().flatten().collect::<Vec<_>>())
            .during(|| "the gradient's norm".into())
    }

    /// Returns the names of the parameters of each group, and whether they decay.
    pub fn groups(&self) -> Vec<(bool, Vec<&str>)> {
        self.groups
            .iter()
            .map(|group| {
                (
                    group.decayed,
                    group
                        .members
                        .iter()
                        .map(|member| member.name.as_str())
                        .collect(),
                )
            })
            .collect()
    }

    /// Returns the gradients that the last backward pass left, by parameter name.
    pub fn gradients(&self) -> Vec<(String, Tensor)> {
        let gradients = self
            .trained()
            .map(|member| (member.name.clone(), member.parameter.grad()));
        gradients
            .filter(|(_, gradient)| gradient.defined())
            .collect()
    }

    /// Returns what a checkpoint must keep: `exp_avg.NAME` and `exp_avg_sq.NAME` of every trained parameter, and
    /// `step`, a float32 scalar. Handles, not copies.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let mut state = vec![("step".to_string(), self.step.shallow_clone())];
        for (member, moments) in self.groups.iter().flat_map(Group::trained) {
            state.push((
                format!("exp_avg.{}", member.name),
                moments.exp_avg.shallow_clone(),
            ));
            state.push((
                format!("exp_avg_sq.{}", member.name),
                moments.exp_avg_sq.shallow_clone(),
            ));
        }
        state
    }

    /// Takes up a state that [`Optimizer::state`] gave: every tensor must be there, and no other.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::UnknownTensor`] or [`Error::TensorForm`]; nothing is changed then.
    pub fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<(), Error> {
        state_dict::load(&self.state(), state)
    }

    fn trained(&self) -> impl Iterator<Item = &Member> {
        self.groups
            .iter()
            .flat_map(Group::trained)
            .map(|(member, _)| member)
    }
}

/// Returns the norm of the whole from the norms of its parts.
pub(crate) fn norm_of(parts: &[Tensor]) -> Result<f64, Error> {
    let parts = Tensor::f_stack(parts, 0)?.f_to_kind(Kind::Double)?;
    Ok(f64::try_from(parts.f_norm()?)?)
}

impl Group {
    fn trained(&self) -> impl Iterator<Item = (&Member, &Moments)> {
        self.members
            .iter()
            .filter_map(|member| Some((member, member.moments.as_ref()?)))
    }

    fn gradients(&self) -> Result<Vec<Tensor>, Error> {
        self.trained()
            .map(|(member, _)| match member.parameter.f_grad()? {
                gradient if gradient.defined() => Ok(gradient),
                _ => Err(Error::NoGradient(member.name.clone())),
            })
            .collect()
    }
}
