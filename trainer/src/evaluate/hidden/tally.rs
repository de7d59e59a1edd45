//! What one way of telling hidden cells gets right.

use tch::{Kind, Tensor};

use super::Row;

/// Counts what one way of telling gets right.
#[derive(Default)]
pub(super) struct Tally {
    cells: f64,
    top1: f64,
    top10: f64,
    /// Squared error of the hidden pixels, and their squares.
    error: f64,
    squares: f64,
}

impl Tally {
    /// Compares pixels, (N, P, K) about their means.
    pub fn add_pixels(&mut self, made: &Tensor, truth: &Tensor) -> Result<(), crate::Error> {
        let sum = |t: Tensor| -> Result<f64, crate::Error> {
            Ok(f64::try_from(&t.f_square()?.f_sum(Kind::Double)?)?)
        };
        self.error += sum(made.f_sub(truth)?)?;
        self.squares += sum(truth.shallow_clone())?;
        Ok(())
    }

    /// Looks for the right one of `right` (N, K) for each of `told` (N, K), by cosine.
    pub fn add_ranks(&mut self, told: &Tensor, right: &Tensor) -> Result<(), crate::Error> {
        let unit = |t: &Tensor| -> Result<Tensor, crate::Error> {
            let norm = t.f_norm_scalaropt_dim(2, [1i64].as_slice(), true)?;
            Ok(t.f_div(&norm.f_clamp_min(1e-12)?)?)
        };
        let cosines = unit(told)?.f_matmul(&unit(right)?.f_transpose(0, 1)?)?; // (N, N)
        let own = cosines.f_diagonal(0, 0, 1)?.f_unsqueeze(1)?;
        let count = |those: Tensor| -> Result<Tensor, crate::Error> {
            Ok(those.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Double)?)
        };
        let above = count(cosines.f_gt_tensor(&own)?)?;
        // Among equals the right one stands anywhere; it is its own equal. What is no number equals nothing.
        let equal = count(cosines.f_eq_tensor(&own)?)?;
        let within = |k: f64| -> Result<f64, crate::Error> {
            let left = above.f_neg()?.f_add_scalar(k)?.f_clamp_min(0.0)?;
            let share = left.f_div(&equal.f_clamp_min(1.0)?)?.f_clamp_max(1.0)?;
            let numbers = equal.f_gt(0.0)?.f_to_kind(Kind::Double)?;
            Ok(f64::try_from(&share.f_mul(&numbers)?.f_sum(Kind::Double)?)?)
        };
        self.cells += told.size()[0] as f64;
        self.top1 += within(1.0)?;
        self.top10 += within(10.0)?;
        Ok(())
    }

    /// Returns what was counted, in per cent.
    pub fn row(&self, name: &'static str) -> Row {
        Row {
            name,
            top1: 100.0 * self.top1 / self.cells.max(1.0),
            top10: 100.0 * self.top10 / self.cells.max(1.0),
            pixels_r2: 100.0 * (1.0 - self.error / self.squares.max(f64::MIN_POSITIVE)),
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    /// The predictor's own words, and what it should have said.
    #[test]
    fn a_prediction_that_is_the_target_is_found_and_one_that_is_constant_is_at_chance() {
        tch::manual_seed(1);
        let right = Tensor::randn([50, 8], (Kind::Float, Device::Cpu));
        let of = |told: &Tensor| {
            let mut tally = Tally::default();
            tally.add_ranks(told, &right).unwrap();
            tally.row("")
        };
        let same = of(&right);
        assert_eq!((same.top1, same.top10), (100.0, 100.0));
        let constant = of(&Tensor::zeros([50, 8], (Kind::Float, Device::Cpu)));
        assert!((constant.top1 - 2.0).abs() < 1e-9 && (constant.top10 - 20.0).abs() < 1e-9);
        let none = of(&(&right * f64::NAN));
        assert_eq!((none.top1, none.top10), (0.0, 0.0));
    }
}
