//! The time of a step on a GPU, by a model.
//!
//! A step takes the time of its matrix products at a share of the GPU's peak, and after that the time in which its
//! element-wise work moves through memory; nothing overlaps. What a transformer's block moves for each token and unit
//! of its width is counted from the operators that this trainer runs: norms, residual sums, activations and casts read
//! and write [`FORWARD`] bytes on the way forward and [`BACKWARD`] on the way back. The optimiser and the target's
//! average read and write every parameter once a step.
//!
//! It leaves out: launches, which a group of a hundred images hides; attention's own traffic, which flash kernels keep
//! small; and communication, which the backward pass hides where the network is fast enough.

use serde::Serialize;

use super::flops::{self, Masks};
use super::gpu::Gpu;
use super::networks::{FLOAT, Networks};
use crate::method::model::ModelConfig;

/// Bytes that the element-wise work of a block moves for a token and unit of width, forward, in bfloat16.
pub const FORWARD: f64 = 64.0;
/// The same, backward.
pub const BACKWARD: f64 = 142.0;
/// The same ratio for float32: twice the bytes where bfloat16 has two, as much where the residual stream is float32
/// anyway.
const FLOAT32: f64 = 1.5;
/// Share of the data sheet's bandwidth that such work reaches.
pub const BANDWIDTH: f64 = 0.8;
/// Bytes that AdamW moves for a parameter: weight, both moments read and written, the gradient read.
const OPTIMISER: u64 = 7 * FLOAT;
/// Bytes that the target's average moves for a parameter: both weights read, one written.
const AVERAGE: u64 = 3 * FLOAT;

/// A quantity at worst and at best.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Range {
    /// At worst.
    pub worst: f64,
    /// At best.
    pub best: f64,
}

impl Range {
    /// Applies a function to both ends.
    pub fn map(self, of: impl Fn(f64) -> f64) -> Range {
        Range {
            worst: of(self.worst),
            best: of(self.best),
        }
    }
}

/// The time that the parts of a step take.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Speed {
    /// Operations of the method for an image, as published.
    pub flops_per_image: f64,
    /// Seconds of an image's matrix products.
    pub products_s: Range,
    /// Seconds of an image's element-wise work.
    pub elements_s: f64,
    /// Seconds of the optimiser and the target's average, once a step.
    pub update_s: f64,
}

impl Speed {
    /// Applies the model to networks of these sizes under these masks.
    pub fn new(gpu: &Gpu, model: &ModelConfig, masks: Masks, bfloat16: bool) -> Speed {
        let flops_per_image = flops::per_image(model, masks);
        let is_half = bfloat16 && gpu.bfloat16_tflops.is_some();
        let peak = gpu.peak(bfloat16);
        let bandwidth = gpu.bandwidth_gbs * 1e9 * BANDWIDTH;
        let [worst, best] = gpu.products;
        let elements = elements(model, masks) * if is_half { 1.0 } else { FLOAT32 };
        let networks = Networks::of(model);
        let update = networks.trained() * OPTIMISER + networks.encoder.trained * AVERAGE;
        Speed {
            flops_per_image,
            products_s: Range { worst, best }.map(|share| flops_per_image / (share * peak)),
            elements_s: elements / bandwidth,
            update_s: update as f64 / bandwidth,
        }
    }

    /// Returns the seconds of a step in which a rank computes `images` images.
    pub fn step_s(&self, images: f64) -> Range {
        let fixed = images * self.elements_s + self.update_s;
        self.products_s.map(|products| images * products + fixed)
    }
}

/// Returns the bytes that the element-wise work of an image moves, in bfloat16.
fn elements(model: &ModelConfig, masks: Masks) -> f64 {
    let block = |tokens: f64, width: i64, bytes: f64| tokens * width as f64 * bytes;
    let (contexts, targets) = (masks.contexts as f64, masks.targets as f64);
    let depth = model.depth as f64;
    let target = block(model.patches() as f64, model.embed_dim, FORWARD) * depth;
    let context = contexts * block(masks.context_len, model.embed_dim, FORWARD + BACKWARD) * depth;
    let tokens = contexts * targets * (masks.context_len + masks.target_len);
    let predictor = block(tokens, model.predictor_dim, FORWARD + BACKWARD);
    target + context + predictor * model.predictor_depth as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASKS: Masks = Masks {
        contexts: 1,
        targets: 4,
        context_len: 68.3,
        target_len: 44.5,
    };

    #[test]
    fn the_parts_of_a_step_counted_by_hand() {
        let model = ModelConfig::preset("vit_huge", 224, 14, 384, 12).unwrap();
        let gpu = Gpu::named("A100-80").unwrap();
        let speed = Speed::new(&gpu, &model, MASKS, true);
        // 333 for the target, 260 for the context, 61 for the predictor, by another count.
        assert!(
            (speed.flops_per_image / 655e9 - 1.0).abs() < 0.01,
            "{speed:?}"
        );
        assert_eq!(
            speed.products_s.best,
            speed.flops_per_image / (0.7 * 311.9e12)
        );
        let bytes = 256.0 * 1280.0 * 64.0 * 32.0
            + 68.3 * 1280.0 * 206.0 * 32.0
            + 4.0 * (68.3 + 44.5) * 384.0 * 206.0 * 12.0;
        assert!((speed.elements_s / (bytes / (0.8 * 2039e9)) - 1.0).abs() < 1e-12);
        let step = speed.step_s(128.0);
        assert_eq!(
            step.best,
            128.0 * (speed.products_s.best + speed.elements_s) + speed.update_s
        );
        assert!(step.best < step.worst);

        // A GPU without bfloat16 computes in float32, and more goes through its memory.
        let old = Speed::new(&Gpu::named("V100-32").unwrap(), &model, MASKS, true);
        let single = Speed::new(&Gpu::named("V100-32").unwrap(), &model, MASKS, false);
        assert_eq!(old, single);
        assert!((old.elements_s / speed.elements_s / (1.5 * 2039.0 / 900.0) - 1.0).abs() < 1e-12);
    }

    /// The shares of the peak that a roofline of every operator gave for the same networks: the model may not leave
    /// them far behind.
    #[test]
    fn shares_of_the_peak_are_those_of_a_finer_model() {
        for (model, patch, lengths, gpu, low, high) in [
            ("vit_base", 16, (50.5, 33.4), "A100-80", 0.33, 0.43),
            ("vit_large", 16, (50.5, 33.4), "A100-80", 0.40, 0.49),
            ("vit_huge", 14, (68.3, 44.5), "A100-80", 0.44, 0.55),
            ("vit_base", 16, (50.5, 33.4), "H100", 0.18, 0.27),
            ("vit_large", 16, (50.5, 33.4), "H100", 0.23, 0.32),
            ("vit_huge", 14, (68.3, 44.5), "H100", 0.27, 0.38),
        ] {
            let deep = if model == "vit_base" { 6 } else { 12 };
            let sizes = ModelConfig::preset(model, 224, patch, 384, deep).unwrap();
            let (context_len, target_len) = lengths;
            let masks = Masks {
                context_len,
                target_len,
                ..MASKS
            };
            let gpu = Gpu::named(gpu).unwrap();
            let speed = Speed::new(&gpu, &sizes, masks, true);
            let share = speed
                .step_s(128.0)
                .map(|s| 128.0 * speed.flops_per_image / s / gpu.peak(true));
            assert!(
                (share.worst - low).abs() < 0.06,
                "{model} {}: {share:?}",
                gpu.name
            );
            assert!(
                (share.best - high).abs() < 0.06,
                "{model} {}: {share:?}",
                gpu.name
            );
        }
    }
}
