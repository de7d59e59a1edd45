//! What the log knows of a step beside its record: when it was, and how long the rest will take.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::Value;

use super::Record;

/// The weight of a step in the pace, against all before it: some two hundred steps count.
const NEW: f64 = 0.005;

/// What the log adds to a record.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Moment {
    /// When the step ended, in seconds since 1970.
    pub(super) time_s: f64,
    /// When the log was opened, on that clock: another value begins another process of the run.
    pub(super) since_s: f64,
    /// Seconds until the last step, at the present pace.
    pub(super) eta_s: f64,
}

/// A record with its moment: all that is logged of a step.
#[derive(Serialize)]
pub(super) struct Row<'a> {
    #[serde(flatten)]
    pub(super) record: &'a Record,
    #[serde(flatten)]
    pub(super) moment: Moment,
}

impl Row<'_> {
    /// Returns it as JSON.
    pub(super) fn to_value(&self) -> Value {
        serde_json::to_value(self).expect("a record of numbers always serialises")
    }
}

/// The pace of a run, from which the time that is left follows.
#[derive(Debug)]
pub(super) struct Pace {
    since_s: f64,
    step_ms: f64,
    weight: f64,
}

impl Pace {
    /// Begins with a process.
    pub(super) fn new() -> Pace {
        Pace {
            since_s: now(),
            step_ms: 0.0,
            weight: 0.0,
        }
    }

    /// Counts a step, `step_ms` long, and returns its moment.
    pub(super) fn step(&mut self, record: &Record, step_ms: f64) -> Moment {
        self.step_ms += NEW * (step_ms - self.step_ms);
        self.weight += NEW * (1.0 - self.weight);
        let left = record.total_steps.saturating_sub(record.step + 1);
        Moment {
            time_s: now(),
            since_s: self.since_s,
            eta_s: left as f64 * self.step_ms / self.weight / 1e3,
        }
    }
}

/// Returns the seconds since 1970, to the millisecond.
pub(super) fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_millis() as f64 / 1e3)
}

/// A length of time that is shown in its two largest units.
pub(super) struct Long(pub(super) f64);

impl fmt::Display for Long {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = Duration::try_from_secs_f64(self.0).unwrap_or(Duration::MAX);
        let minutes = seconds.as_secs() / 60;
        match (minutes / 1440, minutes / 60, minutes) {
            (0, 0, 0) => write!(out, "{} s", seconds.as_secs()),
            (0, 0, minutes) => write!(out, "{minutes} min"),
            (0, hours, _) => write!(out, "{hours} h {} min", minutes % 60),
            (days, hours, _) => write!(out, "{days} d {} h", hours % 24),
        }
    }
}

/// Calls `take` with the name and value of each finite number in a row, those of inner objects as `outer/name`.
///
/// Arrays of three are those of [`AcrossRanks`](super::AcrossRanks). What says which row it is, is no number of it.
pub fn numbers(row: &Value, take: &mut dyn FnMut(&str, f64)) {
    fn inside(name: &str, value: &Value, take: &mut dyn FnMut(&str, f64)) {
        let under = |key: &str| match name {
            "" => key.to_owned(),
            name => format!("{name}/{key}"),
        };
        match value {
            Value::Number(number) => {
                if let Some(number) = number.as_f64() {
                    take(name, number);
                }
            }
            Value::Object(members) => {
                for (key, value) in members {
                    let identifies = name.is_empty() && IDENTITY.contains(&key.as_str());
                    if !identifies {
                        inside(&under(key), value, take);
                    }
                }
            }
            Value::Array(values) if values.len() == 3 => {
                for (key, value) in ["least", "mean", "most"].into_iter().zip(values) {
                    inside(&under(key), value, take);
                }
            }
            _ => {}
        }
    }
    inside("", row, take);
}

/// The fields that say which row it is, and when it was written.
const IDENTITY: [&str; 7] = [
    "version",
    "step",
    "total_steps",
    "epoch",
    "itr",
    "time_s",
    "since_s",
];

#[cfg(test)]
pub(super) mod tests {
    use super::super::record::tests::record;
    use super::*;

    /// Returns the moment of a step of a made-up run.
    pub(in super::super) fn moment() -> Moment {
        Moment {
            time_s: 1.5e9,
            since_s: 1e9,
            eta_s: 7384.0,
        }
    }

    #[test]
    fn what_is_left_follows_from_the_pace() {
        let mut pace = Pace::new();
        let first = pace.step(&record(0), 1000.0);
        assert!((first.eta_s - 19.0).abs() < 1e-9, "{first:?}");
        for _ in 0..2000 {
            pace.step(&record(9), 500.0);
        }
        let eta = pace.step(&record(9), 500.0).eta_s;
        assert!((eta - 5.0).abs() < 0.1, "{eta}");
        assert!(pace.step(&record(19), 500.0).eta_s.abs() < 1e-9);
    }

    #[test]
    fn times_have_two_units() {
        for (seconds, shown) in [
            (12.7, "12 s"),
            (60.0, "1 min"),
            (7384.0, "2 h 3 min"),
            (93_600.0, "1 d 2 h"),
            (-1.0, "213503982334601 d 7 h"),
        ] {
            assert_eq!(Long(seconds).to_string(), shown);
        }
    }

    #[test]
    fn numbers_are_found_wherever_they_stand() {
        let row = r#"{"step":3,"version":1,"loss":null,"lr":0.5,"skipped":true,"signs":{"rank":7,"x":{"y":-1}},
            "ranks":{"wait_ms":[1,2,3],"slowest":4},"list":[1,2]}"#;
        let mut found = Vec::new();
        let row: Value = serde_json::from_str(row).unwrap();
        numbers(&row, &mut |name, value| {
            found.push(format!("{name}={value}"))
        });
        found.sort();
        let expected = [
            "lr=0.5",
            "ranks/slowest=4",
            "ranks/wait_ms/least=1",
            "ranks/wait_ms/mean=2",
            "ranks/wait_ms/most=3",
            "signs/rank=7",
            "signs/x/y=-1",
        ];
        assert_eq!(found, expected);
    }
}
