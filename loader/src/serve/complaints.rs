//! Warnings about peers, of which there may be any number.

use std::sync::atomic::{AtomicU64, Ordering};

/// Warnings that are all told.
const TOLD: u64 = 10;

/// A number of warnings: the first ones are told, then fewer and fewer.
#[derive(Debug, Default)]
pub(super) struct Complaints(AtomicU64);

impl Complaints {
    /// Warns, unless that was done often already.
    pub(super) fn warn(&self, text: &str) {
        // Relaxed: only a number.
        let number = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        if number <= TOLD {
            tracing::warn!("{text}");
        } else if is_told(number) {
            tracing::warn!("{text} (warning {number} about peers; most are left out)");
        }
    }
}

/// Tells whether warning `number` is told.
fn is_told(number: u64) -> bool {
    number <= TOLD || number.is_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_warnings_are_a_few_lines() {
        assert_eq!(
            (1..=1_000_000).filter(|&number| is_told(number)).count(),
            26
        );
    }
}
