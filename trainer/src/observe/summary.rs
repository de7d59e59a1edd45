//! Means over some steps: the console's line of an interval, and the report at the end of a run.

use std::fmt;
use std::time::Duration;

use super::Record;

/// Sums over some steps, for means.
#[derive(Clone, Debug, Default)]
pub(super) struct Sums {
    steps: f64,
    skipped: f64,
    images: f64,
    replaced: u64,
    loss: f64,
    context: f64,
    target: f64,
    step_ms: f64,
    wait_ms: f64,
}

impl Sums {
    pub(super) fn add(&mut self, record: &Record) {
        self.steps += 1.0;
        self.images += record.images as f64;
        self.replaced += record.replaced;
        if record.skipped {
            self.skipped += 1.0;
        } else {
            self.loss += record.loss;
        }
        self.context += record.context_len;
        self.target += record.target_len;
        self.step_ms += record.step_ms;
        self.wait_ms += record.wait_ms;
    }

    fn images_per_s(&self) -> f64 {
        self.images / self.step_ms.max(1e-9) * 1e3
    }

    /// Percent of the wall time spent waiting for data.
    fn waiting(&self) -> f64 {
        self.wait_ms / self.step_ms.max(1e-9) * 1e2
    }
}

/// The line of an interval.
pub(super) struct Line<'a> {
    pub(super) record: &'a Record,
    pub(super) sums: &'a Sums,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line { record, sums } = self;
        write!(
            out,
            "[{}, {:5}] loss {:.4}  masks {:.1} {:.1}  lr {:.2e}  wd {:.2e}  ema {:.5}  {:.1} images/s  {:.1} ms/step  waiting {:.1} %",
            record.epoch,
            record.itr,
            sums.loss / (sums.steps - sums.skipped),
            sums.context / sums.steps,
            sums.target / sums.steps,
            record.lr,
            record.weight_decay,
            record.momentum,
            sums.images_per_s(),
            sums.step_ms / sums.steps,
            sums.waiting(),
        )
    }
}

/// The sum of a run, printed at its end.
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
            "{:.0} steps, {:.0} images in {:.1} s: {:.1} images/s, {:.1} ms/step; waited for data {:.2} % of it ({:.3} s); start-up {:.1} s",
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
    fn the_line_gives_means_over_its_interval() {
        let mut sums = Sums::default();
        sums.add(&record(0));
        sums.add(&record(1));
        let line = Line {
            record: &record(1),
            sums: &sums,
        }
        .to_string();
        assert!(
            line.starts_with("[1,     1] loss 0.6235  masks 12.0 9.5  lr 1.00e-3  wd 4.00e-2"),
            "{line}"
        );
        assert!(line.ends_with("20.9 ms/step  waiting 2.4 %"), "{line}");
    }
}
