//! Weights to begin at step 0 from: continued pretraining on other images, with other schedules.
//!
//! The encoders are taken as they are. A predictor is taken if it is the one that the configuration describes, and made
//! anew from `trainer.seed` otherwise. Positions are fixed tables of sines and cosines, so for images of another size
//! they are computed anew, now or later in the run; a table of another kind has no values there and is refused.

use std::borrow::Cow;
use std::path::Path;

use exchange::model::ModelConfig;
use exchange::parameters;
use exchange::weights::{self, Data, Tensors};
use safetensors::Dtype;
use tch::{Device, Tensor};

use super::{Given, Weights, check_encoders, unfit};
use crate::config::Config;
use crate::exchange::Error;
use crate::method::predictor::Predictor;
use crate::method::{init, positions};

const POSITIONS: &str = "pos_embed";
const PREDICTOR_POSITIONS: &str = "predictor_pos_embed";

/// Tells whether encoders of `given` sizes can be trained under a configuration of `wanted` sizes.
pub(super) fn suits(given: &ModelConfig, wanted: &ModelConfig) -> bool {
    as_in(given, wanted) == *wanted
}

/// Returns the `given` encoder's sizes beside what may be made anew for `wanted`.
fn as_in(given: &ModelConfig, wanted: &ModelConfig) -> ModelConfig {
    ModelConfig {
        image_size: wanted.image_size,
        predictor_dim: wanted.predictor_dim,
        predictor_depth: wanted.predictor_depth,
        ..given.clone()
    }
}

/// Returns the weights with which training begins at step 0 under `config`.
///
/// # Errors
/// [`Error::OtherNetworks`] for encoders of other sizes, [`Error::Positions`] for positions that cannot be computed.
pub(super) fn prepare<'a>(
    source: &Path,
    mut given: Given<'a>,
    config: &Config,
) -> Result<Weights<'a>, Error> {
    given.complete_encoders();
    let wanted = config.model()?;
    let networks = given.networks;
    let (mut encoder, mut target_encoder) = (networks.encoder, networks.target_encoder);
    let model =
        weights::sizes(&encoder, None, given.heads).map_err(|cause| unfit(source, cause))?;
    let differences = as_in(&model, &wanted).differences(&wanted);
    if !differences.is_empty() {
        return Err(Error::OtherNetworks {
            path: source.to_owned(),
            differences,
            start_over: false,
        });
    }
    check_encoders(&model, &encoder, &target_encoder).map_err(|cause| unfit(source, cause))?;

    let resized = model.grid() != wanted.grid();
    let mut sizes = config.loader.data.crop_size.from_epoch(0).map(i64::from);
    let other = sizes.find(|&size| size != model.image_size);
    let mut notes = given.notes;
    let predictor = taken(
        networks.predictor,
        &model,
        &wanted,
        other.is_some(),
        given.heads,
        &encoder,
    )?;
    let predictor = match predictor {
        Ok(predictor) => predictor,
        Err(reason) => {
            let seed = config.trainer.seed;
            notes.push(format!(
                "{reason}: a new one is made, from trainer.seed {seed}"
            ));
            made(&wanted, seed)?
        }
    };
    for (network, tensors) in [
        ("encoder", &mut encoder),
        ("target_encoder", &mut target_encoder),
    ] {
        let is_fixed = is_fixed(&tensors[POSITIONS], &model, model.embed_dim)?;
        if let Some(wanted) = other.filter(|_| !is_fixed) {
            return Err(Error::Positions {
                path: source.to_owned(),
                network,
                name: POSITIONS,
                given: model.image_size,
                wanted,
            });
        }
        if resized {
            tensors.insert(POSITIONS.to_owned(), table(&wanted, wanted.embed_dim)?);
        } else if !is_fixed {
            notes.push(format!(
                "{network}: `{POSITIONS}` is not the sine-cosine table of fixed positions; it is kept, and not trained"
            ));
        }
    }
    if resized {
        notes.push(format!(
            "positions computed anew for images of {} pixels instead of {}",
            wanted.image_size, model.image_size
        ));
    }
    Ok(Weights {
        model: wanted,
        encoder,
        target_encoder,
        predictor: Some(predictor),
        moments: None,
        epoch: 0,
        loss: None,
        batch: None,
        notes,
    })
}

/// Returns the source's predictor if it is the `wanted` one, else why it is not. Where images of another size are to
/// come, its positions must be ones that can be computed for them.
fn taken<'a>(
    mut predictor: Tensors<'a>,
    given: &ModelConfig,
    wanted: &ModelConfig,
    to_be_resized: bool,
    heads: Option<i64>,
    encoder: &Tensors<'a>,
) -> Result<Result<Tensors<'a>, String>, Error> {
    if predictor.is_empty() {
        return Ok(Err("no predictor in the source".to_owned()));
    }
    let fitting = weights::sizes(encoder, Some(&predictor), heads).and_then(|model| {
        weights::check("predictor", &predictor, &parameters::predictor(&model))?;
        Ok(model)
    });
    let model = match fitting {
        Ok(model) => model,
        Err(cause) => return Ok(Err(format!("its predictor does not fit ({cause})"))),
    };
    let differences = as_in(given, &model).differences(&as_in(given, wanted));
    if !differences.is_empty() {
        return Ok(Err(format!(
            "its predictor is another ({})",
            differences.join(", ")
        )));
    }
    let width = wanted.predictor_dim;
    if to_be_resized && !is_fixed(&predictor[PREDICTOR_POSITIONS], given, width)? {
        let reason = "its predictor's positions are no fixed table";
        return Ok(Err(reason.to_owned()));
    }
    if given.grid() != wanted.grid() {
        predictor.insert(PREDICTOR_POSITIONS.to_owned(), table(wanted, width)?);
    }
    Ok(Ok(predictor))
}

/// Returns a fresh predictor.
fn made(model: &ModelConfig, seed: u64) -> Result<Tensors<'static>, Error> {
    let predictor = Predictor::new(model, Device::Cpu)?;
    init::initialise(predictor.parameters(), seed)?;
    let parameters = predictor.parameters().iter();
    parameters
        .map(|(name, tensor)| Ok((name.clone(), data(&tensor.detach())?)))
        .collect()
}

/// Returns the fixed positions of a network of this width.
fn table(model: &ModelConfig, width: i64) -> Result<Data<'static>, Error> {
    data(&positions::embedding(width, model.grid(), Device::Cpu)?)
}

/// Tells whether a tensor is the fixed positions of a network of this width, but for rounding.
fn is_fixed(tensor: &Data<'_>, model: &ModelConfig, width: i64) -> Result<bool, Error> {
    let fixed = table(model, width)?;
    let (one, other) = (tensor.to_bytes(), fixed.to_bytes());
    let pairs = one.chunks_exact(4).zip(other.chunks_exact(4));
    let number = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().expect("4 bytes"));
    // Written so that a NaN is no small difference.
    let close = |(one, other)| f64::from(number(one) - number(other)).abs() <= positions::ROUNDING;
    Ok(one.len() == other.len() && { pairs }.all(close))
}

/// Returns a tensor on the CPU as it lies in a file.
fn data(tensor: &Tensor) -> Result<Data<'static>, Error> {
    let shape = tensor
        .size()
        .iter()
        .map(|&length| length as usize)
        .collect();
    let flat = tensor
        .f_contiguous()
        .and_then(|tensor| tensor.f_flatten(0, -1));
    let numbers = flat.and_then(|flat| Vec::<f32>::try_from(&flat));
    let numbers = numbers.map_err(crate::Error::from)?;
    let bytes: Vec<u8> = numbers.into_iter().flat_map(f32::to_le_bytes).collect();
    let made = Data::new(Dtype::F32, shape, Cow::Owned(bytes));
    Ok(made.expect("as many numbers as the tensor has"))
}
