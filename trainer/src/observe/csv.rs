//! The official log: `<write_tag>_r0.csv`, with exactly the official columns and formats.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;

use super::cut::Line;
use super::rows::Rows;
use super::{Error, Record, path_of};

/// The header of the official log.
const COLUMNS: &str = "epoch,itr,loss,mask-A,mask-B,time (ms)\n";

/// The official log of a run.
#[derive(Debug)]
pub(super) struct Csv(Rows);

impl Csv {
    /// Opens the log in `folder` for appending, after cutting the rows of step `first` and later.
    ///
    /// `epochs` are the steps up to which epochs had a length, and that length.
    pub(super) fn open(
        folder: &Path,
        tag: &str,
        first: u64,
        epochs: &[(u64, u64)],
    ) -> Result<Csv, Error> {
        let judge = || {
            let mut last = None;
            move |line: &str| judge(line, first, epochs, &mut last)
        };
        Ok(Csv(Rows::open(
            path_of(folder, tag, "csv"),
            COLUMNS,
            judge,
        )?))
    }

    /// Appends the row of a step.
    pub(super) fn write(&mut self, record: &Record) {
        // The official column is the time of the computation alone.
        let compute_ms = (record.step_ms - record.wait_ms).max(0.0) as u64;
        let row = OfficialRow {
            epoch: record.epoch,
            itr: record.itr,
            loss: record.loss,
            context_len: record.context_len,
            target_len: record.target_len,
            compute_ms,
        };
        self.0.append(&format!("{row}\n"));
    }

    /// Returns the file of rows.
    pub(super) fn rows(&mut self) -> &mut Rows {
        &mut self.0
    }

    /// Returns a handle to the file.
    pub(super) fn file(&self) -> io::Result<File> {
        self.0.file()
    }
}

/// Says what becomes of a line of the official log in a run that goes on at step `first`.
///
/// A row may have been through a spreadsheet, which writes it its own way; it gets its form back.
///
/// `last` is the step of the row before it.
fn judge(line: &str, first: u64, epochs: &[(u64, u64)], last: &mut Option<u64>) -> Line {
    let Some(row) = OfficialRow::parse(line) else {
        let is_header = OfficialRow::is_header(line);
        return if is_header { Line::Drop } else { Line::Foreign };
    };
    let step = row.step(epochs, *last);
    *last = step.or(*last);
    match step {
        Some(step) if step < first => {
            let official = row.to_string();
            if official == line {
                Line::Keep
            } else {
                Line::As(official)
            }
        }
        Some(_) => Line::Drop,
        None => Line::Foreign,
    }
}

/// Returns the fields of a line, whichever sign separates them, without the quotes around them.
fn fields(line: &str) -> Vec<String> {
    let separator = [';', '\t'].into_iter().find(|sign| line.contains(*sign));
    let separator = separator.unwrap_or(',');
    let mut is_quoted = false;
    let fields = line.split(|sign| {
        is_quoted ^= sign == '"';
        sign == separator && !is_quoted
    });
    let plain = |field: &str| field.trim().trim_matches('"').trim().to_owned();
    fields.map(plain).collect()
}

/// A row of the official log.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OfficialRow {
    /// 1-based.
    pub epoch: u64,
    /// 0-based number of the step in its epoch.
    pub itr: u64,
    /// Mean over the global batch.
    pub loss: f64,
    /// Context patches per image.
    pub context_len: f64,
    /// Patches per target block.
    pub target_len: f64,
    /// Time of the computation alone.
    pub compute_ms: u64,
}

impl OfficialRow {
    /// Reads a row as the official code, this program or a spreadsheet has written it.
    pub fn parse(line: &str) -> Option<OfficialRow> {
        let mut fields = fields(line).into_iter();
        let mut number = || {
            let field = fields.next()?;
            // Where a comma separates no fields, it may stand for the point.
            field.replace(',', ".").parse::<f64>().ok()
        };
        let whole = |value: f64| {
            ((0.0..1e15).contains(&value) && value.fract() == 0.0).then_some(value as u64)
        };
        let row = OfficialRow {
            epoch: whole(number()?)?,
            itr: whole(number()?)?,
            loss: number()?,
            context_len: number()?,
            target_len: number()?,
            compute_ms: whole(number()?.round())?,
        };
        // A spreadsheet may have added empty columns; anything else is another log.
        fields.all(|field| field.is_empty()).then_some(row)
    }

    /// Tells whether a line names the columns.
    pub fn is_header(line: &str) -> bool {
        let named = fields(line).into_iter().filter(|field| !field.is_empty());
        named.eq(fields(COLUMNS.trim_end()))
    }

    /// Returns its 0-based step, the first that it can be after step `last`.
    ///
    /// A row names an epoch and a step in it, and that is one step or another where the length of epochs changed.
    fn step(&self, epochs: &[(u64, u64)], last: Option<u64>) -> Option<u64> {
        let mut begin = 0;
        for &(end, epoch_len) in epochs {
            let before = self.epoch.checked_sub(1)?.checked_mul(epoch_len)?;
            let step = before.checked_add(self.itr)?;
            let fits = self.itr < epoch_len && (begin..end).contains(&step);
            if fits && last.is_none_or(|last| step > last) {
                return Some(step);
            }
            begin = end;
        }
        None
    }
}

impl fmt::Display for OfficialRow {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{},{},{:.5},{:.5},{:.5},{}",
            self.epoch, self.itr, self.loss, self.context_len, self.target_len, self.compute_ms
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::record;
    use super::*;

    #[test]
    fn rows_have_the_official_form() {
        let folder = tempfile::tempdir().unwrap();
        let mut csv = Csv::open(folder.path(), "jepa", 0, &[(u64::MAX, 5)]).unwrap();
        csv.write(&record(7));
        let text = std::fs::read_to_string(folder.path().join("jepa_r0.csv")).unwrap();
        assert_eq!(
            text,
            "epoch,itr,loss,mask-A,mask-B,time (ms)\n2,2,7.12346,12.00000,9.50000,20\n"
        );
    }

    #[test]
    fn a_row_of_absurd_numbers_is_no_row() {
        let judged = |line: &str| judge(line, 100, &[(u64::MAX, 5)], &mut None);
        assert_eq!(judged("2,2,0.50000,1.00000,1.00000,20"), Line::Keep);
        for line in [
            "0,1,0.5,1,1,20",
            "1,5,0.5,1,1,20",
            "18446744073709551615,1,0.5,1,1,20",
            "1,-1,0.5,1,1,20",
            "1,0.5,0.5,1,1,20",
            "1,1,0.5",
            "1,1,0.5,1,1,1,20",
            "epoch,itr",
        ] {
            assert_eq!(judged(line), Line::Foreign, "{line}");
        }
    }

    /// Three epochs of two steps, then epochs of five, and a run that is taken up in the second of them.
    #[test]
    fn rows_are_cut_at_the_right_step_where_the_length_of_epochs_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jepa_r0.csv");
        let places = [
            (1, 0),
            (1, 1),
            (2, 0),
            (2, 1),
            (3, 0),
            (3, 1),
            (2, 1),
            (2, 2),
            (2, 3),
        ];
        let rows = places.map(|(epoch, itr)| format!("{epoch},{itr},0.50000,1.00000,1.00000,20\n"));
        std::fs::write(&path, COLUMNS.to_owned() + &rows.concat()).unwrap();
        drop(Csv::open(folder.path(), "jepa", 7, &[(6, 2), (u64::MAX, 5)]).unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, COLUMNS.to_owned() + &rows[..7].concat());
    }

    #[test]
    fn a_spreadsheet_costs_no_row_and_no_column() {
        let official = "1,0,0.50000,12.00000,9.50000,20";
        for (header, row) in [
            (
                "epoch,itr,loss,mask-A,mask-B,time (ms)",
                "1,0,0.50000,12.00000,9.50000,20",
            ),
            (
                "epoch,itr,loss,mask-A,mask-B,time (ms)",
                "1,0,0.5,12,9.5,20",
            ),
            (
                "\"epoch\",\"itr\",\"loss\",\"mask-A\",\"mask-B\",\"time (ms)\"",
                "\"1\",\"0\",\"0.5\",\"12\",\"9.5\",\"20\"",
            ),
            (
                "epoch;itr;loss;mask-A;mask-B;time (ms)",
                "1;0;0,5;12;9,5;20",
            ),
            (
                "epoch\titr\tloss\tmask-A\tmask-B\ttime (ms)",
                "1.0\t0\t5.00E-01\t12\t9.5\t20.0",
            ),
            (
                "epoch,itr,loss,mask-A,mask-B,time (ms)",
                "1,0,\"0,5\",12,\"9,5\",20",
            ),
            (
                "epoch,itr,loss,mask-A,mask-B,time (ms),,",
                "1,0,0.5,12,9.5,20,,",
            ),
        ] {
            for (mark, end) in [("", "\n"), ("\u{feff}", "\r\n")] {
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().join("jepa_r0.csv");
                std::fs::write(&path, format!("{mark}{header}{end}{row}{end}")).unwrap();
                drop(Csv::open(folder.path(), "jepa", 1, &[(u64::MAX, 5)]).unwrap());
                let text = std::fs::read_to_string(&path).unwrap();
                assert_eq!(text, format!("{COLUMNS}{official}\n"), "{header:?}");
                let files = std::fs::read_dir(folder.path()).unwrap().count();
                assert_eq!(files, 1, "{header:?}");
            }
        }
    }

    #[test]
    fn another_log_of_that_name_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jepa_r0.csv");
        let other = "epoch,itr,loss,loss-jepa,loss-reg,enc-grad-norm\n1,0,0.5,0.4,0.1,x\n";
        std::fs::write(&path, other).unwrap();
        drop(Csv::open(folder.path(), "jepa", 1, &[(u64::MAX, 5)]).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), COLUMNS);
        let kept = folder.path().join("jepa_r0.csv.before");
        assert_eq!(std::fs::read_to_string(kept).unwrap(), other);
    }
}
