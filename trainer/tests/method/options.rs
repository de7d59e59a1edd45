//! Options of the networks that the official ones do not have: stochastic positions, and words about visible patches.

use super::*;

/// Rounding of differently grouped sums.
fn close(one: &Tensor, other: &Tensor) -> bool {
    one.size() == other.size() && one.allclose(other, 1e-4, 1e-5, false)
}

#[test]
fn what_is_said_of_hidden_patches_is_the_same_beside_visible_ones() {
    let ijepa = model();
    let (images, context, targets) = batch();
    let z = ijepa.context(&images, &context, &mut NoHooks).unwrap();
    let hidden = ijepa
        .predict(&z, &context, &targets, None, &mut NoHooks)
        .unwrap();
    let all = ijepa.predict_all(&z, &context, &targets, None).unwrap();
    assert!(close(&all.hidden, &hidden));
    assert_eq!(all.visible.unwrap().size(), [3 * 2 * IMAGES, 5, 24]);

    let h = ijepa.target(&images, &targets, 2, &mut NoHooks).unwrap();
    let all = ijepa.target_all(&images, &context, &targets).unwrap();
    assert!(close(&all.hidden, &h));
    // Visible patches as targets are the same patches.
    let visible = ijepa.target(&images, &context, 1, &mut NoHooks).unwrap();
    let found = all.visible.unwrap();
    assert!(close(&found, &visible) && !found.requires_grad());
}

/// Noise n of one value for all patches is another mask token: that plus A n, where A maps the context.
#[test]
fn noise_reaches_the_hidden_tokens_as_the_context_does() {
    let ijepa = model();
    let (images, context, targets) = batch();
    let z = ijepa.context(&images, &context, &mut NoHooks).unwrap();
    let predict = |noise: Option<&Tensor>| {
        ijepa
            .predict(&z, &context, &targets, noise, &mut NoHooks)
            .unwrap()
    };
    let zero = Tensor::zeros([3 * 2 * IMAGES, 4, 24], (Kind::Float, Device::Cpu));
    let plain = predict(None);
    assert!(close(&predict(Some(&zero)), &plain));

    let n = (Tensor::arange(24, (Kind::Float, Device::Cpu)) * 0.7).sin() * 9.0;
    let noisy = predict(Some(&(&zero + &n)));
    assert!(!close(&noisy, &plain));
    let parameters = ijepa.predictor.parameters();
    let named = |name: &str| {
        &parameters
            .iter()
            .find(|(known, _)| known == name)
            .unwrap()
            .1
    };
    tch::no_grad(|| {
        let shift = named("predictor_embed.weight").matmul(&n);
        let _ = named("mask_token").shallow_clone().f_add_(&shift).unwrap();
    });
    assert!(close(&predict(None), &noisy));
}

/// Through the noise the loss reaches the matrix that maps the context, which is what keeps it from being ignored.
#[test]
fn both_options_have_gradients() {
    let ijepa = model();
    let (images, context, targets) = batch();
    let z = ijepa
        .context(&images, &context, &mut NoHooks)
        .unwrap()
        .detach();
    let noise = Tensor::ones([3 * 2 * IMAGES, 4, 24], (Kind::Float, Device::Cpu));
    let said = ijepa
        .predict_all(&z, &context, &targets, Some(&noise))
        .unwrap();
    let h = ijepa.target_all(&images, &context, &targets).unwrap();
    let (said, h) = (said.visible.unwrap(), h.visible.unwrap());
    let loss = trainer::method::visible::loss(&said, &h, &context, &targets, 4).unwrap();
    loss.backward();
    for (name, tensor) in ijepa.predictor.parameters() {
        if tensor.requires_grad() {
            assert!(tensor.grad().defined(), "{name}");
        }
    }
}
