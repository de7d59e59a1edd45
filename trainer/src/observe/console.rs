//! The console: a line for every interval of steps.

use std::fmt;

use shardtool::memory::Size;

use super::Record;
use super::moment::{Long, Moment};
use super::sums::Sums;

/// The lines of a run, each with means over the steps since the one before.
#[derive(Debug)]
pub(super) struct Console {
    /// Steps between two lines, counted in each epoch.
    every: u64,
    interval: Sums,
    /// Effective rank of the targets, where it was measured since the last line.
    rank: Option<f64>,
}

/// The line of an interval.
struct Line<'a> {
    record: &'a Record,
    moment: &'a Moment,
    sums: &'a Sums,
    rank: Option<f64>,
}

impl Console {
    /// Returns a console with a line every so many steps.
    pub(super) fn new(every: u64) -> Console {
        Console {
            every,
            interval: Sums::default(),
            rank: None,
        }
    }

    /// Takes note of a step, and says the line of its interval where that is over. Tells whether it was.
    pub(super) fn step(&mut self, record: &Record, moment: &Moment) -> bool {
        self.interval.add(record);
        self.rank = record.signs.map(|signs| signs.target_rank).or(self.rank);
        let is_over =
            record.itr.is_multiple_of(self.every) || record.step + 1 == record.total_steps;
        if is_over {
            let sums = std::mem::take(&mut self.interval);
            let line = Line {
                record,
                moment,
                sums: &sums,
                rank: self.rank.take(),
            };
            tracing::info!("{line}");
        }
        is_over
    }
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line {
            record,
            moment,
            sums,
            rank,
        } = self;
        write!(
            out,
            "[{}, {:5}] loss {:.4}  masks {:.1} {:.1}  lr {:.2e}  wd {:.2e}  ema {:.5}  \
             {:.1} images/s  {:.1} ms/step  waiting {:.1} %",
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
        )?;
        if let Some(rank) = rank {
            write!(out, "  rank {rank:.1}")?;
        }
        if let Some(share) = sums.online_top1() {
            write!(out, "  told {share:.1} %")?;
        }
        if let Some(memory) = record.memory {
            write!(out, "  memory {}", Size(memory))?;
        }
        if moment.eta_s > 0.0 {
            write!(out, "  {} to go", Long(moment.eta_s))?;
        }
        if let Some(ranks) = &record.ranks {
            let [first, _, last] = ranks.ready_ms;
            let slowest = ranks.slowest;
            write!(
                out,
                "  ready after {first:.1} to {last:.1} ms, rank {slowest} last"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::moment::tests::moment;
    use super::super::record::AcrossRanks;
    use super::super::record::tests::record;
    use super::*;

    #[test]
    fn the_line_gives_means_over_its_interval() {
        let mut sums = Sums::default();
        sums.add(&record(0));
        sums.add(&record(1));
        let line = Line {
            record: &record(1),
            moment: &moment(),
            sums: &sums,
            rank: None,
        }
        .to_string();
        assert!(
            line.starts_with("[1,     1] loss 0.6235  masks 12.0 9.5  lr 1.00e-3  wd 4.00e-2"),
            "{line}"
        );
        assert!(
            line.ends_with("20.9 ms/step  waiting 2.4 %  memory 1.5 GiB  2 h 3 min to go"),
            "{line}"
        );
        let ranks = AcrossRanks::of([(0.0, 0.012), (0.0, 0.02)].into_iter());
        let of_two = Record {
            ranks: Some(ranks),
            ..record(1)
        };
        let record = &of_two;
        let line = Line {
            record,
            moment: &moment(),
            sums: &sums,
            rank: Some(7.25),
        }
        .to_string();
        assert!(
            line.contains("  rank 7.2  memory ")
                && line.ends_with("  ready after 12.0 to 20.0 ms, rank 1 last"),
            "{line}"
        );
    }
}
