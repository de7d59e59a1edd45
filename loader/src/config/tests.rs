use std::path::Path;

use super::*;
use crate::testing::config;

mod text;

/// The shape and values of the released ViT-H/14 file.
const OFFICIAL: &str = "
data:
  batch_size: 128
  color_jitter_strength: 0.0
  crop_scale:
  - 0.3
  - 1.0
  crop_size: 224
  image_folder: imagenet_full_size/061417/
  num_workers: 10
  pin_mem: true
  root_path: $replace_this_with_absolute_path_to_your_datasets_directory
  use_color_distortion: false
  use_gaussian_blur: false
  use_horizontal_flip: false
logging:
  folder: $replace_this_with_path_for_experiment_logs/vith14.224-bs.2048-ep.300/
mask:
  allow_overlap: false
  aspect_ratio:
  - 0.75
  - 1.5
  enc_mask_scale:
  - 0.85
  - 1.0
  min_keep: 10
  num_enc_masks: 1
  num_pred_masks: 4
  patch_size: 14
  pred_mask_scale:
  - 0.15
  - 0.2
";

fn official(sets: &[&str]) -> Result<LoaderConfig, Error> {
    let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
    let file = ConfigFile::parse(Path::new("official.yaml"), OFFICIAL, &sets)?;
    file.check_sections(&SECTIONS)?;
    LoaderConfig::from_file(&file)
}

fn message(sets: &[&str]) -> String {
    official(sets)
        .expect_err(&format!("{sets:?} must be refused"))
        .to_string()
}

#[test]
fn an_official_file_is_read_unchanged() {
    let config = official(&[]).unwrap();
    assert_eq!(
        (config.data.batch_size, config.data.crop_size.clone()),
        (128, 224.into())
    );
    assert_eq!(
        (config.data.crop_scale, config.mask.pred_mask_scale),
        ([0.3, 1.0], [0.15, 0.2])
    );
    assert_eq!(
        (
            config.mask.patch_size,
            config.mask.min_keep,
            config.grid(224)
        ),
        (14, 10, (16, 16))
    );
    assert_eq!(
        (config.data.num_workers, config.global_batch(16)),
        (Some(10), 2048)
    );
    assert_eq!(config.loader, Loader::default());
}

#[test]
fn omitted_keys_take_the_official_values() {
    let mut config = config(
        16,
        &[
            "data.batch_size=128",
            "data.crop_size=224",
            "mask.patch_size=14",
        ],
    )
    .unwrap();
    let official = official(&[]).unwrap();
    config.data = Data {
        image_folder: official.data.image_folder.clone(),
        num_workers: official.data.num_workers,
        pin_mem: official.data.pin_mem,
        root_path: official.data.root_path.clone(),
        ..config.data
    };
    config.origin = official.origin.clone();
    assert_eq!(config, official);
}

#[test]
fn a_mistyped_key_is_named_with_the_nearest() {
    assert_eq!(
        message(&["data.crop_sze=3"]),
        "--set data.crop_sze: unknown key; did you mean data.crop_size?"
    );
    assert_eq!(
        message(&["mask.pred_mask=3"]),
        "--set mask.pred_mask: unknown key; did you mean mask.pred_mask_scale?"
    );
    assert_eq!(
        message(&["loader.worker=3"]),
        "--set loader.worker: unknown key; did you mean loader.workers?"
    );
    assert_eq!(
        message(&["maks.patch_size=3"]),
        "--set maks: unknown key; did you mean mask?"
    );
    assert_eq!(message(&["data.xyzzy=3"]), "--set data.xyzzy: unknown key");
    // Sections that nobody reads are neither accepted nor proposed.
    for unread in ["launch", "slurm", "evaluate"] {
        let message = message(&[&format!("{unread}.nonsense=1")]);
        assert!(
            message.starts_with(&format!("--set {unread}: unknown key")),
            "{message}"
        );
        assert!(
            !message.contains("mean launch") && !message.contains("mean slurm"),
            "{message}"
        );
    }
}

#[test]
fn every_refusal_names_the_key_and_the_value() {
    let cases: [(&str, &[&str]); 20] = [
        ("data.batch_size=0", &["data.batch_size: 0", "outside 1..="]),
        ("data.batch_size=-1", &["data.batch_size: -1"]),
        ("data.batch_size=1.5", &["data.batch_size: 1.5"]),
        ("data.batch_size=many", &["data.batch_size: \"many\""]),
        (
            "data.crop_size=225",
            &[
                "data.crop_size: 225",
                "not a multiple of mask.patch_size 14",
            ],
        ),
        (
            "data.crop_size=100000",
            &["data.crop_size: 100000", "outside"],
        ),
        (
            "data.crop_scale=[0, 1]",
            &["data.crop_scale: [0, 1]", "above 0"],
        ),
        (
            "data.crop_scale=[0.3, 1.2]",
            &["data.crop_scale: [0.3, 1.2]", "not above 1"],
        ),
        (
            "data.crop_scale=[0.9, 0.3]",
            &["data.crop_scale: [0.9, 0.3]", "smaller bound last"],
        ),
        ("data.crop_scale=[.nan, 1]", &["data.crop_scale"]),
        ("data.crop_scale=[0.3]", &["data.crop_scale", "length"]),
        (
            "data.crop_scale=[0.3, big]",
            &["data.crop_scale[1]: \"big\""],
        ),
        ("mask.patch_size=0", &["mask.patch_size: 0"]),
        (
            "mask.enc_mask_scale=[1, 2]",
            &["mask.enc_mask_scale: [1, 2]"],
        ),
        (
            "mask.aspect_ratio=[2, 1]",
            &["mask.aspect_ratio: [2, 1]", "smaller bound last"],
        ),
        ("mask.num_enc_masks=0", &["mask.num_enc_masks: 0"]),
        ("mask.num_pred_masks=65", &["mask.num_pred_masks: 65"]),
        ("loader.slots=1", &["loader.slots: 1"]),
        (
            "loader.mask_law=best",
            &["loader.mask_law", "released", "unbiased"],
        ),
        (
            "optimization.global_batch=0",
            &["optimization.global_batch: 0"],
        ),
    ];
    for (set, parts) in cases {
        let message = message(&[set]);
        for part in parts {
            assert!(message.contains(part), "{set}: {message:?} lacks {part:?}");
        }
    }
}

#[test]
fn a_strength_is_checked_where_it_is_used() {
    let set = |strength| {
        [
            "data.use_color_distortion=true".to_owned(),
            format!("data.color_jitter_strength={strength}"),
        ]
    };
    for strength in ["-0.1", "2.6"] {
        let [on, value] = set(strength);
        let message = message(&[&on, &value]);
        assert!(
            message.starts_with(&format!(
                "--set data.color_jitter_strength: {strength} is outside"
            )),
            "{message}"
        );
        official(&[&value]).unwrap();
    }
    let [on, value] = set("2.5");
    official(&[&on, &value]).unwrap();
}

#[test]
fn a_missing_key_is_named_with_its_section() {
    let file = ConfigFile::parse(Path::new("t.yaml"), "data: {batch_size: 4}", &[]).unwrap();
    assert_eq!(
        LoaderConfig::from_file(&file).unwrap_err().to_string(),
        "t.yaml: mask.patch_size: missing; this key has no default"
    );
}

#[test]
fn set_arguments_are_yaml_and_reach_new_sections() {
    let config = official(&[
        "loader.seed=7",
        "data.crop_scale=[0.5, 0.75]",
        "loader.mask_law=unbiased",
    ])
    .unwrap();
    assert_eq!(
        (config.loader.seed, config.data.crop_scale),
        (7, [0.5, 0.75])
    );
    assert_eq!(config.loader.mask_law, MaskLaw::Unbiased);
    for broken in [
        "data.batch_size",
        "batch_size=3",
        "data..x=3",
        "=3",
        "data.crop_scale=[1",
        "data.batch_size.x=1",
    ] {
        assert!(
            matches!(official(&[broken]), Err(Error::SetSyntax { .. })),
            "{broken}"
        );
    }
}

/// What a shell passes on is what a key of text holds: no YAML in between makes `true` of `y`.
#[test]
fn text_is_taken_literally() {
    for text in [
        "y", "10", "20240101", "1e5", "exp #3", "a: b", "[a", "null", "~x", "=", "", " x",
    ] {
        let config = official(&[&format!("loader.split={text}")]).unwrap();
        assert_eq!(config.loader.split, text);
        let config = official(&[&format!("loader.shards=./{text}")]).unwrap();
        assert_eq!(config.loader.shards, Some(format!("./{text}").into()));
    }
    for (text, inside) in [("'y'", "y"), ("\"a b\"", "a b"), ("'", "'")] {
        let config = official(&[&format!("loader.split={text}")]).unwrap();
        assert_eq!(config.loader.split, inside);
    }
    for nothing in ["null", "~", ""] {
        let sets = [
            "data.image_folder=x",
            &format!("data.image_folder={nothing}"),
        ];
        assert_eq!(official(&sets).unwrap().data.image_folder, None);
    }
    // Others are YAML still, and the last one counts.
    let config = official(&[
        "data.use_gaussian_blur=y",
        "loader.seed=1",
        "loader.seed=0x10",
    ]);
    let config = config.unwrap();
    assert_eq!(
        (config.data.use_gaussian_blur, config.loader.seed),
        (true, 16)
    );
}

#[test]
fn paths_begin_at_home_and_hold_variables() {
    let home = std::env::var("HOME").expect("tests have a home");
    let text = "data: {batch_size: 4, root_path: ~/data, image_folder: a$$b}\nmask: {patch_size: 14}\n\
        loader: {shards: \"${HOME}/x\", local_dir: $HOME}";
    let read = |text: &str| {
        let file = ConfigFile::parse(Path::new("t.yaml"), text, &[])?;
        LoaderConfig::from_file(&file)
    };
    let config = read(text).unwrap();
    assert_eq!(config.data.root_path, Some(format!("{home}/data")));
    assert_eq!(config.data.image_folder.as_deref(), Some("a$b"));
    assert_eq!(config.loader.shards, Some(format!("{home}/x").into()));
    assert_eq!(config.loader.local_dir, Some(home.clone().into()));
    // What is written reads back.
    let data = serde_json::to_value(&config.data).unwrap();
    assert_eq!(data["image_folder"], "a$$b");
    assert_eq!(serde_json::from_value::<Data>(data).unwrap(), config.data);
    let config = official(&["loader.shards=~/x"]).unwrap();
    assert_eq!(config.loader.shards, Some(format!("{home}/x").into()));

    assert_eq!(
        read(&text.replace("HOME", "NO_SUCH_VARIABLE"))
            .unwrap_err()
            .to_string(),
        "t.yaml: loader.local_dir: \"$NO_SUCH_VARIABLE\" does not fit: the environment variable NO_SUCH_VARIABLE \
         is not set; set it, write the path out, or $$ for a dollar sign"
    );
    let message = message(&["data.root_path=~bob/x"]);
    assert!(
        message.starts_with("--set data.root_path: \"~bob/x\" does not fit: only ~ and ~/"),
        "{message}"
    );
}

#[test]
fn a_mistyped_key_is_told_before_a_missing_one() {
    for text in [
        "loader: {sede: 1}",
        "data: {batch_sise: 4}\nloader: {seed: 1}",
        "mask: {pach_size: 1}",
    ] {
        let file = ConfigFile::parse(Path::new("t.yaml"), text, &[]).unwrap();
        let error = LoaderConfig::from_file(&file).unwrap_err().to_string();
        assert!(error.contains("unknown key; did you mean"), "{error}");
    }
}

#[test]
fn the_placeholder_matters_only_where_it_is_needed() {
    let error = official(&[]).unwrap().shards_dir().unwrap_err().to_string();
    assert!(
        error.starts_with(
            "official.yaml: data.root_path: still the placeholder \"$replace_this_with_abs"
        ),
        "{error}"
    );
    assert!(
        error.contains("--set data.root_path=") && error.contains("--shards"),
        "{error}"
    );

    let there = tempfile::tempdir().unwrap();
    let mut config = official(&[]).unwrap();
    config.loader.shards = Some(there.path().to_owned());
    assert_eq!(config.shards_dir().unwrap(), there.path());

    let file = ConfigFile::parse(
        Path::new("t.yaml"),
        "data: {batch_size: $replace_this_with_a_number}",
        &[],
    )
    .unwrap();
    let error = file.section::<Data>("data").unwrap_err().to_string();
    assert!(
        error.starts_with("t.yaml: data.batch_size: still the placeholder"),
        "{error}"
    );
}

#[test]
fn shards_lie_beside_the_image_folder() {
    let root = tempfile::tempdir().unwrap();
    let root_text = root.path().to_str().unwrap();
    let config = official(&[&format!("data.root_path={root_text}")]).unwrap();
    let error = config.shards_dir().unwrap_err().to_string();
    let build = format!("shardtool build {root_text}/imagenet_full_size/061417");
    assert!(error.ends_with(&build), "{error}");

    let shards = root.path().join("imagenet_full_size/061417.shards");
    std::fs::create_dir_all(&shards).unwrap();
    assert_eq!(config.shards_dir().unwrap(), shards);
}

#[test]
fn the_sampling_hash_covers_what_decides_samples_and_nothing_else() {
    let hash = |sets: &[&str]| official(sets).unwrap().sampling_hash();
    let base = hash(&[]);
    for set in [
        "data.batch_size=64",
        "data.crop_scale=[0.2, 1]",
        "data.crop_size=448",
        "data.use_horizontal_flip=true",
        "data.use_color_distortion=true",
        "data.use_gaussian_blur=true",
        "mask.allow_overlap=true",
        "mask.aspect_ratio=[0.75, 1.4]",
        "mask.enc_mask_scale=[0.8, 1]",
        "mask.min_keep=9",
        "mask.num_enc_masks=2",
        "mask.num_pred_masks=3",
        "mask.patch_size=16",
        "mask.pred_mask_scale=[0.15, 0.25]",
        "loader.seed=1",
        "loader.split=val",
        "loader.mask_law=unbiased",
        "loader.fidelity=exact",
    ] {
        assert_ne!(hash(&[set]), base, "{set}");
    }
    for set in [
        "data.num_workers=1",
        "data.color_jitter_strength=1.0",
        "data.pin_mem=false",
        "data.root_path=/x",
        "loader.workers=3",
        "loader.slots=9",
    ] {
        assert_eq!(hash(&[set]), base, "{set}");
    }
    let strength = |strength: &str| {
        hash(&[
            "data.use_color_distortion=true",
            &format!("data.color_jitter_strength={strength}"),
        ])
    };
    assert_ne!(strength("0.5"), strength("1.0"));
    assert_eq!(base, 0x8695_3f9a_d9f5_e76a, "{base:#x}");
}

/// Every file in `configs/`, the official ones among them, is one the loader can run.
#[test]
fn the_shipped_configurations_are_sound() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
    let mut names = Vec::new();
    for file in std::fs::read_dir(&dir).unwrap() {
        let path = file.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            let config = LoaderConfig::load(&path, &[], None)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            crate::sampler::PretrainingSampler::new(&config, 1 << 20, config.data.batch_size)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            names.push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    assert!(
        names.contains(&"in1k_vith14_ep300.yaml".to_owned()),
        "{names:?}"
    );
}
