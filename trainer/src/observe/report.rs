//! The report: a run summed up in a line, at its end.

use std::fmt;
use std::time::Duration;

use super::sums::Sums;

/// The sum of a run, for its end. Displayed, it is a line of text.
#[derive(Clone, Debug)]
pub struct Report {
    pub(super) total: Sums,
    pub(super) start_up: Duration,
    pub(super) paused: Vec<Duration>,
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = &self.total;
        write!(
            out,
            "{:.0} steps, {:.0} images in {:.1} s: {:.1} images/s, {:.1} ms/step; \
             waited for data {:.2} % of it ({:.3} s); start-up {:.1} s",
            total.steps,
            total.images,
            total.step_ms / 1e3,
            total.images_per_s(),
            total.step_ms / total.steps.max(1.0),
            total.waiting(),
            total.wait_ms / 1e3,
            self.start_up.as_secs_f64(),
        )?;
        if !self.paused.is_empty() {
            write!(
                out,
                "; {} checkpoint(s) paused it {:.3} s in all",
                self.paused.len(),
                self.paused.iter().sum::<Duration>().as_secs_f64(),
            )?;
        }
        if total.skipped > 0.0 {
            write!(out, "; {} step(s) skipped", total.skipped)?;
        }
        if total.replaced > 0 {
            write!(out, "; {} damaged samples replaced", total.replaced)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::record;
    use super::*;

    #[test]
    fn what_did_not_happen_is_not_mentioned() {
        let mut total = Sums::default();
        total.add(&record(0));
        let mut report = Report {
            total,
            start_up: Duration::from_millis(1500),
            paused: Vec::new(),
        };
        assert_eq!(
            report.to_string(),
            "1 steps, 32 images in 0.0 s: 1531.1 images/s, 20.9 ms/step; waited for data 2.39 % of it (0.001 s); \
             start-up 1.5 s"
        );
        report.paused = vec![Duration::from_millis(250); 2];
        report.total.replaced = 3;
        let text = report.to_string();
        assert!(
            text.ends_with(
                "; 2 checkpoint(s) paused it 0.500 s in all; 3 damaged samples replaced"
            ),
            "{text}"
        );
    }
}
