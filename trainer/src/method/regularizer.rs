//! Terms that can be added to the loss against collapse: options of ours, off by default.
//!
//! The official method has none. It keeps from collapsing by the target encoder alone, which on small data and short
//! runs is not enough: features of a few dimensions remain (`trainer/LEARNING.md` shows it).

use tch::{Kind, Tensor};

use crate::Error;
use crate::error::During;

/// Weight of the variance in the term, that of the covariance being 1; VICReg's.
const VARIANCE_WEIGHT: f64 = 25.0;

/// Added to each variance under its root, whose slope at 0 is infinite; VICReg's.
const VARIANCE_EPS: f64 = 1e-4;

/// Returns how far the dimensions of `z` (B, C, D) are from a deviation of 1 and from being uncorrelated.
///
/// With the covariance matrix K of all B · C tokens: 25 · mean max(0, 1 - √(K_ii + 1e-4)) + Σ_{i≠j} K_ij² / D. The
/// terms are those of VICReg (A. Bardes et al., 2022, section 4), which C-JEPA (S. Mo and S. Tong, 2024) brought to
/// I-JEPA for averages over images; here they are of the patches that the context encoder sees.
///
/// # Errors
/// [`Error::Torch`] for a tensor of another form, [`Error::OutOfMemory`] from the device.
pub fn variance_covariance(z: &Tensor) -> Result<Tensor, Error> {
    let term = || {
        let (_, _, d) = z.size3()?;
        let z = z.f_to_kind(Kind::Float)?.f_reshape([-1, d])?;
        let tokens = z.size2()?.0;
        let z = z.f_sub(&z.f_mean_dim([0i64].as_slice(), true, None)?)?;
        let covariance = z
            .f_transpose(0, 1)?
            .f_matmul(&z)?
            .f_div_scalar((tokens - 1).max(1) as f64)?; // (D, D)
        let variance = covariance.f_diagonal(0, 0, 1)?; // (D)
        let deviation = variance.f_add_scalar(VARIANCE_EPS)?.f_sqrt()?;
        let narrow = deviation
            .f_neg()?
            .f_add_scalar(1.0)?
            .f_relu()?
            .f_mean(None)?;
        let correlated = covariance
            .f_square()?
            .f_sum(None)?
            .f_sub(&variance.f_square()?.f_sum(None)?)?
            .f_div_scalar(d as f64)?;
        narrow.f_mul_scalar(VARIANCE_WEIGHT)?.f_add(&correlated)
    };
    term().during(|| "the variance-covariance term".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn term(values: &[f32], size: [i64; 3]) -> f64 {
        let z = Tensor::from_slice(values).reshape(size);
        f64::try_from(variance_covariance(&z).unwrap()).unwrap()
    }

    #[test]
    fn it_is_what_its_formula_says() {
        // Four tokens of two images.
        let z = [0.5, 1.0, 1.5, 5.0, 0.5, 3.0, 1.5, 3.0];
        let (variances, covariance) = ([1.0 / 3.0, 8.0 / 3.0], 2.0 / 3.0);
        let narrow = variances.map(|variance: f64| (1.0 - (variance + 1e-4).sqrt()).max(0.0));
        let expected = 25.0 * (narrow[0] + narrow[1]) / 2.0 + 2.0 * covariance * covariance / 2.0;
        let found = term(&z, [2, 2, 2]);
        assert!((found - expected).abs() < 1e-6, "{found}, not {expected}");
    }

    #[test]
    fn tokens_that_are_all_alike_cost_most_and_have_a_gradient() {
        let found = term(&[0.7; 12], [3, 1, 4]);
        assert!((found - 25.0 * (1.0 - 1e-2)).abs() < 1e-5, "{found}");
        let z = Tensor::zeros([2, 3, 4], (Kind::Float, tch::Device::Cpu)).set_requires_grad(true);
        variance_covariance(&z).unwrap().backward();
        let slope = f64::try_from(z.grad().abs().max()).unwrap();
        assert!(slope.is_finite(), "{slope}");
    }

    #[test]
    fn narrow_dimensions_cost_more_than_wide_ones() {
        let wide = Tensor::from_slice(&[2.0f32, -2.0, -2.0, 2.0]).reshape([1, 2, 2]);
        let of = |z: &Tensor| f64::try_from(variance_covariance(z).unwrap()).unwrap();
        // Perfectly correlated: 2 · 8² / 2 for the covariance, nothing for the variance.
        assert!((of(&wide) - 64.0).abs() < 1e-4);
        assert!(of(&(&wide * 0.1)) > 10.0);
    }
}
