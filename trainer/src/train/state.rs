//! What training changes, as the tensors of a checkpoint: given out and taken in, the two halves of one contract.

use std::collections::BTreeMap;
use std::path::Path;

use tch::{Device, Tensor};

use super::Run;
use crate::Error;
use crate::checkpoint::{self, PARTS, Parts, State};
use crate::method::ijepa::IJepa;
use crate::method::optimizer::Optimizer;
use crate::method::positions;

/// The tensors that depend on the size of the images.
const POSITIONS: [&str; 3] = [
    "encoder.pos_embed",
    "predictor.predictor_pos_embed",
    "target_encoder.pos_embed",
];

impl Run {
    /// Returns what a checkpoint of this moment knows.
    pub fn state(&self) -> State {
        State {
            step: self.step,
            epoch: self.step / self.epoch_len,
            global_batch: self.identity.global_batch,
            sampling_hash: self.identity.sampling_hash,
            manifest_checksum: self.identity.manifest_checksum,
            loss: self.loss,
            skipped: self.skipped,
            threads: (self.device == Device::Cpu).then(|| tch::get_num_threads() as u64),
            lineage: self.identity.lineage.clone(),
            ..State::new(self.step, self.epoch_len, self.identity.config.clone())
        }
    }

    /// Returns the tensors of a checkpoint: handles, not copies.
    pub fn parts(&self) -> Parts {
        let network = |parameters: &[(String, Tensor)]| {
            parameters
                .iter()
                .map(|(name, tensor)| (name.clone(), tensor.shallow_clone()))
                .collect()
        };
        let tensors = [
            network(self.ijepa.encoder.parameters()),
            network(self.ijepa.predictor.parameters()),
            network(self.ijepa.target_encoder.parameters()),
            self.optimizer.state(),
        ];
        PARTS.into_iter().zip(tensors).collect()
    }
}

/// Takes up what the checkpoint in `path` holds: every tensor, and no other.
///
/// It has the positions of the crops of its last step, whichever they are; those of other `sizes` to come must be ones
/// that can be computed.
pub(super) fn load(
    path: &Path,
    ijepa: &mut IJepa,
    optimizer: &mut Optimizer,
    sizes: impl Iterator<Item = u32>,
) -> Result<(), checkpoint::Error> {
    let mut state = BTreeMap::new();
    let [networks @ .., optimizer_part] = PARTS;
    for network in networks {
        let tensors = checkpoint::read_part(path, network)?;
        state.extend(
            tensors
                .into_iter()
                .map(|(name, tensor)| (format!("{network}.{name}"), tensor)),
        );
    }
    let moments = checkpoint::read_part(path, optimizer_part)?;
    let loaded = fit(ijepa, &state, sizes)
        .and_then(|()| ijepa.load_state(&state))
        .and_then(|()| optimizer.load_state(&moments));
    loaded.map_err(|cause| checkpoint::Error::Unfit {
        path: path.to_owned(),
        cause,
    })
}

/// Gives the networks the size of images that `state` is of, if training can go on from there with those of `sizes`.
fn fit(
    ijepa: &mut IJepa,
    state: &BTreeMap<String, Tensor>,
    mut sizes: impl Iterator<Item = u32>,
) -> Result<(), Error> {
    let model = ijepa.encoder.config();
    let Some(grid) = state.get(POSITIONS[0]).and_then(positions::grid) else {
        return Ok(()); // which loading it refuses
    };
    let given = grid * model.patch_size;
    if given != model.image_size {
        ijepa.resize(given)?;
    }
    let Some(wanted) = sizes.find(|&size| i64::from(size) != given) else {
        return Ok(());
    };
    for name in POSITIONS {
        if let Some(tensor) = state.get(name)
            && !positions::is_fixed(tensor)?
        {
            let wanted = wanted.into();
            return Err(Error::Positions {
                name,
                given,
                wanted,
            });
        }
    }
    Ok(())
}
