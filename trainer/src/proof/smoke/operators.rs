//! The operators that training relies on, each against a plainer way to the same result.

use anyhow::{Context, Result, ensure};
use tch::{Device, Kind, Tensor};

use super::peak_of;
use crate::torch::shim::{self, AdamW, Attention, Autocast};

/// ‖a - b‖ / ‖b‖, computed in float64 on the CPU.
pub(super) fn distance(a: &Tensor, b: &Tensor) -> Result<f64> {
    let double = |tensor: &Tensor| tensor.detach().to_device(Device::Cpu).to_kind(Kind::Double);
    let (a, b) = (double(a), double(b));
    Ok(f64::try_from((a - &b).norm())? / f64::try_from(b.norm())?)
}

/// Random values, the same on every device.
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

/// Float32 products keep float32's precision; TF32 would be off by some 3e-4.
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

/// Flash attention alone, forward and backward, against softmax written out in float32.
pub(super) fn attention(device: Device) -> Result<String> {
    let shape = [2, 8, 1024, 64]; // (B, H, N, K)
    let make = |seed| {
        let tensor = values(&shape, seed, device).to_kind(Kind::BFloat16);
        (tensor.to_kind(Kind::Float) * 4.0)
            .to_kind(Kind::BFloat16)
            .set_requires_grad(true)
    };
    let (q, k, v) = (make(1), make(2), make(3));
    let attend = |q: &Tensor, k: &Tensor, v: &Tensor| {
        Tensor::f_scaled_dot_product_attention(q, k, v, None::<&Tensor>, 0.0, false, None, false)
    };
    let usual = Attention::chosen(&q, &k, &v)?;
    let chosen = Attention::Flash.alone(|| Attention::chosen(&q, &k, &v))??;
    ensure!(
        chosen == Some(Attention::Flash),
        "with flash alone allowed, libtorch chooses {chosen:?}"
    );
    let run = || -> Result<Tensor> {
        let out = attend(&q, &k, &v)?;
        (&out * &v).sum(Kind::Float).f_backward()?;
        Ok(out)
    };
    // Only flash attention keeps no matrix of N × N.
    let (out, peak) = if device.is_cuda() {
        let (out, peak) = peak_of(&q, || Attention::Flash.alone(run))?;
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
        (Attention::Flash.alone(run)??, String::new())
    };
    let plain = |tensor: &Tensor| {
        tensor
            .detach()
            .to_device(Device::Cpu)
            .to_kind(Kind::Float)
            .set_requires_grad(true)
    };
    let (pq, pk, pv) = (plain(&q), plain(&k), plain(&v));
    let weights =
        (pq.matmul(&pk.transpose(-2, -1)) / (shape[3] as f64).sqrt()).softmax(-1, Kind::Float);
    let expected = weights.matmul(&pv);
    (&expected * &pv).sum(Kind::Float).f_backward()?;
    let mut worst = distance(&out, &expected)?;
    for (one, other) in [(&q, &pq), (&k, &pk), (&v, &pv)] {
        worst = worst.max(distance(&one.grad(), &other.grad())?);
    }
    within(worst, 2e-2, "an output or gradient")?;
    let usual = usual.context("left to itself, libtorch finds no attention to use")?;
    Ok(format!(
        "off by {worst:.1e} in bfloat16{peak}; left to itself, libtorch uses {usual:?}"
    ))
}

/// Three steps of the fused optimizer against the formula in float64.
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

/// The moving average over a list against three operations on a CPU: equal in every bit.
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
