//! Weighted nearest neighbours, as DINO evaluates (`eval_knn.py` of facebookresearch/dino).
//!
//! Neighbours are those of the largest cosine among the training images, and each votes for its class with
//! exp(cosine / 0.07). The matrix of all cosines never exists: blocks of it are reduced to each image's best.

use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::score::Counted;
use super::{Error, Score, Table};

/// Divisor of a neighbour's cosine in its vote.
pub const TEMPERATURE: f64 = 0.07;
/// Images of a block of cosines, and training images: 128 MiB.
const BLOCK: [i64; 2] = [1024, 32_768];

/// How well the nearest `k` neighbours tell the class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Neighbours {
    /// Their number; fewer where there are fewer training images.
    pub k: i64,
    /// How often they are right.
    #[serde(flatten)]
    pub score: Score,
}

/// Lets the nearest neighbours in `train` vote on the classes of `val`, for each number of neighbours in `ks`.
///
/// # Errors
/// [`Error::Compute`].
pub fn neighbours(
    train: &Table,
    val: &Table,
    classes: i64,
    ks: &[i64],
    device: Device,
) -> Result<Vec<Neighbours>, Error> {
    let vote = || -> Result<_, crate::Error> {
        let most = ks.iter().copied().max().unwrap_or(1).min(train.len());
        let (best, labels) = nearest(train, val, most, device)?;
        let weights = best.f_div_scalar(TEMPERATURE)?.f_exp()?;
        Ok((weights, labels))
    };
    let (weights, labels) = vote()?;
    ks.iter()
        .map(|&k| {
            let mut counted = Counted::default();
            for (first, count) in blocks(val.len(), BLOCK[0]) {
                let votes = votes(&weights, &labels, (first, count), k, classes)?;
                let right = val
                    .labels
                    .f_narrow(0, first, count)
                    .map_err(crate::Error::from)?;
                let right = right.f_to_device(device).map_err(crate::Error::from)?;
                counted.add(&votes, &right, 0.0)?;
            }
            let score = counted.score();
            Ok(Neighbours { k, score })
        })
        .collect()
}

/// Adds up the votes of each image's nearest `k`, (B, C).
fn votes(
    weights: &Tensor,
    labels: &Tensor,
    (first, count): (i64, i64),
    k: i64,
    classes: i64,
) -> Result<Tensor, crate::Error> {
    let k = k.min(weights.size()[1]);
    let of = |tensor: &Tensor| tensor.f_narrow(0, first, count)?.f_narrow(1, 0, k);
    let votes = Tensor::f_zeros([count, classes], (Kind::Float, weights.device()))?;
    Ok(votes.f_scatter_add(1, &of(labels)?, &of(weights)?)?)
}

/// Returns cosine and class of each image's `most` nearest training images, nearest first: (N, most) each.
fn nearest(
    train: &Table,
    val: &Table,
    most: i64,
    device: Device,
) -> Result<(Tensor, Tensor), crate::Error> {
    let unit = |table: &Table, first: i64, count: i64| -> Result<Tensor, crate::Error> {
        let rows = table
            .features
            .f_narrow(0, first, count)?
            .f_to_device(device)?;
        let norm = rows.f_norm_scalaropt_dim(2, [1i64].as_slice(), true)?;
        Ok(rows.f_div(&norm.f_clamp_min(1e-12)?)?)
    };
    let (mut found, mut classes) = (Vec::new(), Vec::new());
    // Training images are brought to the device once, by the outer loop.
    for (start, length) in blocks(train.len(), BLOCK[1]) {
        let keys = unit(train, start, length)?;
        let labels = train
            .labels
            .f_narrow(0, start, length)?
            .f_to_device(device)?;
        for (number, (first, count)) in blocks(val.len(), BLOCK[0]).enumerate() {
            let cosines = unit(val, first, count)?.f_matmul(&keys.f_transpose(0, 1)?)?;
            let (best, at) = cosines.f_topk(most.min(length), 1, true, true)?;
            let of = labels
                .f_index_select(0, &at.f_flatten(0, -1)?)?
                .f_view_as(&at)?;
            if start == 0 {
                found.push(best);
                classes.push(of);
                continue;
            }
            let all = Tensor::f_cat(&[&found[number], &best], 1)?;
            let all_classes = Tensor::f_cat(&[&classes[number], &of], 1)?;
            let (best, at) = all.f_topk(most.min(all.size()[1]), 1, true, true)?;
            found[number] = best;
            classes[number] = all_classes.f_gather(1, &at, false)?;
        }
    }
    Ok((Tensor::f_cat(&found, 0)?, Tensor::f_cat(&classes, 0)?))
}

/// Cuts `rows` rows into blocks: first row and length of each.
fn blocks(rows: i64, block: i64) -> impl Iterator<Item = (i64, i64)> {
    (0..rows)
        .step_by(block as usize)
        .map(move |first| (first, block.min(rows - first)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[[f32; 2]], labels: &[i64]) -> Table {
        let numbers: Vec<f32> = rows.concat();
        Table {
            features: Tensor::from_slice(&numbers).view([-1, 2]),
            labels: Tensor::from_slice(labels),
            samples: Tensor::arange(labels.len() as i64, (Kind::Int64, Device::Cpu)),
        }
    }

    #[test]
    fn near_neighbours_outvote_more_distant_ones() {
        // Cosines with (1, 0): 1, 0.6, 0.6, -1.
        let train = table(
            &[[9.0, 0.0], [3.0, 4.0], [0.3, -0.4], [-1.0, 0.0]],
            &[2, 1, 1, 0],
        );
        let val = table(&[[0.5, 0.0], [0.5, 0.0], [0.5, 0.0]], &[2, 1, 0]);
        let found = neighbours(&train, &val, 3, &[1, 3, 9], Device::Cpu).unwrap();
        let third = 100.0 / 3.0;
        // With one neighbour nothing speaks for other classes; with three, for two; with all, for each.
        for (found, (k, top5)) in found.iter().zip([(1, third), (3, 2.0 * third), (9, 100.0)]) {
            assert_eq!((found.k, found.score.top1), (k, third));
            assert!((found.score.top5 - top5).abs() < 1e-9, "{found:?}");
        }
    }

    #[test]
    fn blocks_change_nothing() {
        tch::manual_seed(3);
        let options = (Kind::Float, Device::Cpu);
        let made = |rows: i64| Table {
            features: Tensor::randn([rows, 5], options),
            labels: Tensor::randint(7, [rows], (Kind::Int64, Device::Cpu)),
            samples: Tensor::arange(rows, (Kind::Int64, Device::Cpu)),
        };
        let (train, val) = (made(BLOCK[1] + 700), made(BLOCK[0] + 5));
        let (best, labels) = nearest(&train, &val, 20, Device::Cpu).unwrap();
        let unit = |x: &Tensor| x / x.norm_scalaropt_dim(2, [1i64].as_slice(), true);
        let all = unit(&val.features).matmul(&unit(&train.features).tr());
        let (expected, at) = all.topk(20, 1, true, true);
        assert!(best.allclose(&expected, 1e-6, 1e-6, false));
        let expected = train
            .labels
            .index_select(0, &at.flatten(0, -1))
            .view_as(&at);
        let same = labels
            .eq_tensor(&expected)
            .to_kind(Kind::Float)
            .mean(Kind::Float);
        assert!(f64::try_from(same).unwrap() > 0.999);
    }
}
