//! Moving rows about: patches out of images, tokens out of grids, targets beside contexts.
//!
//! Letters in the shape comments are those of [`crate::method::encoder`].

use tch::Tensor;

use crate::Error;

/// Cuts images into the pixels of each patch: (B, 3, height, width) to (B, N, 3·p²).
///
/// Patches come row by row, a patch channel by channel: what the convolution of `PatchEmbed`
/// (`src/models/vision_transformer.py`) looks at.
pub(crate) fn patchify(images: &Tensor, patch: i64) -> Result<Tensor, Error> {
    let (b, channels, height, width) = images.size4()?;
    let (rows, columns) = (height / patch, width / patch);
    Ok(images
        // Pixels beyond the last whole patch are left out, as a convolution with this stride does.
        .f_narrow(2, 0, rows * patch)?
        .f_narrow(3, 0, columns * patch)?
        .f_reshape([b, channels, rows, patch, columns, patch])?
        .f_permute([0, 2, 4, 1, 3, 5])?
        .f_reshape([b, rows * columns, channels * patch * patch])?)
}

/// Returns the tokens of `x` (B, N, D) that each mask (B, n) keeps, masks one after the other: (masks · B, n, D).
///
/// Official code: `apply_masks` of `src/masks/utils.py`.
///
/// # Errors
/// [`Error::Torch`] if a mask names a patch that is not there, or the masks keep different numbers of them.
pub fn apply_masks(x: &Tensor, masks: &[Tensor]) -> Result<Tensor, Error> {
    let (_, _, width) = x.size3()?;
    let kept = masks.iter().map(|mask| {
        let rows = mask.f_unsqueeze(-1)?.f_expand([-1, -1, width], false)?;
        x.f_gather(1, &rows, false)
    });
    let kept: Vec<Tensor> = kept.collect::<Result<_, _>>()?;
    Ok(Tensor::f_cat(&kept, 0)?)
}

/// Repeats each run of `images` rows (one target mask) `contexts` times.
///
/// Rows (target mask, image) become rows (target mask, context mask, image). Official code:
/// `repeat_interleave_batch` of `src/utils/tensors.py`.
///
/// # Errors
/// [`Error::Torch`] if the rows are not whole runs.
pub fn repeat_for_contexts(x: &Tensor, images: i64, contexts: usize) -> Result<Tensor, Error> {
    if contexts == 1 {
        return Ok(x.shallow_clone());
    }
    let (rows, n, width) = x.size3()?;
    let runs = x.f_view([rows / images, 1, images, n, width])?;
    Ok(runs
        .f_expand([-1, contexts as i64, -1, -1, -1], false)?
        .f_reshape([rows * contexts as i64, n, width])?)
}
