//! Samples of more than 8 bits become 8, by a rule that is written in `shardtool/README.md`.

/// Scales whole numbers: by the smallest of the usual depths that holds the largest of them, so that 12 bits in 16 are
/// not black; from the least to the largest if some are negative. Returns with them how.
pub fn integers<T: Copy + Into<i64>>(samples: &[T]) -> (Vec<u8>, String) {
    const DEPTHS: [u32; 7] = [8, 10, 12, 14, 16, 24, 32];
    let largest = samples
        .iter()
        .map(|&sample| sample.into())
        .max()
        .unwrap_or(0);
    let least = samples
        .iter()
        .map(|&sample| sample.into())
        .min()
        .unwrap_or(0);
    if least < 0 {
        let samples: Vec<f32> = samples.iter().map(|&sample| sample.into() as f32).collect();
        return floats(&samples);
    }
    let depth = DEPTHS
        .into_iter()
        .find(|&depth| largest < 1 << depth)
        .unwrap_or(32);
    let full = (1i64 << depth) - 1;
    let scale = |&sample: &T| ((sample.into().min(full) * 255 + full / 2) / full) as u8;
    let how = format!("{depth} bits of a sample scaled to 8");
    (samples.iter().map(scale).collect(), how)
}

/// Scales floating-point numbers: from 0 to 1 if all are there, else from 0 to 255, else from the least to the largest.
/// What is no number counts as the least. Returns with them how.
pub fn floats(samples: &[f32]) -> (Vec<u8>, String) {
    let finite = || samples.iter().copied().filter(|sample| sample.is_finite());
    let least = finite().fold(f32::INFINITY, f32::min);
    let largest = finite().fold(f32::NEG_INFINITY, f32::max);
    let (from, to) = match (least, largest) {
        _ if least >= 0.0 && largest <= 1.0 => (0.0, 1.0),
        _ if least >= 0.0 && largest <= 255.0 => (0.0, 255.0),
        _ if least < largest => (least, largest),
        _ => (0.0, 1.0),
    };
    // In 64 bits: the span of two floats may be no float.
    let (from, span) = (f64::from(from), f64::from(to) - f64::from(from));
    let scale = |&sample: &f32| {
        let sample = if sample.is_nan() {
            from
        } else {
            f64::from(sample)
        };
        ((sample - from) / span * 255.0).clamp(0.0, 255.0).round() as u8
    };
    let how = format!("samples scaled from {from} .. {to} to 8 bits");
    (samples.iter().map(scale).collect(), how)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_black_nor_white() {
        let scaled = |samples: &[u16]| integers(samples).0;
        assert_eq!(scaled(&[0, 128, 255]), [0, 128, 255]);
        assert_eq!(scaled(&[0, 2048, 4095]), [0, 128, 255]);
        assert_eq!(scaled(&[0, 32768, 65535]), [0, 128, 255]);
        assert_eq!(integers(&[0i32, 1 << 23, (1 << 24) - 1]).0, [0, 128, 255]);
        assert_eq!(integers(&[-100i16, 0, 100]).0, [0, 128, 255]);
        assert_eq!(integers(&[u32::MAX, 0]).0, [255, 0]);
        let scaled = |samples: &[f32]| floats(samples).0;
        assert_eq!(scaled(&[0.0, 0.5, 1.0]), [0, 128, 255]);
        assert_eq!(scaled(&[0.0, 128.0, 255.0, f32::NAN]), [0, 128, 255, 0]);
        assert_eq!(
            scaled(&[-1000.0, 0.0, 1000.0, f32::INFINITY]),
            [0, 128, 255, 255]
        );
        assert_eq!(scaled(&[f32::MIN, f32::MAX]), [0, 255]);
        assert_eq!(scaled(&[f32::NAN]), [0]);
        assert_eq!(scaled(&[]), [0u8; 0]);
    }
}
