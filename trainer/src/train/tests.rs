//! Whole runs of a very small model on made-up batches, through the same loop, run directory and log as real ones.

use super::*;

use std::path::Path;

use loader::config::ConfigFile;
use tch::Kind;

use std::time::Duration;

use crate::checkpoint::Store;
use crate::checkpoint::power_cut::PowerCut;
use crate::distributed::{Ranks, World};
use crate::observe::{Log, Record};
use crate::run::{RunDir, Terms};
use crate::source;

mod checkpoints;
mod crops;
mod nonfinite;
mod options;
mod signs;

const TEXT: &str = "
data: {batch_size: 2, crop_size: 32}
mask: {patch_size: 8, min_keep: 0}
meta: {model_name: vit_tiny, pred_depth: 1, pred_emb_dim: 48, use_bfloat16: false}
optimization: {ema: [0.9, 1.0], epochs: 3, final_lr: 1.0e-06, final_weight_decay: 0.4, lr: 0.001, start_lr: 0.0002,
  warmup: 1, weight_decay: 0.04}
logging: {folder: unset, write_tag: jepa}
checkpoint: {every_steps: 2, min_minutes: 0, keep_min_minutes: 0}
";
const EPOCH_LEN: u64 = 3;

fn config(folder: &Path, sets: &[&str]) -> Config {
    let mut sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
    sets.push(format!("logging.folder={}", folder.display()));
    Config::from_file(&ConfigFile::parse(Path::new("test.yaml"), TEXT, &sets).unwrap()).unwrap()
}

/// Returns sizes much smaller than any official model.
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
    /// The side of the images in each epoch.
    crop_size: CropSize,
    /// Asks for a stop while this step is being taken.
    stop: Option<(u64, Stop)>,
    /// Steps in whose last group the pixels are not numbers.
    broken: Vec<u64>,
    /// What was taken: step, group, samples.
    taken: Vec<(u64, u64, Vec<u64>)>,
}

impl GroupSource for MadeUp {
    fn take(&mut self, step: u64, group: u64) -> Result<Option<Group>, source::Error> {
        if let Some((_, stop)) = self.stop.as_ref().filter(|(at, _)| *at == step) {
            stop.ask(libc::SIGTERM);
        }
        let first = (step * self.groups + group) as i64 * self.images;
        let options = (Kind::Float, Device::Cpu);
        let side = i64::from(self.crop_size.at(step / EPOCH_LEN));
        let numbers = Tensor::arange(self.images * 3 * side * side, options);
        let numbers = numbers.view([self.images, 3, side, side]);
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
        Ok(Some(Group {
            images,
            context: vec![mask(8, 5 + shift)],
            targets: vec![mask(shift, 4), mask(shift + 2, 4)],
            labels: vec![0; sample_ids.len()],
            flags: vec![0; sample_ids.len()],
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
        crop_size: 32.into(),
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

/// Runs one with the power of the checkpoints' disk going at some time, and after `change` was made to the run.
fn run_until(
    config: &Config,
    source: &mut MadeUp,
    power: &PowerCut,
    change: impl FnOnce(&mut Run),
) -> (Run, Result<Outcome, Error>) {
    let stop = source
        .stop
        .as_ref()
        .map(|(_, stop)| stop.clone())
        .unwrap_or_default();
    let mut dir = RunDir::open(config, World::alone().first().unwrap()).unwrap();
    dir.store = power.under(&dir.store);
    let found = dir.begin(config, None, &Terms::default()).unwrap();
    let state = found.as_ref().map_or_else(
        || State::new(0, EPOCH_LEN, config.resolved()),
        |(_, state)| state.clone(),
    );
    let checkpoint = found.as_ref().map(|(path, _)| path.as_path());
    let mut run = Run::of(
        &model(),
        config,
        &state,
        checkpoint,
        Device::Cpu,
        Ranks::alone(),
    )
    .unwrap();
    change(&mut run);
    let log = Log::open(
        dir.path(),
        "jepa",
        run.step,
        &[(u64::MAX, EPOCH_LEN)],
        10,
        Instant::now(),
    )
    .unwrap();
    let keeper = Keeper::new(dir, log, config.checkpoint.clone(), run.step, &run.parts());
    let outcome = run.train(source, &mut Some(keeper.unwrap()), &stop);
    (run, outcome)
}

fn assert_same(one: &Run, other: &Run) {
    for ((name, one), (_, other)) in weights(one).iter().zip(&weights(other)) {
        assert!(one.equal(other), "{name}");
    }
    assert_eq!(one.skipped, other.skipped);
}

fn steps(folder: &Path) -> Vec<u64> {
    let list = Store::new(folder, "jepa").list().unwrap();
    list.into_iter().map(|(step, _)| step).collect()
}

fn rows(folder: &Path) -> Vec<Record> {
    let text = std::fs::read_to_string(folder.join("jepa_r0.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Returns bits, not values: a resumed run must be the same run.
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
            let run =
                Run::of(&model(), &config, &state, None, Device::Cpu, Ranks::alone()).unwrap();
            let batch = source(groups, 2).take(0, rank).unwrap().unwrap();
            let loss = run
                .ijepa
                .forward(&batch.images, &batch.context, &batch.targets, &mut NoHooks)
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
