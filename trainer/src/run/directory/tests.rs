use super::*;

use tch::Tensor;

use crate::checkpoint::Snapshot;
use crate::distributed::World;
use crate::run::Data;

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

fn log_a_step(dir: &RunDir) {
    fs::write(dir.path().join("jepa_r0.jsonl"), "{}\n").unwrap();
}

fn allowing(keys: &[&str]) -> Terms {
    Terms {
        data: None,
        allowed: keys.iter().map(ToString::to_string).collect(),
    }
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
    assert_eq!(
        dir.begin(&config, Some(&Resume::Auto), &Terms::default())
            .unwrap(),
        None
    );
    assert_eq!(dir.begin(&config, None, &Terms::default()).unwrap(), None);
    dir.store_params(&config.resolved()).unwrap();
    // Died before the first checkpoint: begins anew.
    assert_eq!(
        dir.begin(&config, Some(&Resume::Auto), &Terms::default())
            .unwrap(),
        None
    );
    save(&dir, &config, 10);
    let latest = save(&dir, &config, 20);
    let (path, state) = dir
        .begin(&config, Some(&Resume::Auto), &Terms::default())
        .unwrap()
        .unwrap();
    assert_eq!((path, state.step), (latest, 20));
}

#[test]
fn an_earlier_run_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let one = config(folder.path(), &[]);
    let dir = open(&one).unwrap();
    dir.begin(&one, Some(&Resume::Never), &Terms::default())
        .unwrap();
    dir.store_params(&one.resolved()).unwrap();
    log_a_step(&dir);
    let message = dir
        .begin(&one, Some(&Resume::Never), &Terms::default())
        .unwrap_err()
        .to_string();
    assert!(message.contains("holds a run already"), "{message}");
    // Another run in the same folder, with and without a checkpoint of the first.
    let other = config(folder.path(), &["optimization.lr=0.5", "loader.seed=3"]);
    for _ in 0..2 {
        let message = dir
            .begin(&other, Some(&Resume::Auto), &Terms::default())
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
        .begin(&one, Some(&Resume::From(early.clone())), &Terms::default())
        .unwrap_err()
        .to_string();
    assert!(message.contains("has gone on to step 20"), "{message}");
    let fresh = tempfile::tempdir().unwrap();
    let moved = config(fresh.path(), &[]);
    let other = open(&moved).unwrap();
    let (path, state) = other
        .begin(
            &moved,
            Some(&Resume::From(early.clone())),
            &Terms::default(),
        )
        .unwrap()
        .unwrap();
    assert_eq!((path, state.step), (early, 10));
    // The run directory stands for its latest checkpoint.
    let (_, state) = other
        .begin(
            &moved,
            Some(&Resume::From(folder.path().to_owned())),
            &Terms::default(),
        )
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
    let message = dir
        .begin(&wanted, None, &Terms::default())
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("holds neither a checkpoint of ours nor"),
        "{message}"
    );
    let named = config_of(&[
        "meta.load_checkpoint=true",
        "meta.read_checkpoint=jepa-ep100.pth.tar",
    ]);
    let message = format!(
        "{:#}",
        dir.begin(&named, None, &Terms::default()).unwrap_err()
    );
    assert!(
        message.contains("read_checkpoint") && message.contains("jepa-ep100.pth.tar"),
        "{message}"
    );
    save(&dir, &wanted, 10);
    assert_eq!(
        dir.begin(&wanted, None, &Terms::default())
            .unwrap()
            .unwrap()
            .1
            .step,
        10
    );
    let named = config_of(&[
        "meta.load_checkpoint=true",
        "meta.read_checkpoint=checkpoints/jepa-step00000010",
    ]);
    assert_eq!(
        dir.begin(&named, None, &Terms::default())
            .unwrap()
            .unwrap()
            .1
            .step,
        10
    );
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

#[test]
fn a_run_that_made_no_step_holds_no_directory() {
    let folder = tempfile::tempdir().unwrap();
    let one = config(folder.path(), &[]);
    let dir = open(&one).unwrap();
    dir.store_params(&one.resolved()).unwrap();
    let other = config(folder.path(), &["optimization.lr=0.5", "meta.pred_depth=2"]);
    for resume in [Resume::Auto, Resume::Never] {
        let found = dir.begin(&other, Some(&resume), &Terms::default());
        assert_eq!(found.unwrap(), None);
    }
    log_a_step(&dir);
    for resume in [Resume::Auto, Resume::Never] {
        dir.begin(&other, Some(&resume), &Terms::default())
            .unwrap_err();
    }
}

#[test]
fn a_run_is_its_own_however_its_directory_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let one = config(folder.path(), &[]);
    let dir = open(&one).unwrap();
    save(&dir, &one, 20);
    let name = folder.path().file_name().unwrap();
    let written = folder.path().join("checkpoints/../..").join(name);
    let found = dir.begin(&one, Some(&Resume::From(written)), &Terms::default());
    let (_, state) = found.unwrap().unwrap();
    assert_eq!((state.step, state.lineage.len()), (20, 0));
}

#[test]
fn what_is_allowed_changes_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let one = config(folder.path(), &[]);
    let dir = open(&one).unwrap();
    save(&dir, &one, 20);
    let sets = [
        "optimization.epochs=5",
        "optimization.lr=0.5",
        "trainer.threads=1",
    ];
    let other = config(folder.path(), &sets);
    let refused = |allowed: &[&str], advice: &str| {
        let error = dir.begin(&other, None, &allowing(allowed)).unwrap_err();
        let message = error.to_string();
        let lines = Vec::from_iter(message.lines());
        assert_eq!(
            lines[1..3],
            [
                "  optimization.epochs: 5 now, 3 then",
                "  optimization.lr: 0.5 now, 0.001 then",
            ]
        );
        assert_eq!(lines[3..], [advice]);
    };
    let both = "--allow optimization.epochs,optimization.lr";
    refused(
        &[],
        &format!("To go on with the values of now, add to the command: {both}"),
    );
    refused(
        &["optimization.lr"],
        "To go on with the values of now, add to the command: --allow optimization.epochs",
    );
    let allowed = allowing(&["optimization.epochs", "optimization.lr", "loader.seed"]);
    let (path, state) = dir.begin(&other, None, &allowed).unwrap().unwrap();
    let [turn] = &state.lineage[..] else {
        panic!("{:?}", state.lineage);
    };
    assert_eq!((turn.step, turn.epoch_len), (20, 10));
    assert_eq!(
        Path::new(&turn.checkpoint),
        fs::canonicalize(&path).unwrap()
    );
    let keys = Vec::from_iter(turn.changes.iter().map(|change| &change.key[..]));
    assert_eq!(keys, ["optimization.epochs", "optimization.lr"]);
    // The same values again are no change.
    let (_, state) = dir.begin(&one, None, &allowed).unwrap().unwrap();
    assert_eq!(state.lineage, []);
}

#[test]
fn networks_of_other_sizes_are_refused_whatever_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let one = config(folder.path(), &[]);
    let dir = open(&one).unwrap();
    save(&dir, &one, 20);
    let other = config(folder.path(), &["meta.pred_depth=2", "optimization.lr=0.5"]);
    let allowed = allowing(&["meta.pred_depth", "optimization.lr"]);
    let message = dir.begin(&other, None, &allowed).unwrap_err().to_string();
    assert!(
        message.contains("Set meta.pred_depth as before"),
        "{message}"
    );
    assert!(!message.contains("--allow"), "{message}");
}

/// Groups of half the size, after memory ran out: what is told must be accepted.
#[test]
fn smaller_groups_keep_the_images_of_a_step_where_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let one = config(folder.path(), &[]);
    let dir = open(&one).unwrap();
    save(&dir, &one, 20);
    let smaller = config(folder.path(), &["data.batch_size=1"]);
    let message = dir
        .begin(&smaller, None, &Terms::default())
        .unwrap_err()
        .to_string();
    for line in [
        "  data.batch_size: 1 now, 2 then",
        "  optimization.global_batch: 1 now, 2 then",
        "To go on with the values of now, add to the command: --allow data.batch_size,optimization.global_batch",
        "To keep 2 images a step, add instead: --set optimization.global_batch=2 --allow data.batch_size",
    ] {
        assert!(message.lines().any(|said| said == line), "{message}");
    }
    let both = allowing(&["data.batch_size", "optimization.global_batch"]);
    dir.begin(&smaller, None, &both).unwrap();
    let sets = ["data.batch_size=1", "optimization.global_batch=2"];
    let smaller = config(folder.path(), &sets);
    dir.begin(&smaller, None, &allowing(&["data.batch_size"]))
        .unwrap();
}

#[test]
fn other_data_are_told_and_give_epochs_another_length() {
    let folder = tempfile::tempdir().unwrap();
    let one = config(folder.path(), &[]);
    let dir = open(&one).unwrap();
    let parts = vec![("encoder", vec![("w".to_owned(), Tensor::from(1.0f32))])];
    let state = State {
        global_batch: 2,
        manifest_checksum: Some(0xa),
        ..State::new(20, 10, one.resolved())
    };
    let snapshot = Snapshot::of(&parts).unwrap();
    dir.store.save(&state, &snapshot).unwrap();
    let terms = |manifest_checksum, allowed: &[&str]| Terms {
        data: Some(Data {
            manifest_checksum,
            global_batch: 2,
            epoch_len: 15,
        }),
        ..allowing(allowed)
    };
    let message = dir
        .begin(&one, None, &terms(0xb, &[]))
        .unwrap_err()
        .to_string();
    let line = "  loader.shards: \"manifest checksum 000000000000000b\" now, \"manifest checksum 000000000000000a\" then";
    assert!(
        message.contains(line) && message.ends_with("--allow loader.shards"),
        "{message}"
    );
    let found = dir
        .begin(&one, None, &terms(0xb, &["loader.shards"]))
        .unwrap();
    let (_, state) = found.unwrap();
    assert_eq!((state.step, state.epoch_len, state.epoch), (20, 15, 1));
    // Without a change of data, the length is the checkpoint's, and who serves another is refused later.
    let found = dir
        .begin(&one, None, &terms(0xa, &["loader.shards"]))
        .unwrap();
    assert_eq!(
        found.unwrap().1,
        dir.begin(&one, None, &Terms::default()).unwrap().unwrap().1
    );
}

#[test]
fn a_run_that_went_on_elsewhere_continues_there_with_the_same_command() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let before = config(old.path(), &[]);
    let run = open(&before).unwrap();
    let checkpoint = save(&run, &before, 20);
    let config = config(new.path(), &["optimization.lr=0.5"]);
    let dir = open(&config).unwrap();
    let allowed = allowing(&["optimization.lr"]);
    let from = [old.path(), &checkpoint].map(|path| Resume::From(path.to_owned()));
    let (_, state) = dir
        .begin(&config, Some(&from[0]), &allowed)
        .unwrap()
        .unwrap();
    assert_eq!(state.step, 20);
    let parts = vec![("encoder", vec![("w".to_owned(), Tensor::from(1.0f32))])];
    let later = State {
        step: 30,
        config: config.resolved(),
        ..state
    };
    dir.store
        .save(&later, &Snapshot::of(&parts).unwrap())
        .unwrap();
    for from in &from {
        let (_, state) = dir.begin(&config, Some(from), &allowed).unwrap().unwrap();
        assert_eq!((state.step, state.lineage.len()), (30, 1));
    }
    // A directory that holds another run takes in none.
    let message = run.begin(
        &before,
        Some(&Resume::From(new.path().to_owned())),
        &allowed,
    );
    let message = message.unwrap_err().to_string();
    assert!(message.contains("holds a run already"), "{message}");
}

#[test]
fn a_run_is_found_under_another_tag() {
    let folder = tempfile::tempdir().unwrap();
    let one = config(folder.path(), &[]);
    save(&open(&one).unwrap(), &one, 20);
    let renamed = config(folder.path(), &["logging.write_tag=other-stepping"]);
    let dir = open(&renamed).unwrap();
    for resume in [None, Some(Resume::LastGood)] {
        let found = dir.begin(&renamed, resume.as_ref(), &Terms::default());
        assert_eq!(found.unwrap().map(|(_, state)| state.step), Some(20));
    }
    let never = dir.begin(&renamed, Some(&Resume::Never), &Terms::default());
    assert!(
        never
            .unwrap_err()
            .to_string()
            .contains("holds a run already")
    );
    save(&dir, &renamed, 30);
    let steps = dir.store.list().unwrap();
    assert_eq!(
        Vec::from_iter(steps.iter().map(|(step, _)| *step)),
        [20, 30]
    );
}
