//! An assembler: the thread of one ring that claims slots ahead and queues their jobs.

use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::Sender;

use super::assembly::Assembly;
use super::end::End;
use super::job::Job;
use super::shared::Shared;
use crate::ring::{self, Claimer};
use crate::share::RankShare;

/// How late an assembler may notice that it was stopped.
const TICK: Duration = Duration::from_millis(50);

/// Claims slots and queues their jobs until the share is done or somebody ends it.
pub(super) fn assemble(
    shared: &Shared,
    assembly: &Arc<Assembly>,
    mut claimer: Claimer,
    jobs: &Sender<Job>,
    share: RankShare,
) -> End {
    let sampler = &assembly.sampler;
    let groups = share.groups(sampler.groups());
    let end = share.end_step.unwrap_or(u64::MAX).min(sampler.end());
    for step in share.first_step..end {
        let side = sampler.crop_size(step) as usize;
        for group in groups.clone() {
            let (slot, images, masks) = loop {
                if assembly.is_stopped() {
                    return assembly.end();
                }
                match claimer.claim_for((side, side), TICK) {
                    Ok(claimed) => break claimed,
                    Err(ring::Error::TimedOut { .. }) => {}
                    Err(ring::Error::Left) => {
                        assembly.stop();
                        return End::Left;
                    }
                    Err(error) => {
                        assembly.fail(error.into());
                        return assembly.end();
                    }
                }
            };
            assembly.push(slot);
            // Masks first: they are one long job, which had better not be the last of its slot.
            let job = Job::Masks {
                assembly: assembly.clone(),
                part: masks,
                step,
                group,
            };
            if jobs.send(job).is_err() {
                return End::Stopped;
            }
            for part in images {
                let position = group * assembly.images_per_slot + part.index() as u64;
                if let Some(id) = sampler.sample_id(step, position)
                    && !shared.source.quarantined().contains(&id)
                {
                    shared.source.split().sample(id).prefetch();
                }
                let job = Job::Image {
                    assembly: assembly.clone(),
                    part,
                    step,
                    position,
                };
                if jobs.send(job).is_err() {
                    return End::Stopped;
                }
            }
        }
    }
    assembly.finish();
    assembly.end()
}
