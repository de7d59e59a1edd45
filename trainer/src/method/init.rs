//! Fresh weights.
//!
//! The law is the official one as it comes out in the end (`init_model` of `src/helper.py`, after `_init_weights` and
//! `fix_init_weight` of `src/models/vision_transformer.py`): every matrix, the patch projection and the mask token are
//! normal with standard deviation 0.02 (nominally truncated, but at ±2, a hundred deviations away); biases are 0 and
//! layer-norm gains 1. The rescaling of deeper layers that the official constructors do is undone there by a second
//! initialisation, so it is left out here.
//!
//! Values are drawn on the CPU whatever the device, in the order of the parameters, so a seed means the same weights
//! everywhere.

use tch::Tensor;

use crate::Error;
use crate::torch::shim;

/// Standard deviation of the weights.
const STD: f64 = 0.02;

/// Fills `parameters` (under their official names) in place.
///
/// Position embeddings, which are constants, stay as they are.
///
/// # Errors
/// From the device.
pub fn initialise(parameters: &[(String, Tensor)], seed: u64) -> Result<(), Error> {
    let mut matrices = Vec::new();
    for (name, tensor) in parameters
        .iter()
        .filter(|(name, _)| !name.ends_with("pos_embed"))
    {
        if tensor.dim() == 1 {
            let value = if name.ends_with(".bias") { 0.0 } else { 1.0 };
            tch::no_grad(|| tensor.shallow_clone().f_fill_(value).map(drop))?;
        } else {
            matrices.push(tensor);
        }
    }
    shim::normal(matrices, STD, seed)
}
