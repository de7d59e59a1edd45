//! Activation checkpointing changes memory and time, not results.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tch::{Device, Kind, Tensor};
use trainer::method::hooks::NoHooks;
use trainer::method::ijepa::IJepa;
use trainer::method::model::ModelConfig;
use trainer::method::optimizer::Optimizer;
use trainer::torch::shim::{Autocast, recomputed};

/// Loss and gradients of one batch.
fn gradients(recompute: bool, bfloat16: bool) -> (f64, Vec<(String, Tensor)>) {
    let config = ModelConfig {
        image_size: 32,
        patch_size: 8,
        embed_dim: 24,
        depth: 3,
        heads: 3,
        mlp_dim: 96,
        predictor_dim: 12,
        predictor_depth: 2,
    };
    let mut ijepa = IJepa::new(&config, 3, Device::Cpu).unwrap();
    ijepa.recompute_activations(recompute);
    let optimizer = Optimizer::new(ijepa.parameter_groups()).unwrap();
    let images = (Tensor::arange(2 * 3 * 32 * 32, (Kind::Float, Device::Cpu)) * 0.37).sin();
    let images = images.view([2, 3, 32, 32]);
    let mask = |from: i64, to: i64| {
        Tensor::arange_start(from, to, (Kind::Int64, Device::Cpu))
            .unsqueeze(0)
            .repeat([2, 1])
    };
    let loss = {
        let _mixed = bfloat16.then(|| Autocast::bfloat16(&images).unwrap());
        let (context, targets) = ([mask(4, 11)], [mask(0, 3), mask(12, 15)]);
        ijepa
            .forward(&images, &context, &targets, &mut NoHooks)
            .unwrap()
    };
    loss.f_backward().unwrap();
    (f64::try_from(loss).unwrap(), optimizer.gradients())
}

#[test]
fn gradients_are_the_same_bit_for_bit() {
    for bfloat16 in [false, true] {
        let (kept_loss, kept) = gradients(false, bfloat16);
        let (loss, anew) = gradients(true, bfloat16);
        assert_eq!(loss.to_bits(), kept_loss.to_bits());
        assert_eq!(kept.len(), anew.len());
        for ((name, one), (_, other)) in kept.iter().zip(&anew) {
            assert!(one.equal(other), "{name}, bfloat16: {bfloat16}");
        }
        assert!(
            kept.iter()
                .any(|(_, one)| f64::try_from(one.norm()).unwrap() > 0.0)
        );
    }
}

/// Autocast keeps the copies of weights that it casts. One made in a part's first pass, without gradients, must not
/// serve where they are wanted: libtorch 2.11 sees to that itself.
#[test]
fn a_part_can_be_used_both_ways_under_one_autocast() {
    let values = (Tensor::arange(16, (Kind::Float, Device::Cpu)) * 0.37).sin();
    let gradient = |recompute: bool| {
        let weight = values.view([4, 4]).copy().set_requires_grad(true);
        let input = (values.view([4, 4]) * 2.0).set_requires_grad(true);
        let sum = {
            let _mixed = Autocast::bfloat16(&input).unwrap();
            let one = if recompute {
                let inner = weight.shallow_clone();
                // SAFETY: a tensor that is only read.
                unsafe { recomputed(&input, &[&weight], move |x| Ok(x.matmul(&inner))) }.unwrap()
            } else {
                input.matmul(&weight)
            };
            (one + input.matmul(&weight) * 2.0).sum(Kind::Float)
        };
        sum.f_backward().unwrap();
        weight.grad()
    };
    let (one, other) = (gradient(true), gradient(false));
    assert!(one.allclose(&other, 1e-2, 1e-2, false), "{one} {other}");
}

/// Counts how often it is called, and when it goes.
struct Counter(Arc<AtomicUsize>, Arc<AtomicUsize>);

impl Drop for Counter {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn the_part_is_called_twice_and_dropped_once() {
    let (calls, drops) = (Arc::default(), Arc::default());
    let counter = Counter(Arc::clone(&calls), Arc::clone(&drops));
    let weight = Tensor::from_slice(&[2f32, 3.0]).set_requires_grad(true);
    let input = Tensor::from_slice(&[5f32, 7.0]).set_requires_grad(true);
    let inner = weight.shallow_clone();
    // SAFETY: atomics, and a tensor that is only read.
    let output = unsafe {
        recomputed(&input, &[&weight], move |x| {
            counter.0.fetch_add(1, Ordering::Relaxed);
            Ok(x * x * &inner)
        })
    }
    .unwrap();
    assert_eq!(Vec::<f32>::try_from(&output).unwrap(), [50.0, 147.0]);
    output.sum(Kind::Float).f_backward().unwrap();
    assert_eq!(Vec::<f32>::try_from(input.grad()).unwrap(), [20.0, 42.0]);
    assert_eq!(Vec::<f32>::try_from(weight.grad()).unwrap(), [25.0, 49.0]);
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    assert_eq!(drops.load(Ordering::Relaxed), 0, "the graph is still there");
    drop(output);
    assert_eq!(drops.load(Ordering::Relaxed), 1);
}

#[test]
fn a_panic_in_the_part_is_an_error_of_the_pass_it_happens_in() {
    let input = Tensor::from_slice(&[1f32]).set_requires_grad(true);
    let calls = AtomicUsize::new(0);
    // SAFETY: an atomic.
    let output = unsafe {
        recomputed(&input, &[], move |x| {
            assert!(calls.fetch_add(1, Ordering::Relaxed) == 0, "second call");
            Ok(x * 2.0)
        })
    }
    .unwrap();
    let error = output.f_backward().unwrap_err().to_string();
    assert!(error.contains("second call"), "{error}");
    // SAFETY: nothing is held.
    let error = unsafe { recomputed(&input, &[], |_| panic!("first {}", "call")) }.unwrap_err();
    assert!(error.to_string().contains("first call"), "{error}");
}
