use super::*;

mod page;

const OFFICIAL: &str = "
data: {batch_size: 128, color_jitter_strength: 0.0, crop_scale: [0.3, 1.0], crop_size: 224,
  image_folder: imagenet_full_size/061417/, num_workers: 10, pin_mem: true,
  root_path: $replace_this_with_absolute_path_to_your_datasets_directory, use_color_distortion: false,
  use_gaussian_blur: false, use_horizontal_flip: false}
logging: {folder: $replace_this_with_path_for_experiment_logs/vith14.224-bs.2048-ep.300/, write_tag: jepa}
mask: {allow_overlap: false, aspect_ratio: [0.75, 1.5], enc_mask_scale: [0.85, 1.0], min_keep: 10, num_enc_masks: 1,
  num_pred_masks: 4, patch_size: 14, pred_mask_scale: [0.15, 0.2]}
meta: {copy_data: false, load_checkpoint: false, model_name: vit_huge, pred_depth: 12, pred_emb_dim: 384,
  read_checkpoint: null, use_bfloat16: true}
optimization: {ema: [0.996, 1.0], epochs: 300, final_lr: 1.0e-06, final_weight_decay: 0.4, ipe_scale: 1.0, lr: 0.001,
  start_lr: 0.0002, warmup: 40, weight_decay: 0.04}
";

fn parse(text: &str, sets: &[&str]) -> Result<Config, Error> {
    let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
    Config::from_file(&ConfigFile::parse(Path::new("test.yaml"), text, &sets)?)
}

#[test]
fn an_official_file_is_read_unchanged() {
    let config = parse(OFFICIAL, &[]).unwrap();
    assert_eq!(config.model().unwrap().patches(), 256);
    let schedule = config.schedule(625).unwrap();
    assert_eq!(
        (schedule.lr(24_999), schedule.lr(300 * 625 - 1)),
        (1e-3, 1e-6)
    );
    assert_eq!(config.loader.global_batch(16), 2048);
    let message = config.folder().unwrap_err().to_string();
    assert!(message.contains("--set logging.folder="), "{message}");
}

#[test]
fn what_is_resolved_reads_back_as_itself() {
    let config = parse(OFFICIAL, &["logging.folder=/tmp/x", "trainer.seed=7"]).unwrap();
    let text = serde_saphyr::to_string(&config.resolved()).unwrap();
    let again = parse(&text, &[]).unwrap();
    assert_eq!(again.resolved(), config.resolved());
    assert_eq!(again.trainer.seed, 7);
    // As YAML in the run directory, as JSON in a checkpoint.
    let config = parse(OFFICIAL, &["data.crop_size={0: 112, 9: 140, 80: 224}"]).unwrap();
    let text = serde_saphyr::to_string(&config.resolved()).unwrap();
    for again in [parse(&text, &[]), Config::from_resolved(&config.resolved())] {
        let sizes = again.unwrap().loader.data.crop_size;
        assert_eq!(sizes.phases(), [(0, 112), (9, 140), (80, 224)], "{text}");
    }
}

/// A new key that is a path is read as such: [`loader::config::path_key`].
#[test]
fn every_key_that_is_a_path_is_expanded() {
    let (mut expanded, mut literal) = (Vec::new(), Vec::new());
    for (section, keys) in parse(OFFICIAL, &[]).unwrap().resolved() {
        for key in keys.as_object().unwrap().keys() {
            let key = format!("{section}.{key}");
            let outcome = parse(OFFICIAL, &[&format!("{key}=~somebody")]);
            match outcome.map_err(|error| error.to_string()) {
                Err(message) if message.contains("./~somebody") => expanded.push(key),
                Err(message) if message.contains("invalid") || message.contains("expected") => {}
                _ => literal.push(key),
            }
        }
    }
    assert_eq!(
        expanded,
        [
            "data.image_folder",
            "data.root_path",
            "loader.local_dir",
            "loader.shards",
            "logging.folder",
            "meta.read_checkpoint"
        ]
    );
    assert_eq!(
        literal,
        ["loader.split", "logging.write_tag", "meta.model_name"]
    );
    let home = std::env::var("HOME").expect("tests have a home");
    let sets = ["logging.folder=~/a$$b", "meta.read_checkpoint=./~x"];
    let config = parse(OFFICIAL, &sets).unwrap();
    assert_eq!(config.folder().unwrap(), Path::new(&format!("{home}/a$b")));
    let again = Config::from_resolved(&config.resolved()).unwrap();
    assert_eq!(again.logging, config.logging);
    assert_eq!(again.meta, config.meta);
}

#[test]
fn faults_name_their_key() {
    for (set, expected) in [
        ("optimization.warm_up=3", "optimization.warmup"),
        ("meta.model_nam=x", "meta.model_name"),
        ("optimization.epochs=0", "optimization.epochs"),
        (
            "optimization.epochs=18446744073709551615",
            "optimization.epochs: 18446744073709551615 is above 1000000",
        ),
        ("optimization.ema=[0.9, 1.1]", "optimization.ema"),
        ("optimization.lr=-1", "optimization.lr"),
        ("checkpoint.keep=0", "checkpoint.keep"),
        ("trainer.log_every=0", "trainer.log_every"),
        ("trainer.loader_patience=0", "trainer.loader_patience"),
        ("logging.write_tag=a/b", "logging.write_tag"),
        ("logging.write_tag=", "logging.write_tag"),
        ("logging.write_tag=..", "logging.write_tag"),
        (
            "logging.write_tag=a\u{1b}[2J",
            r#"logging.write_tag: "a\u{1b}[2J"#,
        ),
        (
            "trainer.threads=0",
            "trainer.threads: 0 is outside 1..=4096",
        ),
        (
            "trainer.threads=1000000",
            "trainer.threads: 1000000 is outside 1..=4096",
        ),
        (
            "meta.pred_depth=0",
            "meta.pred_depth: 0 is outside 1..=1000",
        ),
        (
            "meta.pred_depth=1000000",
            "meta.pred_depth: 1000000 is outside",
        ),
        (
            "meta.pred_emb_dim=1000000",
            "meta.pred_emb_dim: 1000000 is outside",
        ),
        (
            "meta.pred_emb_dim=7",
            "meta.pred_emb_dim: predictor width 7 is not",
        ),
        (
            "meta.model_name=vit_foo",
            "meta.model_name: unknown model `vit_foo`",
        ),
        (
            "optimization.ipe_scale=0",
            "optimization.ipe_scale: 0 is not",
        ),
        ("optimization.warmup=-1", "optimization.warmup: -1 is not"),
    ] {
        let message = parse(OFFICIAL, &[set]).unwrap_err().to_string();
        assert!(message.starts_with("--set "), "{set}: {message}");
        assert!(message.contains(expected), "{set}: {message}");
    }
    let without = OFFICIAL.replace("pred_depth: 12, ", "");
    let message = parse(&without, &[]).unwrap_err().to_string();
    assert!(
        message.starts_with("test.yaml: meta.pred_depth: missing"),
        "{message}"
    );
    // A key that is mistyped is told before one that is missing, in whichever section.
    for mistyped in ["lr: 0.001", "batch_size: 128", "write_tag: jepa"] {
        let text = without.replace(mistyped, &format!("x{mistyped}"));
        let message = parse(&text, &[]).unwrap_err().to_string();
        assert!(
            message.starts_with("test.yaml: ") && message.contains(": unknown key"),
            "{message}"
        );
    }
    let wrong = OFFICIAL.replace("vit_huge", "vit_foo");
    let message = parse(&wrong, &[]).unwrap_err().to_string();
    assert!(
        message.starts_with("test.yaml: meta.model_name: unknown model"),
        "{message}"
    );
    let message = parse(OFFICIAL, &[])
        .unwrap()
        .folder()
        .unwrap_err()
        .to_string();
    assert!(
        message.starts_with("test.yaml: logging.folder: still"),
        "{message}"
    );
}

#[test]
fn a_warmup_longer_than_the_run_is_said() {
    let quiet = ["meta.use_bfloat16=false", "optimization.epochs=40"];
    let config = parse(OFFICIAL, &quiet).unwrap();
    assert_eq!(config.warnings(Device::Cpu, 1), [""; 0]);
    let config = parse(OFFICIAL, &[quiet[0], "optimization.epochs=39"]).unwrap();
    let warnings = config.warnings(Device::Cpu, 1);
    assert!(
        warnings.len() == 1 && warnings[0].starts_with("optimization.warmup: 40 epochs"),
        "{warnings:?}"
    );
}

#[test]
fn sizes_of_crops_are_those_of_the_networks_and_one_that_never_comes_is_said() {
    let sizes = |text: &str| {
        let sets = [&format!("data.crop_size={text}"), "meta.use_bfloat16=false"];
        parse(OFFICIAL, &sets).unwrap()
    };
    let config = sizes("{0: 112, 299: 224}");
    assert_eq!(config.model().unwrap().image_size, 112);
    assert_eq!(config.model_for(224).unwrap().patches(), 256);
    assert_eq!(config.warnings(Device::Cpu, 1), [""; 0]);
    let warnings = sizes("{0: 112, 300: 224}").warnings(Device::Cpu, 1);
    let told =
        "data.crop_size: 224 begins at epoch 300, counted from 0, and the run has 300 epochs";
    assert!(
        warnings.len() == 1 && warnings[0].starts_with(told),
        "{warnings:?}"
    );

    // One key, whatever its value is made of.
    let differences = config.differences(&sizes("112"));
    let lines = Vec::from_iter(differences.iter().map(ToString::to_string));
    assert_eq!(
        lines,
        [r#"data.crop_size: {"0":112,"299":224} now, 112 then"#]
    );
    assert_eq!(sizes("{0: 112}").differences(&sizes("112")), []);
    config
        .check_allowed(&["data.crop_size".to_owned()])
        .unwrap();
    let refused = config.check_allowed(&["data.crop_size.0".to_owned()]);
    assert!(refused.unwrap_err().to_string().contains("is no key"));
}

#[test]
fn only_differences_that_matter_are_listed() {
    let one = parse(OFFICIAL, &[]).unwrap();
    let moved = parse(
        OFFICIAL,
        &[
            "logging.folder=/elsewhere",
            "loader.workers=3",
            "data.num_workers=1",
            "checkpoint.keep=9",
            "trainer.threads=1",
        ],
    )
    .unwrap();
    assert_eq!(moved.differences(&one), []);
    // A default that is written down is no difference.
    let written = parse(OFFICIAL, &["trainer.seed=0", "loader.split=train"]).unwrap();
    assert_eq!(written.differences(&one), []);
    let changed = parse(
        OFFICIAL,
        &["optimization.lr=0.002", "mask.min_keep=4", "loader.seed=1"],
    )
    .unwrap();
    let differences = changed.differences(&one);
    let lines: Vec<String> = differences.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "loader.seed: 1 now, 0 then",
            "mask.min_keep: 4 now, 10 then",
            "optimization.lr: 0.002 now, 0.001 then"
        ]
    );
}

#[test]
fn only_keys_that_can_differ_are_allowed() {
    let config = parse(OFFICIAL, &[]).unwrap();
    let allow = |key: &str| config.check_allowed(&[key.to_owned()]);
    for key in [
        "optimization.epochs",
        "mask.min_keep",
        "loader.shards",
        "trainer.threads",
    ] {
        allow(key).unwrap();
    }
    for (key, reason) in [
        ("meta.model_name", "sizes of the networks"),
        ("mask.patch_size", "sizes of the networks"),
        ("optimization.epoch", "optimization.epochs, "),
        ("optimization", "optimization.epochs, "),
        ("optimization.epochs=4", "optimization.epochs, "),
        ("epochs", "is no key; one has a section"),
        ("", "is no key"),
    ] {
        let message = allow(key).unwrap_err().to_string();
        let start = format!("--allow {key}: ");
        assert!(
            message.starts_with(&start) && message.contains(reason),
            "{message}"
        );
    }
}

#[test]
fn openmp_says_how_many_threads_there_are_by_default() {
    for (omp, expected) in [
        (None, 8),
        (Some("3"), 3),
        (Some(" 4,2"), 4),
        (Some("0"), 8),
        (Some("-1"), 8),
        (Some("many"), 8),
        (Some(""), 8),
        (Some("99999"), MAX_THREADS),
    ] {
        assert_eq!(default_threads(omp, 8), expected, "{omp:?}");
    }
}

#[test]
fn a_batch_other_than_the_claimed_one_is_said() {
    let config = parse(
        OFFICIAL,
        &[
            "trainer.reproduces_global_batch=2048",
            "meta.use_bfloat16=false",
        ],
    )
    .unwrap();
    assert_eq!(config.warnings(Device::Cpu, 16), Vec::<String>::new());
    let warnings = config.warnings(Device::Cpu, 1);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].contains("is 128") && warnings[0].contains("accumulates 16 groups of 128"),
        "{warnings:?}"
    );
    // bfloat16 is for devices that compute with it; a CPU may be one.
    let config = parse(OFFICIAL, &[]).unwrap();
    assert_eq!(config.warnings(Device::Cuda(0), 1), Vec::<String>::new());
    let expected = usize::from(Bfloat16::of(Device::Cpu) != Bfloat16::Fast);
    assert_eq!(config.warnings(Device::Cpu, 1).len(), expected);
}

#[test]
fn a_group_other_than_the_claimed_one_is_said() {
    let warnings = |more: &[&str]| {
        let claim = "trainer.reproduces_group=128";
        let sets = [&[claim, "meta.use_bfloat16=false"], more].concat();
        parse(OFFICIAL, &sets).unwrap().warnings(Device::Cpu, 1)
    };
    assert_eq!(warnings(&[]), [""; 0]);
    let said = warnings(&["data.batch_size=16", "optimization.global_batch=2048"]);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].contains("smallest of 16 images") && said[0].contains("--set data.batch_size=128"),
        "{said:?}"
    );
    // Nothing is cut then, so that a group's size has no say.
    let uncut = warnings(&["data.batch_size=16", "mask.allow_overlap=true"]);
    assert_eq!(uncut, [""; 0]);
}

/// Every file in `configs/` is one that both programs take and whose masks can be drawn.
#[test]
fn the_configs_shipped_are_sound() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let config =
            Config::load(&path, &[], None).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        config
            .model()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let batch = config
            .trainer
            .reproduces_global_batch
            .unwrap_or(config.loader.global_batch(1));
        let sampler = loader::PretrainingSampler::new(&config.loader, 1_281_167, batch);
        let sampler = sampler.unwrap_or_else(|error| panic!("{name}: {error}"));
        for claim in ["the global batch", "data.batch_size"] {
            let warnings = config.warnings(Device::Cpu, batch / config.loader.data.batch_size);
            let said = warnings.iter().find(|warning| warning.starts_with(claim));
            assert_eq!(said, None, "{name} claims what it is not");
        }
        config.schedule(sampler.epoch_len()).unwrap();
        names.push(name);
    }
    names.sort();
    assert_eq!(
        names,
        [
            "demo.yaml",
            "in1k_vitb16_ep600.yaml",
            "in1k_vitb16_ep600_augmented.yaml",
            "in1k_vith14_ep300.yaml",
            "in1k_vith16-448_ep300.yaml",
            "in1k_vitl16_ep600.yaml",
            "in1k_vitl16_ep600_augmented.yaml",
            "in1k_vits16_ep300.yaml",
            "in22k_vitg16_ep44.yaml",
            "in22k_vith14_ep66.yaml",
            "tiny20_mini8.yaml",
            "tiny20_vittiny8.yaml",
        ]
    );
}

#[test]
fn an_encoder_of_ones_own_has_the_sizes_that_are_given() {
    let own = [
        "meta.embed_dim=96",
        "meta.depth=3",
        "meta.num_heads=3",
        "meta.pred_emb_dim=48",
    ];
    let with = |more: &[&str]| parse(OFFICIAL, &[&own[..], more].concat());
    let config = with(&["meta.model_name=custom"]).unwrap();
    let model = config.model().unwrap();
    assert_eq!(
        (model.embed_dim, model.depth, model.heads, model.mlp_dim),
        (96, 3, 3, 384)
    );
    let again = Config::from_resolved(&config.resolved()).unwrap();
    assert_eq!(again.model().unwrap(), model);
    for (sets, words) in [
        (&[][..], "meta.embed_dim: vit_huge has its own"),
        (
            &["meta.model_name=custom", "meta.depth=null"],
            "meta.depth: missing",
        ),
        (
            &["meta.model_name=custom", "meta.num_heads=5"],
            "meta.num_heads: encoder width 96",
        ),
        (
            &["meta.model_name=custom", "meta.depth=0"],
            "meta.depth: 0 is outside 1..=1000",
        ),
        (
            &["meta.model_name=custom", "meta.embed_dim=9"],
            "meta.embed_dim: encoder width 9 is not",
        ),
    ] {
        let message = with(sets).unwrap_err().to_string();
        assert!(message.contains(words), "{sets:?}: {message}");
    }
}

#[test]
fn a_run_may_be_counted_in_steps() {
    let steps = ["optimization.steps=1000", "optimization.warmup_steps=100"];
    let config = parse(OFFICIAL, &steps).unwrap();
    assert_eq!(
        (config.total_steps(625), config.last_step(625)),
        (1000, 1000)
    );
    let schedule = config.schedule(625).unwrap();
    assert_eq!((schedule.lr(99), schedule.lr(999)), (1e-3, 1e-6));
    assert_eq!(schedule.momentum(1000), 1.0);
    // The warm-up may be in epochs all the same, and the steps those of the epochs.
    let half = parse(OFFICIAL, &[steps[0], "optimization.warmup=0.16"]).unwrap();
    assert_eq!(half.schedule(625).unwrap().lr(99), 1e-3);
    let long = parse(OFFICIAL, &[steps[1]]).unwrap();
    assert_eq!(long.total_steps(625), 187_500);
    assert_eq!(long.schedule(625).unwrap().lr(99), 1e-3);
    for (sets, words) in [
        (["optimization.epochs=null", ""], "optimization.epochs"),
        (
            ["optimization.warmup=null", ""],
            "optimization.warmup: missing",
        ),
        (
            ["optimization.steps=0", ""],
            "optimization.steps: 0 is outside",
        ),
    ] {
        let sets: Vec<&str> = sets.into_iter().filter(|set| !set.is_empty()).collect();
        let message = parse(OFFICIAL, &sets).unwrap_err().to_string();
        assert!(message.contains(words), "{sets:?}: {message}");
    }
    let short = parse(OFFICIAL, &["optimization.steps=50", steps[1]]).unwrap();
    let warnings = short.warnings(Device::Cpu, 1);
    assert!(
        warnings
            .iter()
            .any(|line| line.starts_with("optimization.warmup_steps: 100 are"))
    );
    let by_steps = ["checkpoint.every_epochs=0", "checkpoint.every_steps=500"];
    parse(OFFICIAL, &by_steps).unwrap();
    let message = parse(OFFICIAL, &by_steps[..1]).unwrap_err().to_string();
    assert!(
        message.contains("neither checkpoint.every_steps"),
        "{message}"
    );
}
