//! What learns from images as they come from a loader, and is asked about others.
//!
//! No feature is kept: an encoder looks at every image each time that it comes, in another crop or not. What is in
//! memory is a group of images, whatever the size of the split.

use loader::ring::FLAG_ABSENT;
use tch::{Device, Kind, Tensor};

use super::score::Counted;
use super::{Error, Score};
use crate::source::{Group, GroupSource};
use crate::torch::shim::Autocast;

/// One or several classifiers, its heads, that learn side by side.
pub trait Learner {
    /// Learns from normalised images (B, 3, H, W) and their classes (B), after the share `done` of all steps.
    ///
    /// # Errors
    /// From the device.
    fn learn(&mut self, images: &Tensor, labels: &Tensor, done: f64) -> Result<(), crate::Error>;

    /// Returns what speaks for each class: normalised images (B, 3, H, W) to (B, heads, classes).
    ///
    /// # Errors
    /// From the device.
    fn told(&self, images: &Tensor) -> Result<Tensor, crate::Error>;
}

/// Images and their classes, from a loader.
pub struct Images<'a> {
    /// Gives the groups, one a step.
    pub source: &'a mut dyn GroupSource,
    /// How many come.
    pub groups: u64,
    /// Class of each sample of the split; below 0 where it has none, and the image is left out.
    pub classes: &'a [i64],
    /// Where to compute.
    pub device: Device,
}

impl Images<'_> {
    /// Shows all images to `look`, group by group, with the share of the groups that came before.
    fn each(
        &mut self,
        progress: &mut dyn FnMut(u64),
        look: &mut dyn FnMut(&Tensor, &Tensor, f64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for step in 0..self.groups {
            let Some(group) = self.source.take(step, 0)? else {
                break;
            };
            if let Some((images, labels)) = self.labelled(&group)? {
                look(&images, &labels, step as f64 / self.groups as f64)?;
            }
            self.source.look_ahead()?;
            progress(step + 1);
        }
        Ok(())
    }

    /// Returns the images of a group that are there and have a class, with the classes; nothing if none are.
    fn labelled(&self, group: &Group) -> Result<Option<(Tensor, Tensor)>, crate::Error> {
        let class = |at: &usize| self.classes.get(group.sample_ids[*at] as usize).copied();
        let there = (0..group.flags.len()).filter(|&at| group.flags[at] & FLAG_ABSENT == 0);
        let rows =
            there.filter_map(|at| Some((at as i64, class(&at).filter(|&class| class >= 0)?)));
        let (rows, labels): (Vec<i64>, Vec<i64>) = rows.unzip();
        if rows.is_empty() {
            return Ok(None);
        }
        let labels = Tensor::f_from_slice(&labels)?.f_to_device(self.device)?;
        let images = match rows.len() == group.flags.len() {
            true => group.images.shallow_clone(),
            false => {
                let rows = Tensor::f_from_slice(&rows)?.f_to_device(self.device)?;
                group.images.f_index_select(0, &rows)?
            }
        };
        Ok(Some((images, labels)))
    }

    /// Has `learner` learn from all images. `progress` is told the number of groups done.
    ///
    /// # Errors
    /// [`Error::Source`] and [`Error::Compute`].
    pub fn teach(
        &mut self,
        learner: &mut dyn Learner,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), Error> {
        self.each(progress, &mut |images, labels, done| {
            Ok(learner.learn(images, labels, done)?)
        })
    }

    /// Counts the right answers of each head; none for a head one of whose answers is not finite, and nothing without
    /// an image. `progress` is told the number of groups done.
    ///
    /// # Errors
    /// [`Error::Source`] and [`Error::Compute`].
    pub fn ask(
        &mut self,
        learner: &dyn Learner,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Vec<Option<Score>>, Error> {
        let mut counted: Vec<(Counted, bool)> = Vec::new();
        self.each(progress, &mut |images, labels, _| {
            let told = tch::no_grad(|| learner.told(images))?;
            let heads = told.size()[1];
            counted.resize(heads as usize, (Counted::default(), true));
            for (head, (counted, is_finite)) in (0..).zip(&mut counted) {
                let (of, finite) = head_of(&told, head)?;
                *is_finite &= finite;
                counted.add(&of, labels, f64::NEG_INFINITY)?;
            }
            Ok(())
        })?;
        let scores = counted.into_iter();
        Ok(scores
            .map(|(counted, is_finite)| is_finite.then(|| counted.score()))
            .collect())
    }
}

/// Returns what one head says, and whether all of it is finite.
fn head_of(told: &Tensor, head: i64) -> Result<(Tensor, bool), crate::Error> {
    let of = told.f_select(1, head)?;
    let finite = i64::try_from(&of.f_isfinite()?.f_all()?)? != 0;
    Ok((of, finite))
}

/// Returns the parts, of at most `size` images, of images and classes, with each one's share of the whole.
pub(super) fn pieces(
    images: &Tensor,
    labels: &Tensor,
    size: i64,
) -> Result<Vec<(Tensor, Tensor, f64)>, crate::Error> {
    let all = images.size()[0] as f64;
    let (images, labels) = (images.f_split(size, 0)?, labels.f_split(size, 0)?);
    let pieces = images.into_iter().zip(labels);
    Ok(pieces
        .map(|(images, labels)| {
            let share = images.size()[0] as f64 / all;
            (images, labels, share)
        })
        .collect())
}

/// Computes with matrix products in bfloat16, where that `is` asked for; the result is float32.
pub(super) fn in_bfloat16(
    is: bool,
    like: &Tensor,
    compute: impl FnOnce() -> Result<Tensor, crate::Error>,
) -> Result<Tensor, crate::Error> {
    let mixed = is.then(|| Autocast::bfloat16(like));
    let _mixed = mixed.transpose()?;
    Ok(compute()?.f_to_kind(Kind::Float)?)
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::source;

    /// Groups that are ready.
    pub struct Ready(pub Vec<Group>);

    impl GroupSource for Ready {
        fn take(&mut self, step: u64, _: u64) -> Result<Option<Group>, source::Error> {
            let group = &self.0[step as usize % self.0.len()];
            Ok(Some(Group {
                images: group.images.shallow_clone(),
                context: Vec::new(),
                targets: Vec::new(),
                sample_ids: group.sample_ids.clone(),
                labels: group.labels.clone(),
                flags: group.flags.clone(),
                replaced: 0,
                waited: Duration::ZERO,
            }))
        }

        fn groups(&self) -> u64 {
            1
        }
    }

    /// Groups of 16-pixel images of two classes: a bright patch somewhere, or a dark one.
    pub fn spots(groups: u64) -> (Ready, Vec<i64>) {
        tch::manual_seed(7);
        let group = |number: u64| {
            let images = Tensor::randn([16, 3, 16, 16], (Kind::Float, Device::Cpu)) * 0.1;
            for at in 0..16 {
                let (row, column) = (at * 5 % 4, at * 3 % 4);
                let mut spot = images
                    .get(at)
                    .narrow(1, row * 4, 4)
                    .narrow(2, column * 4, 4);
                let _ = spot.fill_(if at % 2 == 0 { 2.0 } else { -2.0 });
            }
            Group {
                images,
                context: Vec::new(),
                targets: Vec::new(),
                sample_ids: (number * 16..(number + 1) * 16).collect(),
                labels: vec![-1; 16],
                flags: vec![0; 16],
                replaced: 0,
                waited: Duration::ZERO,
            }
        };
        let groups: Vec<Group> = (0..groups).map(group).collect();
        let classes = (0..groups.len() as i64 * 16).map(|id| id % 2).collect();
        (Ready(groups), classes)
    }

    /// Teaches a learner for so many groups, and returns the share of right answers of each head.
    pub fn taught(learner: &mut dyn Learner, steps: u64) -> Vec<Option<f64>> {
        let (mut source, classes) = spots(4);
        let mut images = Images {
            source: &mut source,
            groups: steps,
            classes: &classes,
            device: Device::Cpu,
        };
        images.teach(learner, &mut |_| ()).unwrap();
        images.groups = 4;
        let scores = images.ask(learner, &mut |_| ()).unwrap();
        scores.into_iter().map(|score| Some(score?.top1)).collect()
    }

    /// Says class 1 of all, with a second head that says nothing finite.
    struct Stubborn(Vec<(i64, f64)>);

    impl Learner for Stubborn {
        fn learn(&mut self, images: &Tensor, _: &Tensor, done: f64) -> Result<(), crate::Error> {
            self.0.push((images.size()[0], done));
            Ok(())
        }

        fn told(&self, images: &Tensor) -> Result<Tensor, crate::Error> {
            let told = Tensor::from_slice(&[0.0f32, 1.0, 0.0, f32::NAN]).view([1, 2, 2]);
            Ok(told.repeat([images.size()[0], 1, 1]))
        }
    }

    #[test]
    fn images_that_are_absent_or_without_a_class_are_left_out() {
        let (mut source, mut classes) = spots(4);
        // Of the second group one is damaged and three are unlabelled; of the third nothing is left.
        source.0[1].flags[5] = FLAG_ABSENT;
        classes[16..19].fill(-1);
        source.0[2].flags.fill(FLAG_ABSENT);
        let mut images = Images {
            source: &mut source,
            groups: 4,
            classes: &classes,
            device: Device::Cpu,
        };
        let mut learner = Stubborn(Vec::new());
        let mut done = Vec::new();
        images
            .teach(&mut learner, &mut |group| done.push(group))
            .unwrap();
        assert_eq!(learner.0, [(16, 0.0), (12, 0.25), (16, 0.75)]);
        assert_eq!(done, [1, 2, 3, 4]);
        let scores = images.ask(&learner, &mut |_| ()).unwrap();
        // 8 of 16, 6 of 12, 8 of 16: place 5 was of class 1, of places 0 to 2 one.
        assert_eq!(scores[0].unwrap().top1, 100.0 * 22.0 / 44.0);
        assert!(scores[1].is_none());
    }
}
