//! The numbers themselves: of the outputs of one network, and of targets by position.

use tch::{Device, Kind, Tensor};

use crate::Error;

/// Patches, at most, that numbers about patches are of.
const PATCHES: i64 = 512;

/// The outputs of a network.
#[derive(Debug, Default)]
pub struct Network {
    /// An image's mean over its patches, (B, D) for each group. Groups are of networks that move from step to step.
    pub pooled: Vec<Tensor>,
    /// Outputs of the last group, (at most 512, D).
    patches: Option<Tensor>,
}

/// The numbers of one network.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    pub std: f64,
    pub rank: f64,
    pub cosine: f64,
    pub patch_std: f64,
    pub patch_rank: f64,
}

impl Network {
    /// Takes up outputs (masks · B, n, D) for `b` images; single patches only of the last step.
    pub fn add(&mut self, output: &Tensor, b: i64, is_last: bool) -> Result<(), Error> {
        let (rows, n, d) = output.size3()?;
        let output = output.f_detach()?.f_to_kind(Kind::Float)?;
        let by_image = output.f_reshape([rows / b, b, n, d])?;
        let pooled = by_image.f_mean_dim([0i64, 2].as_slice(), false, Kind::Float)?;
        self.pooled.push(pooled);
        if is_last {
            let (all, kept) = (rows * n, (rows * n).min(PATCHES));
            let spread: Vec<i64> = (0..kept).map(|row| row * all / kept).collect();
            let spread = Tensor::f_from_slice(&spread)?.f_to_device(output.device())?;
            self.patches = Some(output.f_reshape([all, d])?.f_index_select(0, &spread)?);
        }
        Ok(())
    }

    /// Returns the numbers of what was taken up.
    pub fn spread(&self) -> Result<Spread, Error> {
        let groups = self.pooled.iter().map(exact);
        let groups = groups.collect::<Result<Vec<_>, _>>()?;
        let pooled = groups.iter().map(centred).collect::<Result<Vec<_>, _>>()?;
        let pooled = Tensor::f_cat(&pooled, 0)?;
        let images = pooled.size()[0] as f64;
        // What is left of the variance where each group has its own mean.
        let left = 1.0 - groups.len() as f64 / images;
        let patches = exact(self.patches.as_ref().unwrap_or(&pooled))?;
        let cosines = groups.iter().map(cosine).collect::<Result<Vec<_>, _>>()?;
        // Groups of a single image do not tell how images differ.
        let known = |number: f64| if left > 0.0 { number } else { f64::NAN };
        Ok(Spread {
            std: known(deviation(&pooled)? / left.sqrt()),
            rank: known(effective_rank(&pooled)?),
            cosine: cosines.iter().sum::<f64>() / cosines.len() as f64,
            patch_std: deviation(&patches)?,
            patch_rank: effective_rank(&patches)?,
        })
    }
}

/// Sums over the targets at each position.
#[derive(Debug)]
pub struct Positions {
    count: Tensor,   // (N)
    sum: Tensor,     // (N, D)
    squares: Tensor, // ()
}

impl Positions {
    /// Makes sums of nothing, for images of so many patches and outputs like `output`.
    pub fn new(patches: i64, output: &Tensor) -> Result<Positions, Error> {
        let (_, _, d) = output.size3()?;
        let zeros = |size: &[i64]| Tensor::f_zeros(size, (Kind::Double, output.device()));
        Ok(Positions {
            count: zeros(&[patches])?,
            sum: zeros(&[patches, d])?,
            squares: zeros(&[])?,
        })
    }

    /// Returns the patches of a whole image.
    pub fn patches(&self) -> i64 {
        self.count.size()[0]
    }

    /// Adds targets (masks · contexts · B, n, D) at the positions of `masks`, (B, n) each.
    pub fn add(&mut self, target: &Tensor, masks: &[Tensor]) -> Result<(), Error> {
        let (rows, n, d) = target.size3()?;
        let at = Tensor::f_cat(masks, 0)?;
        let (masks, b) = (masks.len() as i64, at.size()[0] / masks.len() as i64);
        // Rows for further contexts are the first ones again.
        let target = target
            .f_detach()?
            .f_view([masks, rows / (masks * b), b, n, d])?;
        let target = target.f_select(1, 0)?.f_reshape([-1, d])?;
        let target = target.f_to_kind(Kind::Double)?;
        let at = at.f_flatten(0, -1)?;
        let ones = Tensor::f_ones([at.size()[0]], (Kind::Double, at.device()))?;
        let _ = self.count.f_index_add_(0, &at, &ones)?;
        let _ = self.sum.f_index_add_(0, &at, &target)?;
        let squares = target.f_square()?.f_sum(Kind::Double)?;
        let _ = self.squares.f_add_(&squares)?;
        Ok(())
    }

    /// Returns the share of the variance that the position explains, adjusted for what chance would.
    pub fn share(&self) -> Result<f64, Error> {
        let number = |tensor: Tensor| f64::try_from(tensor);
        let n = number(self.count.f_sum(Kind::Double)?)?;
        let seen = number(self.count.f_gt(0.0)?.f_sum(Kind::Double)?)?;
        let whole = self
            .sum
            .f_sum_dim_intlist([0i64].as_slice(), false, Kind::Double)?;
        let of_mean = number(whole.f_square()?.f_sum(Kind::Double)?)? / n;
        let count = self.count.f_clamp_min(1.0)?.f_unsqueeze(1)?;
        let of_positions = self.sum.f_square()?.f_div(&count)?;
        let of_positions = number(of_positions.f_sum(Kind::Double)?)?;
        let squares = number(self.squares.shallow_clone())?;
        let within = (squares - of_positions).max(0.0) / (n - seen);
        let total = (squares - of_mean) / (n - 1.0);
        Ok((1.0 - within / total).max(0.0))
    }
}

/// Returns rows in float64 on the CPU.
fn exact(rows: &Tensor) -> Result<Tensor, Error> {
    Ok(rows.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?)
}

/// Returns the rows less their mean.
fn centred(rows: &Tensor) -> Result<Tensor, Error> {
    Ok(rows.f_sub(&rows.f_mean_dim([0i64].as_slice(), true, Kind::Double)?)?)
}

/// Returns the standard deviation of each dimension over the rows, mean over the dimensions.
fn deviation(rows: &Tensor) -> Result<f64, Error> {
    let variance = centred(rows)?
        .f_square()?
        .f_mean_dim([0i64].as_slice(), false, Kind::Double)?;
    Ok(f64::try_from(variance.f_sqrt()?.f_mean(Kind::Double)?)?)
}

/// Returns the effective rank of the centred rows: 0 where they are all the same.
fn effective_rank(rows: &Tensor) -> Result<f64, Error> {
    let rows = centred(rows)?;
    let (n, d) = rows.size2()?;
    let other = rows.f_transpose(0, 1)?;
    let gram = match n < d {
        true => rows.f_matmul(&other)?,
        false => other.f_matmul(&rows)?,
    };
    // LAPACK has no answer for what is not finite.
    if !f64::try_from(gram.f_abs()?.f_sum(Kind::Double)?)?.is_finite() {
        return Ok(f64::NAN);
    }
    let values = Vec::<f64>::try_from(gram.f_linalg_eigvalsh("L")?)?;
    let values: Vec<f64> = values.iter().map(|value| value.max(0.0).sqrt()).collect();
    let sum: f64 = values.iter().sum();
    if sum == 0.0 {
        return Ok(0.0);
    }
    let shares = values.iter().map(|value| value / sum);
    let entropy: f64 = shares
        .filter(|&share| share > 0.0)
        .map(|share| -share * share.ln())
        .sum();
    Ok(entropy.exp())
}

/// Returns the mean cosine of the rows of the first half with those of the second, pair by pair; not a number for one.
fn cosine(rows: &Tensor) -> Result<f64, Error> {
    let half = rows.size()[0] / 2;
    let unit = |first: i64| -> Result<Tensor, Error> {
        let rows = rows.f_narrow(0, first, half)?;
        let norm = rows.f_norm_scalaropt_dim(2, [1i64].as_slice(), true)?;
        Ok(rows.f_div(&norm.f_clamp_min(1e-30)?)?)
    };
    let product = unit(0)?.f_mul(&unit(half)?)?.f_sum(Kind::Double)?;
    Ok(f64::try_from(product)? / half as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: (Kind, Device) = (Kind::Double, Device::Cpu);

    fn noise(rows: i64, d: i64) -> Tensor {
        tch::manual_seed(5);
        Tensor::randn([rows, d], OPTIONS)
    }

    #[test]
    fn the_rank_counts_directions_that_vary() {
        // Orthogonal columns of equal length without a mean: all ranks are equal.
        let eye = Tensor::eye(8, OPTIONS);
        let isotropic = Tensor::cat(&[&eye, &-&eye], 0);
        assert!((effective_rank(&isotropic).unwrap() - 8.0).abs() < 1e-9);
        // More dimensions than rows: eight images have seven directions about their mean.
        assert!((effective_rank(&eye).unwrap() - 7.0).abs() < 1e-6);
        let line = Tensor::arange(9, OPTIONS).unsqueeze(1).matmul(&noise(1, 6)) + 3.0;
        assert!((effective_rank(&line).unwrap() - 1.0).abs() < 1e-5);
        assert_eq!(effective_rank(&Tensor::ones([5, 4], OPTIONS)).unwrap(), 0.0);
        let broken = noise(5, 4) * f64::NAN;
        assert!(effective_rank(&broken).unwrap().is_nan());
        // Two directions with singular values 3 to 1.
        let two = Tensor::from_slice(&[3.0, 0.0, -3.0, 0.0, 0.0, 1.0, 0.0, -1.0]).view([4, 2]);
        let expected = (-(0.75f64 * 0.75f64.ln()) - 0.25 * 0.25f64.ln()).exp();
        assert!((effective_rank(&two).unwrap() - expected).abs() < 1e-9);
    }

    #[test]
    fn deviation_and_cosine_are_those_of_the_rows() {
        let rows = Tensor::from_slice(&[1.0, 0.0, 3.0, 0.0]).view([2, 2]);
        assert_eq!(deviation(&rows).unwrap(), 0.5); // 1 and 0
        assert!((cosine(&rows).unwrap() - 1.0).abs() < 1e-12);
        let opposite = Tensor::from_slice(&[1.0, 2.0, -2.0, -4.0]).view([2, 2]);
        assert!((cosine(&opposite).unwrap() + 1.0).abs() < 1e-12);
        assert!((deviation(&noise(4000, 3)).unwrap() - 1.0).abs() < 0.05);
        assert!(cosine(&noise(4000, 3)).unwrap().abs() < 0.05);
    }

    #[test]
    fn pooled_vectors_are_means_over_patches_and_masks_of_an_image() {
        let output = Tensor::arange(12, OPTIONS).view([6, 2, 1]); // 2 masks of 3 images
        let mut network = Network::default();
        network.add(&output, 3, true).unwrap();
        let pooled = Vec::<f32>::try_from(network.pooled[0].flatten(0, -1)).unwrap();
        assert_eq!(pooled, [3.5, 5.5, 7.5]);
        assert_eq!(network.patches.as_ref().unwrap().size(), [12, 1]);
        network
            .add(&noise(900, 4).view([3, 300, 4]), 3, true)
            .unwrap();
        assert_eq!(network.patches.as_ref().unwrap().size(), [PATCHES, 4]);
    }

    #[test]
    fn a_network_that_moves_from_step_to_step_does_not_make_images_differ() {
        let mut network = Network::default();
        let one = noise(4, 6).view([4, 1, 6]);
        for step in 0..50 {
            let away = Tensor::ones([1, 1, 6], OPTIONS) * f64::from(step);
            network.add(&(&one + away), 4, true).unwrap();
        }
        let spread = network.spread().unwrap();
        // Four images have three directions about their mean.
        assert!(spread.rank < 3.01, "{spread:?}");
        let expected = deviation(&noise(4, 6)).unwrap() / 0.75f64.sqrt();
        assert!((spread.std / expected - 1.0).abs() < 1e-4, "{spread:?}");
        let mut single = Network::default();
        single.add(&noise(1, 6).view([1, 1, 6]), 1, true).unwrap();
        let spread = single.spread().unwrap();
        assert!(spread.rank.is_nan() && spread.std.is_nan() && spread.cosine.is_nan());
    }

    #[test]
    fn the_share_of_positions_is_one_where_they_say_all_and_none_where_they_say_nothing() {
        let (b, n, d, patches) = (64, 5, 6, 9);
        tch::manual_seed(1);
        let masks = [(); 2].map(|()| Tensor::randint(patches, [b, n], (Kind::Int64, Device::Cpu)));
        let at = Tensor::cat(&masks, 0);
        let by_position = noise(patches, d).index_select(0, &at.flatten(0, -1));
        let by_position = by_position.view([2 * b, n, d]);
        let noise = noise(2 * b * n, d).view([2 * b, n, d]);
        let share = |target: &Tensor, contexts: i64| {
            let rows = target.view([2, 1, b, n, d]).repeat([1, contexts, 1, 1, 1]);
            let rows = rows.reshape([2 * contexts * b, n, d]);
            let mut positions = Positions::new(patches, &rows).unwrap();
            positions.add(&rows, &masks).unwrap();
            positions.share().unwrap()
        };
        assert!((share(&by_position, 1) - 1.0).abs() < 1e-9);
        assert!(share(&noise, 1) < 0.01);
        let both = share(&(&by_position + &noise), 1);
        assert!((0.35..0.65).contains(&both), "{both}");
        assert_eq!(share(&(by_position + noise), 3), both);
    }
}
