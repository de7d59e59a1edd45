//! What is asked for: the options of `trainer eval`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use shardtool::program::arguments;
use shardtool::{Escaped, Manifest, disk};
use tch::Device;
use trainer::config::Config;
use trainer::evaluate::{Pooling, linear};
use trainer::run::PARAMS;

use crate::cmd::{Overrides, set_threads};

/// Evaluate an encoder by its frozen features: nearest neighbours and linear probes
#[derive(clap::Args)]
pub struct Args {
    /// What to do
    pub what: What,
    /// A run directory, a checkpoint, a file of the official code (.pth.tar) or another of PyTorch, a .safetensors
    /// file, or a Hugging Face model's directory
    #[arg(value_parser = arguments::path())]
    pub weights: PathBuf,
    /// Configuration file that says what images are shown and how: data.crop_size, loader.eval_resize [default: that of
    /// the run the weights are from]
    #[arg(long, value_name = "FILE", value_parser = arguments::path())]
    pub config: Option<PathBuf>,
    /// Draw fresh weights of the same sizes, under --seed: what an untrained network does, for comparison
    #[arg(long)]
    pub untrained: bool,
    #[command(flatten)]
    pub overrides: Overrides,
    /// Split to learn from [default: loader.split]
    #[arg(long, value_name = "NAME")]
    pub train: Option<String>,
    /// Split to count right answers on
    #[arg(long, value_name = "NAME", default_value = "val")]
    pub val: String,
    /// Label column of the shards to tell apart in the place of the class, as the number of objects
    #[arg(long, value_name = "COLUMN", value_parser = arguments::text())]
    pub label: Option<String>,
    /// Bounds that part the numbers of --label into classes; VTAB's for CLEVR's distances are 8,8.5,9,9.5,10
    #[arg(
        long,
        value_name = "NUMBER",
        value_delimiter = ',',
        requires = "label",
        allow_negative_numbers = true
    )]
    pub bounds: Vec<f64>,
    /// Which encoder: the target, which the paper evaluates, or the context encoder, which is trained
    #[arg(long, value_name = "WHICH", default_value = "target")]
    pub encoder: WhichEncoder,
    /// Patches after the last block, after each of the last four side by side, or both
    #[arg(long, value_name = "KIND", default_value = "last")]
    pub features: Kind,
    /// What is kept of the patches: their mean, their largest values, or means over a grid of 3 x 3 side by side
    #[arg(long, value_name = "HOW", default_value = "mean")]
    pub pooling: Pooling,
    /// Directory in which features are kept [default: WEIGHTS.eval, beside the checkpoint]
    #[arg(long, value_name = "DIR", value_parser = arguments::path())]
    pub out: Option<PathBuf>,
    /// Write the whole report to this file, as JSON
    #[arg(long, value_name = "FILE", value_parser = arguments::path())]
    pub json: Option<PathBuf>,
    /// Where to compute: cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cuda")]
    pub device: String,
    /// Matrix products of the encoder in float32 or bfloat16 [default: float32 on a CPU, bfloat16 on a GPU]
    #[arg(long, value_parser = ["float32", "bfloat16"])]
    pub dtype: Option<String>,
    /// Threads of libtorch on the CPU [default: trainer.threads, else one per CPU this process may use]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Numbers of nearest neighbours that vote
    #[arg(long, value_name = "K", value_delimiter = ',', default_value = "10,20",
        value_parser = clap::value_parser!(i64).range(1..=1000))]
    pub k: Vec<i64>,
    /// Linear probes: passes over the training images
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    pub epochs: u64,
    /// Linear probes: images of a step
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..))]
    pub batch: u64,
    /// Linear probes: rates of the grid
    #[arg(
        long,
        value_name = "RATE",
        value_delimiter = ',',
        default_value = "0.001,0.003,0.01,0.03,0.1,0.3"
    )]
    pub lr: Vec<f64>,
    /// Linear probes: weight decays of the grid
    #[arg(
        long,
        value_name = "DECAY",
        value_delimiter = ',',
        default_value = "0,0.0005"
    )]
    pub weight_decay: Vec<f64>,
    /// Linear probes: share of the training images, 0 to 0.5 and at most 50,000 of them, that is held out to choose a
    /// head by; 0 chooses the best on --val
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    pub held_out: f64,
    /// Low-shot probes: file that names the labelled images of --train, a line each, as those of ImageNet's 1 % do
    #[arg(long, value_name = "LIST", conflicts_with = "per_class", value_parser = arguments::path())]
    pub lowshot: Option<PathBuf>,
    /// Low-shot probes: labelled images of each class, drawn under --seed
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub per_class: Option<u32>,
    /// Hidden blocks: images of --val among which each is looked for [default: 1000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(2..=20_000))]
    pub images: Option<u64>,
    /// Hidden blocks: images of --train that means and linear maps are of [default: 10000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub fit_images: Option<u64>,
    /// Seed of what is held out, of the order, of the labelled images, and of fresh weights
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum What {
    /// Compute features and keep them
    Features,
    /// Let nearest neighbours vote
    Knn,
    /// Train linear probes
    Linear,
    /// Fit regressions to a few labelled images: --lowshot LIST or --per-class N
    Lowshot,
    /// Look for hidden blocks by what the predictor says of them, without labels
    Hidden,
    /// All of these but hidden blocks; low-shot probes if their images are named
    All,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum WhichEncoder {
    Target,
    Context,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum Kind {
    /// After the last block
    Last,
    /// After each of the last four
    Last4,
    /// Both
    Max,
}

/// The images: what shows them, and how.
pub struct Setting {
    /// The configuration file.
    pub file: PathBuf,
    pub config: Config,
    pub manifest: Manifest,
    /// The split to learn from.
    pub train: String,
}

impl Args {
    /// Refuses values that cannot be.
    pub fn check(&self) -> Result<()> {
        let finite = |values: &[f64]| {
            values
                .iter()
                .all(|value| value.is_finite() && *value >= 0.0)
        };
        ensure!(finite(&self.lr), "--lr: rates are 0 or more");
        ensure!(
            finite(&self.weight_decay),
            "--weight-decay: decays are 0 or more"
        );
        ensure!(
            (0.0..=0.5).contains(&self.held_out),
            "--held-out {} is outside 0..=0.5",
            self.held_out
        );
        ensure!(
            self.what != What::Lowshot || self.lowshot.is_some() || self.per_class.is_some(),
            "which images are labelled is said by --lowshot LIST or --per-class N"
        );
        if self.what == What::Hidden {
            ensure!(
                self.label.is_none()
                    && self.pooling == Pooling::Mean
                    && self.features == Kind::Last
                    && self.encoder == WhichEncoder::Target,
                "hidden blocks have no labels, their patches are not pooled, and both encoders have a part: --label, \
                 --pooling, --features and --encoder are of the probes"
            );
        } else {
            ensure!(
                self.images.is_none() && self.fit_images.is_none(),
                "--images and --fit-images are of hidden blocks; probes take all images"
            );
        }
        Ok(())
    }

    /// Returns the attention heads of an encoder of one's own, where a configuration file is given that tells.
    pub fn heads(&self) -> Result<Option<i64>> {
        let config = self.config.as_deref().map(|file| self.overrides.load(file));
        Ok(config.transpose()?.and_then(|config| config.meta.num_heads))
    }

    /// Reads what decides the images beside weights from the path `weights`, sets the threads, and says the `notes` on
    /// those weights.
    pub fn setting(&self, weights: &Path, notes: &[String]) -> Result<Setting> {
        let file = self.config_file(weights)?;
        let config = self.overrides.load(&file)?;
        set_threads(self.threads.or(config.trainer.threads), 1)?;
        for note in notes {
            tracing::info!("note: {note}");
        }
        let manifest = Manifest::read(&config.loader.shards_dir()?)?;
        let train = self.train.as_ref().unwrap_or(&config.loader.loader.split);
        let train = train.clone();
        self.check_splits(&manifest, &train)?;
        Ok(Setting {
            file,
            config,
            manifest,
            train,
        })
    }

    /// Makes sure that the splits to learn from and to count on are there.
    fn check_splits(&self, manifest: &Manifest, train: &str) -> Result<()> {
        for (option, name) in [("--train", train), ("--val", &self.val)] {
            let known: Vec<_> = manifest
                .splits
                .iter()
                .map(|split| Escaped::new(&split.name).to_string())
                .collect();
            ensure!(
                manifest.split(name).is_some(),
                "{option} {}: no split of the shards, which have {}",
                Escaped::new(name),
                known.join(", ")
            );
        }
        if train == self.val && self.what != What::Hidden && self.what != What::Features {
            tracing::warn!(
                "{:?} is the split to learn from and to count on: every image has its own label beside it",
                Escaped::new(train)
            );
        }
        Ok(())
    }

    /// Writes a report to the file that --json names.
    pub fn write_json(&self, report: &impl serde::Serialize) -> Result<()> {
        let Some(path) = &self.json else {
            return Ok(());
        };
        let text = serde_json::to_string_pretty(report)? + "\n";
        disk::write_output(path, text.as_bytes()).with_context(|| Escaped::new(path).to_string())
    }

    /// Tells if this is to be done, by itself or with all.
    pub fn is_asked(&self, what: What) -> bool {
        self.what == what || self.what == What::All
    }

    /// Returns the configuration file: that which was given, or the one in the run directory of a checkpoint.
    fn config_file(&self, weights: &Path) -> Result<PathBuf> {
        if let Some(path) = &self.config {
            return Ok(path.clone());
        }
        let params = run_of(weights).map(|run| run.join(PARAMS));
        params.with_context(|| {
            format!(
                "{}: not in a run directory with {PARAMS}; --config FILE says what images are shown",
                Escaped::new(weights)
            )
        })
    }

    /// Returns the features to probe, with the blocks that each is of.
    pub fn kinds(&self) -> Vec<(&'static str, usize)> {
        match self.features {
            Kind::Last => vec![("last", 1)],
            Kind::Last4 => vec![("last4", 4)],
            Kind::Max => vec![("last", 1), ("last4", 4)],
        }
    }

    /// Returns the blocks whose features are computed.
    pub fn layers(&self) -> usize {
        let kinds = self.kinds().into_iter().map(|(_, layers)| layers);
        kinds.max().expect("one at least")
    }

    /// Tells if the encoder's matrix products are bfloat16.
    pub fn bfloat16(&self, device: Device) -> bool {
        let dtype = self.dtype.as_ref();
        dtype.map_or(device.is_cuda(), |dtype| dtype == "bfloat16")
    }

    /// Returns how linear probes are trained.
    pub fn settings(&self) -> linear::Settings {
        linear::Settings {
            epochs: self.epochs,
            batch: self.batch,
            lrs: self.lr.clone(),
            weight_decays: self.weight_decay.clone(),
            held_out: self.held_out,
            seed: self.seed,
        }
    }
}

/// Returns the run directory that a checkpoint is in.
pub fn run_of(weights: &Path) -> Option<&Path> {
    let run = weights.parent().and_then(Path::parent)?;
    run.join(PARAMS).is_file().then_some(run)
}
