//! The method on a small model: names, shapes, gradients, and the arithmetic of one step.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};
use trainer::Error;
use trainer::method::hooks::{Hooks, NoHooks};
use trainer::method::ijepa::{IJepa, loss};
use trainer::method::init;
use trainer::method::model::ModelConfig;
use trainer::method::optimizer::Optimizer;
use trainer::torch::shim::Autocast;

mod memory;
mod optimizer;
mod options;
mod parameters;
mod positions;

const IMAGES: i64 = 2;

fn config() -> ModelConfig {
    ModelConfig {
        image_size: 16,
        patch_size: 4,
        embed_dim: 24,
        depth: 2,
        heads: 3,
        mlp_dim: 96,
        predictor_dim: 12,
        predictor_depth: 1,
    }
}

fn model() -> IJepa {
    IJepa::new(&config(), 7, Device::Cpu).unwrap()
}

/// Images, two context masks of 5 patches and three target masks of 4.
fn batch() -> (Tensor, Vec<Tensor>, Vec<Tensor>) {
    let images = (Tensor::arange(IMAGES * 3 * 16 * 16, (Kind::Float, Device::Cpu)) * 0.37).sin();
    let mask = |first: i64, count: i64| {
        (Tensor::arange(count, (Kind::Int64, Device::Cpu)) + first)
            .unsqueeze(0)
            .repeat([IMAGES, 1])
    };
    (
        images.view([IMAGES, 3, 16, 16]),
        vec![mask(0, 5), mask(3, 5)],
        vec![mask(8, 4), mask(10, 4), mask(12, 4)],
    )
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor.detach().flatten(0, -1).try_into().unwrap()
}

/// One forward and backward pass.
fn backward(ijepa: &IJepa) -> f64 {
    let (images, context, targets) = batch();
    let loss = ijepa
        .forward(&images, &context, &targets, &mut NoHooks)
        .unwrap();
    loss.backward();
    loss.double_value(&[])
}

#[test]
fn parameters_have_the_official_names_in_the_official_order() {
    let ijepa = model();
    let names = |parameters: &[(String, Tensor)]| -> Vec<String> {
        parameters
            .iter()
            .map(|(name, tensor)| format!("{name} {:?}", tensor.size()))
            .collect()
    };
    let encoder = names(ijepa.encoder.parameters());
    assert_eq!(encoder.len(), 3 + 2 * 12 + 2);
    assert_eq!(
        encoder[..15],
        [
            "pos_embed [1, 16, 24]",
            "patch_embed.proj.weight [24, 3, 4, 4]",
            "patch_embed.proj.bias [24]",
            "blocks.0.norm1.weight [24]",
            "blocks.0.norm1.bias [24]",
            "blocks.0.attn.qkv.weight [72, 24]",
            "blocks.0.attn.qkv.bias [72]",
            "blocks.0.attn.proj.weight [24, 24]",
            "blocks.0.attn.proj.bias [24]",
            "blocks.0.norm2.weight [24]",
            "blocks.0.norm2.bias [24]",
            "blocks.0.mlp.fc1.weight [96, 24]",
            "blocks.0.mlp.fc1.bias [96]",
            "blocks.0.mlp.fc2.weight [24, 96]",
            "blocks.0.mlp.fc2.bias [24]",
        ]
    );
    assert_eq!(encoder[27..], ["norm.weight [24]", "norm.bias [24]"]);
    let predictor = names(ijepa.predictor.parameters());
    assert_eq!(
        predictor[..4],
        [
            "mask_token [1, 1, 12]",
            "predictor_pos_embed [1, 16, 12]",
            "predictor_embed.weight [12, 24]",
            "predictor_embed.bias [12]",
        ]
    );
    assert_eq!(
        predictor[16..],
        [
            "predictor_norm.weight [12]",
            "predictor_norm.bias [12]",
            "predictor_proj.weight [24, 12]",
            "predictor_proj.bias [24]",
        ]
    );
}

#[test]
fn official_models_have_their_published_sizes() {
    // Parameters of the encoder at 224 pixels in 14 or 16 pixel patches, position embedding included.
    for (name, patch, millions) in [
        ("vit_tiny", 16, 5.5),
        ("vit_base", 16, 85.8),
        ("vit_giant", 16, 1010.6),
    ] {
        let config = ModelConfig::preset(name, 224, patch, 384, 6).unwrap();
        let block = 4 * config.embed_dim * config.embed_dim + 2 * config.embed_dim * config.mlp_dim;
        let found = (config.depth * block) as f64 / 1e6;
        assert!(
            (found / millions - 1.0).abs() < 0.05,
            "{name}: {found} million"
        );
    }
    let error = ModelConfig::preset("vit_hug", 224, 14, 384, 12)
        .unwrap_err()
        .to_string();
    assert!(error.contains("vit_huge"), "{error}");
    assert!(ModelConfig::preset("vit_huge", 8, 14, 384, 12).is_err());
    assert!(ModelConfig::preset("vit_tiny", 224, 16, 100, 12).is_err());
}

#[test]
fn initial_weights_follow_the_law_and_the_seed() {
    let config = ModelConfig::preset("vit_tiny", 32, 8, 96, 1).unwrap();
    let ijepa = IJepa::new(&config, 3, Device::Cpu).unwrap();
    for (name, tensor) in ijepa.state() {
        let values = floats(&tensor);
        if name.ends_with("pos_embed") {
            assert!(!tensor.requires_grad(), "{name}");
        } else if name.ends_with("bias") {
            assert!(values.iter().all(|&x| x == 0.0), "{name}");
        } else if tensor.dim() == 1 {
            assert!(values.iter().all(|&x| x == 1.0), "{name}");
        } else {
            let deviation = tensor.std(false).double_value(&[]);
            let slack = 4.0 / (2.0 * values.len() as f64).sqrt(); // four standard errors
            assert!(
                (deviation / 0.02 - 1.0).abs() < slack,
                "{name}: {deviation}"
            );
        }
        assert_eq!(
            tensor.requires_grad(),
            !name.starts_with("target") && !name.ends_with("pos_embed"),
            "{name}"
        );
    }
    let same = IJepa::new(&config, 3, Device::Cpu).unwrap();
    let other = IJepa::new(&config, 4, Device::Cpu).unwrap();
    for ((name, a), (_, b)) in ijepa.state().iter().zip(same.state()) {
        assert!(floats(a) == floats(&b), "{name}");
    }
    let weights = |ijepa: &IJepa| floats(&ijepa.encoder.parameters()[1].1);
    assert!(weights(&ijepa) != weights(&other));
    let target = ijepa.target_encoder.parameters();
    for ((name, a), (_, b)) in ijepa.encoder.parameters().iter().zip(target) {
        assert!(floats(a) == floats(b), "{name}");
    }
}

/// Returns what is predicted of `targets` from what `context` shows.
fn predict(ijepa: &IJepa, images: &Tensor, context: &[Tensor], targets: &[Tensor]) -> Tensor {
    let z = ijepa.context(images, context, &mut NoHooks).unwrap();
    ijepa
        .predict(&z, context, targets, None, &mut NoHooks)
        .unwrap()
}

#[test]
fn rows_run_over_target_masks_then_context_masks_then_images() {
    let ijepa = model();
    let (images, context, targets) = batch();
    let h = ijepa
        .target(&images, &targets, context.len(), &mut NoHooks)
        .unwrap();
    let z = predict(&ijepa, &images, &context, &targets);
    assert_eq!(h.size(), [3 * 2 * IMAGES, 4, 24]);
    assert_eq!(z.size(), h.size());
    for (i, target) in targets.iter().enumerate() {
        for (j, visible) in context.iter().enumerate() {
            let first = ((i * context.len() + j) as i64) * IMAGES;
            let one = std::slice::from_ref(target);
            let alone = ijepa.target(&images, one, 1, &mut NoHooks).unwrap();
            assert!(
                h.narrow(0, first, IMAGES)
                    .allclose(&alone, 1e-5, 1e-6, false)
            );
            let alone = predict(&ijepa, &images, std::slice::from_ref(visible), one);
            assert!(
                z.narrow(0, first, IMAGES)
                    .allclose(&alone, 1e-5, 1e-6, false)
            );
        }
    }
}

#[test]
fn hidden_patches_stay_hidden_from_the_predictor() {
    let ijepa = model();
    let (images, context, targets) = batch();
    let context = &context[..1]; // patches 0..5: the top row and one patch of the second
    let before = predict(&ijepa, &images, context, &targets);
    let changed = images.copy();
    let _ = changed.narrow(2, 8, 8).fill_(3.0); // the lower half
    let after = predict(&ijepa, &changed, context, &targets);
    assert!(floats(&before) == floats(&after));
}

/// What nobody looks at is not computed in training: that must not show.
#[test]
fn a_step_is_the_same_whether_or_not_somebody_listens() {
    let (images, context, targets) = batch();
    let step = |hooks: &mut dyn Hooks, recompute: bool| {
        let mut ijepa = model();
        ijepa.recompute_activations(recompute);
        let loss = ijepa.forward(&images, &context, &targets, hooks).unwrap();
        loss.backward();
        (
            loss.double_value(&[]),
            Optimizer::new(ijepa.parameter_groups())
                .unwrap()
                .gradients(),
        )
    };
    let mut heard = BTreeMap::new();
    let (whole, whole_gradients) = step(&mut heard, false);
    assert_eq!(heard["target.raw"].size(), [IMAGES, 16, 24]);
    for recompute in [false, true] {
        let (loss, gradients) = step(&mut NoHooks, recompute);
        assert!((loss / whole - 1.0).abs() < 1e-6, "{loss} {whole}");
        assert_eq!(gradients.len(), whole_gradients.len());
        for ((name, ours), (_, whole)) in gradients.iter().zip(&whole_gradients) {
            // Rounding noise is all that there is in the gradient of a key bias.
            let size = whole.abs().max().double_value(&[]).max(1e-4);
            let difference = (ours - whole).abs().max().double_value(&[]);
            assert!(difference < 1e-5 * size, "{name}: {difference} of {size}");
        }
    }
}

#[test]
fn images_of_another_size_are_refused() {
    let images = Tensor::zeros([1, 3, 20, 16], (Kind::Float, Device::Cpu));
    let error = model()
        .target(&images, &batch().2, 1, &mut NoHooks)
        .unwrap_err();
    assert!(matches!(error, Error::ImageSize { .. }), "{error}");
    assert!(error.to_string().contains("[3, 20, 16]"), "{error}");
}

#[test]
fn loss_is_smooth_l1() {
    let z = Tensor::from_slice(&[0.0f32, 0.5, 3.0, -2.0]);
    let value = loss(&z, &Tensor::zeros_like(&z)).unwrap().double_value(&[]);
    assert_eq!(value, (0.0 + 0.125 + 2.5 + 1.5) / 4.0);
}

#[test]
fn every_trained_parameter_gets_a_gradient_and_no_other() {
    let ijepa = model();
    let optimizer = Optimizer::new(ijepa.parameter_groups()).unwrap();
    assert!(optimizer.gradients().is_empty());
    backward(&ijepa);
    let with_gradient: Vec<String> = optimizer
        .gradients()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    let trained = ijepa.encoder.parameters().len() + ijepa.predictor.parameters().len() - 2;
    assert_eq!(with_gradient.len(), trained);
    for (name, tensor) in ijepa.target_encoder.parameters() {
        assert!(!tensor.grad().defined(), "{name}");
    }
}

#[test]
fn the_target_follows_with_three_roundings() {
    let mut ijepa = model();
    init::initialise(ijepa.encoder.parameters(), 8).unwrap(); // so that it differs from the target
    let read = |ijepa: &IJepa| -> Vec<Vec<f32>> {
        ijepa
            .target_encoder
            .parameters()
            .iter()
            .map(|(_, tensor)| floats(tensor))
            .collect()
    };
    let before = read(&ijepa);
    let momentum = 0.996_123_456_789;
    ijepa.update_target(momentum).unwrap();
    let (keep, take) = (momentum as f32, (1.0 - momentum) as f32);
    for (((name, online), old), new) in ijepa
        .encoder
        .parameters()
        .iter()
        .zip(before)
        .zip(read(&ijepa))
    {
        for ((q, k), result) in floats(online).into_iter().zip(old).zip(new) {
            assert_eq!(result.to_bits(), (k * keep + take * q).to_bits(), "{name}");
        }
    }
}

#[test]
fn autocast_computes_in_bfloat16_and_ends_with_its_guard() {
    let ijepa = model();
    let (images, context, targets) = batch();
    let mut hooks = BTreeMap::new();
    {
        let _autocast = Autocast::bfloat16(&images).unwrap();
        let loss = ijepa
            .forward(&images, &context, &targets, &mut hooks)
            .unwrap();
        assert!(loss.isfinite().all().int64_value(&[]) == 1);
    }
    assert_eq!(hooks["context.patch_embed"].kind(), Kind::BFloat16);
    assert_eq!(hooks["context.block0"].kind(), Kind::Float);
    assert_eq!(hooks["loss"].kind(), Kind::Float);
    let exact = ijepa
        .forward(&images, &context, &targets, &mut NoHooks)
        .unwrap();
    assert_eq!(ijepa.encoder.features(&images).unwrap().kind(), Kind::Float);
    let difference = (hooks["loss"].double_value(&[]) / exact.double_value(&[]) - 1.0).abs();
    assert!(difference > 0.0 && difference < 0.02, "{difference}");
}
