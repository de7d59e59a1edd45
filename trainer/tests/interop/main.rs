//! Weights in and out: import and export undo each other, and PyTorch, the official code and transformers agree.
//!
//! The last three tests need Python with torch, transformers and, for one of them, a checkout of the official code:
//! `make interop IJEPA=PATH` provides the first two. Without `INTEROP_PYTHON` (and `INTEROP_IJEPA`) they say that they
//! were skipped.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use safetensors::SafeTensors;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;
use trainer::checkpoint;
use trainer::config::Config;
use trainer::distributed::{Ranks, World};
use trainer::method::encoder::Encoder;
use trainer::method::model::ModelConfig;
use trainer::run::{Resume, RunDir, Terms};
use trainer::train::Run;

mod hostile;
mod make;
mod start_over;

use make::official_checkpoint;

const EPOCH: u64 = 3;
const STEPS_PER_EPOCH: u64 = 5;

/// The smallest official encoder, on small images.
fn model() -> ModelConfig {
    ModelConfig::preset("vit_tiny", 32, 8, 48, 1).unwrap()
}

fn config(folder: &Path) -> PathBuf {
    let text = format!(
        "data: {{batch_size: 4, crop_size: 32}}
mask: {{patch_size: 8, min_keep: 0}}
meta: {{model_name: vit_tiny, pred_depth: 1, pred_emb_dim: 48, use_bfloat16: false}}
optimization: {{ema: [0.9, 1.0], epochs: 10, final_lr: 1.0e-06, final_weight_decay: 0.4, lr: 0.001, start_lr: 0.0002,
  warmup: 1, weight_decay: 0.04, global_batch: 8}}
logging: {{folder: {}, write_tag: jepa}}
",
        folder.join("run").display()
    );
    let path = folder.join("config.yaml");
    fs::write(&path, text).unwrap();
    path
}

fn trainer(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trainer"))
        .env_remove("LD_LIBRARY_PATH")
        .env("OMP_NUM_THREADS", "1")
        .args(arguments)
        .output()
        .unwrap()
}

/// Runs the program, which must succeed, and returns what it said on stderr.
fn run(arguments: &[&str]) -> String {
    let output = trainer(arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}

fn refused(arguments: &[&str]) -> String {
    let output = trainer(arguments);
    assert_eq!(output.status.code(), Some(2));
    String::from_utf8(output.stderr).unwrap()
}

/// An official checkpoint, imported to continue from.
struct Imported {
    folder: TempDir,
    official: String,
    run: String,
    checkpoint: PathBuf,
}

fn imported() -> Imported {
    let folder = tempfile::tempdir().unwrap();
    let official = text(&folder.path().join("jepa-ep3.pth.tar"));
    official_checkpoint(Path::new(&official));
    let run_dir = text(&folder.path().join("run"));
    let config = text(&config(folder.path()));
    let steps = STEPS_PER_EPOCH.to_string();
    let import = ["import", &official, "--out", &run_dir, "--config", &config];
    let said = run(&[&import[..], &["--steps-per-epoch", &steps]].concat());
    assert_eq!(said, "", "nothing about this file needs saying");
    Imported {
        checkpoint: checkpoint::find(Path::new(&run_dir)).unwrap(),
        folder,
        official,
        run: run_dir,
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Name, shape and bytes of every tensor in a safetensors file.
fn content(path: &Path) -> BTreeMap<String, (Vec<usize>, Vec<u8>)> {
    let bytes = fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap().tensors();
    let whole = tensors
        .into_iter()
        .map(|(name, view)| (name, (view.shape().to_vec(), view.data().to_vec())));
    whole.collect()
}

fn same_files(one: &Path, other: &Path, names: &[&str]) {
    for name in names {
        let name = format!("{name}.safetensors");
        assert!(
            content(&one.join(&name)) == content(&other.join(&name)),
            "{name} differs"
        );
    }
}

#[test]
fn an_official_checkpoint_goes_in_and_comes_out_again() {
    let source = imported();
    let state = checkpoint::read_state(&source.checkpoint).unwrap();
    assert_eq!(
        (state.epoch, state.step, state.epoch_len),
        (EPOCH, 15, STEPS_PER_EPOCH)
    );
    assert_eq!((state.global_batch, state.loss), (8, Some(0.25)));

    // Training takes it up: every tensor has its place, and the optimiser its steps.
    let config = Config::load(&source.folder.path().join("config.yaml"), &[], None).unwrap();
    let run_of = Run::new(
        &config,
        &state,
        Some(&source.checkpoint),
        Device::Cpu,
        Ranks::alone(),
    )
    .unwrap();
    assert_eq!(run_of.step, 15);
    let optimizer: BTreeMap<String, Tensor> = run_of.optimizer.state().into_iter().collect();
    assert_eq!(f32::try_from(&optimizer["step"]).unwrap(), 15.0);

    // Out again, in again: the same bits under the same names.
    let again = text(&source.folder.path().join("again.pth.tar"));
    run(&["export", &source.run, "--to", "official", "--out", &again]);
    let back = source.folder.path().join("back");
    run(&["import", &again, "--out", &text(&back)]);
    let back = checkpoint::find(&back).unwrap();
    same_files(&source.checkpoint, &back, &checkpoint::PARTS);
    let state = checkpoint::read_state(&back).unwrap();
    assert_eq!(
        (state.step, state.loss, state.global_batch),
        (15, Some(0.25), 8)
    );
    assert_eq!(state.config["meta"]["model_name"], "vit_tiny");

    let said = refused(&["export", &source.run, "--to", "official", "--out", &again]);
    assert!(said.contains("exists already"), "{said}");

    // What was imported without a configuration is no run.
    let elsewhere = format!(
        "logging.folder={}",
        source.folder.path().join("new").display()
    );
    let config = Config::load(
        &source.folder.path().join("config.yaml"),
        &[elsewhere],
        None,
    )
    .unwrap();
    let dir = RunDir::open(&config, World::alone().first().unwrap()).unwrap();
    let message = dir
        .begin(&config, Some(&Resume::From(back)), &Terms::default())
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("import them again with --config"),
        "{message}"
    );
}

#[test]
fn the_official_keys_load_an_official_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = config(folder.path());
    fs::create_dir(folder.path().join("run")).unwrap();
    official_checkpoint(&folder.path().join("run/jepa-latest.pth.tar"));
    // Of this set only the number of images matters here: 3, so steps of 1.
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/dataset");
    let sets = |read: &str| {
        let keys = [
            "optimization.global_batch=1",
            "data.batch_size=1",
            "meta.load_checkpoint=true",
            read,
        ];
        keys.map(str::to_owned)
    };
    for read in [
        "meta.read_checkpoint=jepa-latest.pth.tar",
        "meta.read_checkpoint=null",
    ] {
        let config = Config::load(&path, &sets(read), Some(&golden)).unwrap();
        let dir = RunDir::open(&config, World::alone().first().unwrap()).unwrap();
        let (found, state) = dir
            .begin(&config, None, &Terms::default())
            .unwrap()
            .unwrap();
        assert_eq!((state.epoch, state.step), (EPOCH, EPOCH * state.epoch_len));
        assert!(state.epoch_len > 0 && found.starts_with(dir.path().join("checkpoints")));
    }
}

#[test]
fn a_hugging_face_directory_goes_out_and_comes_back() {
    let source = imported();
    for (which, part) in [("target", "target_encoder"), ("context", "encoder")] {
        let out = source.folder.path().join(which);
        run(&[
            "export",
            &source.run,
            "--to",
            "hf",
            "--encoder",
            which,
            "--out",
            &text(&out),
        ]);
        let written: Value =
            serde_json::from_slice(&fs::read(out.join("config.json")).unwrap()).unwrap();
        assert_eq!(written["layer_norm_eps"], json!(1e-6));
        assert_eq!(
            (&written["num_attention_heads"], &written["image_size"]),
            (&json!(3), &json!(32))
        );
        let theirs = content(&out.join("model.safetensors"));
        let ours = content(&source.checkpoint.join(format!("{part}.safetensors")));
        assert_eq!(
            theirs.len(),
            ours.len() + 12 * 4,
            "each block's projection is split in three"
        );
        let query = &theirs["encoder.layer.3.attention.attention.query.weight"];
        assert_eq!(query.0, [192, 192]);
        assert!(query.1 == ours["blocks.3.attn.qkv.weight"].1[..4 * 192 * 192]);

        let back = source.folder.path().join(format!("{which}-back"));
        let said = run(&["import", &text(&out), "--out", &text(&back)]);
        assert!(
            said.contains("both the context and the target encoder"),
            "{said}"
        );
        let back = checkpoint::find(&back).unwrap();
        for network in ["encoder", "target_encoder"] {
            assert!(content(&back.join(format!("{network}.safetensors"))) == ours);
        }
        same_files(&source.checkpoint, &back, &["predictor"]);
    }
    // Another epsilon is another network.
    let file = source.folder.path().join("target/config.json");
    let text_of = fs::read_to_string(&file).unwrap().replace("1e-6", "1e-12");
    fs::write(&file, text_of).unwrap();
    let bad = text(&source.folder.path().join("target"));
    let said = refused(&[
        "import",
        &bad,
        "--out",
        &text(&source.folder.path().join("bad")),
    ]);
    assert!(
        said.contains("`layer_norm_eps` is 1e-12, and these networks have 1e-6"),
        "{said}"
    );
}

#[test]
fn what_does_not_fit_is_named() {
    let source = imported();
    let folder = source.folder.path();
    let config = text(&folder.join("config.yaml"));
    let (official, out) = (source.official.as_str(), text(&folder.join("out")));
    let import = ["import", official, "--out", &out, "--config", &config];
    // No shards to count the steps of an epoch by.
    let said = refused(&import);
    assert!(said.contains("--steps-per-epoch"), "{said}");
    // Another network.
    let other = ["--steps-per-epoch", "5", "--set", "meta.pred_emb_dim=96"];
    let said = refused(&[&import[..], &other].concat());
    assert!(
        said.contains("jepa-ep3.pth.tar: it holds other networks")
            && said.contains("predictor width 48 instead of 96 (meta.pred_emb_dim)"),
        "{said}"
    );
    // Another batch and other epochs are allowed, and told.
    let other = [
        "--steps-per-epoch",
        "7",
        "--set",
        "optimization.global_batch=16",
    ];
    let said = run(&[&import[..], &other].concat());
    assert!(
        said.contains("4 x 2 images a step, this configuration has 16"),
        "{said}"
    );
    assert!(
        said.contains("15 steps in 3 whole epochs, here an epoch has 7"),
        "{said}"
    );
    let state = checkpoint::read_state(&checkpoint::find(Path::new(&out)).unwrap()).unwrap();
    assert_eq!((state.epoch, state.step), (EPOCH, 21));
    let said = refused(&[&import[..], &other].concat());
    assert!(said.contains("holds checkpoints already"), "{said}");
    // A network with other heads, which its width may not even be a multiple of: it is told by its sizes.
    let large = [
        "--steps-per-epoch",
        "5",
        "--set",
        "meta.model_name=vit_large",
    ];
    let said = refused(&[&import[..], &large].concat());
    assert!(
        said.contains("encoder width 192 instead of 1024 (meta.model_name)"),
        "{said}"
    );
    // The encoder of a fixture whose sizes no official model has.
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("exchange/tests/official/tiny.pth.tar");
    let said = refused(&["import", &text(&tiny), "--out", &text(&folder.join("tiny"))]);
    assert!(
        said.contains("tiny.pth.tar: an encoder 16 wide, 2 deep"),
        "{said}"
    );
}

/// Runs `tests/tools/interop.py` and reads what it prints; `None`, with a word, without a Python to run it.
fn python(arguments: &[&str]) -> Option<Value> {
    let Some(python) = std::env::var_os("INTEROP_PYTHON") else {
        eprintln!(
            "SKIPPED: set INTEROP_PYTHON to a Python with torch and transformers, or run `make interop`"
        );
        return None;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/tools/interop.py");
    let mut command = Command::new(python);
    // PyTorch's own libraries must not be taken from where this test's were linked.
    command
        .env_remove("LD_LIBRARY_PATH")
        .env("HF_HUB_OFFLINE", "1");
    if let Some(stubs) = std::env::var_os("INTEROP_LIBRARIES") {
        command.env("LD_LIBRARY_PATH", stubs);
    }
    let output = command.arg(script).args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// The checkout of the official code.
fn ijepa() -> Option<String> {
    let path = std::env::var("INTEROP_IJEPA").ok();
    if path.is_none() {
        eprintln!(
            "SKIPPED: set INTEROP_IJEPA to a checkout of facebookresearch/ijepa, or run `make interop IJEPA=PATH`"
        );
    }
    path
}

/// Shape and CRC-32 of each tensor of a checkpoint, as interop.py gives them.
fn sums(checkpoint: &Path) -> BTreeMap<String, Value> {
    let mut sums = BTreeMap::new();
    for part in checkpoint::PARTS {
        for (name, (shape, bytes)) in content(&checkpoint.join(format!("{part}.safetensors"))) {
            let name = match part {
                "optimizer" => name,
                network => format!("{network}.{name}"),
            };
            sums.insert(name, json!([shape, crc32fast::hash(&bytes)]));
        }
    }
    sums
}

#[test]
fn the_official_code_takes_an_export_and_gives_an_import() {
    let Some(ijepa) = ijepa() else { return };
    let source = imported();
    let out = text(&source.folder.path().join("out.pth.tar"));
    run(&["export", &source.run, "--to", "official", "--out", &out]);
    for precision in [&[][..], &["--bfloat16"]] {
        let Some(found) = python(&[&["continue", "--ijepa", &ijepa, &out][..], precision].concat())
        else {
            return;
        };
        assert_eq!(
            found["epoch"], EPOCH,
            "0 is how the official code says that it failed"
        );
        let expected: BTreeMap<String, Value> =
            serde_json::from_value(found["tensors"].clone()).unwrap();
        assert_eq!(expected, sums(&source.checkpoint));
        assert_eq!(found["steps"], 16.0);
        println!(
            "the official code went on from our export: loss {}",
            found["loss"]
        );
    }
    // What it saves: a model with the sizes of an official one, under our names.
    let saved = text(&source.folder.path().join("theirs.pth.tar"));
    let sizes = [
        "--embed", "192", "--depth", "12", "--heads", "3", "--img", "32", "--patch", "8", "--pemb",
        "48",
    ];
    let told =
        python(&[&["save", "--ijepa", &ijepa, "--out", &saved][..], &sizes].concat()).unwrap();
    let back = source.folder.path().join("theirs");
    run(&["import", &saved, "--out", &text(&back)]);
    let back = checkpoint::find(&back).unwrap();
    let expected: BTreeMap<String, Value> =
        serde_json::from_value(told["tensors"].clone()).unwrap();
    assert_eq!(expected, sums(&back));
    assert_eq!(checkpoint::read_state(&back).unwrap().step, 6);
}

#[test]
fn torch_opens_an_export_as_weights_only() {
    let source = imported();
    let out = text(&source.folder.path().join("out.pth.tar"));
    run(&["export", &source.run, "--to", "official", "--out", &out]);
    let Some(found) = python(&["load", &out]) else {
        return;
    };
    assert_eq!(
        (&found["epoch"], &found["batch_size"], &found["world_size"]),
        (&json!(3), &json!(4), &json!(2))
    );
    assert_eq!(found["types"], json!(["OrderedDict"]));
    assert_eq!(found["opt"]["param_groups"][2]["WD_exclude"], true);
    let expected = sums(&source.checkpoint);
    let tensors = found["tensors"].as_object().unwrap();
    for (name, sum) in tensors {
        assert_eq!(&expected[&name.replace(".module.", ".")], sum, "{name}");
    }
    assert_eq!(
        tensors.len() + 2 * found["moments"].as_u64().unwrap() as usize + 1,
        expected.len()
    );
}

#[test]
fn transformers_computes_our_features() {
    let source = imported();
    let encoder = Encoder::new(&model(), Device::Cpu).unwrap();
    let weights = checkpoint::read_part(&source.checkpoint, "target_encoder").unwrap();
    tch::no_grad(|| {
        for (name, parameter) in encoder.parameters() {
            parameter.shallow_clone().copy_(&weights[name]);
        }
    });
    let images = Tensor::arange(2 * 3 * 32 * 32, (Kind::Float, Device::Cpu)).view([2, 3, 32, 32]);
    let images = (images * 0.37).sin() * 2.0;
    let features = encoder.features(&images).unwrap();
    let tensors = text(&source.folder.path().join("features.safetensors"));
    Tensor::write_safetensors(&[("images", &images), ("features", &features)], &tensors).unwrap();
    let out = text(&source.folder.path().join("hf"));
    run(&["export", &source.run, "--to", "hf", "--out", &out]);
    let Some(found) = python(&["features", &out, &tensors]) else {
        return;
    };
    println!("transformers' features: {found}");
    assert!(found["difference"].as_f64().unwrap() < 1e-5, "{found}");
    assert!(found["largest"].as_f64().unwrap() > 0.1, "{found}");
    assert_eq!(
        (&found["unmatched"], &found["auto"]),
        (&json!([]), &json!("IJepaModel"))
    );
    assert_eq!(
        (&found["mean"], &found["side"]),
        (&json!([0.485, 0.456, 0.406]), &json!(32))
    );
    // What that library writes itself comes in as well.
    let resaved = text(&source.folder.path().join("resaved"));
    python(&["resave", &out, &resaved]).unwrap();
    let back = source.folder.path().join("back");
    run(&["import", &resaved, "--out", &text(&back)]);
    let back = checkpoint::find(&back).unwrap();
    assert!(
        content(&back.join("encoder.safetensors"))
            == content(&source.checkpoint.join("target_encoder.safetensors"))
    );
}
