//! The numbers of a log, a column for each name.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::observe::{OfficialRow, numbers};

/// The most columns of a log; ours have some thirty. Further names are counted and left out.
const MOST_COLUMNS: usize = 256;
/// The most rows, which is more than ten runs of ImageNet for 300 epochs.
const MOST_ROWS: usize = 4 << 20;
/// Rows of which the head gives means.
const LATEST: usize = 50;

/// The numbers of the steps of a run, in order of the steps.
#[derive(Clone, Debug, Default)]
pub(super) struct Columns {
    /// 0-based numbers of the steps.
    pub(super) steps: Vec<u64>,
    /// Epochs, images and hours of computing by the end of each step.
    pub(super) clock: Vec<[f64; 3]>,
    /// The numbers by name, one for each step; not a number where a row has none.
    pub(super) named: BTreeMap<String, Vec<f64>>,
    /// Steps with which a process of the run began, but for the first.
    pub(super) restarts: Vec<u64>,
    /// Steps of the whole run, where the log says so.
    pub(super) total_steps: Option<u64>,
    /// The last row.
    pub(super) last: Value,
    /// Steps that moved nothing.
    pub(super) skipped: Vec<u64>,
    /// Numbers that were left out, for there are too many names or rows.
    pub(super) left_out: u64,
    /// True if steps came again, since this was last taken back: what was there of them is of no use any more.
    pub(super) have_come_again: bool,
    /// When the process that wrote the last row began.
    since: Option<f64>,
}

/// The largest step of a row that is none by mistake; a float64 has no larger whole numbers.
const MOST: u64 = 1 << 53;

impl Columns {
    /// Adds a row of our own log, if it is one. A step that comes again takes the place of that one and of all later
    /// ones, as in a run that went on from before it.
    pub(super) fn add(&mut self, row: Value) -> bool {
        let whole = |name: &str| row.get(name).and_then(Value::as_u64);
        let (Some(step), Some(epoch), Some(itr)) = (whole("step"), whole("epoch"), whole("itr"))
        else {
            return false;
        };
        if [step, epoch, itr].iter().any(|number| *number > MOST) {
            return false;
        }
        let number = |name: &str| row.get(name).and_then(Value::as_f64);
        let (Some(step_ms), Some(wait_ms)) = (number("step_ms"), number("wait_ms")) else {
            return false;
        };
        let is_skipped = row.get("skipped") == Some(&Value::Bool(true));
        // Steps of an epoch, as far as one can tell from a row: those before it are whole.
        let before = epoch.saturating_sub(1);
        let epoch_len = match before {
            0 => None,
            before => Some(step.saturating_sub(itr) / before).filter(|length| *length > 0),
        };
        let (images, since) = (number("images").unwrap_or(0.0), number("since_s"));
        if !self.make_room(step) {
            return true;
        }
        if is_skipped {
            self.skipped.push(step);
        }
        if self.since.is_some() && since.is_some() && self.since != since {
            self.restarts.push(step);
        }
        self.since = since;
        self.total_steps = whole("total_steps").or(self.total_steps);
        let [_, seen, hours] = self.clock.last().copied().unwrap_or_default();
        let epochs = match epoch_len {
            Some(length) => before as f64 + (itr + 1) as f64 / length as f64,
            None => f64::NAN,
        };
        self.clock
            .push([epochs, seen + images, hours + step_ms / 3.6e6]);
        self.steps.push(step);
        let mut found: Vec<(String, f64)> = Vec::new();
        numbers(&row, &mut |name, value| {
            found.push((name.to_owned(), value))
        });
        found.push(("waiting".to_owned(), wait_ms / step_ms.max(1e-9) * 1e2));
        for (name, value) in found {
            self.put(name, value);
        }
        self.last = row;
        true
    }

    /// Takes the place of all by the rows of an official log.
    ///
    /// The length of an epoch stands nowhere in it but in its longest one.
    pub(super) fn replace(&mut self, rows: &[OfficialRow]) {
        *self = Columns::default();
        let epoch_len = rows
            .iter()
            .map(|row| row.itr.saturating_add(1))
            .max()
            .unwrap_or(1);
        for row in rows {
            let epochs = row.epoch.saturating_sub(1);
            let step = epochs.saturating_mul(epoch_len).saturating_add(row.itr);
            if step > MOST || !self.make_room(step) {
                continue;
            }
            let [_, _, hours] = self.clock.last().copied().unwrap_or_default();
            let epochs = (step + 1) as f64 / epoch_len as f64;
            let hours = hours + row.compute_ms as f64 / 3.6e6;
            self.clock.push([epochs, f64::NAN, hours]);
            self.steps.push(step);
            let all = [
                ("loss", row.loss),
                ("context_len", row.context_len),
                ("target_len", row.target_len),
                ("step_ms", row.compute_ms as f64),
            ];
            all.into_iter()
                .for_each(|(name, value)| self.put(name.to_owned(), value));
        }
    }

    /// Forgets step `step` and what follows it. Tells whether a row has room.
    fn make_room(&mut self, step: u64) -> bool {
        let kept = self.steps.partition_point(|known| *known < step);
        if kept < self.steps.len() {
            self.have_come_again = true;
            self.steps.truncate(kept);
            self.clock.truncate(kept);
            self.named
                .values_mut()
                .for_each(|column| column.truncate(kept));
            self.skipped.retain(|skipped| *skipped < step);
            self.restarts.retain(|restart| *restart < step);
        }
        let has_room = kept < MOST_ROWS;
        self.left_out += u64::from(!has_room);
        has_room
    }

    /// Puts a number of the last step into its column.
    fn put(&mut self, name: String, value: f64) {
        if !self.named.contains_key(&name) && self.named.len() >= MOST_COLUMNS {
            self.left_out += 1;
            return;
        }
        let column = self.named.entry(name).or_default();
        column.resize(self.steps.len() - 1, f64::NAN);
        column.push(value);
    }

    /// Returns a column's values of the steps from the index `from` on.
    pub(super) fn points<'a>(
        &'a self,
        column: &'a [f64],
        from: usize,
    ) -> impl Iterator<Item = (u64, f64)> + 'a {
        let values = self.steps.iter().copied().zip(column.iter().copied());
        values.skip(from).filter(|(_, value)| value.is_finite())
    }

    /// Returns the mean of a column over the latest steps.
    pub(super) fn latest(&self, name: &str) -> Option<f64> {
        let from = self.steps.len().saturating_sub(LATEST);
        let values: Vec<f64> = self
            .points(self.named.get(name)?, from)
            .map(|(_, value)| value)
            .collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    }

    /// Returns the sum of a column.
    pub(super) fn sum(&self, name: &str) -> f64 {
        let column = self.named.get(name).map_or(&[][..], Vec::as_slice);
        self.points(column, 0).map(|(_, value)| value).sum()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(step: u64, more: &Value) -> Value {
        let mut row = json!({"step": step, "epoch": step / 4 + 1, "itr": step % 4, "total_steps": 20, "images": 8,
            "step_ms": 100.0, "wait_ms": 25.0, "since_s": 5.0});
        let more = more.as_object().cloned().unwrap_or_default();
        row.as_object_mut().unwrap().extend(more);
        row
    }

    #[test]
    fn a_step_that_comes_again_takes_the_place_of_what_follows() {
        let mut columns = Columns::default();
        for step in 0..6 {
            assert!(columns.add(row(step, &json!({"loss": step, "skipped": step == 4}))));
        }
        assert_eq!(columns.skipped, [4]);
        columns.add(row(3, &json!({"loss": 0.5, "since_s": 6.0})));
        assert_eq!(columns.steps, [0, 1, 2, 3]);
        assert_eq!(columns.named["loss"], [0.0, 1.0, 2.0, 0.5]);
        assert_eq!(
            (&columns.restarts[..], columns.skipped.len()),
            (&[3][..], 0)
        );
        assert_eq!(columns.clock[3][1], 32.0);
        assert_eq!(columns.latest("waiting"), Some(25.0));
        assert!(!columns.add(json!({"step": 4})));
        assert!(!columns.add(json!([1])));
        // What is damaged is passed over, and nothing overflows.
        for number in ["step", "epoch", "itr"] {
            let mut damaged = row(5, &json!({}));
            damaged[number] = u64::MAX.into();
            assert!(!columns.add(damaged), "{number}");
        }
    }

    #[test]
    fn new_names_make_columns_and_too_many_are_left_out() {
        let mut columns = Columns::default();
        columns.add(row(0, &json!({})));
        columns.add(row(1, &json!({"signs": {"rank": 3}})));
        columns.add(row(2, &json!({})));
        let rank: Vec<_> = columns.points(&columns.named["signs/rank"], 0).collect();
        assert_eq!(rank, [(1, 3.0)]);
        let many = (0..300).map(|n| (n.to_string(), 1.into()));
        columns.add(row(3, &json!({"signs": Value::Object(many.collect())})));
        assert_eq!(columns.named.len(), MOST_COLUMNS);
        assert!(columns.left_out > 40);
    }
}
