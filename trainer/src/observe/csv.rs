//! The official log: `<write_tag>_r0.csv`, with exactly the official columns and formats.

use std::fs::File;
use std::io;
use std::path::Path;

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
        let mut last = None;
        let is_kept = |line: &str| {
            let step = step_of(line, epochs, last);
            last = step.or(last);
            step.is_some_and(|step| step < first)
        };
        Ok(Csv(Rows::open(
            path_of(folder, tag, "csv"),
            COLUMNS,
            is_kept,
        )?))
    }

    /// Appends the row of a step.
    pub(super) fn write(&mut self, record: &Record) {
        // The official column is the time of the computation alone.
        let compute_ms = (record.step_ms - record.wait_ms).max(0.0) as u64;
        self.0.append(&format!(
            "{},{},{:.5},{:.5},{:.5},{compute_ms}\n",
            record.epoch, record.itr, record.loss, record.context_len, record.target_len
        ));
    }

    /// Returns a handle to the file.
    pub(super) fn file(&self) -> io::Result<File> {
        self.0.file()
    }
}

/// Returns the 0-based step of a row of the official log, the first that it can be after step `last`.
///
/// A row names an epoch and a step in it, and that is one step or another where the length of epochs changed.
fn step_of(line: &str, epochs: &[(u64, u64)], last: Option<u64>) -> Option<u64> {
    let mut fields = line.split(',');
    let epoch: u64 = fields.next()?.parse().ok()?;
    let itr: u64 = fields.next()?.parse().ok()?;
    let mut begin = 0;
    for &(end, epoch_len) in epochs {
        let step = epoch
            .checked_sub(1)?
            .checked_mul(epoch_len)?
            .checked_add(itr)?;
        if (begin..end).contains(&step) && last.is_none_or(|last| step > last) {
            return Some(step);
        }
        begin = end;
    }
    None
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
        let step_of = |line| step_of(line, &[(u64::MAX, 5)], None);
        assert_eq!(step_of("2,2,0.5"), Some(7));
        for line in ["", "0,1", "18446744073709551615,1,0.5", "epoch,itr"] {
            assert_eq!(step_of(line), None, "{line}");
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
        let rows = places.map(|(epoch, itr)| format!("{epoch},{itr},0.5,1.0,1.0,20\n"));
        std::fs::write(&path, COLUMNS.to_owned() + &rows.concat()).unwrap();
        drop(Csv::open(folder.path(), "jepa", 7, &[(6, 2), (u64::MAX, 5)]).unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, COLUMNS.to_owned() + &rows[..7].concat());
    }

    #[test]
    fn a_spreadsheets_line_ends_and_a_foreign_header_cost_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jepa_r0.csv");
        std::fs::write(
            &path,
            "epoch,itr,loss,mask-A,mask-B,time (ms)\r\n1,0,0.5,1.0,1.0,20\r\n",
        )
        .unwrap();
        drop(Csv::open(folder.path(), "jepa", 1, &[(u64::MAX, 5)]).unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "epoch,itr,loss,mask-A,mask-B,time (ms)\n1,0,0.5,1.0,1.0,20\r\n"
        );
    }
}
