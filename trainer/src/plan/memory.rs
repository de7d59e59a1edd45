//! The memory of a GPU, item by item.

use serde::Serialize;

use super::networks::{FLOAT, Networks};
use crate::config::Config;
use crate::method::model::{MLP_RATIO, ModelConfig};

/// Lengths of masks, in patches of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Lengths {
    /// Of a context mask.
    pub context: u64,
    /// Of a target mask.
    pub target: u64,
}

/// What takes memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Context encoder and predictor.
    pub weights: u64,
    /// Target encoder.
    pub target: u64,
    /// Gradients.
    pub gradients: u64,
    /// The optimiser's moments.
    pub moments: u64,
    /// Weights in bfloat16, which autocast keeps during a group.
    pub casts: u64,
    /// What the backward pass of a group needs of its forward pass.
    pub activations: u64,
    /// The largest results that are needed for a moment only.
    pub workspace: u64,
    /// Images of two groups, as bytes and as numbers.
    pub images: u64,
    /// CUDA, its libraries' workspaces, and what communication takes.
    pub libraries: u64,
}

/// CUDA's own memory and workspaces of its libraries: an assumption.
const CUDA: u64 = 1 << 30;

/// Buffers of communication between ranks: an assumption.
const COMMUNICATION: u64 = 1 << 29;

impl Memory {
    /// Adds up what a rank needs, one of `ranks`, with groups under masks of these lengths.
    pub fn new(config: &Config, model: &ModelConfig, longest: Lengths, ranks: u64) -> Memory {
        let networks = Networks::of(model);
        let bfloat16 = config.meta.use_bfloat16;
        let cast = |parameters: u64| if bfloat16 { 2 * parameters } else { 0 };
        let images = config.loader.data.batch_size;
        let pixels = 3 * images * (model.image_size as u64).pow(2);
        Memory {
            weights: networks.weights(),
            target: networks.target(),
            gradients: networks.gradients(),
            moments: networks.moments(),
            casts: cast(networks.weights() / FLOAT + networks.encoder.all),
            activations: activations(config, model, longest),
            workspace: workspace(config, model, longest),
            images: 2 * pixels + pixels * FLOAT,
            libraries: CUDA + if ranks > 1 { COMMUNICATION } else { 0 },
        }
    }

    /// Returns the items with their names.
    pub fn items(&self) -> [(&'static str, u64); 9] {
        [
            ("weights of context encoder and predictor", self.weights),
            ("target encoder", self.target),
            ("gradients", self.gradients),
            ("moments", self.moments),
            ("weights in bfloat16", self.casts),
            ("activations for the backward pass", self.activations),
            ("workspace", self.workspace),
            ("images", self.images),
            ("CUDA and libraries (assumed)", self.libraries),
        ]
    }

    /// Returns the sum.
    pub fn total(&self) -> u64 {
        let items = self.items().map(|(_, bytes)| bytes);
        items.into_iter().fold(0, u64::saturating_add)
    }
}

/// Returns the bytes that a block of a transformer keeps of a token for its backward pass.
///
/// These are the inputs of both norms, in float32 as the residual stream is; and as products are computed: the outputs
/// of both norms, query, key, value and the attention's output, together 6 widths, and both sides of the MLP's
/// activation.
fn block(width: u64, hidden: u64, bfloat16: bool) -> u64 {
    let product = if bfloat16 { 2 } else { FLOAT };
    2 * width * FLOAT + (6 * width + 2 * hidden) * product
}

/// Tokens of a group in the context encoder and in the predictor.
fn tokens(config: &Config, lengths: Lengths) -> [u64; 2] {
    let mask = &config.loader.mask;
    let (contexts, targets) = (mask.num_enc_masks as u64, mask.num_pred_masks as u64);
    let masked = config.loader.data.batch_size.saturating_mul(contexts);
    [
        masked.saturating_mul(lengths.context),
        masked.saturating_mul(targets * (lengths.context + lengths.target)),
    ]
}

/// Returns about how many bytes the backward pass of a group keeps of the forward pass. With recomputation a block
/// keeps its input alone.
pub fn activations(config: &Config, model: &ModelConfig, lengths: Lengths) -> u64 {
    let [encoder, predictor] = tokens(config, lengths);
    let [width, hidden, depth, narrow, deep] = sizes(model);
    let per_token = |width: u64, hidden: u64| match config.trainer.activation_checkpointing {
        true => width * FLOAT,
        false => block(width, hidden, config.meta.use_bfloat16),
    };
    let encoder = encoder.saturating_mul(per_token(width, hidden) * depth);
    let predictor = predictor.saturating_mul(per_token(narrow, narrow * MLP_RATIO as u64) * deep);
    encoder.saturating_add(predictor)
}

/// Returns the largest results that are needed for a moment: a block of the target encoder over whole images, or with
/// recomputation a block of the others, computed a second time.
fn workspace(config: &Config, model: &ModelConfig, lengths: Lengths) -> u64 {
    let [encoder, predictor] = tokens(config, lengths);
    let [width, hidden, _, narrow, _] = sizes(model);
    let of_block = |tokens: u64, width, hidden| {
        tokens.saturating_mul(block(width, hidden, config.meta.use_bfloat16))
    };
    let patches = config
        .loader
        .data
        .batch_size
        .saturating_mul(model.patches() as u64);
    let target = of_block(patches, width, hidden);
    if !config.trainer.activation_checkpointing {
        return target;
    }
    let predictor = of_block(predictor, narrow, narrow * MLP_RATIO as u64);
    target.max(of_block(encoder, width, hidden)).max(predictor)
}

fn sizes(model: &ModelConfig) -> [u64; 5] {
    [
        model.embed_dim,
        model.mlp_dim,
        model.depth,
        model.predictor_dim,
        model.predictor_depth,
    ]
    .map(|size| size as u64)
}

#[cfg(test)]
mod tests {
    use super::super::tests::official;
    use super::*;

    const LENGTHS: Lengths = Lengths {
        context: 70,
        target: 45,
    };

    #[test]
    fn what_a_block_keeps_counted_by_hand() {
        // Two inputs of norms; two outputs; query, key, value; the attention's output; before and after the activation.
        let float32 = 4 * (10 + 10) + 4 * (10 + 10) + 4 * 30 + 4 * 10 + 4 * (40 + 40);
        assert_eq!(block(10, 40, false), float32);
        let bfloat16 = 4 * (10 + 10) + 2 * (10 + 10) + 2 * 30 + 2 * 10 + 2 * (40 + 40);
        assert_eq!(block(10, 40, true), bfloat16);
    }

    #[test]
    fn the_published_vit_h_14_counted_by_hand() {
        let config = official("in1k_vith14_ep300.yaml", &[]);
        let model = config.model().unwrap();
        let memory = Memory::new(&config, &model, LENGTHS, 16);
        let encoder = 128 * 70 * 32 * (20 * 1280 + 4 * 5120);
        let predictor = 128 * 4 * (70 + 45) * 12 * (20 * 384 + 4 * 1536);
        assert_eq!(memory.activations, encoder + predictor);
        assert_eq!(memory.workspace, 128 * 256 * (20 * 1280 + 4 * 5120));
        assert_eq!(memory.images, 128 * 3 * 224 * 224 * 6);
        // 36 to 40 GiB by another count of the same network.
        let gib = memory.total() as f64 / f64::from(1 << 30);
        assert!((34.0..42.0).contains(&gib), "{gib}");
        let alone = Memory::new(&config, &model, LENGTHS, 1);
        assert_eq!(memory.total() - alone.total(), COMMUNICATION);
    }

    #[test]
    fn recomputation_keeps_inputs_alone() {
        let config = official(
            "in1k_vith14_ep300.yaml",
            &["trainer.activation_checkpointing=true"],
        );
        let model = config.model().unwrap();
        let memory = Memory::new(&config, &model, LENGTHS, 1);
        let encoder = 128 * 70 * 32 * 4 * 1280;
        let predictor = 128 * 4 * (70 + 45) * 12 * 4 * 384;
        assert_eq!(memory.activations, encoder + predictor);
        // A block of the target encoder is the largest.
        assert_eq!(memory.workspace, 128 * 256 * (20 * 1280 + 4 * 5120));
    }
}
