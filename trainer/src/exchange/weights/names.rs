//! Which tensors the networks have: the official names in the official order, and their shapes.
//!
//! [`crate::method::model`] makes the same parameters in the same order; a test holds the two together.

use anyhow::{Context, Result, ensure};

use super::Tensors;
use crate::method::model::{ModelConfig, Preset};

/// Hidden width of the predictor's MLPs over its own.
const PREDICTOR_MLP_RATIO: i64 = 4;

/// Name and shape of a parameter.
pub type Form = (String, Vec<usize>);

/// The encoder's parameters.
pub fn encoder(model: &ModelConfig) -> Vec<Form> {
    let &ModelConfig {
        embed_dim: d,
        patch_size: p,
        ..
    } = model;
    let mut list = List::default();
    list.add("pos_embed", &[1, model.patches(), d]);
    list.add("patch_embed.proj.weight", &[d, 3, p, p]);
    list.add("patch_embed.proj.bias", &[d]);
    for i in 0..model.depth {
        list.block(&format!("blocks.{i}"), d, model.mlp_dim);
    }
    list.norm("norm", d);
    list.0
}

/// The predictor's parameters.
pub fn predictor(model: &ModelConfig) -> Vec<Form> {
    let &ModelConfig {
        embed_dim: d,
        predictor_dim: p,
        ..
    } = model;
    let mut list = List::default();
    list.add("mask_token", &[1, 1, p]);
    list.add("predictor_pos_embed", &[1, model.patches(), p]);
    list.linear("predictor_embed", d, p);
    for i in 0..model.predictor_depth {
        list.block(&format!("predictor_blocks.{i}"), p, p * PREDICTOR_MLP_RATIO);
    }
    list.norm("predictor_norm", p);
    list.linear("predictor_proj", p, d);
    list.0
}

/// The official optimiser's four groups, of parameters under `encoder.` and `predictor.`: first what decays of either,
/// then what does not.
pub fn groups(model: &ModelConfig) -> [Vec<Form>; 4] {
    let networks = [("encoder", encoder(model)), ("predictor", predictor(model))];
    let group = |(network, forms): &(&str, Vec<Form>), decayed| {
        let members = forms
            .iter()
            .filter(|(name, shape)| (!name.contains("bias") && shape.len() != 1) == decayed);
        members
            .map(|(name, shape)| (format!("{network}.{name}"), shape.clone()))
            .collect()
    };
    let [encoder, predictor] = &networks;
    [
        group(encoder, true),
        group(predictor, true),
        group(encoder, false),
        group(predictor, false),
    ]
}

/// Whether the parameter is trained: position embeddings are not.
pub fn is_trained(name: &str) -> bool {
    !name.ends_with("pos_embed")
}

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
pub fn check(tensors: &Tensors<'_>, forms: &[Form]) -> Result<()> {
    for (name, shape) in forms {
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
            .find(|name| forms.iter().all(|(form, _)| form != *name));
        let unknown = unknown.expect("more tensors than expected ones");
        anyhow::bail!(
            "tensor `{}` is not known to this model",
            unknown.escape_debug()
        );
    }
    Ok(())
}

#[derive(Default)]
struct List(Vec<Form>);

impl List {
    fn add(&mut self, name: &str, shape: &[i64]) {
        let shape = shape.iter().map(|&length| length as usize).collect();
        self.0.push((name.to_owned(), shape));
    }

    fn linear(&mut self, name: &str, input: i64, output: i64) {
        self.add(&format!("{name}.weight"), &[output, input]);
        self.add(&format!("{name}.bias"), &[output]);
    }

    fn norm(&mut self, name: &str, width: i64) {
        self.add(&format!("{name}.weight"), &[width]);
        self.add(&format!("{name}.bias"), &[width]);
    }

    fn block(&mut self, name: &str, width: i64, hidden: i64) {
        self.norm(&format!("{name}.norm1"), width);
        self.linear(&format!("{name}.attn.qkv"), width, 3 * width);
        self.linear(&format!("{name}.attn.proj"), width, width);
        self.norm(&format!("{name}.norm2"), width);
        self.linear(&format!("{name}.mlp.fc1"), width, hidden);
        self.linear(&format!("{name}.mlp.fc2"), hidden, width);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::ijepa::IJepa;
    use crate::method::optimizer::Optimizer;
    use tch::{Device, Tensor};

    #[test]
    fn names_shapes_and_groups_are_those_of_the_networks() {
        let model = ModelConfig {
            image_size: 24,
            patch_size: 6,
            embed_dim: 16,
            depth: 2,
            heads: 2,
            mlp_dim: 40,
            predictor_dim: 8,
            predictor_depth: 1,
        };
        let ijepa = IJepa::zeroed(&model, Device::Cpu).unwrap();
        let forms = |parameters: &[(String, Tensor)]| -> Vec<Form> {
            let form = |tensor: &Tensor| {
                tensor
                    .size()
                    .iter()
                    .map(|&length| length as usize)
                    .collect()
            };
            parameters
                .iter()
                .map(|(name, tensor)| (name.clone(), form(tensor)))
                .collect()
        };
        assert_eq!(encoder(&model), forms(ijepa.encoder.parameters()));
        assert_eq!(predictor(&model), forms(ijepa.predictor.parameters()));
        for (name, tensor) in ijepa.encoder.parameters() {
            assert_eq!(is_trained(name), tensor.requires_grad(), "{name}");
        }
        let optimizer = Optimizer::new(&ijepa);
        for ((_, theirs), ours) in optimizer.groups().iter().zip(groups(&model)) {
            let ours: Vec<&str> = ours.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(theirs, &ours);
        }
    }
}
