//! The official optimiser's moments, under the names of their parameters.

use exchange::model::ModelConfig;
use exchange::official::Optimizer;
use exchange::parameters::{self, Parameter};
use exchange::weights::{Data, DataError, Tensors};

use crate::method::optimizer::{BETA1, BETA2, EPS};

/// Most steps that a float32 counts one by one.
const MAX_STEPS: f64 = 16_777_216.0;

/// The reason why a state of AdamW is not that of the official optimiser of these networks.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OptimizerFault {
    /// The groups have other numbers of parameters.
    #[error(
        "groups of {found:?} parameters; the official optimiser of these networks has {expected:?}"
    )]
    Groups {
        /// Parameters of each group.
        found: Vec<u64>,
        /// Parameters of each group of the official optimiser.
        expected: Vec<u64>,
    },
    /// The settings are not those that training here has.
    #[error(
        "betas {betas:?} and eps {eps:e}; training here has [{BETA1}, {BETA2}] and {EPS:e}, as the official code"
    )]
    Settings {
        /// Decays of the first and second moments.
        betas: [f64; 2],
        /// What keeps the division finite.
        eps: f64,
    },
    /// A parameter lacks moments that others have.
    #[error("parameter {number}, `{name}`, has no moments")]
    Missing {
        /// Number of the parameter.
        number: usize,
        /// Its name.
        name: String,
    },
    /// A constant has moments.
    #[error("parameter {number}, `{name}`, has moments but is never trained")]
    Untrained {
        /// Number of the parameter.
        number: usize,
        /// Its name.
        name: String,
    },
    /// A parameter made another number of steps than the parameters before it.
    #[error("parameter {number}, `{name}`, made {found} steps, others {expected}")]
    Steps {
        /// Number of the parameter.
        number: usize,
        /// Its name.
        name: String,
        /// Its steps.
        found: f64,
        /// The others' steps.
        expected: f64,
    },
    /// A moment is no tensor of weights.
    #[error("{moment} of `{name}`: {cause}")]
    Tensor {
        /// `exp_avg` or `exp_avg_sq`.
        moment: &'static str,
        /// Name of the parameter.
        name: String,
        /// What is wrong with it.
        cause: DataError,
    },
    /// A moment has another shape than its parameter.
    #[error("{moment} of parameter {number}, `{name}`, is {found:?}, expected {expected:?}")]
    Shape {
        /// `exp_avg` or `exp_avg_sq`.
        moment: &'static str,
        /// Number of the parameter.
        number: usize,
        /// Its name.
        name: String,
        /// Lengths of the moment.
        found: Vec<usize>,
        /// Lengths of the parameter.
        expected: Vec<usize>,
    },
    /// The steps are no whole number, or more than float32 counts.
    #[error("{0} steps: not a number of steps that float32 counts")]
    NoCount(f64),
}

/// Returns the steps done and the moments, under the names of their parameters.
///
/// The official optimiser numbers its parameters group by group.
///
/// # Errors
/// [`OptimizerFault`] where the state is not the official optimiser's of these networks.
pub(super) fn named<'a>(
    mut optimizer: Optimizer<'a>,
    model: &ModelConfig,
) -> Result<(u64, Tensors<'a>), OptimizerFault> {
    let groups = parameters::optimizer_groups(model);
    let expected: Vec<u64> = groups
        .iter()
        .map(|group| group.members.len() as u64)
        .collect();
    let found: Vec<u64> = optimizer
        .groups
        .iter()
        .map(|group| group.parameters)
        .collect();
    if found != expected {
        return Err(OptimizerFault::Groups { found, expected });
    }
    for group in &optimizer.groups {
        let (betas, eps) = (group.betas, group.eps);
        if betas != [BETA1, BETA2] || eps != EPS {
            return Err(OptimizerFault::Settings { betas, eps });
        }
    }
    let untouched = optimizer.moments.is_empty();
    let mut steps = None;
    let mut read = Tensors::new();
    let members = groups.into_iter().flat_map(|group| group.members);
    for (number, parameter) in members.enumerate() {
        let trained = parameter.is_trained();
        let Parameter { name, shape } = parameter;
        let Some(moments) = optimizer.moments.remove(&(number as u64)) else {
            if trained && !untouched {
                return Err(OptimizerFault::Missing { number, name });
            }
            if trained {
                zeros(&mut read, &name, &shape);
            }
            continue;
        };
        if !trained {
            return Err(OptimizerFault::Untrained { number, name });
        }
        let expected = *steps.get_or_insert(moments.step);
        if moments.step != expected {
            return Err(OptimizerFault::Steps {
                number,
                name,
                found: moments.step,
                expected,
            });
        }
        for (moment, elements) in [
            ("exp_avg", moments.exp_avg),
            ("exp_avg_sq", moments.exp_avg_sq),
        ] {
            let tensor = Data::try_from(elements).map_err(|cause| OptimizerFault::Tensor {
                moment,
                name: name.clone(),
                cause,
            })?;
            if tensor.shape() != shape {
                return Err(OptimizerFault::Shape {
                    moment,
                    number,
                    name,
                    found: tensor.shape().to_vec(),
                    expected: shape,
                });
            }
            read.insert(format!("{moment}.{name}"), tensor);
        }
    }
    let steps = steps.unwrap_or(0.0);
    if steps.fract() != 0.0 || !(0.0..=MAX_STEPS).contains(&steps) {
        return Err(OptimizerFault::NoCount(steps));
    }
    read.insert("step".to_owned(), Data::scalar(steps as f32));
    Ok((steps as u64, read))
}

/// Returns moments of zero, as before the first step.
pub(super) fn fresh(model: &ModelConfig) -> Tensors<'static> {
    let mut moments = Tensors::new();
    let groups = parameters::optimizer_groups(model).into_iter();
    let members = groups.flat_map(|group| group.members);
    for Parameter { name, shape } in members.filter(Parameter::is_trained) {
        zeros(&mut moments, &name, &shape);
    }
    moments.insert("step".to_owned(), Data::scalar(0.0));
    moments
}

fn zeros(moments: &mut Tensors<'_>, name: &str, shape: &[usize]) {
    moments.insert(format!("exp_avg.{name}"), Data::zeros(shape));
    moments.insert(format!("exp_avg_sq.{name}"), Data::zeros(shape));
}
