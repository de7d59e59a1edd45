use super::*;

use tch::Tensor;

use crate::checkpoint::Snapshot;
use crate::distributed::World;

const TEXT: &str = "
data: {batch_size: 2, crop_size: 32}
mask: {patch_size: 8, min_keep: 0}
meta: {model_name: vit_tiny, pred_depth: 1, pred_emb_dim: 48, use_bfloat16: false}
optimization: {ema: [0.996, 1.0], epochs: 3, final_lr: 1.0e-06, final_weight_decay: 0.4, lr: 0.001, start_lr: 0.0002,
  warmup: 1, weight_decay: 0.04}
logging: {folder: unset, write_tag: jepa}
";

fn config(folder: &Path, sets: &[&str]) -> Config {
    let mut sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
    sets.push(format!("logging.folder={}", folder.display()));
    Config::from_file(&ConfigFile::parse(Path::new("test.yaml"), TEXT, &sets).unwrap()).unwrap()
}

fn open(config: &Config) -> Result<RunDir, Error> {
    RunDir::open(config, World::alone().first().unwrap())
}

fn save(dir: &RunDir, config: &Config, step: u64) -> PathBuf {
    let parts = vec![("encoder", vec![("w".to_owned(), Tensor::from(1.0f32))])];
    let state = State::new(step, 10, config.resolved());
    dir.store
        .save(&state, &Snapshot::of(&parts).unwrap())
        .unwrap();
    dir.store.path(step)
}

#[test]
fn a_second_trainer_is_refused_while_the_first_lives() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), &[]);
    let first = open(&config).unwrap();
    let message = open(&config).unwrap_err().to_string();
    assert!(
        message.contains(&format!(
            "in use by another trainer (process {}",
            std::process::id()
        )),
        "{message}"
    );
    drop(first);
    open(&config).unwrap();
}

#[test]
fn auto_starts_and_continues_with_the_same_command() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), &[]);
    let dir = open(&config).unwrap();
    assert_eq!(dir.begin(&config, Some(&Resume::Auto)).unwrap(), None);
    assert_eq!(dir.begin(&config, None).unwrap(), None);
    dir.store_params(&config.resolved()).unwrap();
    // Died before the first checkpoint: begins anew.
    assert_eq!(dir.begin(&config, Some(&Resume::Auto)).unwrap(), None);
    save(&dir, &config, 10);
    let latest = save(&dir, &config, 20);
    let (path, state) = dir.begin(&config, Some(&Resume::Auto)).unwrap().unwrap();
    assert_eq!((path, state.step), (latest, 20));
}

#[test]
fn an_earlier_run_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let one = config(folder.path(), &[]);
    let dir = open(&one).unwrap();
    dir.begin(&one, Some(&Resume::Never)).unwrap();
    dir.store_params(&one.resolved()).unwrap();
    let message = dir
        .begin(&one, Some(&Resume::Never))
        .unwrap_err()
        .to_string();
    assert!(message.contains("holds a run already"), "{message}");
    // Another run in the same folder, with and without a checkpoint of the first.
    let other = config(folder.path(), &["optimization.lr=0.5", "loader.seed=3"]);
    for _ in 0..2 {
        let message = dir
            .begin(&other, Some(&Resume::Auto))
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("optimization.lr: 0.5 now, 0.001 then"),
            "{message}"
        );
        assert!(message.contains("loader.seed: 3 now, 0 then"), "{message}");
        save(&dir, &one, 10);
    }
}

#[test]
fn an_older_checkpoint_branches_off_only_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let one = config(folder.path(), &[]);
    let dir = open(&one).unwrap();
    let early = save(&dir, &one, 10);
    save(&dir, &one, 20);
    let message = dir
        .begin(&one, Some(&Resume::From(early.clone())))
        .unwrap_err()
        .to_string();
    assert!(message.contains("has gone on to step 20"), "{message}");
    let fresh = tempfile::tempdir().unwrap();
    let moved = config(fresh.path(), &[]);
    let other = open(&moved).unwrap();
    let (path, state) = other
        .begin(&moved, Some(&Resume::From(early.clone())))
        .unwrap()
        .unwrap();
    assert_eq!((path, state.step), (early, 10));
    // The run directory stands for its latest checkpoint.
    let (_, state) = other
        .begin(&moved, Some(&Resume::From(folder.path().to_owned())))
        .unwrap()
        .unwrap();
    assert_eq!(state.step, 20);
}

#[test]
fn the_official_keys_ask_for_a_checkpoint_that_must_be_there() {
    let folder = tempfile::tempdir().unwrap();
    let config_of = |sets: &[&str]| config(folder.path(), sets);
    let wanted = config_of(&["meta.load_checkpoint=true"]);
    let dir = open(&wanted).unwrap();
    let message = dir.begin(&wanted, None).unwrap_err().to_string();
    assert!(
        message.contains("holds neither a checkpoint of ours nor"),
        "{message}"
    );
    let named = config_of(&[
        "meta.load_checkpoint=true",
        "meta.read_checkpoint=jepa-ep100.pth.tar",
    ]);
    let message = format!("{:#}", dir.begin(&named, None).unwrap_err());
    assert!(
        message.contains("read_checkpoint") && message.contains("jepa-ep100.pth.tar"),
        "{message}"
    );
    save(&dir, &wanted, 10);
    assert_eq!(dir.begin(&wanted, None).unwrap().unwrap().1.step, 10);
    let named = config_of(&[
        "meta.load_checkpoint=true",
        "meta.read_checkpoint=checkpoints/jepa-step00000010",
    ]);
    assert_eq!(dir.begin(&named, None).unwrap().unwrap().1.step, 10);
}

#[test]
fn the_stored_configuration_reads_back() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), &["trainer.seed=9"]);
    let dir = open(&config).unwrap();
    dir.store_params(&config.resolved()).unwrap();
    let stored = Config::load(&folder.path().join(PARAMS), &[], None).unwrap();
    assert_eq!(stored.resolved(), config.resolved());
}
