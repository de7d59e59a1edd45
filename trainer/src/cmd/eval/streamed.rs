//! Probes whose features change from epoch to epoch: images come from a loader each time, and no feature is kept.

use anyhow::{Context, Result, ensure};
use shardtool::{Dataset, Escaped, program};
use trainer::evaluate::linear::{Grid, Settings};
use trainer::evaluate::{Column, Error, Score, learner};

use super::args::Args;
use super::shown::{How, Shown};

/// What is done with images, telling the number of groups done.
type Look<'a> = dyn FnMut(&mut learner::Images<'_>, &mut dyn FnMut(u64)) -> Result<(), Error> + 'a;

/// The images of two splits with their classes.
pub struct Streamed<'a> {
    shown: &'a Shown<'a>,
    pub train: Labelled,
    pub val: Labelled,
    crop_scale: [f64; 2],
    seed: u64,
}

/// A split, and the class of each of its samples; -1 where it has none.
pub struct Labelled {
    pub split: String,
    classes: Vec<i64>,
}

impl Labelled {
    fn of(dataset: &Dataset, name: &str, column: Option<&Column>) -> Result<Labelled> {
        let split = dataset.split(name).context("the split is gone")?;
        let class = |id| match column {
            Some(column) => column.class(&split.sample(id)),
            None => split.sample(id).entry().class.map_or(-1, i64::from),
        };
        let labelled = Labelled {
            split: name.to_owned(),
            classes: (0..split.len()).map(class).collect(),
        };
        if labelled.samples().next().is_none() {
            return Err(Error::Empty {
                split: name.to_owned(),
            }
            .into());
        }
        Ok(labelled)
    }

    /// Returns the samples that have a class, in order.
    pub fn samples(&self) -> impl Iterator<Item = u64> {
        let numbered = (0..).zip(&self.classes);
        numbered.filter_map(|(id, class)| (*class >= 0).then_some(id))
    }

    /// Tells whether all samples that have a class have the same.
    fn is_of_one_class(&self) -> bool {
        let mut classes = self.classes.iter().filter(|class| **class >= 0);
        let first = classes.next();
        classes.all(|class| Some(class) == first)
    }
}

impl<'a> Streamed<'a> {
    /// Finds the classes of the samples of the splits that are asked for.
    ///
    /// # Errors
    /// If a split has no sample with a class, or the one to learn from has none of another class.
    pub fn of(
        shown: &'a Shown<'a>,
        args: &Args,
        train: &str,
        column: Option<&Column>,
    ) -> Result<Streamed<'a>> {
        let dataset = Dataset::open(&shown.config.loader.shards_dir()?)?;
        let streamed = Streamed {
            shown,
            train: Labelled::of(&dataset, train, column)?,
            val: Labelled::of(&dataset, &args.val, column)?,
            crop_scale: args.crop_scale()?,
            seed: args.seed,
        };
        ensure!(
            !streamed.train.is_of_one_class(),
            "all images of {:?} are of one class; {}",
            Escaped::new(train),
            super::NO_CLASSES
        );
        Ok(streamed)
    }

    /// Returns the side of an image, in pixels.
    pub fn crop_size(&self) -> i64 {
        self.shown.config.loader.eval_crop().into()
    }

    /// Returns the most images that are computed at once.
    pub fn at_once(&self) -> i64 {
        self.shown.config.loader.data.batch_size as i64
    }

    /// Trains the heads of a grid on all images of `train` but those held out, and counts right answers.
    pub fn grid(
        &self,
        what: &str,
        learner: &mut dyn learner::Learner,
        settings: &Settings,
    ) -> Result<Grid> {
        let samples: Vec<u64> = self.train.samples().collect();
        let (held, fit) = settings.parted(samples.len() as i64);
        let sorted = |places: Vec<i64>| -> Vec<u64> {
            let ids = places.into_iter().map(|place| samples[place as usize]);
            let mut ids: Vec<u64> = ids.collect();
            ids.sort_unstable();
            ids
        };
        let (held, fit) = (sorted(held), sorted(fit));
        self.teach(what, learner, &fit, settings)?;
        let on_val = self.ask(what, learner, &self.val, None)?;
        let on_held = match held.is_empty() {
            true => vec![None; on_val.len()],
            false => self.ask(what, learner, &self.train, Some(&held))?,
        };
        let held = (held.len() as i64, on_held);
        Ok(Grid::of(settings, fit.len() as i64, held, on_val))
    }

    /// Has heads learn from these samples of `train`, in crops that change.
    pub fn teach(
        &self,
        what: &str,
        learner: &mut dyn learner::Learner,
        samples: &[u64],
        settings: &Settings,
    ) -> Result<()> {
        let how = How::Shuffled {
            only: samples,
            epochs: settings.epochs,
            batch: settings.batch.min(samples.len() as u64),
            crop_scale: self.crop_scale,
            seed: self.seed,
        };
        self.show(what, &self.train, &how, &mut |images, progress| {
            images.teach(learner, progress)
        })
    }

    /// Counts the right answers of each head on a split, or on some of its samples, each in its centre.
    pub fn ask(
        &self,
        what: &str,
        learner: &dyn learner::Learner,
        of: &Labelled,
        only: Option<&[u64]>,
    ) -> Result<Vec<Option<Score>>> {
        let what = format!("{what}, counting on {}", Escaped::new(&of.split));
        let mut scores = Vec::new();
        self.show(&what, of, &How::InOrder(only), &mut |images, progress| {
            scores = images.ask(learner, progress)?;
            Ok(())
        })?;
        ensure!(
            !scores.is_empty(),
            "no image of {:?} can be read",
            Escaped::new(&of.split)
        );
        Ok(scores)
    }

    /// Starts a loader and gives its images to `look`.
    fn show(&self, what: &str, of: &Labelled, how: &How<'_>, look: &mut Look<'_>) -> Result<()> {
        let mut showing = self.shown.open_how(&of.split, how)?;
        let template =
            format!("{{wide_bar:.cyan/238}} {what}, group {{pos}}/{{len}}  {{eta_precise}} to go");
        let bar = program::progress_bar(Some(showing.groups), &template);
        let mut images = learner::Images {
            source: &mut showing.source,
            groups: showing.groups,
            classes: &of.classes,
            device: self.shown.device,
        };
        let looked = look(&mut images, &mut |group| bar.set_position(group));
        bar.finish_and_clear();
        showing.source.goodbye();
        Ok(looked?)
    }
}
