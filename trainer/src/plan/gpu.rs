//! What GPUs can do, by their data sheets.

use serde::Serialize;

/// A kind of GPU.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Gpu {
    /// Name by which it is asked for.
    pub name: &'static str,
    /// Part of the name by which CUDA knows it.
    #[serde(skip)]
    known_as: &'static str,
    /// Multiplications and additions per second of dense bfloat16 products, in 10^12; none: the GPU has no bfloat16.
    pub bfloat16_tflops: Option<f64>,
    /// The same in float32, without tensor cores.
    pub float32_tflops: f64,
    /// Memory as CUDA counts it, in GiB.
    pub memory_gib: f64,
    /// Bytes per second between it and the GPU, in 10^9.
    pub bandwidth_gbs: f64,
    /// Share of the peak that large products reach, at worst and at best.
    pub products: [f64; 2],
}

/// Share of the peak that large products reach: of GPUs whose memory keeps up with their tensor cores, and of those
/// that came after, whose tensor cores grew faster.
const BALANCED: [f64; 2] = [0.5, 0.7];
const HUNGRY: [f64; 2] = [0.35, 0.55];

const fn gpu(
    (name, known_as): (&'static str, &'static str),
    [bfloat16, float32]: [f64; 2],
    memory_gib: f64,
    bandwidth_gbs: f64,
    products: [f64; 2],
) -> Gpu {
    Gpu {
        name,
        known_as,
        bfloat16_tflops: if bfloat16 > 0.0 { Some(bfloat16) } else { None },
        float32_tflops: float32,
        memory_gib,
        bandwidth_gbs,
        products,
    }
}

/// All known kinds. Of those whose name CUDA begins alike, the longer name comes first.
pub const GPUS: [Gpu; 18] = [
    gpu(("B200", "B200"), [2250.0, 75.0], 178.4, 8000.0, HUNGRY),
    gpu(("H200", "H200"), [989.4, 66.9], 139.8, 4800.0, HUNGRY),
    gpu(
        ("H100-PCIe", "H100 PCIe"),
        [756.4, 51.2],
        79.1,
        2000.0,
        HUNGRY,
    ),
    gpu(
        ("H100-NVL", "H100 NVL"),
        [835.5, 60.0],
        93.1,
        3900.0,
        HUNGRY,
    ),
    gpu(("H100", "H100"), [989.4, 66.9], 79.1, 3350.0, HUNGRY),
    gpu(
        ("A100-80", "A100-SXM4-80GB"),
        [311.9, 19.5],
        79.1,
        2039.0,
        BALANCED,
    ),
    gpu(
        ("A100-80-PCIe", "A100 80GB PCIe"),
        [311.9, 19.5],
        79.1,
        1935.0,
        BALANCED,
    ),
    gpu(("A100-40", "A100"), [311.9, 19.5], 39.4, 1555.0, BALANCED),
    gpu(("L40S", "L40S"), [362.1, 91.6], 44.4, 864.0, HUNGRY),
    gpu(("L40", "L40"), [181.1, 90.5], 44.4, 864.0, BALANCED),
    gpu(("L4", "L4"), [121.0, 30.3], 22.0, 300.0, HUNGRY),
    gpu(("A10", "A10"), [125.0, 31.2], 22.0, 600.0, BALANCED),
    gpu(("A40", "A40"), [149.7, 37.4], 44.4, 696.0, BALANCED),
    gpu(("A6000", "RTX A6000"), [154.8, 38.7], 47.4, 768.0, BALANCED),
    gpu(("4090", "RTX 4090"), [165.2, 82.6], 23.5, 1008.0, BALANCED),
    gpu(("3090", "RTX 3090"), [71.0, 35.6], 23.5, 936.0, BALANCED),
    gpu(
        ("V100-32", "V100-SXM2-32GB"),
        [0.0, 15.7],
        31.7,
        900.0,
        BALANCED,
    ),
    gpu(("V100-16", "V100"), [0.0, 15.7], 15.8, 900.0, BALANCED),
];

impl Gpu {
    /// Returns the kind of this name, whatever its case.
    pub fn named(name: &str) -> Option<Gpu> {
        let mut all = GPUS.into_iter();
        all.find(|gpu| gpu.name.eq_ignore_ascii_case(name))
    }

    /// Returns the kind of the GPU that CUDA calls so.
    pub fn of(device: &str) -> Option<Gpu> {
        let mut all = GPUS.into_iter();
        all.find(|gpu| device.contains(gpu.known_as))
    }

    /// Returns the names of all kinds, with commas.
    pub fn names() -> String {
        GPUS.map(|gpu| gpu.name).join(", ")
    }

    /// Returns multiplications and additions per second at best: in bfloat16 if it is asked for and there is any, else
    /// in float32.
    pub fn peak(&self, bfloat16: bool) -> f64 {
        let tera = self.bfloat16_tflops.filter(|_| bfloat16);
        tera.unwrap_or(self.float32_tflops) * 1e12
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuda_s_names_are_known() {
        for (device, name) in [
            ("NVIDIA H100 PCIe", "H100-PCIe"),
            ("NVIDIA H100 80GB HBM3", "H100"),
            ("NVIDIA L40S", "L40S"),
            ("NVIDIA A100-SXM4-80GB", "A100-80"),
            ("NVIDIA A100-SXM4-40GB", "A100-40"),
            ("NVIDIA GeForce RTX 4090", "4090"),
            ("Tesla V100-SXM2-32GB", "V100-32"),
        ] {
            assert_eq!(Gpu::of(device).unwrap().name, name);
        }
        assert_eq!(Gpu::of("Tesla K80"), None);
    }

    #[test]
    fn names_are_found_in_any_case_and_are_all_different() {
        for gpu in GPUS {
            assert_eq!(Gpu::named(&gpu.name.to_lowercase()), Some(gpu));
        }
        assert_eq!(Gpu::named("K80"), None);
        let tera =
            |name, bfloat16| (Gpu::named(name).unwrap().peak(bfloat16) / 1e11).round() / 10.0;
        assert_eq!([tera("h100", true), tera("h100", false)], [989.4, 66.9]);
        assert_eq!(
            [tera("V100-32", true), tera("V100-32", false)],
            [15.7, 15.7]
        );
    }
}
