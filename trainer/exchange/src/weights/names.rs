//! Tensors of files held against the list of parameters that the networks have.

use anyhow::{Context, Result, ensure};

use super::Tensors;
use crate::model::{ModelConfig, Preset};
use crate::parameters::Parameter;

/// The sizes of the networks with these weights; without a predictor, its width and depth are 0. The number of heads,
/// which no shape tells, is `heads`, or that of the official model with the other sizes.
pub fn sizes(
    encoder: &Tensors<'_>,
    predictor: Option<&Tensors<'_>>,
    heads: Option<i64>,
) -> Result<ModelConfig> {
    let shape = |tensors: &Tensors<'_>, name: &str, dimensions: usize| -> Result<Vec<i64>> {
        let tensor = tensors
            .get(name)
            .with_context(|| format!("no tensor `{name}`: not the weights of an I-JEPA network"))?;
        ensure!(
            tensor.shape().len() == dimensions,
            "tensor `{name}` is {:?}, expected {dimensions} dimensions",
            tensor.shape()
        );
        Ok(tensor.shape().iter().map(|&length| length as i64).collect())
    };
    let depth = |tensors: &Tensors<'_>, prefix: &str| {
        (0..)
            .take_while(|i| tensors.contains_key(&format!("{prefix}.{i}.norm1.weight")))
            .count() as i64
    };
    let patches = shape(encoder, "patch_embed.proj.weight", 4)?;
    let (embed_dim, patch_size) = (patches[0], patches[2]);
    let mlp_dim = shape(encoder, "blocks.0.mlp.fc1.weight", 2)?[0];
    let positions = shape(encoder, "pos_embed", 3)?[1];
    let grid = (positions as f64).sqrt() as i64;
    ensure!(
        grid * grid == positions,
        "`pos_embed` has {positions} positions, which make no square"
    );
    let depth_here = depth(encoder, "blocks");
    let (predictor_dim, predictor_depth) = match predictor {
        None => (0, 0),
        Some(predictor) => (
            shape(predictor, "predictor_embed.weight", 2)?[0],
            depth(predictor, "predictor_blocks"),
        ),
    };
    let heads = match heads {
        Some(heads) => heads,
        None => Preset::of(embed_dim, depth_here, mlp_dim)
            .map(|preset| preset.heads)
            .with_context(|| {
                format!(
                    "an encoder {embed_dim} wide, {depth_here} deep, its MLPs {mlp_dim} wide, is none of the official ones"
                )
            })?,
    };
    Ok(ModelConfig {
        image_size: grid * patch_size,
        patch_size,
        embed_dim,
        depth: depth_here,
        heads,
        mlp_dim,
        predictor_dim,
        predictor_depth,
    })
}

/// That `tensors` are those of `forms`, all of them and no other.
pub fn check(tensors: &Tensors<'_>, forms: &[Parameter]) -> Result<()> {
    for Parameter { name, shape } in forms {
        let found = tensors
            .get(name)
            .with_context(|| format!("tensor `{name}` is missing"))?;
        ensure!(
            found.shape() == shape,
            "tensor `{name}` is {:?}, expected {shape:?}",
            found.shape()
        );
    }
    if tensors.len() != forms.len() {
        let unknown = tensors
            .keys()
            .find(|name| forms.iter().all(|form| form.name != **name));
        let unknown = unknown.expect("more tensors than expected ones");
        anyhow::bail!(
            "tensor `{}` is not known to this model",
            unknown.escape_debug()
        );
    }
    Ok(())
}
