//! Running out of memory: an error that says during what, and how to need less.

use trainer::method::ijepa::backward;

use super::*;

/// What no machine has, at 3 KiB an image.
const TOO_MANY: i64 = 1 << 36;

/// What takes less memory where it is the images'.
const SMALLER_STEPS: [&str; 3] = [
    "trainer.activation_checkpointing",
    "meta.use_bfloat16",
    "data.batch_size",
];

/// Checks that an error is out of memory, says what was being done, and gives the advice for it.
fn check(error: Error, during: &str, advice: &[&str]) {
    assert!(
        matches!(&error, Error::OutOfMemory { doing: Some(doing), .. } if doing.contains(during)),
        "{error:?}"
    );
    let message = error.to_string();
    for advice in advice {
        assert!(message.contains(advice), "{message}");
    }
    assert!(!message.contains('\n'), "{message}");
}

/// Makes many out of a few without memory of their own.
fn many(few: &Tensor) -> Tensor {
    let mut size = few.size();
    size[0] = TOO_MANY;
    few.narrow(0, 0, 1).expand(size, false)
}

#[test]
fn each_pass_says_where_memory_ran_out() {
    let ijepa = model();
    let (images, context, targets) = batch();
    let (images, one) = (many(&images), |masks: &[Tensor]| vec![many(&masks[0])]);
    let (context, targets) = (one(&context), one(&targets));
    let error = ijepa
        .target(&images, &targets, 1, &mut NoHooks)
        .unwrap_err();
    check(
        error,
        "the target encoder's forward pass over a group of",
        &SMALLER_STEPS,
    );
    let error = ijepa.context(&images, &context, &mut NoHooks).unwrap_err();
    check(error, "the context encoder's forward pass", &SMALLER_STEPS);
}

#[test]
fn the_backward_pass_says_so_too() {
    // A part of a view that takes no memory, whose gradient does.
    let leaf = Tensor::ones([1], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let view = leaf.expand([TOO_MANY * 1024], false);
    let loss = view.narrow(0, 0, 1).sum(Kind::Float);
    check(
        backward(&loss, 1).unwrap_err(),
        "the backward pass",
        &SMALLER_STEPS,
    );
}

#[test]
fn networks_that_are_too_large_are_refused_while_they_are_made() {
    let config = ModelConfig {
        mlp_dim: 1 << 44,
        ..config()
    };
    let error = IJepa::zeroed(&config, Device::Cpu).err();
    check(
        error.expect("a petabyte"),
        "the making of the networks",
        &["meta.model_name", "meta.pred_depth"],
    );
}
