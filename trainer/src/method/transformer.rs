//! The parts of a vision transformer.
//!
//! Letters in the shape comments are those of [`crate::method::encoder`]. Official code:
//! `src/models/vision_transformer.py`. A part takes its tensors by name from a [`Scope`].

use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use crate::Error;
use crate::method::model::LAYER_NORM_EPS;
use crate::method::parameters::Parameter;
use crate::method::positions;
use crate::torch::shim;

/// Tensors of a network by official name, in the official order.
pub(crate) type Parameters = Vec<(String, Tensor)>;

/// Makes the tensors of a network: zeros that are trained, and the position embedding of a `grid`, which is not.
pub(crate) fn zeroed(
    parameters: Vec<Parameter>,
    grid: i64,
    device: Device,
) -> Result<Parameters, Error> {
    let made = parameters.into_iter().map(|parameter| {
        let shape: Vec<i64> = parameter
            .shape
            .iter()
            .map(|&length| length as i64)
            .collect();
        let tensor = if parameter.is_trained() {
            Tensor::f_zeros(&shape, (Kind::Float, device))?.f_set_requires_grad(true)?
        } else {
            positions::embedding(shape[2], grid, device)?
        };
        Ok((parameter.name, tensor))
    });
    made.collect()
}

/// Puts another position embedding in the place of the one that `parameters` have.
pub(crate) fn replace_positions(parameters: &mut Parameters, positions: &Tensor) {
    for (name, tensor) in parameters {
        if name.ends_with("pos_embed") {
            *tensor = positions.shallow_clone();
        }
    }
}

/// The tensors of a network whose names begin in the same way.
pub(crate) struct Scope<'a> {
    parameters: &'a Parameters,
    prefix: String,
}

impl<'a> Scope<'a> {
    /// Makes the scope of all tensors.
    pub fn new(parameters: &'a Parameters) -> Self {
        Self {
            parameters,
            prefix: String::new(),
        }
    }

    /// Returns the scope of what stands under `name`.
    pub fn at(&self, name: impl std::fmt::Display) -> Scope<'a> {
        Scope {
            parameters: self.parameters,
            prefix: format!("{}{name}.", self.prefix),
        }
    }

    /// Returns a handle to a tensor.
    pub fn get(&self, name: &str) -> Result<Tensor, Error> {
        let name = format!("{}{name}", self.prefix);
        let found = self.parameters.iter().find(|(known, _)| *known == name);
        match found {
            Some((_, tensor)) => Ok(tensor.shallow_clone()),
            None => Err(Error::MissingTensor(name)),
        }
    }

    /// Returns handles to all tensors of the scope.
    fn all(&self) -> Vec<Tensor> {
        let here = self.parameters.iter();
        here.filter(|(name, _)| name.starts_with(&self.prefix))
            .map(|(_, tensor)| tensor.shallow_clone())
            .collect()
    }
}

/// A weight and a bias; also those of the patch projection.
pub(crate) struct Linear {
    pub weight: Tensor,
    pub bias: Tensor,
}

impl Linear {
    pub fn new(scope: Scope<'_>) -> Result<Self, Error> {
        Ok(Self {
            weight: scope.get("weight")?,
            bias: scope.get("bias")?,
        })
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        shim::linear(x, &self.weight, &self.bias)
    }

    pub fn forward_without_bias(&self, x: &Tensor) -> Result<Tensor, Error> {
        Ok(x.f_linear(&self.weight, None::<&Tensor>)?)
    }
}

/// Layer norm over the last dimension, with gain and bias.
pub(crate) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
}

impl LayerNorm {
    pub fn new(scope: Scope<'_>) -> Result<Self, Error> {
        Ok(Self {
            weight: scope.get("weight")?,
            bias: scope.get("bias")?,
        })
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        let (weight, bias) = (Some(&self.weight), Some(&self.bias));
        Ok(x.f_layer_norm(self.weight.size(), weight, bias, LAYER_NORM_EPS, true)?)
    }
}

/// Self-attention of all tokens with all.
pub(crate) struct Attention {
    qkv: Linear,
    proj: Linear,
    heads: i64,
}

impl Attention {
    pub fn new(scope: Scope<'_>, heads: i64) -> Result<Self, Error> {
        Ok(Self {
            qkv: Linear::new(scope.at("qkv"))?,
            proj: Linear::new(scope.at("proj"))?,
            heads,
        })
    }

    /// Lets all tokens look at all: (B, N, D) to (B, N, D).
    fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        // Cut along the last dimension, so that the gradients of the three are put together in one pass.
        let qkv = self.qkv.forward(x)?.f_chunk(3, -1)?; // 3 × (B, N, D)
        self.proj.forward(&self.mix(&qkv[0], &qkv[1], &qkv[2])?)
    }

    /// Lets the tokens `queries` (B, Q, D) alone look at all of `x` (B, N, D): (B, Q, D).
    pub fn forward_for(&self, queries: &Tensor, x: &Tensor) -> Result<Tensor, Error> {
        let (_, _, d) = x.size3()?;
        let part = |first: i64, count: i64| -> Result<Linear, Error> {
            Ok(Linear {
                weight: self.qkv.weight.f_narrow(0, first * d, count * d)?,
                bias: self.qkv.bias.f_narrow(0, first * d, count * d)?,
            })
        };
        let kv = part(1, 2)?.forward(x)?.f_chunk(2, -1)?; // 2 × (B, N, D)
        let mixed = self.mix(&part(0, 1)?.forward(queries)?, &kv[0], &kv[1])?;
        self.proj.forward(&mixed) // (B, Q, D)
    }

    /// Returns the attention of the queries (B, Q, D) over the keys and values (B, N, D): (B, Q, D).
    fn mix(&self, queries: &Tensor, keys: &Tensor, values: &Tensor) -> Result<Tensor, Error> {
        let (b, n, d) = queries.size3()?;
        let heads = |x: &Tensor| -> Result<Tensor, Error> {
            let (_, n, _) = x.size3()?;
            let x = x.f_view([b, n, self.heads, d / self.heads])?;
            Ok(x.f_transpose(1, 2)?) // (B, H, N, K)
        };
        let mixed = Tensor::f_scaled_dot_product_attention(
            &heads(queries)?,
            &heads(keys)?,
            &heads(values)?,
            None::<&Tensor>,
            0.0,   // no dropout
            false, // not causal
            None,  // scale 1/√K
            false, // as many key heads as query heads
        )?; // (B, H, Q, K)
        Ok(mixed.f_transpose(1, 2)?.f_reshape([b, n, d])?)
    }
}

/// Two layers, token by token.
pub(crate) struct Mlp {
    fc1: Linear,
    fc2: Linear,
}

impl Mlp {
    pub fn new(scope: Scope<'_>) -> Result<Self, Error> {
        Ok(Self {
            fc1: Linear::new(scope.at("fc1"))?,
            fc2: Linear::new(scope.at("fc2"))?,
        })
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        // "none": the exact GELU, by the error function.
        self.fc2.forward(&self.fc1.forward(x)?.f_gelu("none")?)
    }
}

/// A pre-norm transformer block.
pub(crate) struct Block {
    layers: Arc<Layers>,
    parameters: Vec<Tensor>,
    /// Whether the backward pass computes the block's intermediate results again instead of finding them kept.
    recomputed: bool,
}

struct Layers {
    norm1: LayerNorm,
    attn: Attention,
    norm2: LayerNorm,
    mlp: Mlp,
}

impl Block {
    pub fn new(scope: Scope<'_>, heads: i64) -> Result<Self, Error> {
        let layers = Layers {
            norm1: LayerNorm::new(scope.at("norm1"))?,
            attn: Attention::new(scope.at("attn"), heads)?,
            norm2: LayerNorm::new(scope.at("norm2"))?,
            mlp: Mlp::new(scope.at("mlp"))?,
        };
        #[allow(
            clippy::arc_with_non_send_sync,
            reason = "its count is changed by libtorch's threads: see `forward`"
        )]
        let layers = Arc::new(layers);
        Ok(Self {
            layers,
            parameters: scope.all(),
            recomputed: false,
        })
    }

    /// Trades time for memory, or back: see [`shim::recomputed`].
    pub fn set_recomputed(&mut self, recomputed: bool) {
        self.recomputed = recomputed;
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        // Without gradients nothing is kept anyway. The input requires one wherever training passes through.
        if !(self.recomputed && x.requires_grad()) {
            return self.layers.forward(x);
        }
        let layers = Arc::clone(&self.layers);
        let parameters: Vec<&Tensor> = self.parameters.iter().collect();
        // SAFETY: the layers are tensors, whose handles libtorch counts atomically and which may be read from any
        // thread, and plain numbers; the backward pass only reads them.
        unsafe { shim::recomputed(x, &parameters, move |x| layers.forward(x)) }
    }

    /// Computes the block for the tokens that `keep` picks. They look at all tokens; the others get no result.
    ///
    /// The intermediate results are always kept for the backward pass.
    pub fn forward_for(
        &self,
        x: &Tensor,
        keep: impl Fn(&Tensor) -> Result<Tensor, Error>,
    ) -> Result<Tensor, Error> {
        self.layers.forward_for(x, keep)
    }
}

impl Layers {
    fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        let x = x.f_add(&self.attn.forward(&self.norm1.forward(x)?)?)?;
        Ok(x.f_add(&self.mlp.forward(&self.norm2.forward(&x)?)?)?)
    }

    fn forward_for(
        &self,
        x: &Tensor,
        keep: impl Fn(&Tensor) -> Result<Tensor, Error>,
    ) -> Result<Tensor, Error> {
        let y = self.norm1.forward(x)?;
        let x = keep(x)?.f_add(&self.attn.forward_for(&keep(&y)?, &y)?)?;
        Ok(x.f_add(&self.mlp.forward(&self.norm2.forward(&x)?)?)?)
    }
}
