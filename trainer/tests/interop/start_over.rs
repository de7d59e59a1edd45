//! Continued pretraining: weights alone are taken, and training begins at step 0.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use tch::Device;
use trainer::checkpoint::{self, State};
use trainer::config::Config;
use trainer::distributed::Ranks;
use trainer::method::encoder::Encoder;
use trainer::method::model::ModelConfig;
use trainer::train::Run;

use crate::make::Official;
use crate::{config, content, refused, run, text};

/// Imports to start over, and returns what was said, and the checkpoint.
fn start_over(folder: &Path, source: &str, more: &[&str]) -> (String, PathBuf) {
    let config = text(&config(folder));
    let out = text(&folder.join("begun"));
    let _ = fs::remove_dir_all(&out);
    let import = ["import", source, "--out", &out, "--config", &config];
    let over = ["--start-over", "--steps-per-epoch", "5"];
    let said = run(&[&import[..], &over, more].concat());
    (said, checkpoint::find(Path::new(&out)).unwrap())
}

fn begins_at_zero(state: &State) {
    assert_eq!(
        (state.step, state.epoch, state.epoch_len, state.loss),
        (0, 0, 5, None)
    );
    assert_eq!(state.config["optimization"]["epochs"], 10);
}

#[test]
fn training_begins_at_step_0_with_the_weights() {
    let folder = tempfile::tempdir().unwrap();
    let source = text(&folder.path().join("a.pth.tar"));
    // More epochs than the configuration has, and a state of the optimiser.
    let given = Official {
        epoch: 300,
        ..Official::default()
    };
    given.write(Path::new(&source));
    let (said, begun) = start_over(folder.path(), &source, &[]);
    assert_eq!(said, "", "nothing about this file needs saying");
    let state = checkpoint::read_state(&begun).unwrap();
    begins_at_zero(&state);

    // The weights are those of the file as it is imported otherwise; the moments are new.
    let plain = folder.path().join("plain");
    run(&["import", &source, "--out", &text(&plain)]);
    let plain = checkpoint::find(&plain).unwrap();
    for part in ["encoder", "target_encoder", "predictor"] {
        let name = format!("{part}.safetensors");
        assert!(
            content(&begun.join(&name)) == content(&plain.join(&name)),
            "{part}"
        );
    }
    let moments = content(&begun.join("optimizer.safetensors"));
    assert!(
        moments
            .values()
            .all(|(_, bytes)| bytes.iter().all(|byte| *byte == 0))
    );

    // Training takes it up at its first step.
    let config = Config::load(&folder.path().join("config.yaml"), &[], None).unwrap();
    let run = Run::new(&config, &state, Some(&begun), Device::Cpu, Ranks::alone()).unwrap();
    assert_eq!((run.step, run.total_steps), (0, 50));
}

#[test]
fn what_is_missing_or_another_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let source = text(&folder.path().join("a.pth.tar"));
    let one = Official {
        networks: vec!["target_encoder"],
        prefix: "module._orig_mod.",
        moments: false,
        ..Official::default()
    };
    one.write(Path::new(&source));
    let (said, begun) = start_over(folder.path(), &source, &[]);
    assert!(said.contains("no context encoder in the source"), "{said}");
    assert!(
        said.contains("no predictor in the source: a new one is made"),
        "{said}"
    );
    begins_at_zero(&checkpoint::read_state(&begun).unwrap());
    let encoder = content(&begun.join("encoder.safetensors"));
    assert!(encoder == content(&begun.join("target_encoder.safetensors")));
    let predictor = content(&begun.join("predictor.safetensors"));

    // A seed makes the same predictor, and another seed another.
    let (_, again) = start_over(folder.path(), &source, &[]);
    assert!(predictor == content(&again.join("predictor.safetensors")));
    let (_, other) = start_over(folder.path(), &source, &["--set", "trainer.seed=7"]);
    let other = content(&other.join("predictor.safetensors"));
    assert!(predictor["mask_token"] != other["mask_token"]);
    assert!(predictor["predictor_pos_embed"] == other["predictor_pos_embed"]);

    // A predictor of other sizes than the file's.
    Official::default().write(Path::new(&source));
    let wide = ["--set", "meta.pred_emb_dim=96"];
    let (said, begun) = start_over(folder.path(), &source, &wide);
    let told = "its predictor is another (predictor width 48 instead of 96 (meta.pred_emb_dim))";
    assert!(said.contains(told), "{said}");
    let predictor = content(&begun.join("predictor.safetensors"));
    assert_eq!(predictor["mask_token"].0, [1, 1, 96]);

    // Without --start-over these are refused, with the command that works.
    let (config, out) = (
        text(&folder.path().join("config.yaml")),
        text(&folder.path().join("x")),
    );
    let import = ["import", &source, "--out", &out, "--config", &config];
    let said = refused(&[&import[..], &["--steps-per-epoch", "5"], &wide].concat());
    let command = format!(
        "trainer import {source} --out {out} --config {config} --set meta.pred_emb_dim=96 --start-over"
    );
    assert!(said.contains(&command), "{said}");
    one.write(Path::new(&source));
    let said = refused(&[&import[..], &["--steps-per-epoch", "5"]].concat());
    assert!(said.contains("no encoder, no predictor in it"), "{said}");
    assert!(said.contains("--start-over"), "{said}");
}

#[test]
fn positions_are_computed_for_images_of_another_size() {
    let folder = tempfile::tempdir().unwrap();
    let source = text(&folder.path().join("a.pth.tar"));
    Official::default().write(Path::new(&source));
    let large = ["--set", "data.crop_size=64"];
    let (said, begun) = start_over(folder.path(), &source, &large);
    assert!(
        said.contains("positions computed anew for images of 64 pixels instead of 32"),
        "{said}"
    );
    let wanted = ModelConfig::preset("vit_tiny", 64, 8, 48, 1).unwrap();
    let encoder = Encoder::new(&wanted, Device::Cpu).unwrap();
    let (_, expected) = &encoder.parameters()[0];
    for part in ["encoder", "target_encoder"] {
        let tensors = checkpoint::read_part(&begun, part).unwrap();
        assert_eq!(tensors["pos_embed"], *expected);
    }
    let predictor = checkpoint::read_part(&begun, "predictor").unwrap();
    assert_eq!(predictor["predictor_pos_embed"].size(), [1, 64, 48]);
    let config = Config::load(
        &folder.path().join("config.yaml"),
        &[large[1].to_owned()],
        None,
    );
    let state = checkpoint::read_state(&begun).unwrap();
    Run::new(
        &config.unwrap(),
        &state,
        Some(&begun),
        Device::Cpu,
        Ranks::alone(),
    )
    .unwrap();

    // What was begun already is a checkpoint of ours.
    let out = text(&folder.path().join("x"));
    let said = refused(&["import", &text(&begun), "--out", &out]);
    assert!(said.contains("a checkpoint of ours"), "{said}");

    // Positions that were learned are none that could be computed.
    let learned = Official {
        learned: true,
        ..Official::default()
    };
    learned.write(Path::new(&source));
    let config = text(&folder.path().join("config.yaml"));
    let out = text(&folder.path().join("learned"));
    let import = [
        "import",
        &source,
        "--out",
        &out,
        "--config",
        &config,
        "--start-over",
    ];
    let said = refused(&[&import[..], &["--steps-per-epoch", "5"], &large].concat());
    assert!(
        said.contains("encoder: `pos_embed` is not the sine-cosine table"),
        "{said}"
    );
    let (said, _) = start_over(folder.path(), &source, &[]);
    assert!(said.contains("it is kept, and not trained"), "{said}");
    // Nor can they be later in the run.
    let later = ["--set", "data.crop_size={0: 32, 2: 64}"];
    let said = refused(&[&import[..], &["--steps-per-epoch", "5"], &later].concat());
    let told = "encoder: `pos_embed` is not the sine-cosine table of fixed positions, so it cannot be computed for \
                images of 64 pixels instead of 32";
    assert!(said.contains(told), "{said}");
}

/// Weights from the midst of a run over several sizes are of its last epoch's size, or made for the next one's.
#[test]
fn weights_are_of_a_size_that_the_run_has_there() {
    let folder = tempfile::tempdir().unwrap();
    let source = text(&folder.path().join("a.pth.tar"));
    let given = Official {
        epoch: 3,
        ..Official::default()
    };
    given.write(Path::new(&source));
    let config = text(&config(folder.path()));
    let import = |out: &str, sizes: &str| {
        let set = format!("data.crop_size={sizes}");
        let arguments = ["import", &source, "--out", out, "--config", &config];
        let more = ["--steps-per-epoch", "5", "--set", &set];
        [&arguments[..], &more]
            .concat()
            .into_iter()
            .map(String::from)
            .collect::<Vec<_>>()
    };
    for (number, sizes) in ["{0: 32, 3: 64}", "{0: 64, 2: 32, 3: 64}", "{0: 64, 3: 32}"]
        .into_iter()
        .enumerate()
    {
        let out = text(&folder.path().join(number.to_string()));
        let arguments = import(&out, sizes);
        run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let begun = checkpoint::find(Path::new(&out)).unwrap();
        let state = checkpoint::read_state(&begun).unwrap();
        let set = format!("data.crop_size={sizes}");
        let config = Config::load(Path::new(&config), &[set], None).unwrap();
        let run = Run::new(&config, &state, Some(&begun), Device::Cpu, Ranks::alone()).unwrap();
        assert_eq!((run.step, run.ijepa.encoder.config().image_size), (15, 32));
    }
    let arguments = import(&text(&folder.path().join("x")), "{0: 64, 4: 32}");
    let said = refused(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(
        said.contains("image side 32 instead of 64 (data.crop_size)"),
        "{said}"
    );
}

#[test]
fn messages_lead_to_the_command_that_works() {
    let folder = tempfile::tempdir().unwrap();
    let source = text(&folder.path().join("a.pth.tar"));
    let finished = Official {
        epoch: 10,
        ..Official::default()
    };
    finished.write(Path::new(&source));
    // A file of as many epochs as the configuration has: told at once.
    let config = text(&config(folder.path()));
    let import = [
        "import",
        &source,
        "--config",
        &config,
        "--steps-per-epoch",
        "5",
    ];
    let said = run(&import);
    assert!(said.contains("no step is left to train"), "{said}");
    assert!(
        said.contains("stands at epoch 10, and the configuration has 10"),
        "{said}"
    );
    assert!(
        said.contains("--out DIR") && said.contains("--start-over"),
        "{said}"
    );
    // It went into the configuration's own run directory; starting over from there takes another.
    let begun = folder.path().join("run");
    let (_, again) = start_over(folder.path(), &text(&begun), &[]);
    begins_at_zero(&checkpoint::read_state(&again).unwrap());
    let other = text(&folder.path().join("other"));
    let import = [
        "import",
        &text(&begun),
        "--out",
        &other,
        "--config",
        &config,
    ];
    let said = refused(&[&import[..], &["--steps-per-epoch", "5"]].concat());
    assert!(
        said.contains("a checkpoint of ours, which --resume continues"),
        "{said}"
    );

    // A model of the hub has no predictor.
    let model = text(&folder.path().join("model"));
    run(&["export", &text(&begun), "--to", "hf", "--out", &model]);
    fs::remove_file(Path::new(&model).join("predictor.safetensors")).unwrap();
    let import = ["import", &model, "--out", &other, "--config", &config];
    let said = refused(&[&import[..], &["--steps-per-epoch", "5"]].concat());
    assert!(
        said.contains("no target encoder, no predictor in it"),
        "{said}"
    );
    let command = format!("trainer import {model} --out {other} --config {config} --start-over");
    assert!(said.contains(&command), "{said}");
    let (said, begun) = start_over(folder.path(), &model, &[]);
    assert!(said.contains("a new one is made"), "{said}");
    begins_at_zero(&checkpoint::read_state(&begun).unwrap());

    // Neither is a checkpoint of ours.
    for foreign in [&source, &model] {
        let fault = checkpoint::find(Path::new(foreign))
            .unwrap_err()
            .to_string();
        assert!(
            fault.contains(&format!("`trainer import {foreign} --config FILE`")),
            "{fault}"
        );
    }
}

#[test]
fn models_of_hugging_face_come_in_many_forms() {
    let folder = tempfile::tempdir().unwrap();
    let source = text(&folder.path().join("a.pth.tar"));
    Official::default().write(Path::new(&source));
    let plain = text(&folder.path().join("plain"));
    run(&["import", &source, "--out", &plain]);
    let model = folder.path().join("model");
    run(&["export", &plain, "--to", "hf", "--out", &text(&model)]);
    let expected = checkpoint::find(Path::new(&plain)).unwrap();
    let expected = content(&expected.join("target_encoder.safetensors"));
    let encoder = |source: &Path, out: &str| {
        let out = text(&folder.path().join(out));
        let said = run(&["import", &text(source), "--out", &out]);
        let found = checkpoint::find(Path::new(&out)).unwrap();
        assert!(
            content(&found.join("encoder.safetensors")) == expected,
            "{out}"
        );
        said
    };
    // Sides as lists.
    let file = model.join("config.json");
    let mut settings: serde_json::Value =
        serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    settings["image_size"] = json!([32, 32]);
    fs::write(&file, settings.to_string()).unwrap();
    encoder(&model, "lists");
    // Its file alone, without a configuration beside it.
    let alone = folder.path().join("alone.safetensors");
    fs::copy(model.join("model.safetensors"), &alone).unwrap();
    encoder(&alone, "alone");
    // A fine-tuned classifier, in several files.
    let tensors = content(&model.join("model.safetensors"));
    fs::remove_file(model.join("model.safetensors")).unwrap();
    let head = (vec![2, 192], vec![0; 4 * 2 * 192]);
    let renamed = tensors
        .into_iter()
        .map(|(name, tensor)| (format!("ijepa.{name}"), tensor))
        .chain([("classifier.weight".to_owned(), head)])
        .collect::<Vec<_>>();
    let mut index = json!({"weight_map": {}});
    for (number, part) in renamed.chunks(renamed.len() / 2 + 1).enumerate() {
        let name = format!("model-{number}.safetensors");
        let views = part.iter().map(|(name, (shape, bytes))| {
            index["weight_map"][name] = format!("model-{number}.safetensors").into();
            let dtype = safetensors::Dtype::F32;
            let view = safetensors::tensor::TensorView::new(dtype, shape.clone(), bytes);
            (name.clone(), view.unwrap())
        });
        let bytes = safetensors::serialize(views, None).unwrap();
        fs::write(model.join(name), bytes).unwrap();
    }
    fs::write(
        model.join("model.safetensors.index.json"),
        index.to_string(),
    )
    .unwrap();
    let said = encoder(&model, "classifier");
    assert!(
        said.contains("left out, as no part of these networks: classifier.weight"),
        "{said}"
    );
    // Sides that differ, and sizes beyond all networks.
    for (key, value) in [
        ("image_size", json!([32, 64])),
        ("hidden_size", json!(1u64 << 60)),
        ("num_hidden_layers", json!(-1)),
    ] {
        let mut hostile = settings.clone();
        hostile[key] = value;
        fs::write(&file, hostile.to_string()).unwrap();
        let out = text(&folder.path().join("hostile"));
        let said = refused(&["import", &text(&model), "--out", &out]);
        assert!(said.contains(&format!("config.json: `{key}`")), "{said}");
    }
}
