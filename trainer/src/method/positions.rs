//! Where a patch stands: fixed sine-cosine embeddings of rows and columns.

use tch::{Device, Tensor};

use crate::Error;

/// Largest difference between a fixed embedding and itself after rounding: in bfloat16, the coarsest type that weights
/// are stored in, or by the target encoder's following, which moves it by a rounding at each step.
pub(crate) const ROUNDING: f64 = 1.0 / 256.0;

/// Makes the fixed embedding of the positions of a `grid` × `grid` square, row by row: (1, grid², width).
///
/// The first half of the channels encodes the column, the second half the row. Each half is sines, then cosines, of the
/// position at geometrically falling frequencies, computed in float64 and rounded once. Official code:
/// `get_2d_sincos_pos_embed` of `src/models/vision_transformer.py`.
///
/// # Errors
/// From the device.
pub(crate) fn embedding(width: i64, grid: i64, device: Device) -> Result<Tensor, Error> {
    let quarter = width / 4;
    let mut values = Vec::with_capacity((grid * grid * width) as usize);
    for row in 0..grid {
        for column in 0..grid {
            for position in [column, row] {
                let angle =
                    |k: i64| position as f64 * (1.0 / 10000f64.powf(k as f64 / quarter as f64));
                values.extend((0..quarter).map(|k| angle(k).sin() as f32));
                values.extend((0..quarter).map(|k| angle(k).cos() as f32));
            }
        }
    }
    let values = Tensor::f_from_slice(&values)?.f_view([1, grid * grid, width])?;
    Ok(values.f_to_device(device)?)
}

/// Returns the patches along one side of the square grid that an embedding is made for: (1, grid², width).
pub(crate) fn grid(embedding: &Tensor) -> Option<i64> {
    let [1, patches, _] = embedding.size()[..] else {
        return None;
    };
    let grid = patches.isqrt();
    (grid > 0 && grid * grid == patches).then_some(grid)
}

/// Tells whether an embedding is the fixed one of its grid, but for rounding.
///
/// # Errors
/// From the device.
pub(crate) fn is_fixed(found: &Tensor) -> Result<bool, Error> {
    let Some(grid) = grid(found) else {
        return Ok(false);
    };
    let fixed = embedding(found.size()[2], grid, found.device())?;
    let gap = found.f_sub(&fixed)?.f_abs()?.f_max()?;
    // No NaN is a small difference.
    Ok(f64::try_from(gap)? <= ROUNDING)
}

/// Resamples the embedding (1, side², D) of a square grid to a grid of `rows` × `columns`: (1, rows · columns, D).
///
/// Bicubic, corners not aligned, as `interpolate_pos_encoding` of `src/models/vision_transformer.py` does it.
///
/// # Errors
/// From the device.
pub(crate) fn resample(
    embedding: &Tensor,
    side: i64,
    rows: i64,
    columns: i64,
) -> Result<Tensor, Error> {
    tch::no_grad(|| {
        let (_, _, width) = embedding.size3()?;
        let grid = embedding.f_view([1, side, side, width])?;
        let grid = grid.f_permute([0, 3, 1, 2])?; // (1, D, rows, columns)
        let grid = grid.f_upsample_bicubic2d([rows, columns], false, None, None)?;
        Ok(grid.f_flatten(2, 3)?.f_transpose(1, 2)?) // (1, N, D)
    })
}
