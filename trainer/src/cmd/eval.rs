//! `trainer eval WHAT WEIGHTS`

mod args;
mod hidden;
mod history;
mod kept;
mod report;
mod shown;
mod streamed;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use shardtool::program::{self, Results, Verbosity};
use shardtool::{Dataset, Escaped, Split, exit, regular};
use tch::Device;
use trainer::config::Config;
use trainer::evaluate::attentive::Attentive;
use trainer::evaluate::linear::Augmented;
use trainer::evaluate::{Column, Error, Features, FineTuned, Score, Table, knn, linear, lowshot};
use trainer::exchange::export::Which;
use trainer::exchange::import::read_encoder;
use trainer::method::encoder::Encoder;
use trainer::method::model::ModelConfig;
use trainer::torch::device;

use args::{Setting, What, WhichEncoder};
use kept::Splits;
use report::{Data, Images, Probed, Report, Weights};
use shown::Shown;
use streamed::Streamed;

pub use args::Args;

/// Bytes of the longest list of labelled images that is read.
const MAX_LIST: u64 = 1 << 28;

/// Where VTAB parts the distances of CLEVR's closest objects; 0 and 100 are beyond all of them.
const DISTANCES: [f64; 5] = [8.0, 8.5, 9.0, 9.5, 10.0];

/// What to do where there is nothing to tell apart.
const NO_CLASSES: &str =
    "--label (and --bounds) name other classes, and `trainer eval features` needs none";

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
    match args.what {
        What::Hidden => hidden::run(args, verbosity, out),
        What::Tasks => {
            let mut tasks = Vec::new();
            for task in args.tasks() {
                let (report, weights) = probed(&task, verbosity)?;
                task.said(&report, &weights, out)?;
                writeln!(out)?;
                tasks.push(report);
            }
            args.write_json(&tasks)
        }
        _ => {
            let (report, weights) = probed(args, verbosity)?;
            args.write_json(&report)?;
            args.said(&report, &weights, out)
        }
    }
}

/// Probes an encoder, and returns what it found with the path of the weights.
fn probed(args: &Args, verbosity: &Verbosity) -> Result<(Report, PathBuf)> {
    let device = device::parse(&args.device)?;
    let (which, encoder_name) = match args.encoder {
        WhichEncoder::Target => (Which::Target, "target"),
        WhichEncoder::Context => (Which::Context, "context"),
    };
    let mut weights = read_encoder(&args.weights, which, args.heads()?)?;
    let setting = args.setting(&weights.path, &weights.notes)?;
    let Setting {
        config,
        manifest,
        train: train_split,
        ..
    } = &setting;
    if args.untrained {
        weights.untrained(args.seed)?;
    }
    let mut classes = manifest.classes.len() as i64;
    let column = args.column(config, train_split)?;
    if let Some((_, column)) = &column {
        classes = column.classes();
    }
    if args.what != What::Features && classes == 0 {
        bail!("there are no classes to tell apart; {NO_CLASSES}");
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
        shown: Shown::of(&setting, args, verbosity, device),
        layers,
        pooling: args.pooling,
        bfloat16,
        must_be_kept: args.what == What::Features,
    };
    let labelled = |split: &str| -> Result<Table> {
        let table = splits.table(split)?;
        let Some((dataset, column)) = &column else {
            return Ok(table);
        };
        let split = dataset.split(split).context("the split is gone")?;
        Ok(column.label(table, split)?)
    };
    let streamed = match args.is_streamed() {
        true => {
            let column = column.as_ref().map(|(_, column)| column);
            Some(Streamed::of(&splits.shown, args, train_split, column)?)
        }
        false => None,
    };
    // Where all images come from a loader each epoch, no features are kept.
    let tables = match args.needs_tables() {
        true => Some((labelled(train_split)?, labelled(&args.val)?)),
        false => None,
    };
    let images = |of_streamed: fn(&Streamed<'_>) -> i64, of_tables: fn(&(Table, Table)) -> i64| {
        let streamed = streamed.as_ref().map(of_streamed);
        tables.as_ref().map(of_tables).or(streamed).unwrap_or(0)
    };
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
                split: train_split.clone(),
                images: images(|of| of.train.samples().count() as i64, |of| of.0.len()),
            },
            val: Images {
                split: args.val.clone(),
                images: images(|of| of.val.samples().count() as i64, |of| of.1.len()),
            },
            label: args.label.clone(),
            classes,
            crop_size: config.loader.eval_crop(),
            resize: config.loader.eval_resize(),
            pooling: args.pooling,
        },
        dtype: splits.dtype(),
        features: Vec::new(),
        temperature: knn::TEMPERATURE,
        linear: args.is_asked(What::Linear).then(|| args.linear()),
        augmented: args.augment,
        attentive: (args.what == What::Attentive).then(|| args.attentive()),
        fine_tuned: args.fine_tune.then(|| args.fine_tuned(weights.model.depth)),
        crop_scale: args.is_streamed().then(|| args.crop_scale()).transpose()?,
        results: Vec::new(),
    };
    if args.what == What::Features {
        report.features = vec![splits.path(train_split), splits.path(&args.val)];
    } else if let Some((train, val)) = tables {
        let train = checked(train, train_split, classes)?;
        let val = checked(val, &args.val, classes)?;
        if train.is_of_one_class()? {
            bail!(
                "all images of {:?} are of one class; {NO_CLASSES}",
                Escaped::new(train_split)
            );
        }
        let labelled = args.labelled(&train, train_split, classes, config)?;
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
        if let (Some(streamed), Some(settings), Some(rows)) =
            (&streamed, &report.fine_tuned, &labelled)
        {
            let samples = train.samples_of(rows)?;
            let encoder = splits.features.into_encoder();
            let score = args.fine_tune(encoder, streamed, settings, &samples, classes, bfloat16)?;
            report.results[0].fine_tuned = Some(score);
            return Ok((report, weights.path));
        }
    } else {
        report.results = args
            .kinds()
            .iter()
            .map(|(features, _)| Probed {
                features,
                ..Probed::default()
            })
            .collect();
    }
    if let Some(streamed) = &streamed {
        for (probed, (_, layers)) in report.results.iter_mut().zip(args.kinds()) {
            if let Some(settings) = report.linear.as_ref().filter(|_| args.augment) {
                let kind = (layers, args.pooling);
                let at_once = streamed.at_once();
                let features = &splits.features;
                let mut heads =
                    Augmented::new(features, kind, classes, settings, at_once, bfloat16)?;
                probed.linear = Some(streamed.grid("linear", &mut heads, settings)?);
            }
            if let Some(settings) = &report.attentive {
                let at_once = streamed.at_once();
                let features = &splits.features;
                let mut heads = Attentive::new(features, classes, settings, at_once, bfloat16)?;
                probed.attentive = Some(streamed.grid("attentive", &mut heads, settings)?);
            }
        }
    }
    Ok((report, weights.path))
}

impl Args {
    /// Returns the tasks of CLEVR, each as linear probes of a label column.
    fn tasks(&self) -> [Args; 2] {
        [("count", &[][..]), ("distance", &DISTANCES)].map(|(label, bounds)| Args {
            what: What::Linear,
            label: Some(label.to_owned()),
            bounds: bounds.to_vec(),
            ..self.clone()
        })
    }

    /// Writes the report to standard output, and its scores to the run's.
    fn said(&self, report: &Report, weights: &Path, out: &mut Results) -> Result<()> {
        write!(out, "{report}")?;
        if !self.untrained && !report.results.is_empty() {
            history::keep(weights, &report.scores());
        }
        Ok(())
    }

    /// Trains an encoder on the labelled samples, and counts right answers.
    fn fine_tune(
        &self,
        mut encoder: Encoder,
        streamed: &Streamed<'_>,
        settings: &linear::Settings,
        samples: &[u64],
        classes: i64,
        bfloat16: bool,
    ) -> Result<Option<Score>> {
        let side = streamed.crop_size();
        // Positions of a size that was not trained with are the fixed ones of its grid.
        if encoder.config().image_size != side {
            encoder.resize(side)?;
        }
        let rates = (settings.lrs[0], settings.weight_decays[0]);
        let mut tuned = FineTuned::new(encoder, classes, rates, streamed.at_once(), bfloat16)?;
        let what = "fine-tuning";
        streamed.teach(what, &mut tuned, samples, settings)?;
        let scores = streamed.ask(what, &tuned, &streamed.val, None)?;
        Ok(scores.into_iter().next().flatten())
    }

    /// Tells if images come from a loader each epoch.
    fn is_streamed(&self) -> bool {
        self.what == What::Attentive || self.augment || self.fine_tune
    }

    /// Tells if features of all images are computed once.
    fn needs_tables(&self) -> bool {
        match self.what {
            What::Attentive => false,
            What::Linear => !self.augment,
            _ => true,
        }
    }

    /// Returns the rows of `train` that are labelled, where low-shot probes are asked for.
    fn labelled(
        &self,
        train: &Table,
        split: &str,
        classes: i64,
        config: &Config,
    ) -> Result<Option<Vec<i64>>> {
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
        let Some(each) = self.per_class else {
            return Ok(None);
        };
        let (fewer, none) = lowshot::short_of(train, each as usize, classes)?;
        if fewer + none > 0 {
            tracing::warn!(
                "--per-class {each}: {fewer} of {classes} classes have fewer images in {:?}, of which all are taken, and \
                 {none} have none",
                Escaped::new(split)
            );
        }
        Ok(Some(lowshot::of_each_class(
            train,
            each as usize,
            self.seed,
        )?))
    }

    /// Returns the label column that stands for the class, if one does, and the data set that has it.
    fn column(&self, config: &Config, train: &str) -> Result<Option<(Dataset, Column)>> {
        let Some(name) = &self.label else {
            return Ok(None);
        };
        let dataset = Dataset::open(&config.loader.shards_dir()?)?;
        let splits: Vec<&Split> = [train, &self.val]
            .into_iter()
            .filter_map(|split| dataset.split(split))
            .collect();
        let column = Column::find(&dataset, &splits, name, &self.bounds)?;
        Ok(Some((dataset, column)))
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
        if self.is_asked(What::Linear) && !self.augment {
            let settings = self.linear();
            let template = "{wide_bar:.cyan/238} linear, epoch {pos}/{len}  {eta_precise} to go";
            let bar = program::progress_bar(Some(settings.epochs), template);
            let progress = &mut |epoch| bar.set_position(epoch);
            let trained = linear::probe(train, val, classes, &settings, device, progress);
            bar.finish_and_clear();
            grid = Some(trained?);
        }
        Ok(Probed {
            features,
            knn,
            linear: grid,
            ..Probed::default()
        })
    }
}

/// Returns the sizes of an encoder in words.
fn model_name(model: &ModelConfig) -> String {
    format!(
        "{}, patches of {}, images of {}",
        model.encoder_name(),
        model.patch_size,
        model.image_size
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
