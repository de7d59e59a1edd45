//! Durations in messages.

use std::fmt;
use std::time::Duration;

/// A duration in words: milliseconds, or seconds from one second on.
pub(crate) struct Span(pub Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        if seconds < 0.9995 {
            write!(f, "{:.0} ms", seconds * 1e3)
        } else {
            write!(f, "{seconds:.1} s")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_told_in_milliseconds_or_seconds() {
        for (nanoseconds, expected) in [
            (0, "0 ms"),
            (499_999, "0 ms"),
            (250_000_000, "250 ms"),
            (999_600_000, "1.0 s"),
            (90_040_000_000, "90.0 s"),
        ] {
            let span = Span(Duration::from_nanos(nanoseconds));
            assert_eq!(span.to_string(), expected);
        }
    }
}
