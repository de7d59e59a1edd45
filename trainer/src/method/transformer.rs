//! The parts of a vision transformer, and the order and names of their parameters.
//!
//! Used by [`crate::method::model`], whose letters the shape comments share. A part makes its parameters through a [`Maker`],
//! which remembers them under their official names in the order of making: that order is the official one too.

use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use crate::torch::shim;

/// Epsilon of every layer norm inside the networks.
pub(crate) const LAYER_NORM_EPS: f64 = 1e-6;

/// Parameters in the order in which a network makes them, under their official names.
pub type Parameters = Vec<(String, Tensor)>;

/// Makes zeroed parameters of one network, and remembers them; `name` is the path so far.
pub struct Maker<'a> {
    parameters: &'a mut Parameters,
    name: String,
    device: Device,
}

impl<'a> Maker<'a> {
    pub fn new(parameters: &'a mut Parameters, device: Device) -> Self {
        Self {
            parameters,
            name: String::new(),
            device,
        }
    }

    /// Makes what stands under `name`.
    pub fn at(&mut self, name: impl std::fmt::Display) -> Maker<'_> {
        let name = format!("{}{name}.", self.name);
        Maker {
            parameters: self.parameters,
            name,
            device: self.device,
        }
    }

    /// Makes a trained parameter.
    pub fn parameter(&mut self, name: &str, shape: &[i64]) -> Tensor {
        self.keep(
            name,
            Tensor::zeros(shape, (Kind::Float, self.device)).set_requires_grad(true),
        )
    }

    /// Remembers a parameter as it is.
    pub fn keep(&mut self, name: &str, tensor: Tensor) -> Tensor {
        self.parameters
            .push((format!("{}{name}", self.name), tensor.shallow_clone()));
        tensor
    }
}

/// A weight and a bias; also those of the patch projection.
pub struct Linear {
    pub weight: Tensor,
    pub bias: Tensor,
}

impl Linear {
    pub fn new(mut make: Maker<'_>, input: i64, output: i64) -> Self {
        Self {
            weight: make.parameter("weight", &[output, input]),
            bias: make.parameter("bias", &[output]),
        }
    }

    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, Some(&self.bias))
    }
}

/// Over the last dimension, with gain and bias.
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    width: i64,
}

impl LayerNorm {
    pub fn new(mut make: Maker<'_>, width: i64) -> Self {
        Self {
            weight: make.parameter("weight", &[width]),
            bias: make.parameter("bias", &[width]),
            width,
        }
    }

    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.layer_norm(
            [self.width],
            Some(&self.weight),
            Some(&self.bias),
            LAYER_NORM_EPS,
            true,
        )
    }
}

/// Self-attention of all tokens with all.
pub struct Attention {
    qkv: Linear,
    proj: Linear,
    heads: i64,
}

impl Attention {
    pub fn new(mut make: Maker<'_>, width: i64, heads: i64) -> Self {
        Self {
            qkv: Linear::new(make.at("qkv"), width, 3 * width),
            proj: Linear::new(make.at("proj"), width, width),
            heads,
        }
    }

    /// All tokens look at all: (B, N, D) to (B, N, D).
    fn forward(&self, x: &Tensor) -> Tensor {
        // Cut along the last dimension, so that the gradients of the three are put together in one pass.
        let qkv = self.qkv.forward(x).chunk(3, -1); // 3 × (B, N, D)
        self.proj.forward(&self.mix(&qkv[0], &qkv[1], &qkv[2]))
    }

    /// The same for the tokens `queries` (B, Q, D), which look at all of `x` (B, N, D).
    fn forward_for(&self, queries: &Tensor, x: &Tensor) -> Tensor {
        let d = x.size()[2];
        let part = |first: i64, count: i64| Linear {
            weight: self.qkv.weight.narrow(0, first * d, count * d),
            bias: self.qkv.bias.narrow(0, first * d, count * d),
        };
        let kv = part(1, 2).forward(x).chunk(2, -1); // 2 × (B, N, D)
        let mixed = self.mix(&part(0, 1).forward(queries), &kv[0], &kv[1]);
        self.proj.forward(&mixed) // (B, Q, D)
    }

    /// Attention of the queries (B, Q, D) over the keys and values (B, N, D): (B, Q, D).
    fn mix(&self, queries: &Tensor, keys: &Tensor, values: &Tensor) -> Tensor {
        let (b, n, d) = queries.size3().expect("tokens are (B, N, D)");
        let heads = |x: &Tensor| {
            x.view([b, x.size()[1], self.heads, d / self.heads])
                .transpose(1, 2) // (B, H, N, K)
        };
        let mixed = Tensor::scaled_dot_product_attention(
            &heads(queries),
            &heads(keys),
            &heads(values),
            None::<&Tensor>,
            0.0,   // no dropout
            false, // not causal
            None,  // scale 1/√K
            false, // as many key heads as query heads
        ); // (B, H, Q, K)
        mixed.transpose(1, 2).reshape([b, n, d])
    }
}

/// Two layers, token by token.
pub struct Mlp {
    fc1: Linear,
    fc2: Linear,
}

impl Mlp {
    pub fn new(mut make: Maker<'_>, width: i64, hidden: i64) -> Self {
        Self {
            fc1: Linear::new(make.at("fc1"), width, hidden),
            fc2: Linear::new(make.at("fc2"), hidden, width),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        // "none": the exact GELU, by the error function.
        self.fc2.forward(&self.fc1.forward(x).gelu("none"))
    }
}

/// A pre-norm transformer block.
pub struct Block {
    layers: Arc<Layers>,
    parameters: Vec<Tensor>,
    /// Whether the backward pass computes the block's intermediate results anew instead of finding them kept.
    recomputed: bool,
}

struct Layers {
    norm1: LayerNorm,
    attn: Attention,
    norm2: LayerNorm,
    mlp: Mlp,
}

impl Block {
    pub fn new(mut make: Maker<'_>, width: i64, heads: i64, hidden: i64) -> Self {
        let first = make.parameters.len();
        let layers = Layers {
            norm1: LayerNorm::new(make.at("norm1"), width),
            attn: Attention::new(make.at("attn"), width, heads),
            norm2: LayerNorm::new(make.at("norm2"), width),
            mlp: Mlp::new(make.at("mlp"), width, hidden),
        };
        let made = make.parameters[first..].iter();
        #[allow(
            clippy::arc_with_non_send_sync,
            reason = "its count is changed by libtorch's threads: see `forward`"
        )]
        let layers = Arc::new(layers);
        Self {
            layers,
            parameters: made.map(|(_, tensor)| tensor.shallow_clone()).collect(),
            recomputed: false,
        }
    }

    /// Trades time for memory, or back: see [`shim::recomputed`].
    pub fn set_recomputed(&mut self, recomputed: bool) {
        self.recomputed = recomputed;
    }

    pub fn forward(&self, x: &Tensor) -> Tensor {
        // Without gradients nothing is kept anyway. The input requires one wherever training passes through.
        if !(self.recomputed && x.requires_grad()) {
            return self.layers.forward(x);
        }
        let layers = Arc::clone(&self.layers);
        let parameters: Vec<&Tensor> = self.parameters.iter().collect();
        // SAFETY: the layers are tensors, whose handles libtorch counts atomically and which may be read from any
        // thread, and plain numbers; the backward pass only reads them.
        let y = unsafe { shim::recomputed(x, &parameters, move |x| layers.forward(x)) };
        y.unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same for the tokens that `keep` picks: they look at all, what becomes of the others is not computed. It is
    /// always kept for the backward pass.
    pub fn forward_for(&self, x: &Tensor, keep: impl Fn(&Tensor) -> Tensor) -> Tensor {
        self.layers.forward_for(x, keep)
    }
}

impl Layers {
    fn forward(&self, x: &Tensor) -> Tensor {
        let x = x + self.attn.forward(&self.norm1.forward(x));
        &x + self.mlp.forward(&self.norm2.forward(&x))
    }

    fn forward_for(&self, x: &Tensor, keep: impl Fn(&Tensor) -> Tensor) -> Tensor {
        let y = self.norm1.forward(x);
        let x = keep(x) + self.attn.forward_for(&keep(&y), &y);
        &x + self.mlp.forward(&self.norm2.forward(&x))
    }
}
