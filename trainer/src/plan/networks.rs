//! The sizes of the networks: parameters, and what they take of memory and of disks.

use serde::Serialize;

use crate::method::model::ModelConfig;
use crate::method::parameters::{self, Parameter};

/// Bytes of a float32.
pub const FLOAT: u64 = 4;

/// Parameters of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Count {
    /// All of them.
    pub all: u64,
    /// Those that training moves: all but the table of positions.
    pub trained: u64,
}

impl Count {
    fn of(list: &[Parameter]) -> Count {
        let values = |each: &Parameter| -> u64 {
            let dimensions = each.shape.iter().map(|&dimension| dimension as u64);
            dimensions.fold(1, u64::saturating_mul)
        };
        let sum = |list: &mut dyn Iterator<Item = &Parameter>| {
            list.map(values).fold(0, u64::saturating_add)
        };
        Count {
            all: sum(&mut list.iter()),
            trained: sum(&mut list.iter().filter(|each| each.is_trained())),
        }
    }
}

/// Parameters of the networks; the target encoder has those of the context encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Networks {
    /// Of the context encoder, and of the target encoder.
    pub encoder: Count,
    /// Of the predictor.
    pub predictor: Count,
}

impl Networks {
    /// Counts the parameters of networks of these sizes.
    pub fn of(model: &ModelConfig) -> Networks {
        Networks {
            encoder: Count::of(&parameters::encoder(model)),
            predictor: Count::of(&parameters::predictor(model)),
        }
    }

    /// Returns the parameters that the optimiser moves.
    pub fn trained(&self) -> u64 {
        self.encoder.trained.saturating_add(self.predictor.trained)
    }

    /// Returns the bytes of the context encoder and the predictor.
    pub fn weights(&self) -> u64 {
        let all = self.encoder.all.saturating_add(self.predictor.all);
        all.saturating_mul(FLOAT)
    }

    /// Returns the bytes of the target encoder.
    pub fn target(&self) -> u64 {
        self.encoder.all.saturating_mul(FLOAT)
    }

    /// Returns the bytes of all gradients.
    pub fn gradients(&self) -> u64 {
        self.trained().saturating_mul(FLOAT)
    }

    /// Returns the bytes of the optimiser's two moments.
    pub fn moments(&self) -> u64 {
        self.gradients().saturating_mul(2)
    }

    /// Returns the bytes that training takes for certain: weights, target encoder, gradients and moments.
    pub fn certain(&self) -> u64 {
        let parts = [
            self.weights(),
            self.target(),
            self.gradients(),
            self.moments(),
        ];
        parts.into_iter().fold(0, u64::saturating_add)
    }

    /// Returns the bytes of a checkpoint: everything but the gradients.
    pub fn checkpoint(&self) -> u64 {
        self.certain().saturating_sub(self.gradients())
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::method::ijepa::IJepa;
    use crate::method::model::Preset;

    /// Parameters of a transformer's blocks: two norms, four projections, two layers, with their biases.
    fn blocks(depth: u64, width: u64, hidden: u64) -> u64 {
        depth * (4 * width + 4 * width * (width + 1) + 2 * width * hidden + hidden + width)
    }

    #[test]
    fn all_official_networks_counted_by_hand() {
        for preset in Preset::ALL {
            let (patch, narrow, deep) = (14, 4 * preset.heads, 6);
            let model = ModelConfig::preset(preset.name, 224, patch, narrow, deep).unwrap();
            let [width, depth, hidden, narrow, deep, patch] = [
                preset.embed_dim,
                preset.depth,
                preset.mlp_dim,
                narrow,
                deep,
                patch,
            ]
            .map(|size| size as u64);
            let found = Networks::of(&model);
            let encoder =
                (3 * patch * patch + 1) * width + blocks(depth, width, hidden) + 2 * width;
            let positions = 16 * 16 * width;
            assert_eq!(
                found.encoder,
                Count {
                    all: encoder + positions,
                    trained: encoder
                }
            );
            let predictor = narrow // the mask token
                + (width + 1) * narrow
                + blocks(deep, narrow, 4 * narrow)
                + 2 * narrow
                + (narrow + 1) * width;
            let positions = 16 * 16 * narrow;
            assert_eq!(
                found.predictor,
                Count {
                    all: predictor + positions,
                    trained: predictor
                }
            );
        }
    }

    #[test]
    fn a_published_count() {
        let model = ModelConfig::preset("vit_base", 224, 16, 384, 6).unwrap();
        // timm's vit_base_patch16_224 without its head has a class token, too, and a position for it.
        assert_eq!(Networks::of(&model).encoder.all, 85_798_656 - 2 * 768);
    }

    #[test]
    fn real_networks_have_as_many() {
        for name in ["vit_tiny", "vit_small"] {
            let model = ModelConfig::preset(name, 224, 16, 192, 2).unwrap();
            let real = IJepa::zeroed(&model, Device::Cpu).unwrap();
            let count = |parameters: &[(String, tch::Tensor)]| {
                let sizes = parameters.iter().map(|(_, tensor)| {
                    let trained = if tensor.requires_grad() {
                        tensor.numel()
                    } else {
                        0
                    };
                    (tensor.numel() as u64, trained as u64)
                });
                sizes.fold(Count { all: 0, trained: 0 }, |sum, (all, trained)| Count {
                    all: sum.all + all,
                    trained: sum.trained + trained,
                })
            };
            let found = Networks::of(&model);
            assert_eq!(found.encoder, count(real.encoder.parameters()));
            assert_eq!(found.predictor, count(real.predictor.parameters()));
        }
    }
}
