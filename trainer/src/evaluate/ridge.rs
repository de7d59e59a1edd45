//! Linear maps with an L2 penalty, from sums that are taken image by image: no matrix of all images is kept.
//!
//! Values have positions: x (B, P, D) and y (B, P, K). One map serves all positions, after the mean over the images at
//! its position is taken from each value.

use tch::{Device, Kind, Tensor};

use crate::Error;

/// Weights of the penalty that are tried, as parts of the mean variance of x.
const PENALTIES: [f64; 8] = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0];

/// Sums over images, from which maps are fitted; float64, on the CPU.
pub struct Sums {
    images: f64,
    x: Tensor,
    y: Tensor,
    xx: Tensor,
    xy: Tensor,
    yy: f64,
}

/// Share of the squares of x that must be left when their means are taken off.
const LEAST: f64 = 1e-12;

/// Sums of squares about given means.
struct Centred {
    /// Sum of the squares of x as they were.
    raw: f64,
    xx: Tensor,
    xy: Tensor,
    yy: f64,
}

impl Sums {
    /// Begins sums over no images, of x (P, D) and y (P, K).
    ///
    /// # Errors
    /// From libtorch.
    pub fn new(positions: i64, d: i64, k: i64) -> Result<Sums, Error> {
        let zeros = |size: [i64; 2]| Tensor::f_zeros(size, (Kind::Double, Device::Cpu));
        Ok(Sums {
            images: 0.0,
            x: zeros([positions, d])?,
            y: zeros([positions, k])?,
            xx: zeros([d, d])?,
            xy: zeros([d, k])?,
            yy: 0.0,
        })
    }

    /// Adds images: x (B, P, D) and y (B, P, K), of any type on any device.
    ///
    /// Products are float64: what is left after means are taken off may be very little.
    ///
    /// # Errors
    /// From libtorch.
    pub fn add(&mut self, x: &Tensor, y: &Tensor) -> Result<(), Error> {
        let (x, y) = (x.f_to_kind(Kind::Double)?, y.f_to_kind(Kind::Double)?);
        let to = |sum: &Tensor| sum.f_to_device(Device::Cpu);
        let images = |values: &Tensor| -> Result<Tensor, tch::TchError> {
            to(&values.f_sum_dim_intlist([0i64].as_slice(), false, Kind::Double)?)
        };
        let (flat_x, flat_y) = (x.f_flatten(0, 1)?, y.f_flatten(0, 1)?);
        let transposed = flat_x.f_transpose(0, 1)?;
        self.images += x.size()[0] as f64;
        self.x = self.x.f_add(&images(&x)?)?;
        self.y = self.y.f_add(&images(&y)?)?;
        self.xx = self.xx.f_add(&to(&transposed.f_matmul(&flat_x)?)?)?;
        self.xy = self.xy.f_add(&to(&transposed.f_matmul(&flat_y)?)?)?;
        self.yy += f64::try_from(&flat_y.f_square()?.f_sum(Kind::Double)?)?;
        Ok(())
    }

    /// Returns the means of x and y at each position.
    ///
    /// # Errors
    /// From libtorch.
    pub fn means(&self) -> Result<(Tensor, Tensor), Error> {
        let mean = |sum: &Tensor| sum.f_div_scalar(self.images.max(1.0));
        Ok((mean(&self.x)?, mean(&self.y)?))
    }

    /// Returns the sums over the images of both.
    ///
    /// # Errors
    /// From libtorch.
    pub fn plus(&self, other: &Sums) -> Result<Sums, Error> {
        Ok(Sums {
            images: self.images + other.images,
            x: self.x.f_add(&other.x)?,
            y: self.y.f_add(&other.y)?,
            xx: self.xx.f_add(&other.xx)?,
            xy: self.xy.f_add(&other.xy)?,
            yy: self.yy + other.yy,
        })
    }

    fn centred(&self, (x, y): &(Tensor, Tensor)) -> Result<Centred, Error> {
        // Σ (a - α)(b - β)ᵀ = Σ a bᵀ - (Σ a) βᵀ - α (Σ b)ᵀ + n α βᵀ, summed over the positions as well.
        let about = |ab: &Tensor, a: &Tensor, alpha: &Tensor, b: &Tensor, beta: &Tensor| {
            let left = a.f_sub(&alpha.f_mul_scalar(self.images)?)?;
            ab.f_sub(&left.f_transpose(0, 1)?.f_matmul(beta)?)?
                .f_sub(&alpha.f_transpose(0, 1)?.f_matmul(b)?)
        };
        let cross = self.y.f_mul(y)?.f_sum(Kind::Double)?;
        let means = y.f_square()?.f_sum(Kind::Double)?;
        Ok(Centred {
            raw: f64::try_from(&self.xx.f_trace()?)?,
            xx: about(&self.xx, &self.x, x, &self.x, x)?,
            xy: about(&self.xy, &self.x, x, &self.y, y)?,
            yy: self.yy - 2.0 * f64::try_from(&cross)? + self.images * f64::try_from(&means)?,
        })
    }
}

/// A fitted map.
pub struct Map {
    means: (Tensor, Tensor),
    weights: Tensor,
}

impl Map {
    /// Fits a map to `fit`, with the penalty that is best on `held`, and once more to both.
    ///
    /// # Errors
    /// From libtorch.
    pub fn chosen(fit: &Sums, held: &Sums) -> Result<Map, Error> {
        let means = fit.means()?;
        let (own, other) = (fit.centred(&means)?, held.centred(&means)?);
        let mut best = (f64::INFINITY, PENALTIES[PENALTIES.len() - 1]);
        for penalty in PENALTIES {
            let error = other.error(&own.weights(penalty)?)?;
            if error < best.0 {
                best = (error, penalty);
            }
        }
        let all = fit.plus(held)?;
        let means = all.means()?;
        let weights = all.centred(&means)?.weights(best.1)?;
        Ok(Map { means, weights })
    }

    /// Returns what the map makes of x (B, P, D), less the means of y: (B, P, K).
    ///
    /// # Errors
    /// From libtorch.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor, Error> {
        let x = x.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?;
        let made = x.f_sub(&self.means.0)?.f_matmul(&self.weights)?;
        Ok(made.f_to_kind(Kind::Float)?)
    }
}

impl Centred {
    /// Returns the map of the least squared error with a penalty.
    fn weights(&self, penalty: f64) -> Result<Tensor, Error> {
        let d = self.xx.size()[0];
        let trace = f64::try_from(&self.xx.f_trace()?)?;
        // Values that never change say nothing, and rounding leaves them a little of either sign.
        if trace.is_nan() || trace <= LEAST * self.raw {
            return Ok(self.xy.f_zeros_like()?);
        }
        let eye = Tensor::f_eye(d, (Kind::Double, Device::Cpu))?;
        let matrix = self
            .xx
            .f_add(&eye.f_mul_scalar(penalty * trace / d as f64)?)?;
        let (factor, _) = Tensor::f_linalg_cholesky_ex(&matrix, false, false)?;
        Ok(self.xy.f_cholesky_solve(&factor, false)?)
    }

    /// Returns the squared error of a map.
    fn error(&self, weights: &Tensor) -> Result<f64, Error> {
        let explained = weights.f_mul(&self.xy)?.f_sum(Kind::Double)?;
        let made = weights.f_mul(&self.xx.f_matmul(weights)?)?;
        let made = made.f_sum(Kind::Double)?;
        Ok(self.yy - 2.0 * f64::try_from(&explained)? + f64::try_from(&made)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(seed: i64, size: &[i64]) -> Tensor {
        tch::manual_seed(seed);
        Tensor::randn(size, (Kind::Float, Device::Cpu))
    }

    /// Returns sums over images in pieces.
    fn sums(x: &Tensor, y: &Tensor) -> Sums {
        let of = |t: &Tensor| t.size()[2];
        let mut sums = Sums::new(x.size()[1], of(x), of(y)).unwrap();
        for (first, count) in [(0, 3), (3, x.size()[0] - 3)] {
            let piece = |t: &Tensor| t.narrow(0, first, count);
            sums.add(&piece(x), &piece(y)).unwrap();
        }
        sums
    }

    #[test]
    fn a_linear_law_with_another_mean_at_each_position_is_found() {
        let (law, at) = (random(1, &[5, 2]), random(2, &[1, 3, 5]) * 4.0);
        let offset = random(3, &[1, 3, 2]) * 9.0;
        let data = |seed| {
            let x = random(seed, &[400, 3, 5]) + &at;
            let y = x.matmul(&law) + &offset;
            (x, y)
        };
        let ((x, y), (hx, hy), (qx, qy)) = (data(4), data(5), data(6));
        let map = Map::chosen(&sums(&x, &y), &sums(&hx, &hy)).unwrap();
        let mean = Tensor::cat(&[&y, &hy], 0).mean_dim([0i64].as_slice(), false, Kind::Float);
        let made = map.apply(&qx).unwrap() + mean;
        assert!(made.allclose(&qy, 1e-3, 1e-3, false));
    }

    #[test]
    fn what_says_nothing_is_given_no_weight() {
        let noise = |seed| (random(seed, &[60, 1, 40]), random(seed + 50, &[60, 1, 3]));
        let ((x, y), (hx, hy)) = (noise(7), noise(8));
        let map = Map::chosen(&sums(&x, &y), &sums(&hx, &hy)).unwrap();
        let made = map.apply(&noise(9).0).unwrap();
        assert!(f64::try_from(made.square().mean(Kind::Float)).unwrap() < 0.2);
        // Constant values give no map, and no fault.
        let same = Tensor::ones([60, 1, 40], (Kind::Float, Device::Cpu));
        let map = Map::chosen(&sums(&same, &y), &sums(&same, &hy)).unwrap();
        let made = map.apply(&same).unwrap();
        assert!(f64::try_from(made.abs().max()).unwrap() < 1e-3);
    }

    #[test]
    fn squared_errors_are_those_of_the_values() {
        let (x, y) = (random(11, &[50, 2, 4]), random(12, &[50, 2, 3]));
        let sums = sums(&x, &y);
        let means = (
            random(13, &[2, 4]).to_kind(Kind::Double),
            random(14, &[2, 3]).to_kind(Kind::Double),
        );
        let weights = random(15, &[4, 3]).to_kind(Kind::Double);
        let found = sums.centred(&means).unwrap().error(&weights).unwrap();
        let made = (x.to_kind(Kind::Double) - &means.0).matmul(&weights);
        let expected = (y.to_kind(Kind::Double) - &means.1 - made)
            .square()
            .sum(Kind::Double);
        let expected = f64::try_from(expected).unwrap();
        assert!(
            (found / expected - 1.0).abs() < 1e-5,
            "{found}, not {expected}"
        );
    }
}
