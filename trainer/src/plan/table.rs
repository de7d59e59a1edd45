//! A plan as text.

use std::fmt;

use shardtool::Escaped;
use shardtool::memory::Size;

use super::speed::Range;
use super::{Fits, Plan};

/// Thousands apart, as people write numbers.
struct Number(u64);

impl fmt::Display for Number {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let mut text = String::new();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        out.pad(&text)
    }
}

/// Writes a range, the smaller end first, with a unit for both.
fn between(range: Range, decimals: usize, unit: &str) -> String {
    let (low, high) = (range.worst.min(range.best), range.worst.max(range.best));
    let shown = |value: f64| match decimals {
        0 => Number(value.round() as u64).to_string(),
        _ => format!("{value:.decimals$}"),
    };
    if shown(low) == shown(high) {
        return format!("{}{unit}", shown(low));
    }
    format!("{} to {}{unit}", shown(low), shown(high))
}

/// Writes hours, and days where there are some.
fn hours(range: Range) -> String {
    let text = between(range, 1, " hours");
    match range.worst {
        worst if worst >= 48.0 => {
            format!(
                "{text} ({})",
                between(range.map(|hours| hours / 24.0), 1, " days")
            )
        }
        _ => text,
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gpu = &self.machines.gpu;
        let (nodes, devices) = (self.machines.nodes, self.machines.devices);
        writeln!(out, "{} on {nodes} × {devices} {}", self.model, gpu.name)?;

        let mut row = |name: &str, value: String| writeln!(out, "  {name:<22} {value}");
        let parameters = &self.parameters;
        row(
            "parameters",
            format!(
                "{} in each of the two encoders, {} in the predictor; {} trained",
                Number(parameters.encoder.all),
                Number(parameters.predictor.all),
                Number(parameters.trained())
            ),
        )?;
        row(
            "images",
            format!(
                "{}, {} of shards",
                Number(self.images.count),
                Size(self.images.shard_bytes)
            ),
        )?;
        row(
            "step",
            format!(
                "{} images: {} group(s) of {} on each rank; masks {:.1} {:.1}",
                Number(self.global_batch),
                self.groups_per_rank,
                self.group,
                self.mask_lengths[0],
                self.mask_lengths[1]
            ),
        )?;
        row(
            "steps",
            format!(
                "{} ({} epochs of {})",
                Number(self.steps),
                (self.epochs * 10.0).round() / 10.0,
                Number(self.epoch_len)
            ),
        )?;

        writeln!(out, "\nmemory of a GPU")?;
        for (name, bytes) in self.memory.items() {
            if bytes > 0 {
                writeln!(out, "  {:>10}  {name}", Size(bytes).to_string())?;
            }
        }
        let verdict = match self.fits {
            Fits::Yes => "it fits",
            Fits::Barely => "it may not fit",
            Fits::No => "it does not fit",
        };
        let total = Size(self.memory_bytes).to_string();
        writeln!(
            out,
            "  {total:>10}  of {:.1} GiB: {verdict}",
            gpu.memory_gib
        )?;
        if self.fits != Fits::Yes {
            writeln!(
                out,
                "              less is needed with trainer.activation_checkpointing=true, or with a smaller \
                 data.batch_size\n              under the same optimization.global_batch (which draws other masks)"
            )?;
        }

        writeln!(out, "\ntime")?;
        let mut row = |name: &str, value: String| writeln!(out, "  {name:<22} {value}");
        row(
            "arithmetic",
            format!("{:.0} GFLOP an image", self.speed.flops_per_image / 1e9),
        )?;
        row(
            "step",
            between(self.step_s.map(|seconds| seconds * 1e3), 0, " ms"),
        )?;
        row("speed", between(self.images_per_s, 0, " images/s"))?;
        row(
            "share of the peak",
            between(self.utilisation.map(|share| share * 100.0), 0, " %"),
        )?;
        row("run", hours(self.hours))?;

        writeln!(out, "\nbeside the GPUs")?;
        let mut row = |name: &str, value: String| writeln!(out, "  {name:<22} {value}");
        row(
            "loader",
            between(self.loader_cores, 1, " cores of each node"),
        )?;
        let megabytes = self.read_bytes_per_s.map(|bytes| bytes / 1e6);
        row(
            "reading",
            between(megabytes, 0, " MB/s of shards on each node"),
        )?;
        row(
            "checkpoints",
            format!(
                "{} of {} each, {} at the end; as much host memory of rank 0 as one",
                self.checkpoints,
                Size(self.checkpoint_bytes),
                Size(self.checkpoints.saturating_mul(self.checkpoint_bytes))
            ),
        )?;
        row(
            "network",
            match (nodes * devices, nodes) {
                (1, _) => "none".to_owned(),
                (_, 1) => format!(
                    "{} sent and received by a rank in a step",
                    Size(self.gradient_bytes)
                ),
                _ => format!(
                    "{} sent and received by a rank in a step; {} of each node to hide it",
                    Size(self.gradient_bytes),
                    between(self.network_bits_per_s.map(|bits| bits / 1e9), 1, " Gbit/s")
                ),
            },
        )?;

        writeln!(out, "\nassumed")?;
        for line in &self.assumptions {
            writeln!(out, "  * {}", Escaped::new(line))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::gpu::Gpu;
    use super::super::tests::{imagenet, official};
    use super::super::{Machines, Plan};
    use super::*;

    #[test]
    fn numbers_and_ranges() {
        let shown = |number| Number(number).to_string();
        assert_eq!(
            [7, 123, 1234, 1_281_167].map(shown),
            ["7", "123", "1,234", "1,281,167"]
        );
        let range = Range {
            worst: 31.26,
            best: 24.0,
        };
        assert_eq!(between(range, 1, " h"), "24.0 to 31.3 h");
        assert_eq!(between(range.map(|_| 2048.4), 0, ""), "2,048");
        assert_eq!(hours(range), "24.0 to 31.3 hours");
        assert_eq!(
            hours(range.map(|hours| 2.0 * hours)),
            "48.0 to 62.5 hours (2.0 to 2.6 days)"
        );
    }

    #[test]
    fn the_table_says_what_fits_and_what_was_assumed() {
        let config = official("in1k_vith14_ep300.yaml", &[]);
        let plan = |nodes, devices, gpu| {
            let gpu = Gpu::named(gpu).unwrap();
            Plan::new(
                &config,
                imagenet(),
                Machines {
                    nodes,
                    devices,
                    gpu,
                },
            )
            .unwrap()
            .to_string()
        };
        let text = plan(2, 8, "A100-80");
        for words in [
            "vit_huge, patches of 14, images of 224, predictor 384 wide and 12 deep on 2 × 8 A100-80\n",
            "187,500 (300 epochs of 625)",
            "GiB: it fits\n",
            "658 GFLOP an image",
            "Gbit/s of each node to hide it",
            "matrix products reach 50 to 70 %",
            "under 72 hours",
        ] {
            assert!(text.contains(words), "{words} is not in\n{text}");
        }
        let text = plan(1, 8, "4090");
        assert!(
            text.contains("it does not fit") && text.contains("activation_checkpointing"),
            "{text}"
        );
        assert!(!text.contains("Gbit/s"), "{text}");
        assert!(plan(1, 1, "V100-32").contains("V100-32 has no bfloat16"));
    }
}
