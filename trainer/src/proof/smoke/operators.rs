//! The operators that training relies on, each against a plainer way to the same result.

use anyhow::{Context, Result, ensure};
use tch::{Device, Kind, Tensor};

use super::peak_of;
use crate::torch::shim::{self, AdamW, Attention, Autocast};

/// Returns ‖a - b‖ / ‖b‖, computed in float64 on the CPU.
pub(super) fn distance(a: &Tensor, b: &Tensor) -> Result<f64> {
    let double = |tensor: &Tensor| tensor.detach().to_device(Device::Cpu).to_kind(Kind::Double);
    let (a, b) = (double(a), double(b));
    Ok(f64::try_from((a - &b).norm())? / f64::try_from(b.norm())?)
}

/// Returns random values, equal on every device.
fn values(shape: &[i64], seed: i64, device: Device) -> Tensor {
    let count: i64 = shape.iter().product();
    let wave = Tensor::arange(count, (Kind::Double, Device::Cpu)) * 12.9898 + seed as f64 * 78.233;
    let noise = wave.sin() * 43758.5453;
    let noise = &noise - noise.floor() - 0.5;
    noise.to_kind(Kind::Float).view(shape).to_device(device)
}

fn within(found: f64, tolerance: f64, what: &str) -> Result<()> {
    // Not a number is not within.
    ensure!(
        found <= tolerance,
        "{what} off by {found:.2e}, allowed {tolerance:.0e}"
    );
    Ok(())
}

/// Checks that float32 products keep float32's precision; TF32 would be off by some 3e-4.
pub(super) fn float32(device: Device) -> Result<String> {
    let (a, b) = (
        values(&[512, 512], 1, device),
        values(&[512, 512], 2, device),
    );
    let double = |tensor: &Tensor| tensor.to_device(Device::Cpu).to_kind(Kind::Double);
    let product = distance(&a.matmul(&b), &double(&a).matmul(&double(&b)))?;
    within(product, 1e-5, "a product of 512 × 512 matrices")?;
    let (x, w) = (
        values(&[4, 3, 64, 64], 3, device),
        values(&[64, 3, 16, 16], 4, device),
    );
    let patches =
        |x: &Tensor, w: &Tensor| x.conv2d(w, None::<&Tensor>, [16, 16], [0, 0], [1, 1], 1);
    let convolution = distance(&patches(&x, &w), &patches(&double(&x), &double(&w)))?;
    within(convolution, 1e-5, "a convolution")?;
    Ok(format!(
        "off by {product:.1e} (product), {convolution:.1e} (convolution)"
    ))
}

/// Products in bfloat16; layer norms in float32 on a GPU, as the official runs have them.
pub(super) fn autocast(device: Device) -> Result<String> {
    let (x, w) = (values(&[8, 64], 1, device), values(&[32, 64], 2, device));
    let (product, norm) = {
        let _mixed = Autocast::bfloat16(&x)?;
        let product = x.linear(&w, None::<&Tensor>);
        let norm = product.layer_norm([32], None::<&Tensor>, None::<&Tensor>, 1e-6, true);
        (product, norm)
    };
    ensure!(
        product.kind() == Kind::BFloat16,
        "a product is {:?}",
        product.kind()
    );
    let expected = if device.is_cuda() {
        Kind::Float
    } else {
        Kind::BFloat16
    };
    ensure!(norm.kind() == expected, "a layer norm is {:?}", norm.kind());
    let after = x.linear(&w, None::<&Tensor>);
    ensure!(after.kind() == Kind::Float, "autocast did not end");
    within(distance(&product, &after)?, 1e-2, "a product")?;
    Ok(format!("products BFloat16, layer norms {expected:?}"))
}

/// Queries, keys and values (B, H, N, K) with gradients.
struct Heads {
    q: Tensor,
    k: Tensor,
    v: Tensor,
}

impl Heads {
    /// Makes random ones in bfloat16, in memory of their own.
    fn random(shape: &[i64], device: Device) -> Heads {
        let make = |seed| {
            let tensor = values(shape, seed, device).to_kind(Kind::BFloat16);
            (tensor.to_kind(Kind::Float) * 4.0)
                .to_kind(Kind::BFloat16)
                .set_requires_grad(true)
        };
        Heads {
            q: make(1),
            k: make(2),
            v: make(3),
        }
    }

    /// Returns them as the networks have them: queries are the first of the tokens, and heads lie side by side in a
    /// token.
    fn in_tokens(&self, queries: i64) -> Result<Heads> {
        let view = |tensor: &Tensor, first: i64| -> Result<Tensor> {
            let tokens = tensor.f_transpose(1, 2)?.f_contiguous()?; // (B, N, H, K)
            Ok(tokens.f_narrow(1, 0, first)?.f_transpose(1, 2)?)
        };
        let all = self.k.size()[2];
        Ok(Heads {
            q: view(&self.q, queries)?,
            k: view(&self.k, all)?,
            v: view(&self.v, all)?,
        })
    }

    fn attend(&self) -> Result<Tensor> {
        let Heads { q, k, v } = self;
        let none = None::<&Tensor>;
        Ok(Tensor::f_scaled_dot_product_attention(
            q, k, v, none, 0.0, false, None, false,
        )?)
    }

    /// Computes the output and, by the backward pass of a sum, the gradients.
    fn run(&self) -> Result<Tensor> {
        let out = self.attend()?;
        let like = self.v.f_narrow(2, 0, out.size()[2])?;
        out.f_mul(&like)?.f_sum(Kind::Float)?.f_backward()?;
        Ok(out)
    }

    /// Returns the largest distance of `out` and the gradients of `leaves` from softmax written out in float32.
    fn off(leaves: &Heads, out: &Tensor) -> Result<f64> {
        let plain = |tensor: &Tensor| {
            tensor
                .detach()
                .to_device(Device::Cpu)
                .to_kind(Kind::Float)
                .set_requires_grad(true)
        };
        let (q, k, v) = (plain(&leaves.q), plain(&leaves.k), plain(&leaves.v));
        let (queries, width) = (out.size()[2], out.size()[3]);
        let products = q.narrow(2, 0, queries).matmul(&k.transpose(-2, -1));
        let weights = (products / (width as f64).sqrt()).softmax(-1, Kind::Float);
        let expected = weights.matmul(&v);
        (&expected * v.narrow(2, 0, queries))
            .sum(Kind::Float)
            .f_backward()?;
        let mut worst = distance(out, &expected)?;
        for (one, other) in [(&leaves.q, &q), (&leaves.k, &k), (&leaves.v, &v)] {
            worst = worst.max(distance(&one.grad(), &other.grad())?);
        }
        Ok(worst)
    }
}

/// Checks flash attention alone, forward and backward, against softmax written out in float32.
///
/// Heads of the width of most models in memory of their own; then those of ViT-H and of narrow predictors, in tokens,
/// with fewer queries than keys, as the last blocks have them.
pub(super) fn attention(device: Device) -> Result<String> {
    let shape = [2, 8, 1024, 64]; // (B, H, N, K)
    let heads = Heads::random(&shape, device);
    let chosen = |heads: &Heads| Attention::chosen(&heads.q, &heads.k, &heads.v);
    let usual = chosen(&heads)?;
    let needs_flash = |heads: &Heads| -> Result<()> {
        let chosen = Attention::Flash.alone(|| chosen(heads))??;
        ensure!(
            chosen == Some(Attention::Flash),
            "with flash alone allowed, libtorch chooses {chosen:?}"
        );
        Ok(())
    };
    needs_flash(&heads)?;
    // Only flash attention keeps no matrix of N × N.
    let (out, peak) = if device.is_cuda() {
        let (out, peak) = peak_of(&heads.q, || Attention::Flash.alone(|| heads.run()))?;
        let matrix = (shape[0] * shape[1] * shape[2] * shape[2] * 2) as u64;
        ensure!(
            peak < 2 * matrix,
            "{peak} bytes were needed, a matrix of all pairs takes {matrix}"
        );
        (
            out??,
            format!(", peak {:.0} MiB", peak as f64 / f64::from(1 << 20)),
        )
    } else {
        (Attention::Flash.alone(|| heads.run())??, String::new())
    };
    let mut worst = Heads::off(&heads, &out)?;
    for width in [80, 24] {
        let leaves = Heads::random(&[2, 4, 256, width], device);
        let heads = leaves.in_tokens(96)?;
        needs_flash(&heads).with_context(|| format!("heads of {width}"))?;
        let out = Attention::Flash.alone(|| heads.run())??;
        worst = worst.max(Heads::off(&leaves, &out)?);
    }
    within(worst, 2e-2, "an output or gradient")?;
    let usual = usual.context("left to itself, libtorch finds no attention to use")?;
    Ok(format!(
        "off by {worst:.1e} in bfloat16, heads of 64, 80 and 24{peak}; left to itself, libtorch uses {usual:?}"
    ))
}

/// Checks three steps of the fused optimizer against the formula in float64.
pub(super) fn adamw(device: Device) -> Result<String> {
    let constants = AdamW {
        lr: 1e-3,
        beta1: 0.9,
        beta2: 0.999,
        weight_decay: 0.05,
        eps: 1e-8,
    };
    let shapes: [&[i64]; 3] = [&[64, 48], &[48], &[1]];
    let start: Vec<Tensor> = shapes
        .iter()
        .zip(1..)
        .map(|(shape, seed)| values(shape, seed, device))
        .collect();
    let parameters: Vec<Tensor> = start.iter().map(Tensor::copy).collect();
    let zeros = || start.iter().map(Tensor::zeros_like).collect::<Vec<_>>();
    let (m, v) = (zeros(), zeros());
    let step = Tensor::zeros([] as [i64; 0], (Kind::Float, device));
    let double = |tensor: &Tensor| tensor.to_device(Device::Cpu).to_kind(Kind::Double);
    let mut expected: Vec<Tensor> = start.iter().map(double).collect();
    let mut moments: Vec<_> = expected
        .iter()
        .map(|p| (p.zeros_like(), p.zeros_like()))
        .collect();
    for t in 1..=3 {
        let gradients: Vec<Tensor> = shapes
            .iter()
            .zip(10 * i64::from(t)..)
            .map(|(shape, seed)| values(shape, seed, device))
            .collect();
        let _ = step.shallow_clone().f_add_scalar_(1.0)?;
        shim::adamw(
            &borrow(&parameters),
            &gradients,
            &borrow(&m),
            &borrow(&v),
            &step,
            constants,
        )?;
        let AdamW {
            lr,
            beta1,
            beta2,
            weight_decay,
            eps,
        } = constants;
        for ((p, (m, v)), g) in expected.iter_mut().zip(&mut moments).zip(&gradients) {
            let g = double(g);
            *m = &*m * beta1 + &g * (1.0 - beta1);
            *v = &*v * beta2 + &g * &g * (1.0 - beta2);
            let denominator = (&*v / (1.0 - beta2.powi(t))).sqrt() + eps;
            *p = &*p * (1.0 - lr * weight_decay) - &*m / denominator * (lr / (1.0 - beta1.powi(t)));
        }
    }
    let pairs = parameters.iter().zip(&expected);
    let worst = pairs
        .map(|(p, e)| distance(p, e))
        .try_fold(0.0, |worst: f64, d| d.map(|d| worst.max(d)))?;
    within(worst, 1e-6, "a parameter after 3 steps")?;
    Ok(format!("off by {worst:.1e} after 3 steps"))
}

fn borrow(tensors: &[Tensor]) -> Vec<&Tensor> {
    tensors.iter().collect()
}

/// Checks the moving average over a list against three operations on a CPU: equal in every bit.
pub(super) fn ema(device: Device) -> Result<String> {
    // More than one piece of the list.
    let list = |first: i64| {
        (0..40)
            .map(move |i| values(&[33, 7], first + i, device))
            .collect::<Vec<_>>()
    };
    let (slow, fast) = (list(1), list(100));
    let expected: Vec<Tensor> = slow
        .iter()
        .zip(&fast)
        .map(|(slow, fast)| {
            slow.to_device(Device::Cpu) * 0.996 + fast.to_device(Device::Cpu) * (1.0 - 0.996)
        })
        .collect();
    shim::ema(slow.iter().zip(&fast), 0.996)?;
    let equal = slow
        .iter()
        .zip(&expected)
        .filter(|(one, other)| one.to_device(Device::Cpu).equal(other));
    let equal = equal.count();
    ensure!(equal == 40, "{equal} of 40 tensors are equal to the CPU's");
    Ok("40 tensors, equal in every bit".to_owned())
}
