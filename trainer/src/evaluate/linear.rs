//! Linear probes of frozen features: a grid of rates and weight decays, all heads trained at once.
//!
//! A head is a batch norm without gain and bias, then a linear layer. Features do not change from epoch to epoch, so
//! the norm's statistics are those of all training images.

mod augmented;
mod heads;

use loader::order::Order;
use serde::Serialize;
use tch::Device;

use super::{Error, Score, Table};

pub use augmented::Augmented;
pub(super) use heads::Heads;

/// Most images of the held-out part.
const HELD_OUT: i64 = 50_000;

/// How heads are trained.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    /// Passes over the training images.
    pub epochs: u64,
    /// Images of a step.
    pub batch: u64,
    /// Rates at the start; each falls to 0 along half a cosine.
    pub lrs: Vec<f64>,
    /// Weight decays, of the weights alone.
    pub weight_decays: Vec<f64>,
    /// Share of the training images that is held out to choose a head by; with 0, the best on `val` is chosen.
    pub held_out: f64,
    /// Seed of the held-out part and of the order.
    pub seed: u64,
}

/// A trained head.
#[derive(Clone, Debug, Serialize)]
pub struct Head {
    /// Its rate at the start.
    pub lr: f64,
    /// Its weight decay.
    pub weight_decay: f64,
    /// How often it is right on the held-out images; none where there are none, or its weights are not finite.
    pub held_out: Option<Score>,
    /// How often it is right on `val`; none where its weights are not finite.
    pub val: Option<Score>,
}

/// All heads of a grid, and the one to report.
#[derive(Clone, Debug, Serialize)]
pub struct Grid {
    /// Every rate with every decay.
    pub heads: Vec<Head>,
    /// Number of the best head: on the held-out images, else on `val`. None where no head is finite.
    pub best: Option<usize>,
    /// Images that the heads were trained on.
    pub trained_on: i64,
    /// Images that were held out.
    pub held_out_images: i64,
}

impl Grid {
    /// Returns the head to report.
    pub fn chosen(&self) -> Option<&Head> {
        self.heads.get(self.best?)
    }

    /// Puts together what heads of every rate with every decay are worth: on so many held-out images, of which there
    /// may be none, and on `val`.
    pub fn of(
        settings: &Settings,
        trained_on: i64,
        (held_out_images, on_held): (i64, Vec<Option<Score>>),
        on_val: Vec<Option<Score>>,
    ) -> Grid {
        let rates = settings
            .lrs
            .iter()
            .flat_map(|&lr| settings.weight_decays.iter().map(move |&decay| (lr, decay)));
        let heads = rates.zip(on_held.into_iter().zip(on_val));
        let heads: Vec<Head> = heads
            .map(|((lr, weight_decay), (held_out, val))| Head {
                lr,
                weight_decay,
                held_out,
                val,
            })
            .collect();
        let by = |head: &Head| match held_out_images {
            0 => head.val,
            _ => head.held_out,
        };
        let finite = heads.iter().enumerate();
        let finite = finite.filter_map(|(at, head)| Some((at, by(head)?.top1)));
        // The first of equals: the smallest rate.
        let best = finite.rev().max_by(|one, other| one.1.total_cmp(&other.1));
        Grid {
            best: best.map(|(at, _)| at),
            heads,
            trained_on,
            held_out_images,
        }
    }
}

impl Settings {
    /// Parts so many labelled images into those held out, and those to learn from: places among them, shuffled.
    pub fn parted(&self, images: i64) -> (Vec<i64>, Vec<i64>) {
        let order = Order::new(self.seed, u64::MAX, images as u64);
        let order = (0..images as u64).map(|index| order.sample(index) as i64);
        let mut held: Vec<i64> = order.collect();
        let share = (images as f64 * self.held_out) as i64;
        let fit = held.split_off(share.clamp(0, HELD_OUT).min(images - 1) as usize);
        (held, fit)
    }
}

/// Returns the share of a rate after a share of the steps: half a cosine.
pub(super) fn cosine(done: f64) -> f64 {
    0.5 * (1.0 + (std::f64::consts::PI * done).cos())
}

/// Trains the grid on `train` and counts right answers on `val`. `progress` is told the number of epochs done.
///
/// # Errors
/// [`Error::Compute`].
pub fn probe(
    train: &Table,
    val: &Table,
    classes: i64,
    settings: &Settings,
    device: Device,
    progress: &mut dyn FnMut(u64),
) -> Result<Grid, Error> {
    let (held, fit) = settings.parted(train.len());
    let mut heads = Heads::new(train, &fit, classes, settings, device)?;
    let batch = (settings.batch as usize).min(fit.len());
    let steps = fit.len() / batch;
    for epoch in 0..settings.epochs {
        let order = Order::new(settings.seed, epoch, fit.len() as u64);
        for step in 0..steps {
            let rows =
                (step * batch..(step + 1) * batch).map(|at| fit[order.sample(at as u64) as usize]);
            let done = (epoch * steps as u64 + step as u64) as f64;
            let share = done / (settings.epochs * steps as u64) as f64;
            heads.step(train, &rows.collect::<Vec<_>>(), cosine(share))?;
        }
        progress(epoch + 1);
    }

    let all: Vec<i64> = (0..val.len()).collect();
    let on_val = heads.scores(val, &all)?;
    let on_held = match held.is_empty() {
        true => vec![None; on_val.len()],
        false => heads.scores(train, &held)?,
    };
    let held = (held.len() as i64, on_held);
    Ok(Grid::of(settings, fit.len() as i64, held, on_val))
}

#[cfg(test)]
pub(super) mod tests {
    use tch::{Kind, Tensor};

    use super::*;

    /// Clouds around as many corners as there are classes, in `width` dimensions of different scale.
    pub fn clouds(rows: i64, width: i64, classes: i64, seed: i64) -> Table {
        tch::manual_seed(seed);
        let options = (Kind::Float, Device::Cpu);
        let labels = Tensor::arange(rows, (Kind::Int64, Device::Cpu)).remainder(classes);
        let corners = labels.one_hot(width).to_kind(Kind::Float);
        let scales = Tensor::arange_start(1, width + 1, options).square();
        Table {
            features: (corners * 3.0 + Tensor::randn([rows, width], options)) * scales + 100.0,
            labels,
            samples: Tensor::arange(rows, (Kind::Int64, Device::Cpu)),
        }
    }

    pub fn settings() -> Settings {
        Settings {
            epochs: 20,
            batch: 32,
            lrs: vec![0.01, 0.1, 1e30],
            weight_decays: vec![0.0, 0.001],
            held_out: 0.1,
            seed: 1,
        }
    }

    #[test]
    fn what_can_be_told_apart_is_and_a_rate_that_explodes_is_no_choice() {
        let (train, val) = (clouds(400, 8, 5, 1), clouds(100, 8, 5, 2));
        let mut epochs = Vec::new();
        let mut probed = |settings: &Settings| {
            let progress = &mut |epoch| epochs.push(epoch);
            probe(&train, &val, 5, settings, Device::Cpu, progress).unwrap()
        };
        let grid = probed(&settings());
        assert_eq!(
            (grid.heads.len(), grid.trained_on, grid.held_out_images),
            (6, 360, 40)
        );
        let chosen = grid.chosen().unwrap();
        let score = chosen.val.unwrap();
        assert!(score.top1 > 85.0 && score.top5 == 100.0, "{grid:?}");
        // Decay at such a rate makes weights grow without a limit.
        assert!(grid.heads[5].val.is_none() && grid.heads[5].held_out.is_none());
        assert!(grid.best < Some(5));
        let best = |of: fn(&Head) -> Option<Score>, grid: &Grid| {
            let scores = grid.heads.iter().filter_map(|head| Some(of(head)?.top1));
            scores.fold(0.0, f64::max)
        };
        assert_eq!(
            chosen.held_out.unwrap().top1,
            best(|head| head.held_out, &grid)
        );
        // The same again, to the last digit; and another choice where nothing is held out.
        assert_eq!(format!("{:?}", probed(&settings())), format!("{grid:?}"));
        let all = probed(&Settings {
            held_out: 0.0,
            ..settings()
        });
        assert_eq!((all.trained_on, all.held_out_images), (400, 0));
        assert_eq!(
            all.chosen().unwrap().val.unwrap().top1,
            best(|head| head.val, &all)
        );
        assert_eq!(epochs, Vec::from_iter(1..=20).repeat(3));
    }
}
