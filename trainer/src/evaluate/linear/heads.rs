//! The heads of a grid, trained side by side.
//!
//! They differ in nothing but rate and decay, and stand side by side in one matrix: a step is two products. Gradients
//! are written out, for there is one layer: with p = softmax(x W + b) and the one-hot right answers y, that of the mean
//! cross-entropy is xᵀ (p − y) / B. Momentum and decay are those of PyTorch's SGD. Weights begin at zero: the loss is
//! convex.

use tch::{Device, Kind, Tensor};

use super::Settings;
use crate::evaluate::score::Counted;
use crate::evaluate::{Error, Score, Table};

/// Momentum of a step.
const MOMENTUM: f64 = 0.9;
/// What batch norm adds to the variance.
const EPS: f64 = 1e-6;
/// Images of a block when scores are counted.
const BLOCK: i64 = 4096;

/// The heads of a grid, side by side: head by head, class by class.
pub(in crate::evaluate) struct Heads {
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
    pub(in crate::evaluate) fn new(
        train: &Table,
        fit: &[i64],
        classes: i64,
        settings: &Settings,
        device: Device,
    ) -> Result<Heads, crate::Error> {
        let moments = moments(&train.features, fit)?;
        Heads::with_moments(moments, classes, settings, device)
    }

    /// Makes heads of features whose mean and variance (1, D) are known.
    pub(in crate::evaluate) fn with_moments(
        (mean, variance): (Tensor, Tensor),
        classes: i64,
        settings: &Settings,
        device: Device,
    ) -> Result<Heads, crate::Error> {
        let width = mean.size()[1];
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
    pub(in crate::evaluate) fn rows(
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
        Ok((
            self.normalised(&x)?,
            table.labels.f_index_select(0, &rows)?.f_to_device(device)?,
        ))
    }

    /// Brings features (B, D) to the mean and variance that the heads expect.
    pub(in crate::evaluate) fn normalised(&self, x: &Tensor) -> Result<Tensor, crate::Error> {
        Ok(x.f_sub(&self.mean)?.f_mul(&self.scale)?)
    }

    /// Takes up another mean and variance (1, D).
    pub(in crate::evaluate) fn set_moments(
        &mut self,
        mean: &Tensor,
        variance: &Tensor,
    ) -> Result<(), crate::Error> {
        self.mean = mean.shallow_clone();
        self.scale = variance.f_add_scalar(EPS)?.f_rsqrt()?;
        Ok(())
    }

    /// Moves all heads by one step on these rows, at `share` of their rates.
    pub(in crate::evaluate) fn step(
        &mut self,
        train: &Table,
        rows: &[i64],
        share: f64,
    ) -> Result<(), crate::Error> {
        let (x, labels) = self.rows(train, rows)?;
        self.learn(&x, &labels, share)
    }

    /// Moves all heads by one step on normalised features (B, D) and their classes (B), at `share` of their rates.
    pub(in crate::evaluate) fn learn(
        &mut self,
        x: &Tensor,
        labels: &Tensor,
        share: f64,
    ) -> Result<(), crate::Error> {
        let (of_weight, of_bias) = self.gradient(x, labels)?;
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

    /// Returns the gradients of weights and biases on normalised features, decay included.
    fn gradient(&self, x: &Tensor, labels: &Tensor) -> Result<(Tensor, Tensor), crate::Error> {
        let images = x.size()[0];
        let right = labels
            .f_view([-1, 1, 1])?
            .f_expand([-1, self.heads, 1], false)?;
        let mut gradient = self.logits(x)?.f_softmax(-1, Kind::Float)?; // (B, H, C)
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
    pub(in crate::evaluate) fn gradient_norms(
        &self,
        train: &Table,
        rows: &[i64],
    ) -> Result<Vec<(f64, f64)>, crate::Error> {
        let (x, labels) = self.rows(train, rows)?;
        let (gradient, _) = self.gradient(&x, &labels)?;
        let norm = |tensor: &Tensor, head: i64| {
            let of = tensor.f_narrow(1, head * self.classes, self.classes)?;
            f64::try_from(&of.f_norm()?)
        };
        let heads = 0..self.heads;
        let norms = heads.map(|head| Ok((norm(&gradient, head)?, norm(&self.weight, head)?)));
        norms.collect()
    }

    /// Returns what the heads make of normalised features: (B, D) to (B, H, C).
    pub(in crate::evaluate) fn logits(&self, x: &Tensor) -> Result<Tensor, crate::Error> {
        let logits = x.f_matmul(&self.weight)?.f_add(&self.bias)?;
        Ok(logits.f_view([x.size()[0], self.heads, self.classes])?)
    }

    /// Counts the right answers of each head on rows; none for a head whose weights are not finite.
    pub(in crate::evaluate) fn scores(
        &self,
        table: &Table,
        rows: &[i64],
    ) -> Result<Vec<Option<Score>>, Error> {
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
mod tests {
    use super::super::tests::{clouds, settings};
    use super::*;

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
}
