//! AdamW over the encoder and the predictor, in the official four groups.
//!
//! Matrices decay; biases and everything one-dimensional do not. The position embeddings belong to the decayed groups by
//! that rule, but are never trained and so never touched. One fused step per group: it rounds a little differently
//! from the unfused one (a unit in the last place of the parameter), well within the error of float32 training.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use crate::Error;
use crate::method::ijepa::{IJepa, load};
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

/// The optimiser of one run; it holds handles to the parameters of the [`IJepa`] it was made for.
pub struct Optimizer {
    groups: Vec<Group>,
    /// Steps done, as libtorch wants it: float32 on the parameters' device.
    step: Tensor,
}

impl Optimizer {
    /// Zero moments for the trained parameters of `ijepa`.
    pub fn new(ijepa: &IJepa) -> Self {
        let networks = [
            ("encoder", ijepa.encoder.parameters()),
            ("predictor", ijepa.predictor.parameters()),
        ];
        let mut groups = Vec::new();
        for decayed in [true, false] {
            for (network, parameters) in networks {
                let members = parameters
                    .iter()
                    .filter(|(name, tensor)| is_decayed(name, tensor) == decayed);
                let members = members.map(|(name, tensor)| Member {
                    name: format!("{network}.{name}"),
                    parameter: tensor.shallow_clone(),
                    moments: tensor.requires_grad().then(|| Moments {
                        exp_avg: tensor.zeros_like().detach(),
                        exp_avg_sq: tensor.zeros_like().detach(),
                    }),
                });
                groups.push(Group {
                    decayed,
                    members: members.collect(),
                });
            }
        }
        let device = groups[0].members[0].parameter.device();
        Self {
            groups,
            step: Tensor::zeros([] as [i64; 0], (Kind::Float, device)),
        }
    }

    /// Moves every trained parameter along its gradient. `lr` and `weight_decay` are those of this step.
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
            )?;
        }
        Ok(())
    }

    /// Drops all gradients: the next backward pass stores its own instead of adding to them.
    pub fn zero_grad(&mut self) -> Result<(), Error> {
        shim::clear_gradients(self.trained().map(|member| &member.parameter))
    }

    /// The Euclidean norm of the whole gradient: not finite if any part of it is not, or if its square overflows.
    pub fn gradient_norm(&self) -> Result<f64, Error> {
        let gradients = self
            .groups
            .iter()
            .map(Group::gradients)
            .collect::<Result<Vec<_>, Error>>()?;
        shim::norm(&gradients.into_iter().flatten().collect::<Vec<_>>())
    }

    /// Names of the parameters of each group, and whether they decay.
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

    /// The gradients that the last backward pass left, by parameter name.
    pub fn gradients(&self) -> Vec<(String, Tensor)> {
        let gradients = self
            .trained()
            .map(|member| (member.name.clone(), member.parameter.grad()));
        gradients
            .filter(|(_, gradient)| gradient.defined())
            .collect()
    }

    /// What a checkpoint must keep: `exp_avg.NAME` and `exp_avg_sq.NAME` of every trained parameter, and `step`, a
    /// float32 scalar. Handles, not copies.
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
    pub fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<(), Error> {
        load(&self.state(), state)
    }

    fn trained(&self) -> impl Iterator<Item = &Member> {
        self.groups
            .iter()
            .flat_map(Group::trained)
            .map(|(member, _)| member)
    }
}

impl Group {
    fn trained(&self) -> impl Iterator<Item = (&Member, &Moments)> {
        self.members
            .iter()
            .filter_map(|member| Some((member, member.moments.as_ref()?)))
    }

    fn gradients(&self) -> Result<Vec<Tensor>, Error> {
        self.trained()
            .map(|(member, _)| match member.parameter.grad() {
                gradient if gradient.defined() => Ok(gradient),
                _ => Err(Error::NoGradient(member.name.clone())),
            })
            .collect()
    }
}

/// The official rule, by name and number of dimensions.
fn is_decayed(name: &str, tensor: &Tensor) -> bool {
    !name.contains("bias") && tensor.dim() != 1
}
