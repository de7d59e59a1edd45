//! Limits of single values. Each refusal names the key, the value and the limit.

use crate::error::Error;

/// Returns the error of a value at odds with its limits.
pub(super) fn fault(key: &str, value: impl ToString, problem: String) -> Error {
    Error::Value {
        key: key.to_owned(),
        value: value.to_string(),
        problem,
    }
}

/// Refuses a value outside `low..=high`.
pub(super) fn between<T: PartialOrd + ToString + Copy>(
    key: &str,
    value: T,
    low: T,
    high: T,
) -> Result<(), Error> {
    if value >= low && value <= high {
        return Ok(());
    }
    Err(fault(
        key,
        value,
        format!("is outside {}..={}", low.to_string(), high.to_string()),
    ))
}

/// Refuses a range that is none of shares of an area: 0 < low ≤ high ≤ 1.
pub(super) fn share(key: &str, range: [f64; 2]) -> Result<(), Error> {
    ordered(key, range, 1.0)
}

/// Refuses a range outside 0 < low ≤ high ≤ most.
pub(super) fn ordered(key: &str, [low, high]: [f64; 2], most: f64) -> Result<(), Error> {
    let shown = format!("[{low}, {high}]");
    // Written so that NaN fails too.
    if !(low > 0.0 && high <= most) {
        return Err(fault(
            key,
            shown,
            format!("must lie above 0 and not above {most}"),
        ));
    }
    if low > high {
        return Err(fault(key, shown, "has its smaller bound last".to_owned()));
    }
    Ok(())
}
