//! Whole runs of a very small model on made-up batches, through the same loop, run directory and log as real ones.

use super::*;

use std::path::Path;

use loader::config::ConfigFile;
use tch::Kind;

use crate::checkpoint::Store;
use crate::checkpoint::power_cut::{Loss, PowerCut};
use crate::run_dir::Resume;

const TEXT: &str = "
data: {batch_size: 2, crop_size: 32}
mask: {patch_size: 8, min_keep: 0}
meta: {model_name: vit_tiny, pred_depth: 1, pred_emb_dim: 48, use_bfloat16: false}
optimization: {ema: [0.9, 1.0], epochs: 3, final_lr: 1.0e-06, final_weight_decay: 0.4, lr: 0.001, start_lr: 0.0002,
  warmup: 1, weight_decay: 0.04}
logging: {folder: unset, write_tag: jepa}
checkpoint: {every_steps: 2}
";
const EPOCH_LEN: u64 = 3;

fn config(folder: &Path, sets: &[&str]) -> Config {
    let mut sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
    sets.push(format!("logging.folder={}", folder.display()));
    Config::from_file(&ConfigFile::parse(Path::new("test.yaml"), TEXT, &sets).unwrap()).unwrap()
}

/// Much smaller than any official model.
fn model() -> ModelConfig {
    ModelConfig {
        image_size: 32,
        patch_size: 8,
        embed_dim: 24,
        depth: 2,
        heads: 2,
        mlp_dim: 48,
        predictor_dim: 12,
        predictor_depth: 1,
    }
}

/// Batches that are a function of step and group, like real ones.
struct MadeUp {
    groups: u64,
    images: i64,
    /// Asks for a stop while this step is being taken.
    stop: Option<(u64, Stop)>,
    /// Steps in whose last group the pixels are not numbers.
    broken: Vec<u64>,
    /// What was taken: step, group, samples.
    taken: Vec<(u64, u64, Vec<u64>)>,
}

impl Source for MadeUp {
    fn take(&mut self, step: u64, group: u64) -> Result<Option<Batch>> {
        if let Some((_, stop)) = self.stop.as_ref().filter(|(at, _)| *at == step) {
            stop.ask(signal_hook::consts::SIGTERM);
        }
        let first = (step * self.groups + group) as i64 * self.images;
        let options = (Kind::Float, Device::Cpu);
        let numbers =
            Tensor::arange(self.images * 3 * 32 * 32, options).view([self.images, 3, 32, 32]);
        let mut images = ((numbers + first as f64 * 3072.0) * 0.37).sin();
        if self.broken.contains(&step) && group + 1 == self.groups {
            images *= f64::NAN;
        }
        let mask = |start: i64, patches: i64| {
            let row = Tensor::arange_start(start, start + patches, (Kind::Int64, Device::Cpu));
            row.unsqueeze(0).repeat([self.images, 1])
        };
        let shift = step as i64 % 3;
        let sample_ids: Vec<u64> = (first as u64..(first + self.images) as u64).collect();
        self.taken.push((step, group, sample_ids.clone()));
        Ok(Some(Batch {
            images,
            context: vec![mask(8, 5 + shift)],
            targets: vec![mask(shift, 4), mask(shift + 2, 4)],
            sample_ids,
            replaced: 0,
            waited: Duration::ZERO,
        }))
    }

    fn groups(&self) -> u64 {
        self.groups
    }
}

fn source(groups: u64, images: i64) -> MadeUp {
    MadeUp {
        groups,
        images,
        stop: None,
        broken: Vec::new(),
        taken: Vec::new(),
    }
}

/// Begins or continues a run as the program does.
fn run(config: &Config, source: &mut MadeUp) -> (Run, Outcome) {
    let (run, outcome) = run_until(config, source, &PowerCut::never(), |_| {});
    (run, outcome.unwrap())
}

/// The same with the power of the checkpoints' disk going at some time, and after `change` was made to the run.
fn run_until(
    config: &Config,
    source: &mut MadeUp,
    power: &PowerCut,
    change: impl FnOnce(&mut Run),
) -> (Run, Result<Outcome>) {
    let stop = source
        .stop
        .as_ref()
        .map(|(_, stop)| stop.clone())
        .unwrap_or_default();
    let mut dir = RunDir::open(config).unwrap();
    dir.store = power.under(&dir.store);
    let found = dir.begin(config, None).unwrap();
    let state = found.as_ref().map_or_else(
        || State::new(0, EPOCH_LEN, config.resolved()),
        |(_, state)| state.clone(),
    );
    let checkpoint = found.as_ref().map(|(path, _)| path);
    let mut run = Run::of(&model(), config, state, checkpoint, Device::Cpu).unwrap();
    change(&mut run);
    let mut log = Log::open(dir.path(), "jepa", run.step, EPOCH_LEN, 10, Instant::now()).unwrap();
    let outcome = run.train(source, &mut log, &dir, &stop);
    (run, outcome)
}

/// A directory whose log need not wait for a disk, where the machine has such a place.
fn in_memory() -> tempfile::TempDir {
    let place = Path::new("/dev/shm");
    tempfile::tempdir_in(place).unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

fn assert_same(one: &Run, other: &Run) {
    for ((name, one), (_, other)) in weights(one).iter().zip(&weights(other)) {
        assert!(one.equal(other), "{name}");
    }
    assert_eq!(one.state.skipped, other.state.skipped);
}

fn steps(folder: &Path) -> Vec<u64> {
    let list = Store::new(folder, "jepa").list().unwrap();
    list.into_iter().map(|(step, _)| step).collect()
}

fn is_finite(run: &Run) -> bool {
    weights(run)
        .iter()
        .all(|(_, tensor)| bool::try_from(tensor.isfinite().all()).unwrap())
}

fn rows(folder: &Path) -> Vec<Record> {
    let text = std::fs::read_to_string(folder.join("jepa_r0.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Bits, not values: a resumed run must be the same run.
fn losses(folder: &Path) -> Vec<(u64, u64)> {
    rows(folder)
        .iter()
        .map(|record| (record.step, record.loss.to_bits()))
        .collect()
}

fn weights(run: &Run) -> Vec<(String, Tensor)> {
    let mut all = run.ijepa.state();
    all.extend(run.optimizer.state());
    all
}

#[test]
fn an_interrupted_run_is_the_undisturbed_one_bit_by_bit() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (undisturbed, outcome) = run(&config(whole.path(), &[]), &mut source(1, 2));
    assert_eq!((outcome, undisturbed.step), (Outcome::Finished, 9));

    // A signal in step 4: the step is finished, and a checkpoint written.
    let config = config(parts.path(), &[]);
    let stop = Some((4, Stop::default()));
    let (first, outcome) = run(
        &config,
        &mut MadeUp {
            stop,
            ..source(1, 2)
        },
    );
    assert_eq!((outcome, first.step), (Outcome::Preempted("SIGTERM"), 5));
    // A crash: rows beyond the checkpoint, and a torn one.
    let log = parts.path().join("jepa_r0.jsonl");
    let text = std::fs::read_to_string(&log).unwrap();
    let beyond = text
        .lines()
        .last()
        .unwrap()
        .replace("\"step\":4", "\"step\":5");
    std::fs::write(&log, format!("{text}{beyond}\n{{\"step\":6")).unwrap();

    let (second, outcome) = run(&config, &mut source(1, 2));
    assert_eq!((outcome, second.step), (Outcome::Finished, 9));
    assert_eq!(losses(parts.path()), losses(whole.path()));
    assert_eq!(losses(whole.path()).len(), 9);
    assert_same(&undisturbed, &second);
    assert!(
        rows(whole.path())
            .iter()
            .all(|record| record.loss.is_finite())
    );
}

#[test]
fn groups_accumulate_to_the_step_of_their_union() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (whole, _) = run(&config(one.path(), &[]), &mut source(1, 4));
    let (halves, _) = run(&config(two.path(), &[]), &mut source(2, 2));
    for (one, two) in rows(one.path()).iter().zip(rows(two.path())) {
        assert!(
            (one.loss - two.loss).abs() < 1e-5 * one.loss,
            "step {}: {} and {}",
            one.step,
            one.loss,
            two.loss
        );
        assert_eq!((one.images, two.images), (4, 4));
    }
    // Adam turns rounding noise of vanishing gradients into whole steps, so what moved by the gradient is compared.
    let gap = weights(&whole)
        .iter()
        .zip(&weights(&halves))
        .filter(|((name, _), _)| name.starts_with("exp_avg.") && !name.contains("qkv.bias"))
        .map(|((_, one), (_, two))| {
            f64::try_from((one - two).norm() / (one.norm() + 1e-12)).unwrap()
        })
        .fold(0.0, f64::max);
    assert!(gap < 1e-2, "moments differ by {gap}");
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

/// What the official code does with k ranks: each has one group, and the gradients and losses are averaged.
#[test]
fn groups_of_one_rank_are_the_mean_over_as_many_ranks() {
    for groups in [2u64, 3, 4] {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), &["trainer.stop_at_step=1"]);
        let (accumulated, _) = run(&config, &mut source(groups, 2));

        let (mut sum, mut loss_sum) = (Vec::new(), 0.0);
        for rank in 0..groups {
            let state = State::new(0, EPOCH_LEN, config.resolved());
            let run = Run::of(&model(), &config, state, None, Device::Cpu).unwrap();
            let batch = source(groups, 2).take(0, rank).unwrap().unwrap();
            let loss = run
                .ijepa
                .forward(&batch.images, &batch.context, &batch.targets, &mut Silent)
                .unwrap();
            loss.backward();
            loss_sum += f64::try_from(&loss).unwrap();
            for (number, (name, gradient)) in run.optimizer.gradients().into_iter().enumerate() {
                match sum.get_mut(number) {
                    None => sum.push((name, gradient.copy())),
                    Some((_, sum)) => *sum += gradient,
                }
            }
        }
        assert_eq!(rows(folder.path())[0].loss, loss_sum / groups as f64);
        assert_eq!(rows(folder.path())[0].images, 2 * groups);
        for ((name, sum), (_, gradient)) in sum.iter().zip(accumulated.optimizer.gradients()) {
            let mean = sum / groups as f64;
            if groups.is_power_of_two() {
                // Dividing by a power of two is exact, before the sum as after it.
                assert!(mean.equal(&gradient), "{groups} groups: {name}");
            } else {
                let gap = f64::try_from((&mean - &gradient).abs().max()).unwrap();
                let scale = f64::try_from(mean.abs().max()).unwrap();
                assert!(
                    gap <= 1e-6 * scale + 1e-9,
                    "{groups} groups: {name}: {gap} of {scale}"
                );
            }
        }
    }
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_before_it_does_harm() {
    let folder = tempfile::tempdir().unwrap();
    let (run, outcome) = run(
        &config(folder.path(), &[]),
        &mut MadeUp {
            broken: vec![5],
            ..source(2, 2)
        },
    );
    let Outcome::NotFinite {
        step,
        losses,
        gradient_norm,
        samples,
        dump,
    } = outcome
    else {
        panic!("{outcome:?}")
    };
    assert_eq!((step, run.step), (5, 5));
    assert!(losses[0].is_finite() && losses[1].is_nan() && gradient_norm.is_nan());
    assert_eq!(samples, [22, 23], "those of the second group of step 5");
    assert_eq!(
        steps(folder.path()).last(),
        Some(&4),
        "no checkpoint after the fault"
    );
    assert!(is_finite(&run));

    let report = std::fs::read_to_string(dump.join("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["step"], 5);
    assert_eq!(report["groups"][0]["loss"], losses[0]);
    assert_eq!(report["groups"][1]["loss"], "NaN");
    assert_eq!(report["groups"][1]["samples"], serde_json::json!([22, 23]));
    assert_eq!(report["gradient_norms"]["encoder.norm.weight"], "NaN");
    assert!(report["weight_norms"]["encoder.norm.weight"].is_number());
    assert_eq!(report["learning_rate"], run.schedule.lr(5));
    let bytes = std::fs::read(dump.join("group1.safetensors")).unwrap();
    let group = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(group.tensor("images").unwrap().shape(), [2, 3, 32, 32]);
    assert_eq!(group.tensor("target1").unwrap().shape(), [2, 4]);
    assert_eq!(group.tensor("context0").unwrap().shape(), [2, 7]);
    assert_eq!(
        group.tensor("sample_ids").unwrap().data()[..8],
        22i64.to_le_bytes()
    );
    assert!(
        !dump.join("group0.safetensors").exists(),
        "it is not at fault"
    );
}

#[test]
fn a_gradient_that_overflows_stops_the_run_although_the_loss_is_finite() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), &[]);
    let poison = |run: &mut Run| {
        let weights = run.ijepa.state().into_iter();
        let (_, mut weight) = weights
            .into_iter()
            .find(|(name, _)| name == "predictor.predictor_proj.weight")
            .unwrap();
        tch::no_grad(|| drop(weight.fill_(1e30)));
    };
    let (run, outcome) = run_until(&config, &mut source(2, 2), &PowerCut::never(), poison);
    let Outcome::NotFinite {
        step,
        losses,
        gradient_norm,
        samples,
        dump,
    } = outcome.unwrap()
    else {
        panic!("it went on to step {}", run.step)
    };
    assert_eq!(step, 0);
    assert!(losses.iter().all(|loss| loss.is_finite()), "{losses:?}");
    assert!(!gradient_norm.is_finite());
    assert_eq!(samples, [0, 1, 2, 3], "any of them");
    assert!(dump.join("group1.safetensors").exists());
    assert!(is_finite(&run));
}

#[test]
fn skipped_steps_move_nothing_and_a_resumed_run_skips_the_same() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sets = ["trainer.on_nonfinite=skip", "trainer.max_skipped=2"];
    let broken = || MadeUp {
        broken: vec![3, 4, 7],
        ..source(1, 2)
    };
    let (undisturbed, outcome) = run(&config(whole.path(), &sets), &mut broken());
    assert_eq!((outcome, undisturbed.step), (Outcome::Finished, 9));
    assert!(is_finite(&undisturbed));
    let skipped: Vec<u64> = rows(whole.path())
        .iter()
        .filter(|record| record.skipped && record.loss.is_nan())
        .map(|record| record.step)
        .collect();
    assert_eq!(skipped, [3, 4, 7]);
    assert_eq!(losses(whole.path()).len(), 9, "their rows are there");
    // As many optimizer steps as there were good ones.
    let (_, count) = undisturbed.optimizer.state().swap_remove(0);
    assert_eq!(f32::try_from(count).unwrap(), 6.0);

    // Interrupted between the two skips in a row.
    let stop = Some((3, Stop::default()));
    let config = config(parts.path(), &sets);
    let (first, outcome) = run(&config, &mut MadeUp { stop, ..broken() });
    assert_eq!((outcome, first.step), (Outcome::Preempted("SIGTERM"), 4));
    assert_eq!(first.state.skipped, 1);
    let (second, _) = run(&config, &mut broken());
    assert_eq!(losses(parts.path()), losses(whole.path()));
    assert_same(&undisturbed, &second);
}

#[test]
fn too_many_skipped_steps_in_a_row_stop_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let sets = ["trainer.on_nonfinite=skip", "trainer.max_skipped=2"];
    let mut broken = MadeUp {
        broken: vec![1, 3, 4, 5, 6],
        ..source(1, 2)
    };
    let (_, outcome) = run(&config(folder.path(), &sets), &mut broken);
    assert!(
        matches!(outcome, Outcome::NotFinite { step: 5, .. }),
        "{outcome:?}"
    );
    // Begun again it comes to the same end; it may go on where more is allowed.
    let sets = ["trainer.on_nonfinite=skip", "trainer.max_skipped=4"];
    let (run, outcome) = run(&config(folder.path(), &sets), &mut broken);
    assert_eq!((outcome, run.step), (Outcome::Finished, 9));
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

    let dir = RunDir::open(&config).unwrap();
    let (path, state) = dir.begin(&config, None).unwrap().unwrap();
    let refused = Run::of(&model(), &config, state, Some(&path), Device::Cpu);
    let message = format!("{:#}", refused.err().unwrap());
    for part in [
        "optimizer.safetensors: its checksum is",
        "--resume=last-good",
    ] {
        assert!(message.contains(part), "{message}");
    }
    let found = dir.begin(&config, Some(&Resume::LastGood)).unwrap();
    assert_eq!(found.unwrap().1.step, 4);
    drop(dir);
    let (resumed, outcome) = run(&config, &mut source(1, 2));
    assert_eq!(outcome, Outcome::Finished);
    assert_eq!(losses(parts.path()), losses(whole.path()));
    assert_same(&undisturbed, &resumed);
}

#[test]
fn a_run_told_to_stop_early_goes_on_under_the_same_schedule() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(&config(whole.path(), &[]), &mut source(1, 2));
    let (first, outcome) = run(
        &config(parts.path(), &["trainer.stop_at_step=4"]),
        &mut source(1, 2),
    );
    assert_eq!((outcome, first.step), (Outcome::Finished, 4));
    run(&config(parts.path(), &[]), &mut source(1, 2));
    assert_eq!(losses(parts.path()), losses(whole.path()));
}

#[test]
fn a_run_goes_on_where_its_schedules_have_ended() {
    // The official loop stops with an error there: its momentum has no next value.
    let folder = tempfile::tempdir().unwrap();
    let sets = ["optimization.ipe_scale=0.7"];
    let (_, outcome) = run(&config(folder.path(), &sets), &mut source(1, 2));
    assert_eq!(outcome, Outcome::Finished);
    let rows = rows(folder.path());
    assert_eq!(rows.len(), 9);
    // Of 6.3 steps: 0 to 6 rise, the rest hold.
    let momentum: Vec<f64> = rows.iter().map(|row| row.momentum).collect();
    assert!(momentum[..7].windows(2).all(|pair| pair[0] < pair[1]));
    let last = 0.9 + 6.0 * (1.0 - 0.9) / (9.0 * 0.7);
    assert_eq!(momentum[6..], [last; 3]);
    assert!(rows.iter().all(|row| row.loss.is_finite()));
}

#[test]
fn a_stretched_schedule_is_cut_by_the_end_of_the_run() {
    let folder = tempfile::tempdir().unwrap();
    run(
        &config(folder.path(), &["optimization.ipe_scale=2.0"]),
        &mut source(1, 2),
    );
    let rows = rows(folder.path());
    assert_eq!(rows.len(), 9);
    assert_eq!(rows[8].momentum, 0.9 + 8.0 * (1.0 - 0.9) / 18.0);
    assert!(rows[8].lr > 4e-4 && rows[8].weight_decay < 0.25);
}

#[test]
fn the_official_keys_name_files_and_say_where_to_continue() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let whole = tempfile::tempdir().unwrap();
    run(&config(whole.path(), &[]), &mut source(1, 2));
    let tag = "logging.write_tag=jepa";
    // `folder` and `write_tag` name everything that is written.
    run(
        &config(first.path(), &[tag, "trainer.stop_at_step=4"]),
        &mut source(1, 2),
    );
    assert!(first.path().join("jepa_r0.csv").is_file());
    let name = |step| format!("checkpoints/jepa-step{step:08}");
    assert!(first.path().join(name(4)).is_dir());

    // `load_checkpoint` continues with the latest one, and `read_checkpoint` with the one it names: here another
    // run's, by its path.
    let load = "meta.load_checkpoint=true";
    let read = format!(
        "meta.read_checkpoint={}",
        first.path().join(name(3)).display()
    );
    let (branch, outcome) = run(&config(second.path(), &[load, &read]), &mut source(1, 2));
    assert_eq!((outcome, branch.step), (Outcome::Finished, 9));
    assert_eq!(losses(second.path()), losses(whole.path())[3..]);
    run(&config(first.path(), &[load]), &mut source(1, 2));
    assert_eq!(losses(first.path()), losses(whole.path()));
}
