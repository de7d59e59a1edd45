//! A worker: takes jobs from the queue and fills parts of slots, with buffers of its own that are reused.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use crossbeam::channel::Receiver;
use shardtool::simd::Simd;
use shardtool::{Sample, panics};

use super::assembly::Assembly;
use super::end::Failure;
use super::job::Job;
use super::shared::Shared;
use super::work_times::WorkTimes;
use crate::augment::Augmenter;
use crate::render::{Renderer, View};
use crate::ring::{FLAG_REPLACED, ImagePart};
use crate::sampler::Sampler;

/// So many damaged samples in a row for one place are no accident: the data set is gone.
const MAX_REPLACEMENTS: u32 = 16;

/// A worker thread's state.
pub(super) struct Worker {
    shared: Arc<Shared>,
    number: usize,
    renderer: Renderer,
    augmenter: Augmenter,
    /// The largest side of squares that both have room for.
    reserved: u32,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, number: usize) -> Worker {
        Worker {
            shared,
            number,
            renderer: Renderer::new(),
            augmenter: Augmenter::with(Simd::best()),
            reserved: 0,
        }
    }

    /// Works until nobody can queue jobs any more.
    pub(super) fn run(mut self, queue: &Receiver<Job>) {
        while let Ok(job) = queue.recv() {
            let (assembly, what, number, step) = match &job {
                Job::Image {
                    assembly,
                    step,
                    position,
                    ..
                } => (assembly, "position", *position, *step),
                Job::Masks {
                    assembly,
                    step,
                    group,
                    ..
                } => (assembly, "the masks of group", *group, *step),
            };
            if assembly.is_stopped() {
                continue;
            }
            let assembly = assembly.clone();
            // The part is dropped unfinished by a panic, so the slot it belongs to is never published.
            match catch_unwind(AssertUnwindSafe(|| self.perform(job))) {
                Ok(Ok(())) => assembly.publish_ready(),
                Ok(Err(reason)) => assembly.fail(reason),
                Err(panic) => {
                    assembly.fail(Failure::Panic {
                        what,
                        number,
                        step,
                        message: panics::message(&*panic),
                    });
                    // Its buffers may be in any state.
                    self.renderer = Renderer::new();
                    self.reserved = 0;
                }
            }
        }
    }

    fn perform(&mut self, job: Job) -> Result<(), Failure> {
        match job {
            Job::Image {
                assembly,
                part,
                step,
                position,
            } => self.fill_image(&assembly, part, step, position),
            Job::Masks {
                assembly,
                part,
                step,
                group,
            } => {
                let start = Instant::now();
                let masks = assembly.sampler.masks(step, group);
                part.finish(step, group, &masks.context, &masks.targets);
                let work = WorkTimes {
                    groups: 1,
                    contexts: masks.context.len() as u64 * assembly.images_per_slot,
                    relaxed: masks.relaxed as u64,
                    masks: start.elapsed(),
                    ..WorkTimes::default()
                };
                if let Sampler::Pretraining(sampler) = &assembly.sampler {
                    self.shared.relaxed.count(&work, sampler.grid(step));
                }
                self.count(work);
                Ok(())
            }
        }
    }

    /// Renders the sample of a place, or the first undamaged replacement. One in quarantine is as good as damaged: the
    /// same replacement is drawn, without a word. Where nothing stands in for another, the place stays empty.
    fn fill_image(
        &mut self,
        assembly: &Assembly,
        mut part: ImagePart,
        step: u64,
        position: u64,
    ) -> Result<(), Failure> {
        let shared = self.shared.clone();
        let sampler = &assembly.sampler;
        let Some(mut id) = sampler.sample_id(step, position) else {
            part.finish_absent();
            return Ok(());
        };
        let mut last = String::new();
        for attempt in 0..=MAX_REPLACEMENTS {
            let mut damage = None;
            if shared.source.quarantined().contains(&id) {
                last = format!("sample {id} is in quarantine");
            } else {
                match self.render_whole(assembly, id, step, position, part.pixels()) {
                    Ok(label) => {
                        if attempt > 0 {
                            assembly.count_replaced();
                        }
                        part.finish(id, label, if attempt > 0 { FLAG_REPLACED } else { 0 });
                        return Ok(());
                    }
                    Err(error) => damage = Some(error),
                }
            }
            let replacement = sampler.replacement(step, position, attempt);
            if let Some(error) = damage {
                let (split, is_replaced) = (shared.source.split(), replacement.is_some());
                shared.damage.report(split, id, is_replaced, &error);
                last = error.to_string();
            }
            let Some(other) = replacement else {
                part.finish_absent();
                return Ok(());
            };
            id = other;
        }
        Err(Failure::AllDamaged {
            step,
            position,
            replacements: MAX_REPLACEMENTS,
            last,
        })
    }

    /// Renders a sample; from the original, if it is damaged in a copy.
    fn render_whole(
        &mut self,
        assembly: &Assembly,
        id: u64,
        step: u64,
        position: u64,
        pixels: &mut [u8],
    ) -> Result<Option<u32>, shardtool::Error> {
        let shared = self.shared.clone();
        let sample = shared.source.split().sample(id);
        let rendered = self.render(assembly, &sample, step, position, pixels);
        let (Err(damage), Some(original)) = (&rendered, shared.source.original()) else {
            return rendered;
        };
        let Some(shard) = original.shard(&sample) else {
            return rendered;
        };
        let whole = shard.sample(sample.index());
        match self.render(assembly, &whole, step, position, pixels) {
            Ok(class) => {
                original.renew(&sample, damage);
                Ok(class)
            }
            Err(_) => rendered,
        }
    }

    /// Reads, decodes, crops, resizes and augments one sample into `pixels`; returns its class.
    fn render(
        &mut self,
        assembly: &Assembly,
        sample: &Sample<'_>,
        step: u64,
        position: u64,
        pixels: &mut [u8],
    ) -> Result<Option<u32>, shardtool::Error> {
        let entry = sample.entry();
        let source = (entry.source_width, entry.source_height);
        let stored = (entry.stored_width, entry.stored_height);
        let placement = assembly.sampler.placement(step, position, source, stored);
        let side = assembly.sampler.crop_size(step);
        let view = View {
            area: placement.area,
            surround: placement.surround,
            resolution: self.shared.fidelity.resolution(side),
            side,
            mirror: placement.mirror,
        };
        if assembly.largest > self.reserved {
            self.renderer
                .reserve(&self.shared.largest, assembly.largest);
            self.augmenter.reserve(assembly.largest);
            self.reserved = assembly.largest;
        }
        let times = self.renderer.render(sample, view, pixels)?;
        let rendered = Instant::now();
        let augmentation = assembly.sampler.augmentation(step, position);
        self.augmenter.apply(&augmentation, pixels, side);
        self.count(WorkTimes {
            images: 1,
            bytes: u64::from(entry.length),
            read: times.read,
            entropy: times.entropy,
            decode: times.decode,
            resize: times.resize,
            augment: rendered.elapsed(),
            ..WorkTimes::default()
        });
        Ok(entry.class)
    }

    fn count(&self, work: WorkTimes) {
        self.shared.counters[self.number].add(work);
    }
}
