use super::power_cut::{Loss, PowerCut};
use super::*;

use serde_json::{Map, Value};

use std::fs;
use std::path::PathBuf;

use tch::Device;

fn parts(value: f64) -> Parts {
    let tensor = Tensor::arange(12, (Kind::Float, Device::Cpu)).view([3, 4]) + value;
    let tensors = [
        ("a.weight".to_owned(), tensor.transpose(0, 1)),
        ("step".to_owned(), Tensor::from(value as f32)),
    ];
    let copy = || {
        tensors
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.shallow_clone()))
            .collect()
    };
    PARTS.iter().map(|part| (*part, copy())).collect()
}

fn state(step: u64) -> State {
    State {
        loss: Some(0.1),
        ..State::new(step, 10, Map::new())
    }
}

/// Returns a run directory that lives as long as its guard, and its checkpoints.
fn made_up() -> (tempfile::TempDir, Store) {
    let run = tempfile::tempdir().unwrap();
    let store = PowerCut::never().under(&Store::new(run.path(), "jepa"));
    (run, store)
}

fn save(store: &Store, step: u64, value: f64) -> PathBuf {
    let snapshot = Snapshot::of(&parts(value)).unwrap();
    assert!(store.save(&state(step), &snapshot).unwrap() > 0);
    store.path(step)
}

fn steps(store: &Store) -> Vec<u64> {
    let list = store.list().unwrap();
    list.into_iter().map(|(step, _)| step).collect()
}

fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 1;
    fs::write(file, bytes).unwrap();
}

#[test]
fn a_checkpoint_reads_back_bit_by_bit() {
    let run = tempfile::tempdir().unwrap();
    let store = Store::new(run.path(), "jepa");
    assert_eq!(store.latest().unwrap(), None);
    let path = save(&store, 13, 0.1);
    assert_eq!(find(run.path()).unwrap(), path);
    assert_eq!(find(&path).unwrap(), path);
    let read = verify(&path).unwrap();
    assert_eq!(read.files.len(), 4);
    assert_eq!(
        State {
            files: BTreeMap::new(),
            ..read
        },
        state(13)
    );
    let read = read_part(&path, "encoder").unwrap();
    assert!(read["a.weight"].equal(&parts(0.1)[0].1[0].1));
    let step = &read_part(&path, "optimizer").unwrap()["step"];
    assert_eq!((step.dim(), f32::try_from(step).unwrap()), (0, 0.1));
}

/// The file is what the safetensors library itself writes, byte for byte.
#[test]
fn parts_are_canonical_safetensors_files() {
    let number = Tensor::from_slice(&[3i64]);
    let half = Tensor::ones([3], (Kind::BFloat16, Device::Cpu));
    let mut mixed = parts(0.5);
    mixed[0].1.insert(0, ("b.half".to_owned(), half));
    mixed[0].1.push(("ids".to_owned(), number));
    let mut ours = Vec::new();
    let snapshot = Snapshot::of(&mixed).unwrap();
    snapshot.parts()[0].1(&mut ours).unwrap();
    let read = SafeTensors::deserialize(&ours).unwrap();
    let theirs = safetensors::serialize(read.iter(), None).unwrap();
    // The library's own hash map leaves the order of the header's keys open.
    assert_eq!(ours.len(), theirs.len());
    let header = 8 + u64::from_le_bytes(ours[..8].try_into().unwrap()) as usize;
    assert_eq!(ours[header..], theirs[header..]);
    assert_eq!(read.names().len(), 4);
}

#[test]
fn a_snapshot_does_not_follow_what_it_was_taken_of() {
    let parts = parts(1.0);
    let (_run, store) = made_up();
    let mut snapshot = Snapshot::of(&parts).unwrap();
    let _ = parts[0].1[0].1.shallow_clone().fill_(7.0);
    store.save(&state(1), &snapshot).unwrap();
    let first = read_part(&store.path(1), "encoder").unwrap();
    assert!(first["a.weight"].equal(&super::tests::parts(1.0)[0].1[0].1));
    snapshot.take(&parts).unwrap();
    store.save(&state(2), &snapshot).unwrap();
    let second = read_part(&store.path(2), "encoder").unwrap();
    assert!(second["a.weight"].equal(&parts[0].1[0].1));
    // Positions get another shape when images change their size.
    let mut parts = parts;
    parts[0].1[0].1 = Tensor::full([3, 5], 2.0, (Kind::Float, tch::Device::Cpu));
    snapshot.take(&parts).unwrap();
    store.save(&state(3), &snapshot).unwrap();
    let third = read_part(&store.path(3), "encoder").unwrap();
    assert!(third["a.weight"].equal(&parts[0].1[0].1));
    assert!(
        snapshot
            .take(&vec![parts.into_iter().next().unwrap()])
            .is_err()
    );
}

#[test]
fn an_interrupted_write_is_never_taken_for_a_checkpoint() {
    let (run, store) = made_up();
    let good = save(&store, 5, 1.0);
    let snapshot = Snapshot::of(&parts(2.0)).unwrap();
    let mut operations = 0;
    for loss in [Loss::Nothing, Loss::Content, Loss::All] {
        for number in 0.. {
            let power = PowerCut::after(number, loss);
            let outcome = power.under(&store).save(&state(10), &snapshot);
            if !power.happened() {
                outcome.unwrap();
                operations = power.operations();
                fs::remove_dir_all(store.path(10)).unwrap();
                break;
            }
            outcome.unwrap_err();
            // What is there is whole, and whatever is no checkpoint goes at the next start.
            let latest = store.latest().unwrap().unwrap();
            assert_eq!(find(run.path()).unwrap(), latest);
            let step = verify(&latest)
                .unwrap_or_else(|error| panic!("{loss:?} after {number}: {error:#}"))
                .step;
            assert!(verify(&good).is_ok());
            store.clean().unwrap();
            let left = fs::read_dir(run.path().join("checkpoints"))
                .unwrap()
                .count();
            assert_eq!(left, if step == 10 { 2 } else { 1 });
            if step == 10 {
                fs::remove_dir_all(latest).unwrap();
            }
        }
    }
    assert_eq!(
        operations,
        1 + 5 * 4 + 3,
        "directory, five files, publication"
    );
}

#[test]
fn pruning_keeps_the_latest_and_the_milestones() {
    let (_run, store) = made_up();
    for step in [10, 15, 20, 30, 40, 45] {
        save(&store, step, 0.0);
    }
    store.prune(2, 2, 10).unwrap();
    assert_eq!(
        steps(&store),
        [20, 40, 45],
        "epoch 2 is a milestone; 40 and 45 are the latest two"
    );
    store.prune(1, 0, 10).unwrap();
    assert_eq!(steps(&store), [45]);
}

#[test]
fn an_interrupted_removal_leaves_whole_checkpoints_only() {
    for loss in [Loss::Nothing, Loss::Content, Loss::All] {
        for number in 0.. {
            let (_run, store) = made_up();
            for step in [1, 2, 3] {
                save(&store, step, 0.0);
            }
            let power = PowerCut::after(number, loss);
            let outcome = power.under(&store).prune(1, 0, 10);
            for (_, path) in store.list().unwrap() {
                verify(&path).unwrap_or_else(|error| panic!("{loss:?} after {number}: {error:#}"));
            }
            store.clean().unwrap();
            store.prune(1, 0, 10).unwrap();
            assert_eq!(steps(&store), [3]);
            if !power.happened() {
                outcome.unwrap();
                break;
            }
        }
    }
}

#[test]
fn a_failed_write_leaves_no_litter() {
    let (run, store) = made_up();
    fs::create_dir(run.path().join("checkpoints")).unwrap();
    // A directory where a file has to go.
    let aside = run.path().join("checkpoints/.tmp-jepa-step00000010");
    let power = PowerCut::after(3, Loss::Nothing);
    let snapshot = Snapshot::of(&parts(0.0)).unwrap();
    let message = power.under(&store).save(&state(10), &snapshot);
    let message = format!("{:#}", message.unwrap_err());
    assert!(message.contains("jepa-step00000010: "), "{message}");
    assert!(
        message.contains("encoder.safetensors: the power goes"),
        "{message}"
    );
    assert!(aside.exists(), "nobody could remove it");
    save(&store, 10, 0.0);
    assert!(!aside.exists());
}

#[test]
fn damage_is_an_error_that_names_the_file() {
    let (_run, store) = made_up();
    let path = save(&store, 5, 1.0);
    let file = path.join("encoder.safetensors");
    let bytes = fs::read(&file).unwrap();
    let message = |part: &str| format!("{:#}", read_part(&path, part).unwrap_err());
    fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
    let expected = format!(
        "{} bytes, and {} were written",
        bytes.len() - 1,
        bytes.len()
    );
    assert!(
        message("encoder").contains(&expected),
        "{}",
        message("encoder")
    );
    fs::write(&file, &bytes).unwrap();
    flip(&file, bytes.len() - 1);
    let text = message("encoder");
    assert!(
        text.contains("encoder.safetensors: its checksum is"),
        "{text}"
    );
    fs::remove_file(path.join("optimizer.safetensors")).unwrap();
    let text = message("optimizer");
    assert!(text.contains("optimizer.safetensors"), "{text}");

    let file = path.join(STATE);
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("\"loss\": 0.1", "\"loss\": 0.2")).unwrap();
    let message = format!("{:#}", read_state(&path).unwrap_err());
    assert!(
        message.contains("checkpoint.json: its checksum is"),
        "{message}"
    );
    fs::write(&file, r#"{"version": 9}"#).unwrap();
    let message = format!("{:#}", read_state(&path).unwrap_err());
    assert!(
        message.contains("version 9, this trainer reads 1"),
        "{message}"
    );
}

#[test]
fn a_checkpoint_whose_own_checksum_is_gone_is_refused_by_name() {
    let (_run, store) = made_up();
    let path = save(&store, 5, 1.0);
    let file = path.join(STATE);
    let text = fs::read_to_string(&file).unwrap();
    let whole: Value = serde_json::from_str(&text).unwrap();
    let without = |key: &str| {
        let mut value = whole.clone();
        value.as_object_mut().unwrap().remove(key).unwrap();
        value.to_string()
    };
    for (text, said) in [
        (
            without(CHECKSUM),
            "checkpoint.json: its checksum, the key xxh3, is missing",
        ),
        (text.replace("\"xxh3\":", "\"xxh2\":"), "is missing"),
        (without("files"), "checkpoint.json: its checksum is"),
    ] {
        fs::write(&file, text).unwrap();
        let message = read_state(&path).unwrap_err().to_string();
        assert!(message.contains(said), "{message}");
        assert!(verify(&path).is_err());
        assert!(read_part(&path, "encoder").is_err());
    }
}

#[test]
fn a_file_that_the_checkpoint_knows_nothing_of_is_not_read() {
    let (_run, store) = made_up();
    let path = save(&store, 5, 1.0);
    let other = State {
        files: BTreeMap::new(),
        ..read_state(&path).unwrap()
    };
    fs::write(path.join(STATE), other.to_json()).unwrap();
    let message = read_part(&path, "encoder").unwrap_err().to_string();
    assert!(
        message.contains("encoder.safetensors: checkpoint.json knows nothing of it"),
        "{message}"
    );
}

#[test]
fn nothing_is_written_or_removed_through_links() {
    let victim = tempfile::tempdir().unwrap();
    let precious = victim.path().join("precious");
    fs::write(&precious, "precious").unwrap();
    let run = tempfile::tempdir().unwrap();
    let store = Store::new(run.path(), "jepa");
    // In the place of whatever the store makes, renames or removes.
    save(&store, 1, 0.0);
    let folder = run.path().join("checkpoints");
    for name in [
        ".tmp-x",
        ".tmp-jepa-step00000003",
        "jepa-step00000002",
        "damaged-jepa-step00000001",
    ] {
        std::os::unix::fs::symlink(victim.path(), folder.join(name)).unwrap();
    }
    let inner = folder.join(".tmp-y");
    fs::create_dir(&inner).unwrap();
    std::os::unix::fs::symlink(victim.path(), inner.join("link")).unwrap();
    fs::create_dir(inner.join("directory")).unwrap();
    save(&store, 3, 0.0);
    store.clean().unwrap();
    flip(&store.path(1).join("encoder.safetensors"), 100);
    store.prune(1, 0, 10).unwrap();
    assert_eq!(steps(&store), [3]);
    assert!(!inner.exists());
    // In the place of the directory itself.
    fs::remove_dir_all(&folder).unwrap();
    fs::create_dir(victim.path().join("jepa-step00000001")).unwrap();
    fs::create_dir(victim.path().join(".tmp-z")).unwrap();
    std::os::unix::fs::symlink(victim.path(), &folder).unwrap();
    let snapshot = Snapshot::of(&parts(0.0)).unwrap();
    let messages = [
        store.clean().unwrap_err(),
        store.save(&state(9), &snapshot).unwrap_err(),
        store.prune(1, 0, 10).unwrap_err(),
    ];
    for message in messages.map(|error| error.to_string()) {
        assert!(message.contains("checkpoints: is a link"), "{message}");
    }
    assert_eq!(fs::read_dir(victim.path()).unwrap().count(), 3);
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
}

#[test]
fn a_run_directory_that_is_gone_is_made_again() {
    let (run, store) = made_up();
    save(&store, 1, 0.0);
    fs::rename(run.path(), run.path().with_extension("moved")).unwrap();
    let path = save(&store, 2, 0.0);
    assert_eq!(verify(&path).unwrap().step, 2);
    fs::remove_dir_all(run.path().with_extension("moved")).unwrap();
}

#[test]
fn the_latest_whole_checkpoint_is_found_and_damaged_ones_are_set_aside() {
    let (run, store) = made_up();
    let mut said = Vec::new();
    let mut last_good = || {
        store.last_good().map(|(good, faults)| {
            said.extend(faults);
            good
        })
    };
    assert_eq!(last_good().unwrap(), None);
    let paths: Vec<PathBuf> = [1, 2, 3].map(|step| save(&store, step, 0.0)).into();
    assert_eq!(last_good().unwrap(), Some(paths[2].clone()));
    flip(&paths[2].join("target_encoder.safetensors"), 100);
    fs::remove_file(paths[1].join(STATE)).unwrap();
    assert_eq!(last_good().unwrap(), Some(paths[0].clone()));
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said[0].contains("target_encoder.safetensors: its checksum")
            && said[0].contains("is now called")
            && said[0].contains("damaged-jepa-step00000003"),
        "{said:?}"
    );
    assert!(said[1].contains("checkpoint.json"), "{said:?}");
    assert_eq!(
        (steps(&store), find(run.path()).unwrap()),
        (vec![1], paths[0].clone())
    );
    // The same steps again, damaged again: no name is taken twice.
    save(&store, 3, 0.0);
    flip(&paths[2].join("encoder.safetensors"), 100);
    store.last_good().unwrap();
    assert!(
        run.path()
            .join("checkpoints/damaged-jepa-step00000003.2")
            .exists()
    );
    // Nothing is good any more: no silent restart.
    flip(&paths[0].join("encoder.safetensors"), 100);
    let message = store.last_good().unwrap_err().to_string();
    assert!(
        message.contains("all 1 checkpoints are damaged"),
        "{message}"
    );
    assert_eq!(steps(&store), [1]);
}

#[test]
fn files_of_other_programs_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jepa-latest.pth.tar");
    fs::write(&file, "").unwrap();
    fs::write(folder.path().join("config.json"), "{}").unwrap();
    for path in [file.as_path(), folder.path()] {
        let message = find(path).unwrap_err().to_string();
        let command = format!("`trainer import {} --config FILE`", path.display());
        assert!(message.contains(&command), "{message}");
    }
}

#[test]
fn the_changelog_names_the_versions_that_must_match() {
    let changelog = concat!(env!("CARGO_MANIFEST_DIR"), "/../CHANGELOG.md");
    let changelog = fs::read_to_string(changelog).unwrap();
    for (owner, version) in [
        ("shardtool::format::VERSION", shardtool::format::VERSION),
        ("loader::ring::VERSION", loader::ring::VERSION),
        ("loader::link::PROTOCOL", loader::link::PROTOCOL),
        (
            "loader::sampler::SAMPLING_VERSION",
            loader::sampler::SAMPLING_VERSION,
        ),
        ("trainer::checkpoint::VERSION", VERSION),
    ] {
        let row = format!("| {version} | `{owner}` |");
        assert!(changelog.contains(&row), "CHANGELOG.md lacks {row}");
    }
}
