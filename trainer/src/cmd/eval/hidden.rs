//! `trainer eval hidden`: what the predictor knows of what it cannot see.

use std::fmt;
use std::io::Write;
use std::ops::Range;

use anyhow::{Context, Result, ensure};
use loader::order::Order;
use loader::ring::FLAG_ABSENT;
use serde::Serialize;
use shardtool::Escaped;
use shardtool::memory::{self, Size};
use shardtool::program::{self, Results};
use tch::Tensor;
use trainer::evaluate::Error;
use trainer::evaluate::hidden::{Found, Row, Search};
use trainer::exchange::import::{NetworksWeights, read_networks};
use trainer::method::ijepa::IJepa;
use trainer::source::GroupSource;
use trainer::torch::device;
use trainer::torch::shim::Autocast;

use super::history;
use super::shown::Shown;
use super::{Args, Verbosity};

/// Images that are looked for, and that means and maps are of, unless others are asked for.
const IMAGES: u64 = 1000;
const FIT_IMAGES: u64 = 10_000;

/// Layout of the JSON; raised when a key changes its meaning.
const VERSION: u32 = 1;

/// All that is known of a search.
#[derive(Serialize)]
struct Report {
    version: u32,
    weights: String,
    model: String,
    /// True where the weights were drawn afresh.
    untrained: bool,
    shards: String,
    val: String,
    train: String,
    #[serde(flatten)]
    found: Found,
}

pub fn run(args: &Args, verbosity: &Verbosity, out: &mut Results) -> Result<()> {
    let device = device::parse(&args.device)?;
    let NetworksWeights {
        path,
        model,
        tensors,
        notes,
    } = read_networks(&args.weights, args.heads()?)?;
    let setting = args.setting(&path, &notes)?;
    let crop = i64::from(setting.config.loader.eval_crop());
    ensure!(
        crop == model.image_size,
        "data.crop_size is {crop}, and what the predictor says is asked of images of {}, as it was trained; add \
         --set data.crop_size={}",
        model.image_size,
        model.image_size
    );
    let looked_for = args.images.unwrap_or(IMAGES);
    let bytes = Search::bytes(&model, looked_for);
    if let Some(there) = memory::available() {
        ensure!(
            bytes <= there.bytes,
            "--images {looked_for}: to look for so many takes {}, and {} are available {}",
            Size(bytes),
            Size(there.bytes),
            there.bound
        );
    }
    let ijepa = if args.untrained {
        IJepa::new(&model, args.seed, device)?
    } else {
        let mut ijepa = IJepa::zeroed(&model, device)?;
        ijepa
            .load_state(&tensors)
            .with_context(|| Escaped::new(&path).to_string())?;
        ijepa
    };
    drop(tensors);
    let shown = Shown::of(&setting, args, verbosity, device);
    let split = &setting.train;
    let mut search = Search::new(&ijepa)?;
    let bfloat16 = args.bfloat16(device);
    // In one split, no image is both looked for and learnt from.
    let first = if *split == args.val { looked_for } else { 0 };
    let fit = first..first.saturating_add(args.fit_images.unwrap_or(FIT_IMAGES));
    let images = Images {
        shown: &shown,
        seed: args.seed,
        bfloat16,
    };
    images.each(split, fit, &mut |images| search.fit(images))?;
    images.each(&args.val, 0..looked_for, &mut |images| {
        search.look_for(images)
    })?;
    let report = Report {
        version: VERSION,
        weights: Escaped::new(&path).to_string(),
        model: model.describe(),
        untrained: args.untrained,
        shards: format!("{:016x}", setting.manifest.checksum()),
        val: args.val.clone(),
        train: split.clone(),
        found: search.found()?,
    };
    args.write_json(&report)?;
    write!(out, "{report}")?;
    if let Some(row) = report.found.rows.last().filter(|_| !args.untrained) {
        let scores = [
            ("hidden top-1", row.top1),
            ("hidden top-10", row.top10),
            ("hidden pixels R²", row.pixels_r2),
        ];
        let scores = scores.map(|(name, score)| (name.to_owned(), score));
        history::keep(&path, &scores.into());
    }
    Ok(())
}

/// The images of splits, some of them.
struct Images<'a> {
    shown: &'a Shown<'a>,
    seed: u64,
    bfloat16: bool,
}

impl Images<'_> {
    /// Shows images of a split to `look`, in groups: those whose places under a permutation of all are in `places`, so
    /// that they are of every class.
    fn each(
        &self,
        split: &str,
        places: Range<u64>,
        look: &mut dyn FnMut(&Tensor) -> Result<(), Error>,
    ) -> Result<()> {
        let mut showing = self.shown.open(split)?;
        let samples = showing.samples;
        let order = Order::new(self.seed, u64::MAX - 2, samples);
        let mut wanted = vec![false; samples as usize];
        for place in places.start.min(samples)..places.end.min(samples) {
            wanted[order.sample(place) as usize] = true;
        }
        let template = "{wide_bar:.cyan/238} hidden blocks, group {pos}/{len}  {eta_precise} to go";
        let bar = program::progress_bar(Some(showing.groups), template);
        for step in 0..showing.groups {
            // As an error of an evaluation: a lost loader ends with a code of its own.
            let Some(group) = showing.source.take(step, 0).map_err(Error::from)? else {
                break;
            };
            let is_wanted = |&at: &usize| {
                let is_there = group.flags[at] & FLAG_ABSENT == 0;
                is_there && wanted.get(group.sample_ids[at] as usize) == Some(&true)
            };
            let rows = (0..group.flags.len()).filter(is_wanted);
            let rows: Vec<i64> = rows.map(|at| at as i64).collect();
            if !rows.is_empty() {
                let rows = Tensor::f_from_slice(&rows)?.f_to_device(self.shown.device)?;
                let images = group.images.f_index_select(0, &rows)?;
                let mixed = self.bfloat16.then(|| Autocast::bfloat16(&images));
                let _mixed = mixed.transpose()?;
                look(&images)?;
            }
            showing.source.look_ahead().map_err(Error::from)?;
            bar.set_position(step + 1);
        }
        bar.finish_and_clear();
        showing.source.goodbye();
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let untrained = if self.untrained {
            "fresh weights, as of "
        } else {
            ""
        };
        writeln!(f, "{untrained}{}: {}", self.weights, self.model)?;
        writeln!(
            f,
            "hidden blocks of {} images of {:?}, four for each of three masks; means and maps of {} images of {:?}\n",
            self.found.images,
            Escaped::new(&self.val),
            self.found.fitted,
            Escaped::new(&self.train),
        )?;
        writeln!(
            f,
            "{:<30}{:>9}{:>10}{:>14}",
            "told by", "top-1 %", "top-10 %", "pixels R² %"
        )?;
        for Row {
            name,
            top1,
            top10,
            pixels_r2,
        } in &self.found.rows
        {
            writeln!(f, "{name:<30}{top1:>9.2}{top10:>10.2}{pixels_r2:>14.2}")?;
        }
        Ok(())
    }
}
