//! Names of an encoder's tensors: `transformers`' for ours, and ours for theirs.

use std::collections::BTreeMap;
use std::path::Path;

use crate::Error;
use crate::weights::{Data, Tensors, Unfit};

/// The names of what is not in a block: ours, theirs.
const OUTER: [(&str, &str); 3] = [
    ("pos_embed", "embeddings.position_embeddings"),
    ("patch_embed.proj", "embeddings.patch_embeddings.projection"),
    ("norm", "layernorm"),
];
/// The names inside a block.
const INNER: [(&str, &str); 5] = [
    ("norm1", "layernorm_before"),
    ("attn.proj", "attention.output.dense"),
    ("norm2", "layernorm_after"),
    ("mlp.fc1", "intermediate.dense"),
    ("mlp.fc2", "output.dense"),
];
/// What the fused projection `attn.qkv` is made of, in its order.
const QKV: [&str; 3] = ["query", "key", "value"];

/// Returns the names there of the tensor `ours`; several of one that is split along its first dimension.
pub(super) fn theirs(ours: &str) -> Vec<String> {
    let renamed = |names: &[(&str, &str)], name: &str| {
        let found = names.iter().find_map(|(ours, theirs)| {
            let end = name.strip_prefix(ours)?;
            (end.is_empty() || end.starts_with('.')).then(|| format!("{theirs}{end}"))
        });
        found.unwrap_or_else(|| unreachable!("{name} is no name of an encoder's tensor"))
    };
    let Some((block, name)) = ours
        .strip_prefix("blocks.")
        .and_then(|rest| rest.split_once('.'))
    else {
        return vec![renamed(&OUTER, ours)];
    };
    let layer = format!("encoder.layer.{block}");
    match name.strip_prefix("attn.qkv.") {
        Some(end) => QKV
            .map(|part| format!("{layer}.attention.attention.{part}.{end}"))
            .into(),
        None => vec![format!("{layer}.{}", renamed(&INNER, name))],
    }
}

/// Returns our name of the tensor `theirs`, and which part of ours it is where that is fused.
fn ours(theirs: &str) -> Option<(String, Option<usize>)> {
    let renamed = |names: &[(&str, &str)], name: &str| {
        names.iter().find_map(|(ours, theirs)| {
            let end = name.strip_prefix(theirs)?;
            (end.is_empty() || end.starts_with('.')).then(|| format!("{ours}{end}"))
        })
    };
    let Some(rest) = theirs.strip_prefix("encoder.layer.") else {
        return Some((renamed(&OUTER, theirs)?, None));
    };
    let (block, name) = rest.split_once('.')?;
    let part = name
        .strip_prefix("attention.attention.")
        .and_then(|name| name.split_once('.'));
    let (name, part) = match part {
        Some((part, end)) => {
            let part = QKV.iter().position(|known| *known == part)?;
            (format!("attn.qkv.{end}"), Some(part))
        }
        None => (renamed(&INNER, name)?, None),
    };
    Some((format!("blocks.{block}.{name}"), part))
}

/// Tells whether tensors have that library's names.
pub(crate) fn is_named_so(tensors: &Tensors<'_>) -> bool {
    let theirs = ["embeddings.", "encoder.layer.", "layernorm."];
    let begins = |name: &String| theirs.iter().any(|theirs| name.starts_with(theirs));
    tensors.keys().any(begins)
}

/// Returns the tensors of an encoder in the file `path` under our names.
///
/// # Errors
/// [`Error::Unfit`] for a tensor that is not known, or a part that is missing; [`Error::Tensor`] for parts that do not
/// fit together.
pub(crate) fn renamed<'a>(path: &Path, tensors: Tensors<'a>) -> Result<Tensors<'a>, Error> {
    let network = "encoder";
    let mut named = Tensors::new();
    let mut parts: BTreeMap<String, [Option<Data<'a>>; QKV.len()]> = BTreeMap::new();
    for (name, tensor) in tensors {
        match ours(&name) {
            Some((ours, None)) => drop(named.insert(ours, tensor)),
            Some((ours, Some(part))) => parts.entry(ours).or_default()[part] = Some(tensor),
            None => return Err(Error::unfit(path, Unfit::Unknown { network, name })),
        }
    }
    for (name, found) in parts {
        let Some(found) = found.into_iter().collect::<Option<Vec<_>>>() else {
            return Err(Error::unfit(path, Unfit::Missing { network, name }));
        };
        let joined = Data::join(found).map_err(|cause| Error::Tensor {
            path: path.to_owned(),
            name: name.clone(),
            cause,
        })?;
        named.insert(name, joined);
    }
    Ok(named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ModelConfig;
    use crate::parameters;

    #[test]
    fn names_go_there_and_come_back() {
        let model = ModelConfig::preset("vit_tiny", 32, 8, 48, 1).unwrap();
        for parameter in parameters::encoder(&model) {
            let theirs = theirs(&parameter.name);
            for (part, name) in theirs.iter().enumerate() {
                let expected = (theirs.len() > 1).then_some(part);
                assert_eq!(ours(name), Some((parameter.name.clone(), expected)));
            }
        }
        for foreign in [
            "embeddings.cls_token",
            "encoder.layer.0",
            "encoder.layer.0.x.y",
        ] {
            assert_eq!(ours(foreign), None);
        }
    }
}
