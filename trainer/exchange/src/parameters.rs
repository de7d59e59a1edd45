//! The parameters of the networks: names, order and shapes, stated once.
//!
//! Names and order are those of the official state dictionaries (`src/models/vision_transformer.py`), so weights move
//! both ways by name. The networks make their tensors from this list; initialisation, the optimiser, checkpoints,
//! import and export follow it. Nothing here needs libtorch.

use crate::model::{CHANNELS, MLP_RATIO, ModelConfig};

/// A parameter of a network, without its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Official name, within its network.
    pub name: String,
    /// Length of each dimension.
    pub shape: Vec<usize>,
}

impl Parameter {
    /// Tells whether training moves the parameter: the position embeddings are constants.
    pub fn is_trained(&self) -> bool {
        !self.name.ends_with("pos_embed")
    }

    /// Tells whether weight decay pulls at the parameter.
    pub fn is_decayed(&self) -> bool {
        is_decayed(&self.name, self.shape.len())
    }

    /// Returns the parameter as part of a whole, `NETWORK.NAME`.
    pub fn within(mut self, network: &str) -> Parameter {
        self.name = format!("{network}.{}", self.name);
        self
    }
}

/// Returns the parameters of the encoder, in the official order.
pub fn encoder(model: &ModelConfig) -> Vec<Parameter> {
    let &ModelConfig {
        embed_dim: d,
        patch_size: p,
        ..
    } = model;
    let mut list = List::default();
    list.add("pos_embed", &[1, model.patches(), d]);
    list.add("patch_embed.proj.weight", &[d, CHANNELS, p, p]);
    list.add("patch_embed.proj.bias", &[d]);
    for i in 0..model.depth {
        list.block(&format!("blocks.{i}"), d, model.mlp_dim);
    }
    list.norm("norm", d);
    list.0
}

/// Returns the parameters of the predictor, in the official order.
pub fn predictor(model: &ModelConfig) -> Vec<Parameter> {
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
        list.block(&format!("predictor_blocks.{i}"), p, p * MLP_RATIO);
    }
    list.norm("predictor_norm", p);
    list.linear("predictor_proj", p, d);
    list.0
}

/// Tells whether weight decay pulls at a parameter of this name and number of dimensions.
///
/// The official rule (`init_opt` of `src/helper.py`) spares biases and everything one-dimensional.
pub fn is_decayed(name: &str, dimensions: usize) -> bool {
    !name.contains("bias") && dimensions != 1
}

/// Parameters that share their weight decay; `T` stands for one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterGroup<T> {
    /// Whether they are decayed.
    pub decayed: bool,
    /// The parameters.
    pub members: Vec<T>,
}

/// Sorts the parameters of the trained networks into the official optimiser's four groups.
///
/// The groups are, in the official order: what decays of the encoder, of the predictor, what does not of the encoder,
/// of the predictor (`init_opt` of `src/helper.py`).
pub fn groups<T>(
    encoder: Vec<T>,
    predictor: Vec<T>,
    is_decayed: impl Fn(&T) -> bool,
) -> [ParameterGroup<T>; 4] {
    let split =
        |network: Vec<T>| -> (Vec<T>, Vec<T>) { network.into_iter().partition(&is_decayed) };
    let ((encoder, encoder_rest), (predictor, predictor_rest)) = (split(encoder), split(predictor));
    let group = |decayed, members| ParameterGroup { decayed, members };
    [
        group(true, encoder),
        group(true, predictor),
        group(false, encoder_rest),
        group(false, predictor_rest),
    ]
}

/// Returns the official optimiser's four groups for a model, under `encoder.` and `predictor.`.
pub fn optimizer_groups(model: &ModelConfig) -> [ParameterGroup<Parameter>; 4] {
    let within = |parameters: Vec<Parameter>, network| -> Vec<Parameter> {
        let parameters = parameters.into_iter();
        parameters
            .map(|parameter| parameter.within(network))
            .collect()
    };
    groups(
        within(encoder(model), "encoder"),
        within(predictor(model), "predictor"),
        Parameter::is_decayed,
    )
}

/// Parameters in the order of making.
#[derive(Default)]
struct List(Vec<Parameter>);

impl List {
    fn add(&mut self, name: &str, shape: &[i64]) {
        self.0.push(Parameter {
            name: name.to_owned(),
            shape: shape.iter().map(|&length| length as usize).collect(),
        });
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
