//! Which vector instructions the hot loops may use.
//!
//! Every vector path computes the same bytes as the scalar definition next to it, so the choice is one of speed alone.

/// A family of instructions, from the plainest to the widest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Simd {
    /// Portable Rust: the definition that the others are held to.
    Scalar,
    /// x86-64 with AVX2, BMI1, BMI2, POPCNT and FMA (2013 and later).
    Avx2,
    /// AVX-512 with F, BW, DQ, VL, VBMI and VBMI2 on top (Ice Lake, Zen 4 and later).
    Avx512,
}

impl std::str::FromStr for Simd {
    type Err = String;

    fn from_str(name: &str) -> Result<Simd, String> {
        match name {
            "scalar" => Ok(Simd::Scalar),
            "avx2" => Ok(Simd::Avx2),
            "avx512" => Ok(Simd::Avx512),
            _ => Err("expected scalar, avx2 or avx512".to_owned()),
        }
    }
}

impl Simd {
    /// Returns the widest family that this machine has.
    pub fn best() -> Simd {
        *Simd::available().last().expect("scalar is always there")
    }

    /// Returns all families that this machine has, plainest first.
    pub fn available() -> &'static [Simd] {
        const ALL: [Simd; 3] = [Simd::Scalar, Simd::Avx2, Simd::Avx512];
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("bmi1")
                && is_x86_feature_detected!("bmi2")
                && is_x86_feature_detected!("popcnt")
                && is_x86_feature_detected!("fma");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vbmi")
                && is_x86_feature_detected!("avx512vbmi2");
            if avx2 {
                return if avx512 { &ALL } else { &ALL[..2] };
            }
        }
        &ALL[..1]
    }
}
