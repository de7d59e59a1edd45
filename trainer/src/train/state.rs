//! What training changes, as the tensors of a checkpoint: given out and taken in, the two halves of one contract.

use std::collections::BTreeMap;
use std::path::Path;

use tch::{Device, Tensor};

use super::Run;
use crate::checkpoint::{self, PARTS, Parts, State};
use crate::method::ijepa::IJepa;
use crate::method::optimizer::Optimizer;

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
pub(super) fn load(
    path: &Path,
    ijepa: &mut IJepa,
    optimizer: &mut Optimizer,
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
    let loaded = ijepa
        .load_state(&state)
        .and_then(|()| optimizer.load_state(&moments));
    loaded.map_err(|cause| checkpoint::Error::Unfit {
        path: path.to_owned(),
        cause,
    })
}
