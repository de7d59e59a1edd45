//! Features from a checkpoint are those of the network that it was written from.

use std::collections::BTreeMap;
use std::path::Path;

use loader::config::ConfigFile;
use tch::{Device, Kind, Tensor};
use trainer::checkpoint::{self, PARTS, Snapshot, State, Store};
use trainer::config::Config;
use trainer::evaluate::{Error, Features, Pooling};
use trainer::method::encoder::{Encoder, Keep};
use trainer::method::ijepa::IJepa;
use trainer::method::optimizer::Optimizer;
use trainer::source::Normaliser;

const TEXT: &str = "
data: {batch_size: 2, crop_size: 32}
mask: {patch_size: 8, min_keep: 0}
meta: {model_name: vit_tiny, pred_depth: 1, pred_emb_dim: 48, use_bfloat16: false}
optimization: {ema: [0.9, 1.0], epochs: 3, final_lr: 1.0e-06, final_weight_decay: 0.4, lr: 0.001, start_lr: 0.0002,
  warmup: 1, weight_decay: 0.04}
logging: {folder: none, write_tag: jepa}
";

/// Writes a checkpoint of fresh networks; `change` may spoil what its configuration says.
fn write(run: &Path, change: impl FnOnce(&mut State)) -> IJepa {
    let config = ConfigFile::parse(Path::new("test.yaml"), TEXT, &[]).unwrap();
    let config = Config::from_file(&config).unwrap();
    let ijepa = IJepa::new(&config.model().unwrap(), 5, Device::Cpu).unwrap();
    let optimizer = Optimizer::new(ijepa.parameter_groups()).unwrap();
    let networks = [&ijepa.encoder, &ijepa.target_encoder].map(|network| network.parameters());
    let [encoder, target] = networks;
    let copy = |parameters: &[(String, Tensor)]| -> Vec<(String, Tensor)> {
        let handles = parameters.iter();
        handles
            .map(|(name, tensor)| (name.clone(), tensor.shallow_clone()))
            .collect()
    };
    let tensors = [
        copy(encoder),
        copy(ijepa.predictor.parameters()),
        copy(target),
        optimizer.state(),
    ];
    let snapshot = Snapshot::of(&PARTS.into_iter().zip(tensors).collect::<Vec<_>>()).unwrap();
    let mut state = State::new(3, 3, config.resolved());
    change(&mut state);
    Store::new(run, "jepa").save(&state, &snapshot).unwrap();
    ijepa
}

#[test]
fn features_of_a_run_are_its_target_encoders() {
    let run = tempfile::tempdir().unwrap();
    let ijepa = write(run.path(), |_| {});
    let features = Features::load(run.path(), Device::Cpu).unwrap();
    let bytes = Tensor::arange(2 * 3 * 48 * 32, (Kind::Int64, Device::Cpu))
        .remainder(251)
        .to_kind(Kind::Uint8)
        .view([2, 3, 48, 32]);
    let images = Normaliser::new(Device::Cpu).unwrap().apply(&bytes).unwrap();
    let expected = ijepa.target_encoder.features(&images).unwrap();
    let patches = features.of_patches(&bytes).unwrap();
    assert_eq!(patches.size(), [2, 24, 192]);
    assert!(patches.equal(&expected));
    let pooled = features.pooled(&bytes).unwrap();
    let mean = expected.mean_dim([1i64].as_slice(), false, Kind::Float);
    assert!(pooled.equal(&mean) && pooled.size() == [2, 192]);
    let error = features.pooled(&bytes.narrow(2, 0, 47)).unwrap_err();
    assert!(
        matches!(error, trainer::Error::PatchGrid { height: 47, .. }),
        "{error}"
    );
}

/// Of a run whose crops change their size, a checkpoint has that of its last step.
#[test]
fn a_checkpoint_may_be_of_another_size_than_the_runs_first() {
    let run = tempfile::tempdir().unwrap();
    let ijepa = write(run.path(), |state| {
        let sizes = r#"{"0": 48, "1": 32}"#;
        state.config["data"]["crop_size"] = serde_json::from_str(sizes).unwrap();
    });
    let features = Features::load(run.path(), Device::Cpu).unwrap();
    assert_eq!(features.encoder().config().image_size, 32);
    let positions = |encoder: &Encoder| encoder.positions(32, 48).unwrap();
    assert!(positions(features.encoder()).equal(&positions(&ijepa.target_encoder)));
}

#[test]
fn features_of_the_last_blocks_stand_side_by_side() {
    let run = tempfile::tempdir().unwrap();
    let ijepa = write(run.path(), |_| {});
    let features = Features::load(run.path(), Device::Cpu).unwrap();
    let bytes = Tensor::arange(2 * 3 * 32 * 32, (Kind::Int64, Device::Cpu))
        .remainder(253)
        .to_kind(Kind::Uint8)
        .view([2, 3, 32, 32]);
    let images = Normaliser::new(Device::Cpu).unwrap().apply(&bytes).unwrap();
    let four = features.pooled_layers(&images, 4, Pooling::Mean).unwrap();
    assert_eq!(four.size(), [2, 4 * 192]);
    // The last block's are those of the last layer alone.
    let last = features.pooled(&bytes).unwrap();
    assert!(four.narrow(1, 3 * 192, 192).equal(&last));
    assert!(
        features
            .pooled_layers(&images, 1, Pooling::Mean)
            .unwrap()
            .equal(&last)
    );
    // Each is the final norm of what a hook sees of its block.
    let mut hooks = BTreeMap::new();
    let encoder = &ijepa.target_encoder;
    drop(encoder.forward(&images, Keep::All, &mut hooks).unwrap());
    let named = encoder.parameters().iter();
    let parameters: BTreeMap<&str, &Tensor> =
        named.map(|(name, tensor)| (&name[..], tensor)).collect();
    for (place, block) in (8..12).enumerate() {
        let seen = hooks[&format!("block{block}")].layer_norm(
            [192],
            Some(parameters["norm.weight"]),
            Some(parameters["norm.bias"]),
            1e-6,
            true,
        );
        let mean = seen.mean_dim([1i64].as_slice(), false, Kind::Float);
        let ours = four.narrow(1, place as i64 * 192, 192);
        assert!(ours.allclose(&mean, 1e-5, 1e-6, false), "block {block}");
        assert_eq!(ours.equal(&last), block == 11);
    }
}

#[test]
fn what_is_wrong_with_a_checkpoint_is_told_apart() {
    let run = tempfile::tempdir().unwrap();
    let load = || Features::load(run.path(), Device::Cpu).err().unwrap();
    assert!(matches!(
        load(),
        Error::Checkpoint(checkpoint::Error::Missing { .. } | checkpoint::Error::Io { .. })
    ));
    write(run.path(), |state| {
        state.config.remove("meta");
    });
    assert!(matches!(load(), Error::Config { .. }));
    let run = tempfile::tempdir().unwrap();
    write(run.path(), |state| {
        state.config["meta"]["model_name"] = "vit_small".into();
    });
    let error = Features::load(run.path(), Device::Cpu).err().unwrap();
    assert!(
        matches!(error, Error::Checkpoint(checkpoint::Error::Unfit { .. })),
        "{error}"
    );
}
