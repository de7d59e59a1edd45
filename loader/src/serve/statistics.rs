//! What the loader says about itself: who waits for whom, and where the time goes.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::server::Server;
use crate::pipeline::{Attachment, WorkTimes};

/// The readings behind the line that tells, at intervals, who waits for whom.
pub(super) struct Statistics {
    start: Instant,
    last: Instant,
    work: WorkTimes,
    waited: Duration,
}

impl Statistics {
    pub(super) fn new(server: &Server) -> Statistics {
        let now = Instant::now();
        Statistics {
            start: now,
            last: now,
            work: server.pipeline.work_times(),
            waited: Duration::ZERO,
        }
    }

    pub(super) fn print(&mut self, server: &Server) {
        let rings: Vec<Arc<Attachment>> = {
            let mut attached = server.attached();
            attached.retain(|ring| ring.strong_count() > 0);
            attached.iter().filter_map(Weak::upgrade).collect()
        };
        let (now, total) = (Instant::now(), server.pipeline.work_times());
        let waited: Duration = rings
            .iter()
            .map(|ring| ring.waited().0)
            .map(|waited| waited.start + waited.steady)
            .sum();
        let (seconds, work) = ((now - self.last).as_secs_f64(), total.since(&self.work));
        if !rings.is_empty() {
            // A ring that has gone since the last line takes its share of the sum with it: that line is an
            // underestimate.
            let share =
                waited.saturating_sub(self.waited).as_secs_f64() / seconds / rings.len() as f64;
            tracing::info!(
                "{:.0} images/s to {} rank(s); rings full {:.1} % of the time; {} damaged samples; {}",
                work.images as f64 / seconds,
                rings.len(),
                100.0 * share.min(1.0),
                server.pipeline.damaged(),
                per_image(&work)
            );
        }
        (self.last, self.work, self.waited) = (now, total, waited);
    }

    pub(super) fn print_total(&self, server: &Server) {
        let work = server.pipeline.work_times();
        let seconds = self.start.elapsed().as_secs_f64();
        tracing::info!(
            "served {} images in {seconds:.1} s; {} damaged samples; {}",
            work.images,
            server.pipeline.damaged(),
            per_image(&work)
        );
        if let Some(relaxed) = work.relaxed_contexts() {
            tracing::info!("{relaxed}");
        }
        let source = server.pipeline.source();
        if !source.quarantined().is_empty() {
            tracing::info!(
                "{} of {} samples are in quarantine; others stood in for them",
                source.quarantined().len(),
                source.split().len()
            );
        }
    }
}

fn per_image(work: &WorkTimes) -> String {
    let each = |time: Duration| time.as_secs_f64() * 1e6 / work.images.max(1) as f64;
    format!(
        "µs per image: read {:.0}, decode {:.0}, resize {:.0}, masks {:.0}",
        each(work.read),
        each(work.entropy + work.decode),
        each(work.resize),
        each(work.masks)
    )
}
