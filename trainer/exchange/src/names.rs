//! What tensors are called: the many wrappers around an official name, and which network it belongs to.
//!
//! | in a name | comes from |
//! |---|---|
//! | `module.` | DistributedDataParallel, DataParallel |
//! | `_orig_mod.`, `_fsdp_wrapped_module.`, `_checkpoint_wrapped_module.`, `_forward_module.` | `torch.compile` and other wrappers, also within a name |
//! | `backbone.`, `ijepa.`, `model.`, `net.`, `network.`, `state_dict.` | classes and dictionaries around the network |
//! | `encoder.`, `context_encoder.`, `target_encoder.`, `predictor.` | the networks' own keys |
//!
//! What follows must be the name of a network's parameter, as the official code or `transformers` has it; whatever else
//! a file holds (a classifier's head, an optimiser's moments) is left and named.

use std::collections::HashSet;

/// Segments that wrappers put anywhere into a name.
const WRAPPERS: [&str; 5] = [
    "module",
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "_forward_module",
];
/// Segments that may stand before a network's name or its parameter's.
const AROUND: [&str; 6] = ["backbone", "ijepa", "model", "net", "network", "state_dict"];

/// Beginnings of the names of an encoder's parameters; those of `transformers` last.
///
/// Tokens that these networks do not have are named here too: with them an encoder computes something else, so they
/// must not be left out in silence.
const ENCODER: [&str; 11] = [
    "pos_embed",
    "patch_embed.",
    "blocks.",
    "norm.",
    "cls_token",
    "reg_token",
    "register_tokens",
    "embeddings.",
    "encoder.layer.",
    "layernorm.",
    "layer_norm.",
];
/// Beginnings of the names of a predictor's parameters.
const PREDICTOR: [&str; 6] = [
    "mask_token",
    "predictor_pos_embed",
    "predictor_embed.",
    "predictor_blocks.",
    "predictor_norm.",
    "predictor_proj.",
];
/// A parameter of `transformers`' encoder that only masked pretraining uses.
const UNUSED: &str = "embeddings.mask_token";

/// A network of I-JEPA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Network {
    /// The context encoder. An encoder that nothing says more about counts as this one.
    Encoder,
    /// The target encoder.
    TargetEncoder,
    /// The predictor.
    Predictor,
}

impl Network {
    /// Returns its key in an official checkpoint.
    pub fn key(self) -> &'static str {
        match self {
            Network::Encoder => "encoder",
            Network::TargetEncoder => "target_encoder",
            Network::Predictor => "predictor",
        }
    }
}

/// Returns the network that a tensor called `full` belongs to, and its name there; `None` if it is no network's.
///
/// ```
/// use exchange::names::{Network, place};
///
/// let name = "module._orig_mod.blocks.0.attn.qkv.weight";
/// assert_eq!(place(name), Some((Network::Encoder, "blocks.0.attn.qkv.weight".to_owned())));
/// let name = "target_encoder.module.backbone.norm.bias";
/// assert_eq!(place(name), Some((Network::TargetEncoder, "norm.bias".to_owned())));
/// let name = "ijepa.encoder.layer.3.output.dense.bias";
/// assert_eq!(place(name), Some((Network::Encoder, "encoder.layer.3.output.dense.bias".to_owned())));
/// assert_eq!(place("classifier.weight"), None);
/// ```
pub fn place(full: &str) -> Option<(Network, String)> {
    let segments = full
        .split('.')
        .filter(|segment| !WRAPPERS.contains(segment));
    let bare = segments.collect::<Vec<_>>().join(".");
    let begins = |names: &[&str], rest: &str| {
        names.iter().any(|name| match name.strip_suffix('.') {
            Some(_) => rest.starts_with(name),
            None => rest == *name,
        })
    };
    let mut rest = bare.as_str();
    let mut network = None;
    loop {
        if begins(&PREDICTOR, rest) && matches!(network, None | Some(Network::Predictor)) {
            return Some((Network::Predictor, rest.to_owned()));
        }
        if begins(&ENCODER, rest) && rest != UNUSED {
            return Some((network.unwrap_or(Network::Encoder), rest.to_owned()));
        }
        let (first, after) = rest.split_once('.')?;
        match first {
            "encoder" | "context_encoder" => network = Some(Network::Encoder),
            "target_encoder" => network = Some(Network::TargetEncoder),
            "predictor" => network = Some(Network::Predictor),
            first if AROUND.contains(&first) => {}
            _ => return None,
        }
        rest = after;
    }
}

/// Tensors by network, under the names that they have there.
#[derive(Debug)]
pub struct Sorted<T> {
    /// The networks' tensors, in the order of the file.
    pub tensors: Vec<(Network, String, T)>,
    /// What belongs to no network.
    pub left: Left,
}

/// Names of what was left out of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// The first of them.
    pub first: Vec<String>,
    /// How many there are.
    pub count: usize,
}

impl Left {
    /// Most names that are kept.
    const SHOWN: usize = 5;

    /// Counts one more.
    pub fn add(&mut self, name: &str) {
        if self.first.len() < Self::SHOWN {
            self.first.push(name.chars().take(100).collect());
        }
        self.count += 1;
    }
}

impl std::fmt::Display for Left {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.first.join(", ");
        write!(f, "{}", shardtool::Escaped::new(&names))?;
        match self.count - self.first.len() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// Sorts tensors by network.
///
/// # Errors
/// The network and name that two tensors have.
pub fn sort<T>(
    tensors: impl IntoIterator<Item = (String, T)>,
) -> Result<Sorted<T>, (Network, String)> {
    let mut seen = HashSet::new();
    let mut sorted = Sorted {
        tensors: Vec::new(),
        left: Left::default(),
    };
    for (full, tensor) in tensors {
        let Some((network, name)) = place(&full) else {
            sorted.left.add(&full);
            continue;
        };
        if !seen.insert((network, name.clone())) {
            return Err((network, name));
        }
        sorted.tensors.push((network, name, tensor));
    }
    Ok(sorted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_and_networks_are_told_from_names() {
        use Network::{Encoder, Predictor, TargetEncoder};
        for (full, network, name) in [
            ("pos_embed", Encoder, "pos_embed"),
            ("module.norm.weight", Encoder, "norm.weight"),
            ("_orig_mod.module.norm.weight", Encoder, "norm.weight"),
            (
                "module.backbone.blocks.1.norm1.bias",
                Encoder,
                "blocks.1.norm1.bias",
            ),
            (
                "blocks.1._orig_mod.norm1.bias",
                Encoder,
                "blocks.1.norm1.bias",
            ),
            (
                "blocks.1._checkpoint_wrapped_module.norm1.bias",
                Encoder,
                "blocks.1.norm1.bias",
            ),
            ("state_dict.model.encoder.norm.bias", Encoder, "norm.bias"),
            ("encoder.encoder.layer.1.x", Encoder, "encoder.layer.1.x"),
            (
                "target_encoder.layernorm.bias",
                TargetEncoder,
                "layernorm.bias",
            ),
            (
                "target_encoder.module.patch_embed.proj.bias",
                TargetEncoder,
                "patch_embed.proj.bias",
            ),
            (
                "predictor.module.predictor_blocks.0.norm1.bias",
                Predictor,
                "predictor_blocks.0.norm1.bias",
            ),
            ("mask_token", Predictor, "mask_token"),
            // Not ours, and not to be left out: the network would be another.
            ("encoder.cls_token", Encoder, "cls_token"),
            ("blocks.0.ls1.gamma", Encoder, "blocks.0.ls1.gamma"),
            ("embeddings.cls_token", Encoder, "embeddings.cls_token"),
        ] {
            assert_eq!(place(full), Some((network, name.to_owned())), "{full}");
        }
        for full in [
            "",
            ".",
            "head.weight",
            "module.fc_norm.weight",
            "decoder.blocks.0.norm1.bias",
            "teacher.pos_embed",
            "opt.state.exp_avg",
            "embeddings.mask_token",
            "encoder.mask_token",
            "pos_embed.x",
            "norm",
        ] {
            assert_eq!(place(full), None, "{full}");
        }
    }

    #[test]
    fn two_tensors_of_one_name_are_refused() {
        let twice = ["encoder.norm.bias", "module.norm.bias"].map(|name| (name.to_owned(), ()));
        let fault = sort(twice).unwrap_err();
        assert_eq!(fault, (Network::Encoder, "norm.bias".to_owned()));
        let many = (0..9).map(|i| (format!("head.{i}"), ()));
        let left = sort(many).unwrap().left;
        let text = "head.0, head.1, head.2, head.3, head.4 and 4 more";
        assert_eq!((left.count, left.to_string()), (9, text.to_owned()));
    }
}
