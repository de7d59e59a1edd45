//! `trainer eval WHAT WEIGHTS`

mod hidden;
mod kept;
mod report;
mod shown;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use shardtool::program::{self, Results, Verbosity, arguments};
use shardtool::{Dataset, Escaped, Manifest, disk, exit, regular};
use tch::Device;
use trainer::config::Config;
use trainer::evaluate::{Error, Features, Pooling, Table, knn, linear, lowshot};
use trainer::exchange::export::Which;
use trainer::exchange::import::read_encoder;
use trainer::method::encoder::Encoder;
use trainer::method::model::{ModelConfig, Preset};
use trainer::run::PARAMS;
use trainer::torch::device;

use kept::Splits;
use report::{Data, Images, Probed, Report, Weights};
use shown::Shown;

/// Bytes of the longest list of labelled images that is read.
const MAX_LIST: u64 = 1 << 28;

/// Evaluate an encoder by its frozen features: nearest neighbours and linear probes
#[derive(clap::Args)]
pub struct Args {
    /// What to do
    what: What,
    /// A run directory, a checkpoint, a file of the official code (.pth.tar) or another of PyTorch, a .safetensors
    /// file, or a Hugging Face model's directory
    #[arg(value_parser = arguments::path())]
    weights: PathBuf,
    /// Configuration file that says what images are shown and how: data.crop_size, loader.eval_resize [default: that of
    /// the run the weights are from]
    #[arg(long, value_name = "FILE", value_parser = arguments::path())]
    config: Option<PathBuf>,
    /// Draw fresh weights of the same sizes, under --seed: what an untrained network does, for comparison
    #[arg(long)]
    untrained: bool,
    /// Directory of the shards, instead of loader.shards
    #[arg(long, value_name = "DIR", value_parser = arguments::path())]
    shards: Option<PathBuf>,
    /// Override one key, as in data.crop_size=448; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = arguments::text())]
    sets: Vec<String>,
    /// Split to learn from [default: loader.split]
    #[arg(long, value_name = "NAME")]
    train: Option<String>,
    /// Split to count right answers on
    #[arg(long, value_name = "NAME", default_value = "val")]
    val: String,
    /// Which encoder: the target, which the paper evaluates, or the context encoder, which is trained
    #[arg(long, value_name = "WHICH", default_value = "target")]
    encoder: WhichEncoder,
    /// Patches' mean after the last block, after each of the last four side by side, or both, as the paper takes the
    /// better one
    #[arg(long, value_name = "KIND", default_value = "last")]
    features: Kind,
    /// What is kept of the patches: their mean, their largest values, or means over a grid of 3 x 3 side by side
    #[arg(long, value_name = "HOW", default_value = "mean")]
    pooling: Pooling,
    /// Directory in which features are kept [default: WEIGHTS.eval, beside the checkpoint]
    #[arg(long, value_name = "DIR", value_parser = arguments::path())]
    out: Option<PathBuf>,
    /// Write the whole report to this file, as JSON
    #[arg(long, value_name = "FILE", value_parser = arguments::path())]
    json: Option<PathBuf>,
    /// Where to compute: cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cuda")]
    device: String,
    /// Matrix products of the encoder in float32 or bfloat16 [default: float32 on a CPU, bfloat16 on a GPU]
    #[arg(long, value_parser = ["float32", "bfloat16"])]
    dtype: Option<String>,
    /// Threads of libtorch on the CPU [default: trainer.threads, else one per CPU this process may use]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Numbers of nearest neighbours that vote
    #[arg(long, value_name = "K", value_delimiter = ',', default_value = "10,20",
        value_parser = clap::value_parser!(i64).range(1..=1000))]
    k: Vec<i64>,
    /// Linear probes: passes over the training images
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    epochs: u64,
    /// Linear probes: images of a step
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..))]
    batch: u64,
    /// Linear probes: rates of the grid
    #[arg(
        long,
        value_name = "RATE",
        value_delimiter = ',',
        default_value = "0.001,0.003,0.01,0.03,0.1,0.3"
    )]
    lr: Vec<f64>,
    /// Linear probes: weight decays of the grid
    #[arg(
        long,
        value_name = "DECAY",
        value_delimiter = ',',
        default_value = "0,0.0005"
    )]
    weight_decay: Vec<f64>,
    /// Linear probes: share of the training images, 0 to 0.5 and at most 50,000 of them, that is held out to choose a
    /// head by; 0 chooses the best on --val, as papers do
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    held_out: f64,
    /// Low-shot probes: file that names the labelled images of --train, a line each, as those of ImageNet's 1 % do
    #[arg(long, value_name = "LIST", conflicts_with = "per_class", value_parser = arguments::path())]
    lowshot: Option<PathBuf>,
    /// Low-shot probes: labelled images of each class, drawn under --seed
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    per_class: Option<u32>,
    /// Hidden blocks: images of --val among which each is looked for
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(2..=20_000))]
    images: u64,
    /// Hidden blocks: images of --train that means and linear maps are of
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    fit_images: u64,
    /// Seed of what is held out, of the order, of the labelled images, and of fresh weights
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum What {
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

#[derive(Clone, Copy, ValueEnum)]
enum WhichEncoder {
    Target,
    Context,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Kind {
    /// After the last block
    Last,
    /// After each of the last four
    Last4,
    /// Both
    Max,
}

pub fn run(args: &Args, verbosity: &Verbosity, out: &mut Results) -> Result<u8> {
    match evaluate(args, verbosity, out) {
        // The loader was lost in the midst: starting again goes on with the splits that are done.
        Err(error) if matches!(error.downcast_ref(), Some(Error::Source(_))) => {
            tracing::error!("{error}");
            Ok(exit::FAILED_MIDWAY)
        }
        outcome => outcome.map(|()| exit::FINE),
    }
}

fn evaluate(args: &Args, verbosity: &Verbosity, out: &mut Results) -> Result<()> {
    args.check()?;
    if args.what == What::Hidden {
        return hidden::run(args, verbosity, out);
    }
    let device = device::parse(&args.device)?;
    let (which, encoder_name) = match args.encoder {
        WhichEncoder::Target => (Which::Target, "target"),
        WhichEncoder::Context => (Which::Context, "context"),
    };
    let mut weights = read_encoder(&args.weights, which)?;
    let file = args.config_file(&weights.path)?;
    let config = Config::load(&file, &args.sets, args.shards.as_deref())?;
    super::set_threads(args.threads.or(config.trainer.threads), 1)?;
    for note in &weights.notes {
        tracing::info!("note: {note}");
    }
    if args.untrained {
        weights.untrained(args.seed)?;
    }
    let manifest = Manifest::read(&config.loader.shards_dir()?)?;
    let classes = manifest.classes.len() as i64;
    if args.what != What::Features && classes == 0 {
        bail!(
            "the shards have no classes, which probes are to tell apart; `trainer eval features` needs none"
        );
    }
    let mut encoder = Encoder::new(&weights.model, device)?;
    let path = Escaped::new(&weights.path);
    encoder
        .load_state(&weights.tensors)
        .with_context(|| path.to_string())?;
    let (layers, bfloat16) = (args.layers(), args.bfloat16(device));
    ensure!(
        weights.model.depth >= layers as i64,
        "{path}: {} blocks, and --features wants those of the last {layers}",
        weights.model.depth
    );
    let splits = Splits {
        features: Features::of(encoder)?,
        checksum: weights.checksum,
        encoder: encoder_name,
        out: args.out.clone().unwrap_or_else(|| beside(&weights.path)),
        shown: Shown {
            config: &config,
            config_file: &file,
            manifest: &manifest,
            shards: args.shards.as_deref(),
            sets: &args.sets,
            verbosity,
            device,
        },
        layers,
        pooling: args.pooling,
        bfloat16,
        must_be_kept: args.what == What::Features,
    };
    let train_split = args.train.as_deref().unwrap_or(&config.loader.loader.split);
    let train = splits.table(train_split)?;
    let val = splits.table(&args.val)?;
    let mut report = Report {
        version: report::VERSION,
        weights: Weights {
            path: path.to_string(),
            untrained: args.untrained,
            encoder: encoder_name,
            checksum: format!("{:016x}", weights.checksum),
            model: model_name(&weights.model),
        },
        data: Data {
            shards: format!("{:016x}", manifest.checksum()),
            train: Images {
                split: train_split.to_owned(),
                images: train.len(),
            },
            val: Images {
                split: args.val.clone(),
                images: val.len(),
            },
            classes,
            crop_size: config.loader.eval_crop(),
            resize: config.loader.eval_resize(),
            pooling: args.pooling,
        },
        dtype: splits.dtype(),
        features: Vec::new(),
        temperature: knn::TEMPERATURE,
        linear: args.is_asked(What::Linear).then(|| args.settings()),
        results: Vec::new(),
    };
    if args.what == What::Features {
        report.features = vec![splits.path(train_split), splits.path(&args.val)];
    } else {
        let train = checked(train, train_split, classes)?;
        let val = checked(val, &args.val, classes)?;
        let labelled = args.labelled(&train, train_split, &config)?;
        for (name, of_layers) in args.kinds() {
            let (train, val) = match of_layers == layers {
                true => (train.view(), val.view()),
                false => (train.last(layers)?, val.last(layers)?),
            };
            let mut probed = args.probe(name, &train, &val, classes, device)?;
            if let Some(rows) = &labelled {
                let found = lowshot::probe(&train, rows, &val, classes, device)?;
                probed.lowshot = Some(found);
            }
            report.results.push(probed);
        }
    }
    args.write_json(&report)?;
    write!(out, "{report}")?;
    Ok(())
}

impl Args {
    fn check(&self) -> Result<()> {
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
        Ok(())
    }

    /// Writes a report to the file that --json names.
    fn write_json(&self, report: &impl serde::Serialize) -> Result<()> {
        let Some(path) = &self.json else {
            return Ok(());
        };
        let text = serde_json::to_string_pretty(report)? + "\n";
        disk::write_output(path, text.as_bytes()).with_context(|| Escaped::new(path).to_string())
    }

    fn is_asked(&self, what: What) -> bool {
        self.what == what || self.what == What::All
    }

    /// Returns the rows of `train` that are labelled, where low-shot probes are asked for.
    fn labelled(&self, train: &Table, split: &str, config: &Config) -> Result<Option<Vec<i64>>> {
        if !self.is_asked(What::Lowshot) {
            return Ok(None);
        }
        if let Some(path) = &self.lowshot {
            let name = || Escaped::new(path).to_string();
            let list = regular::read(path, MAX_LIST).with_context(name)?;
            let list = String::from_utf8(list).with_context(name)?;
            let dataset = Dataset::open(&config.loader.shards_dir()?)?;
            let split = dataset.split(split).context("the split is gone")?;
            let samples = lowshot::listed(split, &list).with_context(name)?;
            return Ok(Some(lowshot::rows_of(train, &samples)?));
        }
        let rows = |each: u32| lowshot::of_each_class(train, each as usize, self.seed);
        Ok(self.per_class.map(rows).transpose()?)
    }

    /// Returns the configuration file: that which was given, or the one in the run directory of a checkpoint.
    fn config_file(&self, weights: &Path) -> Result<PathBuf> {
        if let Some(path) = &self.config {
            return Ok(path.clone());
        }
        let run = weights.parent().and_then(Path::parent);
        let params = run
            .map(|run| run.join(PARAMS))
            .filter(|path| path.is_file());
        params.with_context(|| {
            format!(
                "{}: not in a run directory with {PARAMS}; --config FILE says what images are shown",
                Escaped::new(weights)
            )
        })
    }

    /// Returns the features to probe, with the blocks that each is of.
    fn kinds(&self) -> Vec<(&'static str, usize)> {
        match self.features {
            Kind::Last => vec![("last", 1)],
            Kind::Last4 => vec![("last4", 4)],
            Kind::Max => vec![("last", 1), ("last4", 4)],
        }
    }

    /// Returns the blocks whose features are computed.
    fn layers(&self) -> usize {
        let kinds = self.kinds().into_iter().map(|(_, layers)| layers);
        kinds.max().expect("one at least")
    }

    fn bfloat16(&self, device: Device) -> bool {
        let dtype = self.dtype.as_ref();
        dtype.map_or(device.is_cuda(), |dtype| dtype == "bfloat16")
    }

    fn settings(&self) -> linear::Settings {
        linear::Settings {
            epochs: self.epochs,
            batch: self.batch,
            lrs: self.lr.clone(),
            weight_decays: self.weight_decay.clone(),
            held_out: self.held_out,
            seed: self.seed,
        }
    }

    /// Probes features of one kind.
    fn probe(
        &self,
        features: &'static str,
        train: &Table,
        val: &Table,
        classes: i64,
        device: Device,
    ) -> Result<Probed, Error> {
        let knn = match self.is_asked(What::Knn) {
            true => knn::neighbours(train, val, classes, &self.k, device)?,
            false => Vec::new(),
        };
        let mut grid = None;
        if self.is_asked(What::Linear) {
            let template = "{wide_bar:.cyan/238} linear, epoch {pos}/{len}  {eta_precise} to go";
            let bar = program::progress_bar(Some(self.epochs), template);
            let progress = &mut |epoch| bar.set_position(epoch);
            let trained = linear::probe(train, val, classes, &self.settings(), device, progress);
            bar.finish_and_clear();
            grid = Some(trained?);
        }
        Ok(Probed {
            features,
            knn,
            linear: grid,
            lowshot: None,
        })
    }
}

/// Returns the sizes of an encoder in words.
fn model_name(model: &ModelConfig) -> String {
    let preset = Preset::of(model.embed_dim, model.depth, model.mlp_dim);
    let name = preset.map_or("a network of its own", |preset| preset.name);
    format!(
        "{name}, patches of {}, images of {}",
        model.patch_size, model.image_size
    )
}

/// Returns the directory in which features are kept if no other is given.
fn beside(weights: &Path) -> PathBuf {
    // `.` and `..` have no name of their own.
    let named = match weights.file_name() {
        Some(_) => weights.to_owned(),
        None => weights
            .canonicalize()
            .unwrap_or_else(|_| weights.to_owned()),
    };
    let mut path = named.components().as_path().as_os_str().to_owned();
    path.push(".eval");
    path.into()
}

/// Returns the rows that have a class.
///
/// # Errors
/// If none has, or one is beyond `classes`.
fn checked(table: Table, split: &str, classes: i64) -> Result<Table, Error> {
    let table = table.labelled()?;
    if table.is_empty() {
        return Err(Error::Empty {
            split: split.to_owned(),
        });
    }
    let class = table.highest_class()?;
    if class >= classes {
        return Err(Error::Class { class, classes });
    }
    Ok(table)
}
