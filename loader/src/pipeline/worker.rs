//! A worker: takes jobs from the queue and fills parts of slots, with buffers of its own that are reused.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use crossbeam::channel::Receiver;
use shardtool::simd::Simd;

use super::assembly::Assembly;
use super::{Shared, Stages};
use crate::augment::Augmenter;
use crate::render::{Renderer, View};
use crate::ring::{FLAG_REPLACED, ImagePart, MaskPart};

/// So many damaged samples in a row for one place are no accident: the data set is gone.
const MAX_REPLACEMENTS: u32 = 16;

/// One piece of work.
#[derive(Debug)]
pub(super) enum Job {
    /// Fill one image of a slot.
    Image {
        assembly: Arc<Assembly>,
        part: ImagePart,
        step: u64,
        position: u64,
    },
    /// Draw the masks of a slot.
    Masks {
        assembly: Arc<Assembly>,
        part: MaskPart,
        step: u64,
        group: u64,
    },
}

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
                Err(_) => {
                    assembly.fail(format!(
                        "a worker panicked on {what} {number} of step {step}"
                    ));
                    // Its buffers may be in any state.
                    self.renderer = Renderer::new();
                    self.reserved = 0;
                }
            }
        }
    }

    fn perform(&mut self, job: Job) -> Result<(), String> {
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
                self.count(Stages {
                    groups: 1,
                    masks: start.elapsed(),
                    ..Stages::default()
                });
                Ok(())
            }
        }
    }

    /// Renders the sample of a place, or the first undamaged replacement.
    fn fill_image(
        &mut self,
        assembly: &Assembly,
        mut part: ImagePart,
        step: u64,
        position: u64,
    ) -> Result<(), String> {
        let shared = self.shared.clone();
        let sampler = &assembly.sampler;
        let mut id = sampler.sample_id(step, position);
        for attempt in 0..=MAX_REPLACEMENTS {
            match self.render(assembly, id, step, position, part.pixels()) {
                Ok(label) => {
                    if attempt > 0 {
                        assembly.count_replaced();
                    }
                    part.finish(id, label, if attempt > 0 { FLAG_REPLACED } else { 0 });
                    return Ok(());
                }
                Err(error) => shared.report_damage(id, &error),
            }
            id = sampler.replacement(step, position, attempt);
        }
        Err(format!(
            "the sample at position {position} of step {step} and {MAX_REPLACEMENTS} replacements are all damaged"
        ))
    }

    /// Verifies, decodes, crops, resizes and augments one sample into `pixels`; returns its class.
    fn render(
        &mut self,
        assembly: &Assembly,
        id: u64,
        step: u64,
        position: u64,
        pixels: &mut [u8],
    ) -> Result<Option<u32>, shardtool::Error> {
        let sample = self.shared.source.split().sample(id);
        let entry = sample.entry();
        let start = Instant::now();
        sample.verify()?;
        let read = Instant::now();
        let source = (entry.source_width, entry.source_height);
        let crop = assembly.sampler.crop(step, position, source);
        let view = View {
            area: crop.on_grid(source, (entry.stored_width, entry.stored_height)),
            resolution: self.shared.fidelity.resolution(assembly.side),
            side: assembly.side,
            mirror: assembly.sampler.flip(step, position),
        };
        if assembly.side > self.reserved {
            self.renderer.reserve(&self.shared.largest, assembly.side);
            self.augmenter.reserve(assembly.side);
            self.reserved = assembly.side;
        }
        let times = self.renderer.render(&sample, view, pixels)?;
        let rendered = Instant::now();
        let augmentation = assembly.sampler.augmentation(step, position);
        self.augmenter.apply(&augmentation, pixels, assembly.side);
        self.count(Stages {
            images: 1,
            bytes: u64::from(entry.length),
            read: read - start,
            entropy: times.entropy,
            decode: times.decode,
            resize: times.resize,
            augment: rendered.elapsed(),
            ..Stages::default()
        });
        Ok(entry.class)
    }

    fn count(&self, work: Stages) {
        self.shared.counters[self.number].add(work);
    }
}
