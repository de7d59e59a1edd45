//! Tensors of files held against the list of parameters that the networks have.

use std::collections::HashSet;

use shardtool::Escaped;

use super::Tensors;
use crate::model::{ModelConfig, Preset, SizesError};
use crate::parameters::Parameter;

/// Most blocks of a network that is read; the deepest official one has 40.
pub const MAX_DEPTH: usize = 1000;

/// Longest side of a tensor that sizes are read from.
const MAX_LENGTH: usize = 1 << 20;

/// The reason why tensors are not those of I-JEPA's networks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unfit {
    /// A tensor that sizes are read from is not there.
    #[error("no tensor `{0}`: not the weights of an I-JEPA network")]
    Foreign(&'static str),
    /// A tensor of the network is not there.
    #[error("{network}: tensor `{}` is missing", Escaped::new(name))]
    Missing {
        /// The network, or `optimizer`.
        network: &'static str,
        /// The tensor.
        name: String,
    },
    /// A tensor is not one of the network's.
    #[error(
        "{network}: tensor `{}` is not known to this model",
        Escaped::new(name)
    )]
    Unknown {
        /// The network, or `optimizer`.
        network: &'static str,
        /// The tensor.
        name: String,
    },
    /// A tensor has other lengths than the network's.
    #[error(
        "{network}: tensor `{}` is {found:?}, expected {expected:?}",
        Escaped::new(name)
    )]
    Shape {
        /// The network, or `optimizer`.
        network: &'static str,
        /// The tensor.
        name: String,
        /// Its lengths.
        found: Vec<usize>,
        /// The lengths of the network's tensor.
        expected: Vec<usize>,
    },
    /// A tensor that sizes are read from has another number of dimensions.
    #[error("tensor `{name}` is {found:?}, expected {expected} dimensions")]
    Dimensions {
        /// The tensor.
        name: &'static str,
        /// Its lengths.
        found: Vec<usize>,
        /// How many there should be.
        expected: usize,
    },
    /// A tensor that sizes are read from is empty, or larger than any network's.
    #[error("tensor `{name}` is {found:?}: lengths from 1 to {MAX_LENGTH} make a network")]
    Length {
        /// The tensor.
        name: &'static str,
        /// Its lengths.
        found: Vec<usize>,
    },
    /// The network has more blocks than any that is known.
    #[error("{network}: more than {MAX_DEPTH} blocks; the deepest official model has 40")]
    TooDeep {
        /// The network.
        network: &'static str,
    },
    /// The position embeddings make no square of patches.
    #[error("`pos_embed` has {0} positions, which make no square")]
    NoSquare(i64),
    /// The encoder is none of the official ones, so nothing tells its number of heads.
    #[error(
        "an encoder {embed_dim} wide, {depth} deep, its MLPs {mlp_dim} wide, is none of the official ones"
    )]
    NotOfficial {
        /// Width of the encoder.
        embed_dim: i64,
        /// Blocks of the encoder.
        depth: i64,
        /// Hidden width of its MLPs.
        mlp_dim: i64,
    },
    /// The sizes make no network.
    #[error(transparent)]
    Sizes(#[from] SizesError),
}

/// Returns the sizes of the networks with these weights; without a predictor, its width and depth are 0.
///
/// The number of heads, which no shape tells, is `heads`, or that of the official model with the other sizes.
///
/// # Errors
/// [`Unfit`] if the tensors are not those of such networks. Only those that sizes are read from are looked at;
/// [`check`] looks at all.
pub fn sizes(
    encoder: &Tensors<'_>,
    predictor: Option<&Tensors<'_>>,
    heads: Option<i64>,
) -> Result<ModelConfig, Unfit> {
    let patches = lengths::<4>(encoder, "patch_embed.proj.weight")?;
    let (embed_dim, patch_size) = (patches[0], patches[2]);
    let [mlp_dim, _] = lengths(encoder, "blocks.0.mlp.fc1.weight")?;
    let [_, positions, _] = lengths(encoder, "pos_embed")?;
    let grid = (positions as f64).sqrt() as i64;
    if grid * grid != positions {
        return Err(Unfit::NoSquare(positions));
    }
    let depth = blocks(encoder, "encoder", "blocks")?;
    let (predictor_dim, predictor_depth) = match predictor {
        None => (0, 0),
        Some(predictor) => {
            let [width, _] = lengths(predictor, "predictor_embed.weight")?;
            (width, blocks(predictor, "predictor", "predictor_blocks")?)
        }
    };
    let official = || Preset::of(embed_dim, depth, mlp_dim).map(|preset| preset.heads);
    let heads = heads.or_else(official).ok_or(Unfit::NotOfficial {
        embed_dim,
        depth,
        mlp_dim,
    })?;
    let model = ModelConfig {
        image_size: grid * patch_size,
        patch_size,
        embed_dim,
        depth,
        heads,
        mlp_dim,
        predictor_dim,
        predictor_depth,
    };
    if predictor.is_some() {
        model.check()?;
    } else {
        model.check_encoder()?;
    }
    Ok(model)
}

/// Returns the lengths of a tensor that there must be, each of them sane enough to be multiplied with others.
fn lengths<const N: usize>(tensors: &Tensors<'_>, name: &'static str) -> Result<[i64; N], Unfit> {
    let shape = tensors.get(name).ok_or(Unfit::Foreign(name))?.shape();
    if !shape.iter().all(|length| (1..=MAX_LENGTH).contains(length)) {
        return Err(Unfit::Length {
            name,
            found: shape.to_vec(),
        });
    }
    let lengths: Vec<i64> = shape.iter().map(|&length| length as i64).collect();
    lengths.try_into().map_err(|_| Unfit::Dimensions {
        name,
        found: shape.to_vec(),
        expected: N,
    })
}

/// Returns the number of blocks with these names.
fn blocks(tensors: &Tensors<'_>, network: &'static str, prefix: &str) -> Result<i64, Unfit> {
    let is_there = |i: &usize| tensors.contains_key(&format!("{prefix}.{i}.norm1.weight"));
    let depth = (0..=MAX_DEPTH).take_while(is_there).count();
    if depth > MAX_DEPTH {
        return Err(Unfit::TooDeep { network });
    }
    Ok(depth as i64)
}

/// Makes sure that `tensors` are the `parameters` of `network`, all of them and no other.
///
/// # Errors
/// [`Unfit::Missing`], [`Unfit::Shape`] or [`Unfit::Unknown`] with the first tensor that differs.
pub fn check(
    network: &'static str,
    tensors: &Tensors<'_>,
    parameters: &[Parameter],
) -> Result<(), Unfit> {
    for Parameter { name, shape } in parameters {
        let name = name.clone();
        match tensors.get(&name).map(|tensor| tensor.shape()) {
            None => return Err(Unfit::Missing { network, name }),
            Some(found) if found != shape => {
                return Err(Unfit::Shape {
                    network,
                    name,
                    found: found.to_vec(),
                    expected: shape.clone(),
                });
            }
            Some(_) => {}
        }
    }
    let known: HashSet<&String> = parameters.iter().map(|known| &known.name).collect();
    match tensors.keys().find(|name| !known.contains(name)) {
        None => Ok(()),
        Some(name) => Err(Unfit::Unknown {
            network,
            name: name.clone(),
        }),
    }
}
