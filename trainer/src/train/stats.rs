//! What one step showed, and the record that is made of it.

use std::time::{Duration, Instant};

use tch::Tensor;

use super::{Error, Run};
use crate::distributed::{self, Ranks};
use crate::observe::{AcrossRanks, RECORD_VERSION, Record, Signs};
use crate::source::Group;

/// The losses, masks and times of a step: of this rank's groups, and of all groups once they are gathered.
#[derive(Debug)]
pub struct StepStats {
    /// Loss of each group.
    pub losses: Vec<f64>,
    /// Sample ids of each group; of this rank's groups alone, unless the step is not finite.
    pub(super) samples: Vec<Vec<u64>>,
    /// Sum over the groups of what was added to the loss; none where the loss is the official one.
    regularizer: Option<f64>,
    images: u64,
    pub(super) gradient_norm: f64,
    /// Groups that a dump would show, with their numbers.
    pub(super) kept: Vec<(usize, Group)>,
    context_len: f64,
    target_len: f64,
    replaced: u64,
    waited: Duration,
    begun: Instant,
    /// When the last backward pass began, which ends with those of all ranks.
    ready: Duration,
    across: Option<AcrossRanks>,
    pub(super) signs: Option<Signs>,
    /// Share of this rank's images whose class the head beside the training told.
    pub(super) online: Option<f64>,
}

/// What a rank tells of its step, before the losses of its groups.
const TOLD: usize = 9;

impl StepStats {
    /// Begins to measure a step.
    pub(super) fn begin() -> StepStats {
        StepStats {
            losses: Vec::new(),
            samples: Vec::new(),
            regularizer: None,
            images: 0,
            gradient_norm: 0.0,
            kept: Vec::new(),
            context_len: 0.0,
            target_len: 0.0,
            replaced: 0,
            waited: Duration::ZERO,
            begun: Instant::now(),
            ready: Duration::ZERO,
            across: None,
            signs: None,
            online: None,
        }
    }

    /// Takes note that only the last backward pass is left to do.
    pub(super) fn is_ready(&mut self) {
        self.ready = self.begun.elapsed();
    }

    /// Takes note of a group, its loss, and what options `added` to that.
    pub(super) fn add(
        &mut self,
        group: &Group,
        loss: &Tensor,
        added: Option<&Tensor>,
    ) -> Result<(), Error> {
        // Reading the value waits for the device; the official loop does so too, once a step.
        let loss = f64::try_from(loss).map_err(crate::Error::from)?;
        self.losses.push(loss);
        if let Some(added) = added {
            let added = f64::try_from(added).map_err(crate::Error::from)?;
            self.regularizer = Some(self.regularizer.unwrap_or(0.0) + added);
        }
        self.samples.push(group.sample_ids.clone());
        self.images += group.sample_ids.len() as u64;
        self.context_len += group.context.first().map_or(0, |mask| mask.size()[1]) as f64;
        self.target_len += group.targets.first().map_or(0, |mask| mask.size()[1]) as f64;
        self.replaced += group.replaced;
        self.waited += group.waited;
        Ok(())
    }

    /// Makes these the numbers of all ranks, which share `groups` groups.
    ///
    /// The losses stand in the order of the groups, so that their sum is rounded the same in any world. Ranks also tell
    /// if they were asked to stop: all do so after the same step.
    pub(super) fn gather(&mut self, ranks: &mut Ranks, groups: u64) -> Result<(), Error> {
        if ranks.are_one() {
            return Ok(());
        }
        let mut own = vec![
            f64::from(ranks.own_signal()),
            self.images as f64,
            self.replaced as f64,
            self.context_len,
            self.target_len,
            self.waited.as_secs_f64(),
            self.ready.as_secs_f64(),
            self.losses.len() as f64,
            self.regularizer.unwrap_or(0.0),
        ];
        debug_assert_eq!(own.len(), TOLD);
        own.append(&mut self.losses);
        own.resize(
            TOLD + groups.div_ceil(ranks.world().world.into()) as usize,
            0.0,
        );
        let told = ranks.gather(&own)?;
        let sum = |number: usize| told.iter().map(|rank| rank[number]).sum::<f64>();
        ranks.agree(told.iter().map(|rank| rank[0] as i32));
        self.images = sum(1) as u64;
        self.replaced = sum(2) as u64;
        (self.context_len, self.target_len) = (sum(3), sum(4));
        self.regularizer = self.regularizer.map(|_| sum(8));
        let across = AcrossRanks::of(told.iter().map(|rank| (rank[5], rank[6])));
        self.waited = Duration::from_secs_f64(across.wait_ms[2].max(0.0) / 1e3);
        self.across = Some(across);
        let before = &told[..ranks.world().rank as usize];
        let before = before.iter().map(|rank| rank[7] as usize).sum::<usize>();
        self.kept.iter_mut().for_each(|(group, _)| *group += before);
        for rank in &told {
            let count = rank[7] as usize;
            let losses = rank.get(TOLD..TOLD + count);
            self.losses.extend(losses.unwrap_or_default());
        }
        if self.losses.len() as u64 != groups {
            let rank = format!("{} ranks", told.len());
            return Err(distributed::Error::Nonsense { rank }.into());
        }
        Ok(())
    }

    /// Makes the samples those of all groups.
    pub(super) fn gather_samples(&mut self, ranks: &Ranks) -> Result<(), Error> {
        let own = serde_json::to_string(&self.samples).unwrap_or_default();
        let mut samples = Vec::new();
        for (rank, text) in ranks.gather_text(&own)?.iter().enumerate() {
            let theirs: Vec<Vec<u64>> =
                serde_json::from_str(text).map_err(|_| distributed::Error::Nonsense {
                    rank: ranks.name(rank),
                })?;
            samples.extend(theirs);
        }
        self.samples = samples;
        Ok(())
    }

    /// Returns the patches of a context and of a target, per image.
    pub fn mask_lengths(&self) -> (f64, f64) {
        let groups = self.losses.len() as f64;
        (self.context_len / groups, self.target_len / groups)
    }
}

/// Makes the record of the step that `run` has just done, `elapsed` long.
pub(super) fn record(run: &Run, stats: &StepStats, elapsed: Duration) -> Record {
    let step = run.step - 1;
    let rates = run.schedule.at(step);
    let images = stats.images;
    let (elapsed, groups) = (elapsed.as_secs_f64(), stats.losses.len() as f64);
    let (context_len, target_len) = stats.mask_lengths();
    Record {
        version: RECORD_VERSION,
        step,
        total_steps: run.total_steps,
        epoch: step / run.epoch_len + 1,
        itr: step % run.epoch_len,
        loss: stats.losses.iter().sum::<f64>() / groups,
        regularizer: stats.regularizer.map(|sum| sum / groups),
        gradient_norm: stats.gradient_norm,
        skipped: !stats.is_finite(),
        context_len,
        target_len,
        lr: rates.lr,
        weight_decay: rates.weight_decay,
        momentum: rates.momentum,
        images,
        replaced: stats.replaced,
        step_ms: elapsed * 1e3,
        wait_ms: stats.waited.as_secs_f64() * 1e3,
        images_per_s: images as f64 / elapsed,
        memory: super::memory::taken(run.device),
        ranks: stats.across,
        signs: stats.signs,
        online_top1: stats.online,
    }
}
