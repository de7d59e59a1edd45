//! Linear probes of frozen features: a grid of rates and weight decays, all heads trained at once.
//!
//! A head is a batch norm without gain and bias, then a linear layer, as VISSL's and MAE's probes have it. Features do
//! not change from epoch to epoch, so the norm's statistics are those of all training images. The heads differ in
//! nothing but rate and decay, and stand side by side in one matrix: a step is two products.
//!
//! Gradients are written out, for there is one layer: with p = softmax(x W + b) and the one-hot right answers y, that
//! of the mean cross-entropy is xᵀ (p − y) / B. Momentum and decay are those of PyTorch's SGD. Weights begin at zero:
//! the loss is convex.

use loader::order::Order;
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::score::Counted;
use super::{Error, Score, Table};

const MOMENTUM: f64 = 0.9;
/// What batch norm adds to the variance.
const EPS: f64 = 1e-6;
/// Most images of the held-out part.
const HELD_OUT: i64 = 50_000;
/// Images of a block when scores are counted.
const BLOCK: i64 = 4096;

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
    let order = Order::new(settings.seed, u64::MAX, train.len() as u64);
    let order = (0..train.len() as u64).map(|index| order.sample(index) as i64);
    let order: Vec<i64> = order.collect();
    let share = (train.len() as f64 * settings.held_out) as i64;
    let held_out = share.clamp(0, HELD_OUT).min(train.len() - 1);
    let (held, fit) = order.split_at(held_out as usize);

    let mut heads = Heads::new(train, fit, classes, settings, device)?;
    let batch = (settings.batch as usize).min(fit.len());
    let steps = fit.len() / batch;
    for epoch in 0..settings.epochs {
        let order = Order::new(settings.seed, epoch, fit.len() as u64);
        for step in 0..steps {
            let rows =
                (step * batch..(step + 1) * batch).map(|at| fit[order.sample(at as u64) as usize]);
            let done = (epoch * steps as u64 + step as u64) as f64;
            let share = done / (settings.epochs * steps as u64) as f64;
            let rate = 0.5 * (1.0 + (std::f64::consts::PI * share).cos());
            heads.step(train, &rows.collect::<Vec<_>>(), rate)?;
        }
        progress(epoch + 1);
    }

    let all: Vec<i64> = (0..val.len()).collect();
    let on_val = heads.scores(val, &all)?;
    let on_held = match held.is_empty() {
        true => vec![None; on_val.len()],
        false => heads.scores(train, held)?,
    };
    let grid = settings
        .lrs
        .iter()
        .flat_map(|&lr| settings.weight_decays.iter().map(move |&decay| (lr, decay)));
    let heads = grid.zip(on_held.into_iter().zip(on_val));
    let heads: Vec<Head> = heads
        .map(|((lr, weight_decay), (held_out, val))| Head {
            lr,
            weight_decay,
            held_out,
            val,
        })
        .collect();
    let by = |head: &Head| match held.is_empty() {
        true => head.val,
        false => head.held_out,
    };
    let finite = heads.iter().enumerate();
    let finite = finite.filter_map(|(at, head)| Some((at, by(head)?.top1)));
    // The first of equals: the smallest rate.
    let best = finite.rev().max_by(|one, other| one.1.total_cmp(&other.1));
    Ok(Grid {
        best: best.map(|(at, _)| at),
        heads,
        trained_on: fit.len() as i64,
        held_out_images: held.len() as i64,
    })
}

/// The heads of a grid, side by side: head by head, class by class.
pub(super) struct Heads {
    mean: Tensor,     // (1, D)
    scale: Tensor,    // (1, D)
    weight: Tensor,   // (D, H·C)
    bias: Tensor,     // (1, H·C)
    velocity: Tensor, // (D, H·C)
    bias_velocity: Tensor,
    rates: Tensor,  // (1, H·C)
    decays: Tensor, // (1, H·C)
    heads: i64,
    classes: i64,
}

impl Heads {
    pub(super) fn new(
        train: &Table,
        fit: &[i64],
        classes: i64,
        settings: &Settings,
        device: Device,
    ) -> Result<Heads, crate::Error> {
        let width = train.features.size()[1];
        let (mean, variance) = moments(&train.features, fit)?;
        let (lrs, decays) = (&settings.lrs, &settings.weight_decays);
        let heads = (lrs.len() * decays.len()) as i64;
        let columns = |each: Vec<f32>| -> Result<Tensor, tch::TchError> {
            let each = Tensor::f_from_slice(&each)?.f_view([-1, 1])?;
            each.f_repeat([1, classes])?
                .f_view([1, -1])?
                .f_to_device(device)
        };
        let rates = lrs
            .iter()
            .flat_map(|&lr| decays.iter().map(move |_| lr as f32));
        let pulls = lrs
            .iter()
            .flat_map(|_| decays.iter().map(|&decay| decay as f32));
        let zeros = |rows: i64| Tensor::f_zeros([rows, heads * classes], (Kind::Float, device));
        let scale = variance.f_add_scalar(EPS)?.f_rsqrt()?;
        Ok(Heads {
            mean: mean.f_to_kind(Kind::Float)?.f_to_device(device)?,
            scale: scale.f_to_kind(Kind::Float)?.f_to_device(device)?,
            weight: zeros(width)?,
            bias: zeros(1)?,
            velocity: zeros(width)?,
            bias_velocity: zeros(1)?,
            rates: columns(rates.collect())?,
            decays: columns(pulls.collect())?,
            heads,
            classes,
        })
    }

    /// Returns normalised features (B, D) and classes (B) of rows, on the device.
    pub(super) fn rows(
        &self,
        table: &Table,
        rows: &[i64],
    ) -> Result<(Tensor, Tensor), crate::Error> {
        let rows = Tensor::f_from_slice(rows)?;
        let device = self.weight.device();
        let x = table
            .features
            .f_index_select(0, &rows)?
            .f_to_device(device)?;
        let x = x.f_sub(&self.mean)?.f_mul(&self.scale)?;
        Ok((
            x,
            table.labels.f_index_select(0, &rows)?.f_to_device(device)?,
        ))
    }

    /// Moves all heads by one step on these rows, at `share` of their rates.
    pub(super) fn step(
        &mut self,
        train: &Table,
        rows: &[i64],
        share: f64,
    ) -> Result<(), crate::Error> {
        let (of_weight, of_bias) = self.gradient(train, rows)?;
        let rates = self.rates.f_mul_scalar(-share)?;
        for (parameter, velocity, gradient) in [
            (&mut self.weight, &mut self.velocity, of_weight),
            (&mut self.bias, &mut self.bias_velocity, of_bias),
        ] {
            let _ = velocity.f_mul_scalar_(MOMENTUM)?.f_add_(&gradient)?;
            let _ = parameter.f_addcmul_(velocity, &rates)?;
        }
        Ok(())
    }

    /// Returns the gradients of weights and biases on these rows, decay included.
    fn gradient(&self, train: &Table, rows: &[i64]) -> Result<(Tensor, Tensor), crate::Error> {
        let (x, labels) = self.rows(train, rows)?;
        let images = rows.len() as i64;
        let right = labels
            .f_view([-1, 1, 1])?
            .f_expand([-1, self.heads, 1], false)?;
        let mut gradient = self.logits(&x)?.f_softmax(-1, Kind::Float)?; // (B, H, C)
        let ones = right.f_ones_like()?.f_to_kind(Kind::Float)?.f_neg()?;
        let gradient = gradient.f_scatter_add_(2, &right, &ones)?;
        let gradient = gradient.f_div_scalar(images)?.f_view([images, -1])?; // (B, H·C)
        let mut of_weight = x.f_transpose(0, 1)?.f_matmul(&gradient)?; // (D, H·C)
        let _ = of_weight.f_addcmul_(&self.weight, &self.decays)?;
        let of_bias = gradient.f_sum_dim_intlist([0i64].as_slice(), true, Kind::Float)?;
        Ok((of_weight, of_bias))
    }

    /// Returns, of each head, the norms of its gradient on rows and of its weights.
    #[cfg(test)]
    pub(super) fn gradient_norms(
        &self,
        train: &Table,
        rows: &[i64],
    ) -> Result<Vec<(f64, f64)>, crate::Error> {
        let (gradient, _) = self.gradient(train, rows)?;
        let norm = |tensor: &Tensor, head: i64| {
            let of = tensor.f_narrow(1, head * self.classes, self.classes)?;
            f64::try_from(&of.f_norm()?)
        };
        let heads = 0..self.heads;
        let norms = heads.map(|head| Ok((norm(&gradient, head)?, norm(&self.weight, head)?)));
        norms.collect()
    }

    /// Returns what the heads make of normalised features: (B, D) to (B, H, C).
    fn logits(&self, x: &Tensor) -> Result<Tensor, crate::Error> {
        let logits = x.f_matmul(&self.weight)?.f_add(&self.bias)?;
        Ok(logits.f_view([x.size()[0], self.heads, self.classes])?)
    }

    /// Counts the right answers of each head on rows; none for a head whose weights are not finite.
    pub(super) fn scores(&self, table: &Table, rows: &[i64]) -> Result<Vec<Option<Score>>, Error> {
        let mut counted = vec![Counted::default(); self.heads as usize];
        for rows in rows.chunks(BLOCK as usize) {
            let (x, labels) = self.rows(table, rows)?;
            let logits = self.logits(&x)?;
            for (head, counted) in (0..).zip(&mut counted) {
                let of = logits.f_select(1, head).map_err(crate::Error::from)?;
                counted.add(&of, &labels, f64::NEG_INFINITY)?;
            }
        }
        let finite = self.finite()?;
        let scores = counted.iter().zip(finite);
        Ok(scores
            .map(|(counted, finite)| finite.then(|| counted.score()))
            .collect())
    }

    /// Tells of each head whether its weights are finite.
    fn finite(&self) -> Result<Vec<bool>, crate::Error> {
        let sums = self
            .weight
            .f_abs()?
            .f_sum_dim_intlist([0i64].as_slice(), false, Kind::Float)?;
        let sums = sums.f_view([self.heads, self.classes])?;
        let sums = sums.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Double)?;
        let sums = Vec::<f64>::try_from(sums.f_to_device(Device::Cpu)?)?;
        Ok(sums.into_iter().map(f64::is_finite).collect())
    }
}

/// Returns mean and variance of each feature over rows, (1, D) float64.
fn moments(features: &Tensor, rows: &[i64]) -> Result<(Tensor, Tensor), crate::Error> {
    let options = (Kind::Double, Device::Cpu);
    let sums =
        |of: &dyn Fn(&Tensor) -> Result<Tensor, tch::TchError>| -> Result<Tensor, crate::Error> {
            let mut sum = Tensor::f_zeros([1, features.size()[1]], options)?;
            for rows in rows.chunks(BLOCK as usize) {
                let block = features.f_index_select(0, &Tensor::f_from_slice(rows)?)?;
                let block = of(&block.f_to_kind(Kind::Double)?)?;
                let block = block.f_sum_dim_intlist([0i64].as_slice(), true, Kind::Double)?;
                sum = sum.f_add_(&block)?;
            }
            Ok(sum.f_div_scalar(rows.len() as f64)?)
        };
    let mean = sums(&|x| Ok(x.shallow_clone()))?;
    let variance = sums(&|x| x.f_sub(&mean)?.f_square())?;
    Ok((mean, variance))
}

#[cfg(test)]
pub(super) mod tests {
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

    fn settings() -> Settings {
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
    fn heads_side_by_side_are_those_that_autograd_trains_alone() {
        let train = clouds(96, 6, 4, 1);
        let settings = Settings {
            epochs: 3,
            lrs: vec![0.02, 0.1],
            held_out: 0.0,
            ..settings()
        };
        let rows: Vec<i64> = (0..96).collect();
        let mut heads = Heads::new(&train, &rows, 4, &settings, Device::Cpu).unwrap();
        let mut alone: Vec<[Tensor; 4]> = (0..4)
            .map(|_| {
                [[6, 4], [1, 4], [6, 4], [1, 4]]
                    .map(|size| Tensor::zeros(size, (Kind::Float, Device::Cpu)))
            })
            .collect();
        for (step, rows) in rows.chunks(32).enumerate() {
            let rate = 1.0 / (1.0 + step as f64);
            heads.step(&train, rows, rate).unwrap();
            let (x, labels) = heads.rows(&train, rows).unwrap();
            for (head, [weight, bias, weight_velocity, bias_velocity]) in
                alone.iter_mut().enumerate()
            {
                let (w, b) = (
                    weight.copy().set_requires_grad(true),
                    bias.copy().set_requires_grad(true),
                );
                let loss = (x.matmul(&w) + &b).cross_entropy_for_logits(&labels);
                loss.backward();
                let (lr, decay) = ([0.02, 0.1][head / 2], [0.0, 0.001][head % 2]);
                *weight_velocity = &*weight_velocity * MOMENTUM + w.grad() + &*weight * decay;
                *bias_velocity = &*bias_velocity * MOMENTUM + b.grad();
                *weight = &*weight - &*weight_velocity * (lr * rate);
                *bias = &*bias - &*bias_velocity * (lr * rate);
            }
        }
        for (head, [weight, bias, ..]) in (0..).zip(&alone) {
            let of = |tensor: &Tensor| tensor.narrow(1, head * 4, 4);
            assert!(
                of(&heads.weight).allclose(weight, 1e-4, 1e-6, false),
                "head {head}"
            );
            assert!(
                of(&heads.bias).allclose(bias, 1e-4, 1e-6, false),
                "head {head}"
            );
        }
        // Normalised with the moments of all rows.
        let (x, _) = heads.rows(&train, &rows).unwrap();
        let (deviation, mean) = x.std_mean_dim([0i64].as_slice(), false, false);
        assert!(mean.abs().max().double_value(&[]) < 1e-5);
        assert!((deviation - 1.0).abs().max().double_value(&[]) < 1e-4);
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
