//! Attentive probes: a learnt query looks at the frozen encodings of an image's patches, and a linear layer tells the
//! class of what it found.
//!
//! The network is the attentive classifier of V-JEPA (Bardes et al. 2024, section 4; `AttentiveClassifier` of
//! `src/models/attentive_pooler.py` in facebookresearch/jepa) at depth 1: the query q (1 token) attends to LayerNorm(x)
//! with as many heads as the encoder has; q += attention, q += MLP(LayerNorm(q)), then a linear layer. So is the
//! training (`configs/evals/vitl16_in1k.yaml`): AdamW, weight decay of matrices alone, the rate falling to 0 along half
//! a cosine. RandAugment, which it has beside crops and flips, is left out.
//!
//! A head is one such network; those of a grid of rates begin with equal weights and share the encodings. An image has
//! as many tokens as patches, too many to keep: each time an image comes, the encoder looks at it again.

use tch::{Device, Tensor};

use super::learner::{Learner, in_bfloat16, pieces};
use super::linear::{Settings, cosine};
use super::{Error, Features};
use crate::method::init;
use crate::method::model::MLP_RATIO;
use crate::method::optimizer::Optimizer;
use crate::method::parameters::{Parameter, ParameterGroup, is_decayed};
use crate::method::transformer::{Attention, LayerNorm, Linear, Mlp, Parameters, Scope, zeroed};

/// The heads of a grid of rates, on a frozen encoder.
pub struct Attentive<'a> {
    features: &'a Features,
    /// Images that are computed at once.
    at_once: i64,
    bfloat16: bool,
    heads: Vec<Head>,
}

/// A network of its own rate and decay.
struct Head {
    pooler: Pooler,
    optimizer: Optimizer,
    lr: f64,
    weight_decay: f64,
}

/// The query with its block, and the linear layer.
struct Pooler {
    query: Tensor, // (1, 1, D)
    norm1: LayerNorm,
    attn: Attention,
    norm2: LayerNorm,
    mlp: Mlp,
    linear: Linear,
}

impl<'a> Attentive<'a> {
    /// Makes a head for each rate with each decay. Images are computed `at_once`.
    ///
    /// # Errors
    /// [`Error::Compute`] where there is no room.
    pub fn new(
        features: &'a Features,
        classes: i64,
        settings: &Settings,
        at_once: i64,
        bfloat16: bool,
    ) -> Result<Attentive<'a>, Error> {
        let model = features.encoder().config();
        let device = features.device();
        let rates = settings.lrs.iter();
        let rates =
            rates.flat_map(|&lr| settings.weight_decays.iter().map(move |&decay| (lr, decay)));
        let heads = rates.map(|(lr, weight_decay)| {
            let parameters = parameters(model.embed_dim, classes, settings.seed, device)?;
            let pooler = Pooler::new(&parameters, model.heads)?;
            Ok(Head {
                pooler,
                optimizer: Optimizer::new(decayed_and_not(parameters))?,
                lr,
                weight_decay,
            })
        });
        Ok(Attentive {
            features,
            at_once,
            bfloat16,
            heads: heads.collect::<Result<_, crate::Error>>()?,
        })
    }

    /// Returns the encodings of normalised images: (B, N, D).
    fn tokens(&self, images: &Tensor) -> Result<Tensor, crate::Error> {
        in_bfloat16(self.bfloat16, images, || {
            self.features.encoder().features(images)
        })
    }

    fn logits(&self, head: &Head, tokens: &Tensor) -> Result<Tensor, crate::Error> {
        in_bfloat16(self.bfloat16, tokens, || head.pooler.forward(tokens))
    }
}

impl Learner for Attentive<'_> {
    fn learn(&mut self, images: &Tensor, labels: &Tensor, done: f64) -> Result<(), crate::Error> {
        for (images, labels, share) in pieces(images, labels, self.at_once)? {
            let tokens = self.tokens(&images)?;
            for head in &self.heads {
                let logits = self.logits(head, &tokens)?;
                let loss = logits.f_cross_entropy_loss(
                    &labels,
                    None::<&Tensor>,
                    tch::Reduction::Mean,
                    -100,
                    0.0,
                )?;
                loss.f_mul_scalar(share)?.f_backward()?;
            }
        }
        for head in &mut self.heads {
            let lr = head.lr * cosine(done);
            head.optimizer.step(lr, head.weight_decay)?;
            head.optimizer.zero_grad()?;
        }
        Ok(())
    }

    fn told(&self, images: &Tensor) -> Result<Tensor, crate::Error> {
        let tokens = self.tokens(images)?;
        let logits = self.heads.iter().map(|head| self.logits(head, &tokens));
        let logits = logits.collect::<Result<Vec<_>, _>>()?;
        Ok(Tensor::f_stack(&logits, 1)?)
    }
}

impl Pooler {
    fn new(parameters: &Parameters, heads: i64) -> Result<Pooler, crate::Error> {
        let scope = Scope::new(parameters);
        Ok(Pooler {
            query: scope.get("query_tokens")?,
            norm1: LayerNorm::new(scope.at("norm1"))?,
            attn: Attention::new(scope.at("attn"), heads)?,
            norm2: LayerNorm::new(scope.at("norm2"))?,
            mlp: Mlp::new(scope.at("mlp"))?,
            linear: Linear::new(scope.at("linear"))?,
        })
    }

    /// Returns what speaks for each class: encodings (B, N, D) to (B, C).
    fn forward(&self, x: &Tensor) -> Result<Tensor, crate::Error> {
        let q = self.query.f_expand([x.size()[0], -1, -1], false)?; // (B, 1, D)
        let q = q.f_add(&self.attn.forward_for(&q, &self.norm1.forward(x)?)?)?;
        let q = q.f_add(&self.mlp.forward(&self.norm2.forward(&q)?)?)?;
        self.linear.forward(&q.f_squeeze_dim(1)?)
    }
}

/// Makes the fresh parameters of a head of width `d`.
fn parameters(d: i64, classes: i64, seed: u64, device: Device) -> Result<Parameters, crate::Error> {
    let hidden = MLP_RATIO * d;
    let shapes: [(&str, &[i64]); 15] = [
        ("query_tokens", &[1, 1, d]),
        ("norm1.weight", &[d]),
        ("norm1.bias", &[d]),
        ("attn.qkv.weight", &[3 * d, d]),
        ("attn.qkv.bias", &[3 * d]),
        ("attn.proj.weight", &[d, d]),
        ("attn.proj.bias", &[d]),
        ("norm2.weight", &[d]),
        ("norm2.bias", &[d]),
        ("mlp.fc1.weight", &[hidden, d]),
        ("mlp.fc1.bias", &[hidden]),
        ("mlp.fc2.weight", &[d, hidden]),
        ("mlp.fc2.bias", &[d]),
        ("linear.weight", &[classes, d]),
        ("linear.bias", &[classes]),
    ];
    let listed = shapes.map(|(name, shape)| Parameter {
        name: name.to_owned(),
        shape: shape.iter().map(|&length| length as usize).collect(),
    });
    // There are no positions here, so the grid does not matter.
    let parameters = zeroed(listed.into(), 1, device)?;
    init::initialise(&parameters, seed)?;
    // As the official constructor rescales the first block.
    for (_, tensor) in parameters
        .iter()
        .filter(|(name, _)| name == "attn.proj.weight" || name == "mlp.fc2.weight")
    {
        let root = std::f64::consts::SQRT_2;
        tch::no_grad(|| tensor.shallow_clone().f_div_scalar_(root).map(drop))?;
    }
    Ok(parameters)
}

/// Sorts parameters into those that decay and those that do not.
pub(super) fn decayed_and_not(parameters: Parameters) -> Vec<ParameterGroup<(String, Tensor)>> {
    let is_decayed = |(name, tensor): &(String, Tensor)| is_decayed(name, tensor.dim());
    let (decayed, rest) = parameters.into_iter().partition(is_decayed);
    vec![
        ParameterGroup {
            decayed: true,
            members: decayed,
        },
        ParameterGroup {
            decayed: false,
            members: rest,
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::super::features::tests::features;
    use super::super::learner::tests::{spots, taught};
    use super::*;

    fn settings(lrs: &[f64]) -> Settings {
        Settings {
            epochs: 1,
            batch: 16,
            lrs: lrs.to_vec(),
            weight_decays: vec![0.001],
            held_out: 0.0,
            seed: 1,
        }
    }

    fn weights(head: &Head) -> Tensor {
        let pooler = &head.pooler;
        Tensor::cat(
            &[
                pooler.query.flatten(0, -1),
                pooler.linear.weight.flatten(0, -1),
            ],
            0,
        )
    }

    #[test]
    fn a_query_finds_what_tells_classes_apart_wherever_it_is() {
        let features = features();
        let mut probe =
            Attentive::new(&features, 2, &settings(&[0.0, 0.003, 1e30]), 16, false).unwrap();
        let [still, good, wild] = taught(&mut probe, 80)[..] else {
            panic!("three rates are three heads");
        };
        assert!(
            good > Some(95.0) && still < Some(80.0),
            "{still:?} {good:?}"
        );
        assert!(wild.is_none(), "{wild:?}");
    }

    #[test]
    fn pieces_of_a_batch_are_the_batch_and_heads_do_not_know_of_each_other() {
        let features = features();
        let (source, classes) = spots(1);
        let images = &source.0[0].images;
        let labels = Tensor::from_slice(&classes);
        let learnt = |lrs: &[f64], at_once: i64| {
            let mut probe = Attentive::new(&features, 2, &settings(lrs), at_once, false).unwrap();
            for done in [0.0, 0.5] {
                probe.learn(images, &labels, done).unwrap();
            }
            weights(probe.heads.last().unwrap())
        };
        let whole = learnt(&[0.01], 16);
        assert!(whole.allclose(&learnt(&[0.01], 5), 1e-3, 1e-4, false));
        assert!(whole.equal(&learnt(&[0.1, 0.01], 16)));
        assert!(!whole.allclose(&learnt(&[0.02], 16), 1e-3, 1e-4, false));
    }
}
