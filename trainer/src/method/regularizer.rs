//! Terms that can be added to the loss against collapse: options of ours, off by default.
//!
//! The official method has none. It keeps from collapsing by the target encoder alone, which on small data and short
//! runs is not enough: features of a few dimensions remain (`trainer/LEARNING.md` shows it).

use loader::random::Purpose;
use tch::{Kind, Tensor};

use crate::Error;
use crate::error::During;
use crate::method::noise::Noise;

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

/// Directions in which [`normality`] looks at a group's tokens.
const DIRECTIONS: i64 = 64;

/// Points at which characteristic functions are compared, from 0 to [`LAST_POINT`].
const POINTS: i64 = 17;

/// The last of them: beyond it that of a normal distribution is nearly 0.
const LAST_POINT: f64 = 3.0;

/// Returns how far the tokens of `z` (B, C, D) are from an isotropic normal distribution.
///
/// In random directions a, drawn anew for each group: the mean over them of ∫ |φ(t) - e^(-t²/2)|² e^(-t²/2) dt from -3
/// to 3, by the trapezoidal rule, where φ is the characteristic function of the tokens' products with a. This is SIGReg
/// of LeJEPA (R. Balestriero and Y. LeCun, 2025), there of the embeddings of whole views; and without its factor of the
/// number of tokens, so that the length of contexts and the size of a group do not change its weight.
///
/// # Errors
/// [`Error::Torch`] for a tensor of another form, [`Error::OutOfMemory`] from the device.
pub fn normality(z: &Tensor, noise: Noise) -> Result<Tensor, Error> {
    let (_, _, d) = z.size3()?;
    let directions = noise.normal(Purpose::Directions, &[d, DIRECTIONS], 1.0, z.device())?;
    normality_in(z, &directions).during(|| "the normality term".into())
}

/// Returns that in given `directions` (D, A), which may have any length.
fn normality_in(z: &Tensor, directions: &Tensor) -> Result<Tensor, Error> {
    let (_, _, d) = z.size3()?;
    let z = z.f_to_kind(Kind::Float)?.f_reshape([-1, d])?;
    let lengths = directions
        .f_square()?
        .f_sum_dim_intlist([0i64].as_slice(), true, None)?;
    let products = z.f_matmul(&directions.f_div(&lengths.f_sqrt()?)?)?; // (N, A)
    let points = Tensor::f_linspace(0.0, LAST_POINT, POINTS, (Kind::Float, z.device()))?;
    let normal = points.f_square()?.f_div_scalar(-2.0)?.f_exp()?;
    let angles = products.f_unsqueeze(-1)?.f_mul(&points)?; // (N, A, points)
    let over_tokens = [0i64];
    let real = angles
        .f_cos()?
        .f_mean_dim(over_tokens.as_slice(), false, None)?;
    let imaginary = angles
        .f_sin()?
        .f_mean_dim(over_tokens.as_slice(), false, None)?;
    let gaps = real
        .f_sub(&normal)?
        .f_square()?
        .f_add(&imaginary.f_square()?)?;
    // Both halves of the integral are equal; the ends count half.
    let widths = points
        .f_ones_like()?
        .f_mul_scalar(2.0 * LAST_POINT / (POINTS - 1) as f64)?;
    for end in [0, POINTS - 1] {
        let _ = widths.f_select(0, end)?.f_div_scalar_(2.0)?;
    }
    Ok(gaps.f_matmul(&normal.f_mul(&widths)?)?.f_mean(None)?)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    const NOISE: Noise = Noise {
        seed: 5,
        step: 0,
        group: 0,
    };

    #[test]
    fn normality_is_what_its_formula_says() {
        // Two tokens; a direction along each axis, not of length 1.
        let z = Tensor::from_slice(&[0.3f32, -1.0, 1.5, 2.0]).view([1, 2, 2]);
        let directions = Tensor::from_slice(&[7.0f32, 0.0, 0.0, 0.5]).view([2, 2]);
        let integral = |tokens: [f64; 2]| {
            let mut sum = 0.0;
            for point in -16i32..=16 {
                let t = f64::from(point) * 3.0 / 16.0;
                let normal = (-t * t / 2.0).exp();
                let [real, imaginary] = [f64::cos, f64::sin]
                    .map(|part| tokens.iter().map(|token| part(t * token)).sum::<f64>() / 2.0);
                let width = if point.abs() == 16 { 0.5 } else { 1.0 } * 3.0 / 16.0;
                sum += ((real - normal).powi(2) + imaginary.powi(2)) * normal * width;
            }
            sum
        };
        let expected = (integral([0.3, 1.5]) + integral([-1.0, 2.0])) / 2.0;
        let found = normality_in(&z, &directions).unwrap().double_value(&[]);
        assert!((found - expected).abs() < 1e-6, "{found}, not {expected}");
    }

    #[test]
    fn normal_tokens_cost_next_to_nothing_and_tokens_alike_have_a_gradient() {
        let normal = NOISE.normal(Purpose::Positions, &[40, 50, 24], 1.0, Device::Cpu);
        let normal = normal.unwrap();
        let cost = |z: &Tensor| normality(z, NOISE).unwrap().double_value(&[]);
        // The expectation of a perfect sample of 2,000 is 1/2,000 of the integral of 1 - e^(-t²).
        assert!(cost(&normal) < 2e-3, "{}", cost(&normal));
        assert!(cost(&(&normal * 0.2)) > 0.1);
        assert!(cost(&(&normal + 1.0)) > 0.1);
        let alike = Tensor::zeros([4, 5, 24], (Kind::Float, Device::Cpu)) + 0.7;
        let alike = alike.set_requires_grad(true);
        let term = normality(&alike, NOISE).unwrap();
        term.backward();
        assert!(term.double_value(&[]) > 0.1);
        assert!(alike.grad().abs().max().double_value(&[]) > 1e-4);
    }

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
        let z = Tensor::zeros([2, 3, 4], (Kind::Float, Device::Cpu)).set_requires_grad(true);
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
