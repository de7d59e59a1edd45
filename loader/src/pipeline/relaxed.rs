//! Contexts that overlap targets against the configuration's wish: said once, when there are many.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::work_times::WorkTimes;

/// So many contexts tell a rate.
const ENOUGH: u64 = 1024;
/// One in so many is much: the official settings leave all contexts a place, or all but.
const ONE_IN: u64 = 100;

/// Counts the contexts of all rings. Relaxed throughout: the numbers are for people.
#[derive(Debug, Default)]
pub(super) struct RelaxedContexts {
    contexts: AtomicU64,
    relaxed: AtomicU64,
    is_said: AtomicBool,
}

impl RelaxedContexts {
    /// Counts those of a group on a grid of so many rows and columns, and emits an event the first time that they are
    /// many.
    pub(super) fn count(&self, work: &WorkTimes, (rows, columns): (usize, usize)) {
        let add = |counter: &AtomicU64, more| counter.fetch_add(more, Ordering::Relaxed) + more;
        let so_far = WorkTimes {
            contexts: add(&self.contexts, work.contexts),
            relaxed: add(&self.relaxed, work.relaxed),
            ..WorkTimes::default()
        };
        if !is_much(&so_far) || self.is_said.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Some(relaxed) = so_far.relaxed_contexts() {
            tracing::warn!(
                "{relaxed}: on this grid of {rows} x {columns} patches they keep more than mask.min_keep only by \
                 showing what is to be predicted; smaller or fewer targets (mask.pred_mask_scale, mask.num_pred_masks), \
                 larger contexts (mask.enc_mask_scale) or a smaller mask.min_keep leave them room"
            );
        }
    }
}

fn is_much(work: &WorkTimes) -> bool {
    work.contexts >= ENOUGH && work.relaxed * ONE_IN >= work.contexts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_are_not_many() {
        let work = |contexts, relaxed| WorkTimes {
            contexts,
            relaxed,
            ..WorkTimes::default()
        };
        assert!(!is_much(&work(512, 512)));
        assert!(!is_much(&work(10_000, 99)));
        assert!(is_much(&work(10_000, 100)));
        assert!(!is_much(&work(0, 0)));
    }
}
