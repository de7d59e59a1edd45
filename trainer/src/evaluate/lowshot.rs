//! Low-shot probes: logistic regression on the features of a few labelled images.
//!
//! Which images are labelled a list says, as that of ImageNet's official 1 % does, or a number for each class. The
//! weight of the L2 penalty is chosen on a fifth of them, and the regression with that weight is fitted once more to
//! all. Features are normalised over all training images, which takes no labels. The encoder is not trained:
//! [`super::FineTuned`] does so.

use std::collections::HashMap;

use loader::order::Order;
use serde::Serialize;
use shardtool::Split;
use tch::{Device, Kind, Tensor};

use super::linear::{Heads, Settings};
use super::{Error, Score, Table};

/// Weights of the penalty that are tried: of half the squared weights, beside the mean loss.
pub const PENALTIES: [f64; 8] = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3];
/// The weight where too few images are labelled to choose one.
const MIDDLE: f64 = 1e-2;
/// Steps over all labelled images. What a weak penalty would gain beyond them is lost on held-out images.
const STEPS: u64 = 500;
/// Rounds of the power iteration that finds the greatest curvature.
const ROUNDS: usize = 30;
/// One of so many labelled images of a class is held out.
const HELD_OUT: usize = 5;

/// What a few labels are worth.
#[derive(Clone, Debug, Serialize)]
pub struct LowShot {
    /// Labelled images.
    pub images: usize,
    /// Those of them that the penalty was chosen on.
    pub held_out_images: usize,
    /// Each weight of the penalty that was tried, and how often it was right on those.
    pub tried: Vec<(f64, Option<Score>)>,
    /// The weight that was chosen.
    pub penalty: f64,
    /// How often the regression is right on `val`.
    pub val: Option<Score>,
}

/// Returns the samples of `split` that a list names, a line each: by the path below the image folder, or by its last
/// part.
///
/// # Errors
/// [`Error::NoNames`], [`Error::Unlisted`] or [`Error::Ambiguous`].
pub fn listed(split: &Split, list: &str) -> Result<Vec<i64>, Error> {
    let mut samples: HashMap<&str, Vec<i64>> = HashMap::new();
    for id in 0..split.len() {
        let name = split.sample(id).name().ok_or(Error::NoNames)?;
        let last = name.rsplit('/').next().unwrap_or(name);
        samples.entry(name).or_default().push(id as i64);
        if last != name {
            samples.entry(last).or_default().push(id as i64);
        }
    }
    let lines = list.lines().map(str::trim).filter(|line| !line.is_empty());
    let found = lines.map(|line| match samples.get(line).map(Vec::as_slice) {
        Some([id]) => Ok(*id),
        None => Err(Error::Unlisted {
            name: line.to_owned(),
        }),
        Some(several) => Err(Error::Ambiguous {
            name: line.to_owned(),
            samples: several.len(),
        }),
    });
    let mut found = found.collect::<Result<Vec<i64>, Error>>()?;
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Returns the rows of a table that are of these samples, which are in order.
///
/// # Errors
/// From libtorch.
pub fn rows_of(table: &Table, samples: &[i64]) -> Result<Vec<i64>, Error> {
    let there = Vec::<i64>::try_from(&table.samples).map_err(crate::Error::from)?;
    let rows = (0..).zip(there);
    let rows = rows.filter(|(_, sample)| samples.binary_search(sample).is_ok());
    Ok(rows.map(|(row, _)| row).collect())
}

/// Returns the rows of `each` images of every class, drawn under `seed`; of all where a class has fewer.
///
/// # Errors
/// From libtorch.
pub fn of_each_class(table: &Table, each: usize, seed: u64) -> Result<Vec<i64>, Error> {
    let labels = Vec::<i64>::try_from(&table.labels).map_err(crate::Error::from)?;
    let order = Order::new(seed, u64::MAX - 1, labels.len() as u64);
    let mut taken: HashMap<i64, usize> = HashMap::new();
    let rows = (0..labels.len() as u64).map(|index| order.sample(index) as i64);
    let mut rows: Vec<i64> = rows
        .filter(|&row| {
            let taken = taken.entry(labels[row as usize]).or_default();
            *taken += 1;
            *taken <= each
        })
        .collect();
    rows.sort_unstable();
    Ok(rows)
}

/// Returns how many of `classes` classes have an image, but fewer than `each`, and how many have none.
///
/// # Errors
/// From libtorch.
pub fn short_of(table: &Table, each: usize, classes: i64) -> Result<(usize, usize), Error> {
    let labels = Vec::<i64>::try_from(&table.labels).map_err(crate::Error::from)?;
    let mut counts: HashMap<i64, usize> = HashMap::new();
    for label in labels {
        *counts.entry(label).or_default() += 1;
    }
    let fewer = counts.values().filter(|&&count| count < each).count();
    Ok((fewer, classes as usize - counts.len()))
}

/// Fits logistic regressions to the `labelled` rows of `train`, and counts right answers on `val`.
///
/// # Errors
/// [`Error::Empty`] without labelled rows, and [`Error::Compute`].
pub fn probe(
    train: &Table,
    labelled: &[i64],
    val: &Table,
    classes: i64,
    device: Device,
) -> Result<LowShot, Error> {
    if labelled.is_empty() {
        return Err(Error::NothingLabelled);
    }
    let (held, fit) = parted(train, labelled)?;
    let mut tried = Vec::new();
    let mut penalty = MIDDLE;
    if !held.is_empty() {
        let heads = fitted(train, &fit, classes, &PENALTIES, device)?;
        let scores = heads.scores(train, &held)?;
        tried = PENALTIES.into_iter().zip(scores).collect();
        let finite = tried
            .iter()
            .filter_map(|(weight, score)| Some((*weight, (*score)?.top1)));
        // Of equals the last: the strongest penalty.
        let best = finite.max_by(|one, other| one.1.total_cmp(&other.1));
        penalty = best.map_or(MIDDLE, |(weight, _)| weight);
    }
    let head = fitted(train, labelled, classes, &[penalty], device)?;
    let all: Vec<i64> = (0..val.len()).collect();
    let scores = head.scores(val, &all)?;
    Ok(LowShot {
        images: labelled.len(),
        held_out_images: held.len(),
        tried,
        penalty,
        val: scores[0],
    })
}

/// Parts rows into those to choose on and those to fit: every fifth of a class, and the second of a small one.
fn parted(train: &Table, rows: &[i64]) -> Result<(Vec<i64>, Vec<i64>), Error> {
    let labels = Vec::<i64>::try_from(&train.labels).map_err(crate::Error::from)?;
    let mut seen: HashMap<i64, usize> = HashMap::new();
    Ok(rows.iter().partition(|&&row| {
        let seen = seen.entry(labels[row as usize]).or_default();
        *seen += 1;
        *seen % HELD_OUT == 2
    }))
}

/// Fits a regression for each penalty, all at once: gradient descent with momentum over all rows, at the rate that the
/// greatest curvature of the loss allows.
fn fitted(
    train: &Table,
    rows: &[i64],
    classes: i64,
    penalties: &[f64],
    device: Device,
) -> Result<Heads, Error> {
    let all: Vec<i64> = (0..train.len()).collect();
    let settings = |rate: f64| Settings {
        epochs: STEPS,
        batch: rows.len() as u64,
        lrs: vec![rate],
        weight_decays: penalties.to_vec(),
        held_out: 0.0,
        seed: 0,
    };
    let mut heads = Heads::new(train, &all, classes, &settings(1.0), device)?;
    let (x, _) = heads.rows(train, rows)?;
    let strongest = penalties.iter().copied().fold(0.0, f64::max);
    // The curvature of the cross-entropy is at most half that of the features.
    let rate = 1.0 / (0.5 * greatest_curvature(&x)? + strongest);
    for _ in 0..STEPS {
        heads.step(train, rows, rate)?;
    }
    Ok(heads)
}

/// Returns the greatest eigenvalue of xᵀ x / B, with the column of ones that belongs to the bias.
fn greatest_curvature(x: &Tensor) -> Result<f64, crate::Error> {
    let rows = x.size()[0];
    let ones = Tensor::f_ones([rows, 1], (Kind::Float, x.device()))?;
    let x = Tensor::f_cat(&[x, &ones], 1)?;
    let mut direction = Tensor::f_ones([x.size()[1], 1], (Kind::Float, x.device()))?;
    let mut value = 0.0;
    for _ in 0..ROUNDS {
        let next = x.f_transpose(0, 1)?.f_matmul(&x.f_matmul(&direction)?)?;
        let norm = f64::try_from(&next.f_norm()?)?;
        value = norm / f64::try_from(&direction.f_norm()?)? / rows as f64;
        direction = next.f_div_scalar(norm.max(f64::MIN_POSITIVE))?;
    }
    // The power iteration comes from below.
    Ok(1.1 * value)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use shardtool::Dataset;

    use super::super::linear::tests::clouds;
    use super::*;

    #[test]
    fn lists_name_images_by_their_paths_or_the_last_part() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/dataset");
        let dataset = Dataset::open(&folder).unwrap();
        let split = dataset.split("train").unwrap();
        let name = |id: u64| split.sample(id).name().unwrap();
        let last = name(3).rsplit('/').next().unwrap();
        assert_ne!(last, name(3));
        let list = format!("{last}\n\n  {}\r\n{}\n", name(1), name(1));
        assert_eq!(listed(split, &list).unwrap(), [1, 3]);
        let error = listed(split, "n01440764_10026.JPEG").unwrap_err();
        assert!(matches!(error, Error::Unlisted { .. }), "{error}");
    }

    #[test]
    fn rows_are_those_of_samples_and_of_each_class() {
        let table = clouds(60, 6, 4, 1);
        assert_eq!(rows_of(&table, &[2, 7, 99]).unwrap(), [2, 7]);
        let rows = of_each_class(&table, 3, 5).unwrap();
        let mut classes: Vec<i64> = rows.iter().map(|row| row % 4).collect();
        classes.sort_unstable();
        assert_eq!(classes, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]);
        assert_ne!(of_each_class(&table, 3, 6).unwrap(), rows);
        assert_eq!(of_each_class(&table, 99, 6).unwrap().len(), 60);
        assert_eq!(short_of(&table, 15, 4).unwrap(), (0, 0));
        assert_eq!(short_of(&table, 16, 7).unwrap(), (4, 3));
    }

    #[test]
    fn a_few_labels_tell_clouds_apart_and_one_each_is_enough_to_try() {
        let (train, val) = (clouds(400, 8, 5, 1), clouds(100, 8, 5, 2));
        let probed = |each: usize| {
            let rows = of_each_class(&train, each, 1).unwrap();
            probe(&train, &rows, &val, 5, Device::Cpu).unwrap()
        };
        let found = probed(20);
        assert_eq!((found.images, found.held_out_images), (100, 20));
        let best = found
            .tried
            .iter()
            .filter_map(|(_, score)| Some((*score)?.top1));
        let chosen = found
            .tried
            .iter()
            .find(|(weight, _)| *weight == found.penalty);
        assert_eq!(chosen.unwrap().1.unwrap().top1, best.fold(0.0, f64::max));
        assert!(found.val.unwrap().top1 > 80.0, "{found:?}");
        let one = probed(1);
        assert_eq!(
            (one.images, one.held_out_images, one.penalty),
            (5, 0, MIDDLE)
        );
        assert!(
            one.tried.is_empty() && one.val.unwrap().top1 > 40.0,
            "{one:?}"
        );
        let none = probe(&train, &[], &val, 5, Device::Cpu).unwrap_err();
        assert!(matches!(none, Error::NothingLabelled));
    }

    #[test]
    fn regressions_end_where_the_gradient_does() {
        let train = clouds(100, 8, 5, 3);
        let rows: Vec<i64> = (0..50).collect();
        let heads = fitted(&train, &rows, 5, &PENALTIES, Device::Cpu).unwrap();
        let before = heads.scores(&train, &rows).unwrap();
        // The rate is no guess: twenty times of it would not do.
        assert!(before.iter().all(Option::is_some));
        for (head, (norm, weight)) in heads
            .gradient_norms(&train, &rows)
            .unwrap()
            .iter()
            .enumerate()
        {
            // Weak penalties leave the loss flat, and are not waited for.
            let most = if PENALTIES[head] < 1e-3 { 3e-2 } else { 3e-3 };
            assert!(
                norm / weight < most,
                "penalty {}: {norm} of {weight}",
                PENALTIES[head]
            );
        }
    }
}
