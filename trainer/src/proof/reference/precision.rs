//! What a replay computes matrix products in.

use tch::Tensor;

use crate::Error;
use crate::torch::shim::Autocast;

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
    pub(super) fn enter(self, images: &Tensor) -> Result<Option<Autocast>, Error> {
        match self {
            Precision::Float32 => Ok(None),
            Precision::Bfloat16 => Autocast::bfloat16(images).map(Some),
        }
    }
}
