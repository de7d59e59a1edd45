//! When checkpoints come and go, and what becomes of a run when they cannot be written or read.

use super::*;

use crate::checkpoint::power_cut::Loss;
use crate::run::Resume;

/// Returns a directory whose log need not wait for a disk, where the machine has such a place.
fn in_memory() -> tempfile::TempDir {
    let place = Path::new("/dev/shm");
    tempfile::tempdir_in(place).unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// The power goes after every single file operation of a run's checkpoints, once with all that was not synchronised
/// still there, once without; what is started then ends as the undisturbed run did, in every bit.
#[test]
fn whichever_file_operation_is_the_last_the_run_goes_on_bit_by_bit() {
    let sets = [
        "optimization.epochs=2",
        "checkpoint.every_steps=null",
        "checkpoint.keep=1",
    ];
    let whole = tempfile::tempdir().unwrap();
    let power = PowerCut::never();
    let (undisturbed, outcome) = run_until(
        &config(whole.path(), &sets),
        &mut source(1, 2),
        &power,
        |_| {},
    );
    assert_eq!(outcome.unwrap(), Outcome::Finished);
    let operations = power.operations();
    assert!(
        operations > 50,
        "two checkpoints and a removal: {operations}"
    );
    let mut resumed_at = std::collections::BTreeSet::new();
    for loss in [Loss::Nothing, Loss::All] {
        for number in 0..operations {
            let folder = in_memory();
            let config = config(folder.path(), &sets);
            let power = PowerCut::after(number, loss);
            let (_, outcome) = run_until(&config, &mut source(1, 2), &power, |_| {});
            assert!(power.happened());
            // Cut while the one before was being removed, the last checkpoint is there, and the run has finished.
            if let Err(error) = outcome {
                let message = format!("{error:#}");
                assert!(
                    message.contains("checkpoints failed in a row")
                        && message.contains("the power"),
                    "{message}"
                );
            }
            // Rows beyond the last checkpoint are in the log; the run that continues writes its own.
            let mut source = source(1, 2);
            let (second, outcome) = run(&config, &mut source);
            assert_eq!((outcome, second.step), (Outcome::Finished, 6));
            let first = source.taken.first().map_or(6, |(step, ..)| *step);
            let taken: Vec<_> = (first..6)
                .map(|step| (step, 0, vec![2 * step, 2 * step + 1]))
                .collect();
            assert_eq!(source.taken, taken, "the batches from there on");
            assert_eq!(losses(folder.path()), losses(whole.path()));
            assert_same(&undisturbed, &second);
            // One that had come to its end has nothing to write, and so removes nothing.
            assert_eq!(steps(folder.path()).last(), Some(&6));
            resumed_at.insert(first);
        }
    }
    assert_eq!(Vec::from_iter(resumed_at), [0, 3, 6]);
}

#[test]
fn checkpoints_that_fail_end_the_run_with_the_cause_and_leave_the_last_good_one() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), &[]);
    let power = PowerCut::after(60, Loss::Nothing);
    let (_, outcome) = run_until(&config, &mut source(1, 2), &power, |_| {});
    let message = format!("{:#}", outcome.unwrap_err());
    for part in [
        "3 checkpoints failed in a row",
        "jepa-step0000000",
        "the power",
    ] {
        assert!(message.contains(part), "{message}");
    }
    let good = *steps(folder.path()).last().unwrap();
    let (run, _) = run(&config, &mut source(1, 2));
    assert!(good > 0 && run.step == 9);
}

#[test]
fn checkpoints_come_when_they_are_due_and_old_ones_go() {
    let folder = tempfile::tempdir().unwrap();
    let sets = [
        "checkpoint.every_steps=null",
        "checkpoint.keep=2",
        "checkpoint.keep_every_epochs=0",
    ];
    let (_, outcome) = run(&config(folder.path(), &sets), &mut source(1, 2));
    assert_eq!(outcome, Outcome::Finished);
    assert_eq!(
        steps(folder.path()),
        [6, 9],
        "after each epoch of 3 steps, the latest two kept"
    );
    // Milestones come even where no other checkpoint would, and stay.
    let folder = tempfile::tempdir().unwrap();
    let sets = [
        "checkpoint.every_steps=null",
        "checkpoint.every_epochs=3",
        "checkpoint.keep=1",
        "checkpoint.keep_every_epochs=2",
    ];
    run(&config(folder.path(), &sets), &mut source(1, 2));
    assert_eq!(steps(folder.path()), [6, 9]);
    // An interval of no time at all: after every step.
    let folder = tempfile::tempdir().unwrap();
    let sets = [
        "checkpoint.every_steps=null",
        "checkpoint.every_minutes=1e-9",
        "checkpoint.keep=100",
    ];
    run(&config(folder.path(), &sets), &mut source(1, 2));
    assert_eq!(steps(folder.path()), Vec::from_iter(1..=9));
}

/// Damage to a file that a checkpoint holds, as a user meets it.
#[test]
fn a_damaged_checkpoint_is_refused_and_last_good_goes_on_from_the_one_before() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (undisturbed, _) = run(&config(whole.path(), &[]), &mut source(1, 2));
    let config = config(parts.path(), &[]);
    let stop = Some((5, Stop::default()));
    run(
        &config,
        &mut MadeUp {
            stop,
            ..source(1, 2)
        },
    );
    assert_eq!(steps(parts.path()), [4, 6]);
    let newest = Store::new(parts.path(), "jepa").path(6);
    let file = newest.join("optimizer.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();

    let dir = RunDir::open(&config, World::alone().first().unwrap()).unwrap();
    let (path, state) = dir
        .begin(&config, None, &Terms::default())
        .unwrap()
        .unwrap();
    let refused = Run::of(
        &model(),
        &config,
        &state,
        Some(&path),
        Device::Cpu,
        Ranks::alone(),
    );
    let message = format!("{:#}", refused.err().unwrap());
    for part in [
        "optimizer.safetensors: its checksum is",
        "--resume=last-good",
    ] {
        assert!(message.contains(part), "{message}");
    }
    // A file that is gone is damage as well.
    for gone in ["optimizer.safetensors", "checkpoint.json"] {
        std::fs::remove_file(newest.join(gone)).unwrap();
        let message = match dir.begin(&config, None, &Terms::default()) {
            Ok(found) => {
                let (path, state) = found.unwrap();
                let run = Run::of(
                    &model(),
                    &config,
                    &state,
                    Some(&path),
                    Device::Cpu,
                    Ranks::alone(),
                );
                run.err().unwrap().to_string()
            }
            Err(error) => error.to_string(),
        };
        let missing = format!("{gone}: it is missing; --resume=last-good");
        assert!(message.contains(&missing), "{message}");
    }
    let found = dir
        .begin(&config, Some(&Resume::LastGood), &Terms::default())
        .unwrap();
    assert_eq!(found.unwrap().1.step, 4);
    drop(dir);
    let (resumed, outcome) = run(&config, &mut source(1, 2));
    assert_eq!(outcome, Outcome::Finished);
    assert_eq!(losses(parts.path()), losses(whole.path()));
    assert_same(&undisturbed, &resumed);
}
