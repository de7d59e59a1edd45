//! The time that a job may take.

use std::fmt;
use std::str::FromStr;

/// The longest time that is read: beyond that of any cluster, and small enough that it can be counted.
const MOST: u64 = 10 * 366 * 24 * 3600;

/// A time that a job may take, which SLURM counts in minutes.
///
/// It is read as SLURM reads it, so a number alone is minutes:
///
/// ```
/// use trainer::submit::TimeLimit;
///
/// let times = ["90", "1:30:00", "0-1:30", "90:00"].map(|text| text.parse::<TimeLimit>());
/// assert!(times.iter().all(|time| *time == times[0]));
/// assert_eq!("3-4".parse::<TimeLimit>()?.to_string(), "3-04:00:00");
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeLimit {
    seconds: u64,
}

impl TimeLimit {
    /// Returns the time in seconds.
    pub fn seconds(self) -> u64 {
        self.seconds
    }
}

impl FromStr for TimeLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<TimeLimit, String> {
        let seconds = read(text).ok_or(
            "not a time: give minutes, [HOURS:]MINUTES:SECONDS or DAYS-HOURS[:MINUTES[:SECONDS]]",
        )?;
        if !(60..=MOST).contains(&seconds) {
            return Err("a job takes from a minute to ten years".to_owned());
        }
        Ok(TimeLimit { seconds })
    }
}

/// Returns the seconds that `text` says.
fn read(text: &str) -> Option<u64> {
    let number = |text: &str| -> Option<u64> {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().ok())?
    };
    let (days, clock) = match text.split_once('-') {
        Some((days, clock)) => (Some(number(days)?), clock),
        None => (None, text),
    };
    let parts: Option<Vec<u64>> = clock.split(':').map(number).collect();
    let (hours, minutes, seconds) = match (days, parts?.as_slice()) {
        (None, &[minutes]) => (0, minutes, 0),
        (None, &[minutes, seconds]) => (0, minutes, seconds),
        (Some(_), &[hours]) => (hours, 0, 0),
        (Some(_), &[hours, minutes]) => (hours, minutes, 0),
        (_, &[hours, minutes, seconds]) => (hours, minutes, seconds),
        _ => return None,
    };
    let days = days.unwrap_or(0).checked_mul(24 * 3600)?;
    let hours = hours.checked_mul(3600)?;
    let minutes = minutes.checked_mul(60)?;
    days.checked_add(hours)?
        .checked_add(minutes)?
        .checked_add(seconds)
}

impl fmt::Display for TimeLimit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, rest) = (self.seconds / 86_400, self.seconds % 86_400);
        let (hours, minutes, seconds) = (rest / 3600, rest / 60 % 60, rest % 60);
        if days > 0 {
            write!(out, "{days}-")?;
        }
        write!(out, "{hours:02}:{minutes:02}:{seconds:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_slurm_reads_them() {
        for (text, shown) in [
            ("1", "00:01:00"),
            ("4300", "2-23:40:00"),
            ("90:30", "01:30:30"),
            ("24:00:00", "1-00:00:00"),
            ("2-0", "2-00:00:00"),
            ("2-6:30", "2-06:30:00"),
            ("2-6:30:01", "2-06:30:01"),
        ] {
            let time: TimeLimit = text.parse().unwrap();
            assert_eq!(time.to_string(), shown);
            assert_eq!(time.to_string().parse(), Ok(time));
        }
        for text in [
            "",
            "0",
            "0:59",
            "-1",
            "x",
            "1-",
            "1:2:3:4",
            "1 h",
            "+5",
            "1-2-3",
            "18446744073709551615",
            "99999999-0",
        ] {
            assert!(text.parse::<TimeLimit>().is_err(), "{text}");
        }
    }
}
