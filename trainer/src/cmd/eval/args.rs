//! What is asked for: the options of `trainer eval`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use shardtool::program::arguments;
use shardtool::{Escaped, Manifest, disk};
use tch::Device;
use trainer::config::Config;
use trainer::evaluate::{Pooling, linear};
use trainer::run::PARAMS;

use crate::cmd::{Overrides, set_threads};

/// Evaluate an encoder by its frozen features: nearest neighbours and linear probes
#[derive(clap::Args, Clone)]
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
    /// Passes over the training images [default: 50; 28 with --augment, 20 for attentive probes]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub epochs: Option<u64>,
    /// Images of a step [default: 256; 512 with --fine-tune]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub batch: Option<u64>,
    /// Rates of the grid [default: 0.001,0.003,0.01,0.03,0.1,0.3; 0.0001,0.0003,0.001,0.003 for attentive probes;
    /// 0.00003 alone with --fine-tune]
    #[arg(long, value_name = "RATE", value_delimiter = ',')]
    pub lr: Vec<f64>,
    /// Weight decays of the grid [default: 0,0.0005; 0.001 for attentive probes; with --fine-tune 0.4 for encoders of
    /// 32 blocks and more, else 0.05]
    #[arg(long, value_name = "DECAY", value_delimiter = ',')]
    pub weight_decay: Vec<f64>,
    /// Linear probes: features of random crops, half of them mirrored, computed each epoch
    #[arg(long)]
    pub augment: bool,
    /// Low-shot probes: train the whole encoder on the labelled images too
    #[arg(long)]
    pub fine_tune: bool,
    /// Range of a random crop's share of the image [default: 0.08,1, as torchvision's RandomResizedCrop]
    #[arg(long, value_name = "LEAST,MOST", value_delimiter = ',')]
    pub crop_scale: Vec<f64>,
    /// Linear and attentive probes: share of the training images, 0 to 0.5 and at most 50,000 of them, that is held out
    /// to choose a head by; 0 chooses the best on --val
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
    /// Train attentive probes: a learnt query looks at the patches, whose encodings are computed each epoch
    Attentive,
    /// Fit regressions to a few labelled images: --lowshot LIST or --per-class N
    Lowshot,
    /// Train linear probes to tell CLEVR's numbers of objects and their distances, label columns `count` and `distance`
    Tasks,
    /// Look for hidden blocks by what the predictor says of them, without labels
    Hidden,
    /// All of these but attentive probes, tasks and hidden blocks; low-shot probes if their images are named
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
        ensure!(
            !self.augment || self.is_asked(What::Linear) || self.what == What::Tasks,
            "--augment is of linear probes; attentive ones and --fine-tune see random crops anyway"
        );
        ensure!(
            self.what != What::Tasks || self.label.is_none(),
            "the tasks have label columns of their own; --label COLUMN goes with `trainer eval linear`"
        );
        ensure!(
            !self.fine_tune || self.what == What::Lowshot,
            "--fine-tune is of `trainer eval lowshot`"
        );
        ensure!(
            !self.fine_tune || (self.lr.len() <= 1 && self.weight_decay.len() <= 1),
            "--fine-tune trains one encoder: one --lr and one --weight-decay"
        );
        let streams = self.augment || self.fine_tune || self.what == What::Attentive;
        ensure!(
            streams || self.crop_scale.is_empty(),
            "--crop-scale is of attentive probes, --augment and --fine-tune"
        );
        ensure!(
            self.what != What::Attentive
                || (self.features == Kind::Last && self.pooling == Pooling::Mean),
            "attentive probes look at the patches of the last block: --features and --pooling are of the others"
        );
        self.crop_scale()?;
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

    /// Returns the range of a random crop's share of the image.
    pub fn crop_scale(&self) -> Result<[f64; 2]> {
        match self.crop_scale[..] {
            [] => Ok([0.08, 1.0]),
            [least, most] if 0.0 < least && least <= most && most <= 1.0 => Ok([least, most]),
            _ => bail!("--crop-scale: two shares of an image, as in 0.08,1"),
        }
    }

    /// Returns how linear probes are trained.
    pub fn linear(&self) -> linear::Settings {
        // With crops: as long as VISSL's linear probes of ImageNet, which the paper's are.
        let epochs = if self.augment { 28 } else { 50 };
        let rates = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3];
        self.settings(epochs, 256, &rates, &[0.0, 0.0005])
    }

    /// Returns how attentive probes are trained: as long as V-JEPA's of ImageNet, at rates about theirs.
    pub fn attentive(&self) -> linear::Settings {
        self.settings(20, 256, &[0.0001, 0.0003, 0.001, 0.003], &[0.001])
    }

    /// Returns how an encoder of so many blocks is trained on a few labels: as in the paper, appendix A.2.
    pub fn fine_tuned(&self, depth: i64) -> linear::Settings {
        let decay = if depth < 32 { 0.05 } else { 0.4 };
        self.settings(50, 512, &[3e-5], &[decay])
    }

    /// Returns settings with these where no others are asked for.
    fn settings(&self, epochs: u64, batch: u64, lrs: &[f64], decays: &[f64]) -> linear::Settings {
        let or = |given: &[f64], usual: &[f64]| match given {
            [] => usual.to_vec(),
            given => given.to_vec(),
        };
        linear::Settings {
            epochs: self.epochs.unwrap_or(epochs),
            batch: self.batch.unwrap_or(batch),
            lrs: or(&self.lr, lrs),
            weight_decays: or(&self.weight_decay, decays),
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
