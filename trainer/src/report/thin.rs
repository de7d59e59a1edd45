//! Curves with few enough points to send and to draw.

use serde_json::{Value, json};

/// The most points of a curve.
pub(super) const MOST: usize = 2000;
/// Sections of which a curve's means are given.
const MEANS: usize = 200;

/// Returns the least and the most value of each of so many sections that there are at most [`MOST`], in their order.
pub(super) fn thin(points: &[(u64, f64)]) -> Vec<(u64, f64)> {
    if points.len() <= MOST {
        return points.to_vec();
    }
    let mut thin = Vec::with_capacity(MOST);
    for section in sections(points, MOST / 2) {
        let mut indices = 0..section.len();
        let first = indices.next().unwrap_or(0);
        let (least, most) = indices.fold((first, first), |(least, most), index| {
            let value = section[index].1;
            (
                if value < section[least].1 {
                    index
                } else {
                    least
                },
                if value > section[most].1 { index } else { most },
            )
        });
        thin.push(section[least.min(most)]);
        if least != most {
            thin.push(section[least.max(most)]);
        }
    }
    thin
}

/// Returns the mean of each of [`MEANS`] sections at its middle; none of a curve that is hardly longer.
fn means(points: &[(u64, f64)]) -> Vec<(u64, f64)> {
    if points.len() < 2 * MEANS {
        return Vec::new();
    }
    let mean = |section: &[(u64, f64)]| {
        let sum: f64 = section.iter().map(|(_, value)| value).sum();
        (section[section.len() / 2].0, sum / section.len() as f64)
    };
    sections(points, MEANS).map(mean).collect()
}

/// Cuts points into so many sections of about equal length; there are more points.
fn sections(points: &[(u64, f64)], count: usize) -> impl Iterator<Item = &[(u64, f64)]> {
    let at = move |section: usize| section * points.len() / count;
    (0..count).map(move |section| &points[at(section)..at(section + 1)])
}

/// Returns a curve for the page: steps and values, and means of sections where it is long.
pub(super) fn curve(points: &[(u64, f64)]) -> Value {
    let mut curve = pair(&thin(points));
    let means = means(points);
    if !means.is_empty() {
        curve["means"] = pair(&means);
    }
    curve
}

/// Returns steps and values. Single precision is enough to draw.
fn pair(points: &[(u64, f64)]) -> Value {
    let (steps, values): (Vec<u64>, Vec<Value>) = points
        .iter()
        .map(|&(step, value)| (step, short(value)))
        .unzip();
    json!({"steps": steps, "values": values})
}

/// Returns a number of at most six significant digits; `null` for none.
pub(super) fn short(value: f64) -> Value {
    let short = format!("{value:.5e}").parse::<f64>();
    short.map_or(Value::Null, Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremes_and_ends_stay_and_order_too() {
        let mut points: Vec<(u64, f64)> = (0..100_000).map(|step| (step, 1.0)).collect();
        points[12_345].1 = 9.0;
        points[77_777].1 = -9.0;
        let thin = thin(&points);
        assert!(thin.len() <= MOST);
        assert!(thin.contains(&(12_345, 9.0)) && thin.contains(&(77_777, -9.0)));
        assert!(thin.is_sorted_by_key(|(step, _)| *step));
        assert!(thin[0].0 == 0 && thin[thin.len() - 1].0 >= 99_900);
        assert_eq!(super::thin(&points[..2000]), &points[..2000]);
    }

    #[test]
    fn means_are_of_all_points() {
        let points: Vec<(u64, f64)> = (0..5000).map(|step| (step, (step % 2) as f64)).collect();
        let means = means(&points);
        assert_eq!(means.len(), MEANS);
        assert!(means.iter().all(|(_, mean)| (mean - 0.5).abs() < 0.05));
        assert!(super::means(&points[..300]).is_empty());
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(short(0.123456789).to_string(), "0.123457");
        assert_eq!(short(1234567890.0).to_string(), "1234570000.0");
        assert_eq!(short(f64::NAN), Value::Null);
    }
}
