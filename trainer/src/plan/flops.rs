//! Arithmetic that the method needs: multiplications and additions in matrix products, as published.
//!
//! It counts what the official code computes, whatever ours leaves out, so that images per second and these numbers
//! rank implementations alike. Element-wise work is not counted. `trainer bench` and [`trainer plan`](super) use it.

use crate::method::model::ModelConfig;

/// Masks of an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Masks {
    /// Context masks.
    pub contexts: usize,
    /// Target masks.
    pub targets: usize,
    /// Patches in one context mask.
    pub context_len: f64,
    /// Patches in one target mask.
    pub target_len: f64,
}

/// Returns the floating-point operations of a training step per image: the target encoder forward, the others forward
/// and, at twice that, backward.
pub fn per_image(model: &ModelConfig, masks: Masks) -> f64 {
    let [patches, patch, width, narrow] = [
        model.patches(),
        model.patch_size,
        model.embed_dim,
        model.predictor_dim,
    ]
    .map(|size| size as f64);
    let (contexts, targets) = (masks.contexts as f64, masks.targets as f64);
    let (context_len, target_len) = (masks.context_len, masks.target_len);

    let embedding = patches * 2.0 * 3.0 * patch * patch * width;
    let encoder = |tokens: f64| model.depth as f64 * block(tokens, width, model.mlp_dim as f64);
    let target = embedding + encoder(patches);
    let predictor = contexts * context_len * 2.0 * width * narrow
        + contexts
            * targets
            * (model.predictor_depth as f64
                * block(context_len + target_len, narrow, 4.0 * narrow)
                + target_len * 2.0 * narrow * width);
    // Nothing needs the gradient of the pixels.
    target + 2.0 * embedding + 3.0 * (contexts * encoder(context_len) + predictor)
}

/// Returns the operations of a block over `tokens` tokens: four projections, two layers, and the two products of
/// attention.
fn block(tokens: f64, width: f64, hidden: f64) -> f64 {
    tokens * (2.0 * (4.0 * width * width + 2.0 * width * hidden) + 4.0 * tokens * width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_model_counted_by_hand() {
        let model = ModelConfig {
            image_size: 4,
            patch_size: 2,
            embed_dim: 8,
            depth: 1,
            heads: 1,
            mlp_dim: 32,
            predictor_dim: 4,
            predictor_depth: 1,
        };
        let masks = Masks {
            contexts: 1,
            targets: 2,
            context_len: 2.0,
            target_len: 1.0,
        };
        // Products (rows × inner × columns), two operations each.
        let embedding = 2 * 4 * 12 * 8;
        let encoder = |n: i32| 2 * n * (8 * 24 + 8 * 8 + 8 * 32 + 32 * 8) + 2 * 2 * n * n * 8;
        let predictor_block = 2 * 3 * (4 * 12 + 4 * 4 + 4 * 16 + 16 * 4) + 2 * 2 * 3 * 3 * 4;
        let predictor = 2 * 2 * 8 * 4 + 2 * (predictor_block + 2 * 4 * 8);
        let expected = embedding + encoder(4) + 2 * embedding + 3 * (encoder(2) + predictor);
        assert_eq!(per_image(&model, masks), f64::from(expected));
    }
}
