//! A warning where contexts are so small that there is little to predict from.

use super::Record;
use super::log::Observer;

/// Steps whose contexts are looked at.
const STEPS: u64 = 20;
/// The mean number of patches below which a warning is due.
///
/// On a grid of 6 x 6, networks trained with contexts of 7 patches found hidden blocks half to two thirds as often as
/// those with 13 (`trainer/LEARNING.md`).
const FEW: f64 = 10.0;

/// Looks at the contexts of a run's first steps.
#[derive(Debug, Default)]
pub(super) struct Contexts {
    steps: u64,
    patches: f64,
}

impl Contexts {
    /// Takes note of a step; returns what there is to say, once.
    fn note(&mut self, record: &Record) -> Option<String> {
        if self.steps >= STEPS {
            return None;
        }
        self.steps += 1;
        self.patches += record.context_len;
        let mean = self.patches / STEPS as f64;
        (self.steps == STEPS && mean < FEW).then(|| {
            format!(
                "contexts have {mean:.1} patches on average, little to predict from: the smallest of a group decides \
                 (data.batch_size); loader.mask_law: unbiased, smaller patches (mask.patch_size) and larger crops \
                 (data.crop_size) leave more"
            )
        })
    }
}

impl Observer for Contexts {
    fn step(&mut self, record: &Record) {
        if let Some(text) = self.note(record) {
            tracing::warn!("{text}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::record;
    use super::*;

    #[test]
    fn small_contexts_are_said_once_and_others_never() {
        for (context_len, times) in [(7.0, 1), (FEW, 0)] {
            let mut contexts = Contexts::default();
            let said = (0..3 * STEPS).filter_map(|step| {
                contexts.note(&Record {
                    context_len,
                    ..record(step)
                })
            });
            let said: Vec<String> = said.collect();
            assert_eq!(said.len(), times, "{context_len}: {said:?}");
            assert!(said.iter().all(|text| text.contains("7.0 patches")));
        }
    }
}
