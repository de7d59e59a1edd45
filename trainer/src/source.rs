//! Where the groups of a step come from, and what becomes of them: tensors, normalised on the device.
//!
//! Used by the training loop through [`Source`]; [`LoaderSource`] is the real one. It hides that a loader may die: the
//! next one is asked for the step in progress, and since what a step holds depends on its number alone, the groups seen
//! already are skipped and no value changes.

use std::ops::Range;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use loader::link::{self, Endpoint, Feed, Hello};
use loader::ring::FLAG_REPLACED;
use tch::{Device, Kind, Tensor};

use crate::stop::Stop;

/// Mean and deviation of ImageNet's channels, which the official code normalises with.
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const STD: [f32; 3] = [0.229, 0.224, 0.225];
/// Between two looks at the signals while waiting for data.
const TICK: Duration = Duration::from_millis(100);
/// How long data may still come after a stop was asked for. The loader may have been asked too, and be gone.
const GRACE: Duration = Duration::from_secs(5);
/// Loaders that may die one after the other without delivering anything before the run gives up.
const ATTEMPTS: u32 = 8;

/// One group on the device, its slot already given back.
#[derive(Debug)]
pub struct Batch {
    /// Normalised images (B, 3, H, W).
    pub images: Tensor,
    /// Patch numbers (B, n) of each context mask.
    pub context: Vec<Tensor>,
    /// Patch numbers (B, m) of each target mask.
    pub targets: Vec<Tensor>,
    /// Sample number of each image in its split.
    pub sample_ids: Vec<u64>,
    /// Images that stand in for damaged ones.
    pub replaced: u64,
    /// How long the trainer was blocked until the group was there: waiting for data, without the copy.
    pub waited: Duration,
}

/// A group as it lies in memory.
#[derive(Clone, Debug)]
pub struct Raw<'a> {
    /// B images of (3, H, W) bytes.
    pub images: &'a [u8],
    /// Height and width.
    pub size: (usize, usize),
    /// Each context mask of all images, row by row.
    pub context: Vec<&'a [i64]>,
    /// Each target mask.
    pub targets: Vec<&'a [i64]>,
    /// One per image.
    pub sample_ids: &'a [u64],
    /// One per image.
    pub flags: &'a [u8],
}

impl Batch {
    /// Copies a group to `device`, once, and normalises it there. The operations are the official ones, in their order:
    /// bytes over 255, minus the mean, over the deviation.
    pub fn new(raw: &Raw<'_>, device: Device) -> Result<Batch> {
        let images = raw.sample_ids.len() as i64;
        let (height, width) = (raw.size.0 as i64, raw.size.1 as i64);
        ensure!(
            images > 0 && raw.images.len() as i64 == images * 3 * height * width,
            "a group of another size"
        );
        let masks = |masks: &[&[i64]]| -> Result<Vec<Tensor>> {
            let rows = masks.iter().map(|mask| {
                Ok(Tensor::f_from_slice(mask)?
                    .f_view([images, -1])?
                    .f_to_device(device)?)
            });
            rows.collect()
        };
        // SAFETY: the slice holds exactly these bytes and outlives the tensor, which is read below and dropped in this
        // function; `to_kind` to another kind always makes a copy of its own.
        let bytes = unsafe {
            let sizes = [images, 3, height, width];
            Tensor::f_from_blob(raw.images.as_ptr(), &sizes, &[], Kind::Uint8, Device::Cpu)?
        };
        let channels = |values: [f32; 3]| {
            Tensor::from_slice(&values)
                .view([1, 3, 1, 1])
                .to_device(device)
        };
        let mut pixels = bytes.f_to_device(device)?.f_to_kind(Kind::Float)?; // (B, 3, H, W)
        pixels = pixels
            .f_div_scalar_(255.0)?
            .f_sub_(&channels(MEAN))?
            .f_div_(&channels(STD))?;
        Ok(Batch {
            images: pixels,
            context: masks(&raw.context)?,
            targets: masks(&raw.targets)?,
            sample_ids: raw.sample_ids.to_vec(),
            replaced: raw
                .flags
                .iter()
                .filter(|flags| **flags & FLAG_REPLACED != 0)
                .count() as u64,
            waited: Duration::ZERO,
        })
    }
}

/// Gives out the groups of this rank in order.
pub trait Source {
    /// Group number `group` of this rank's share of `step`; `None` if it did not come because a stop was asked for.
    fn take(&mut self, step: u64, group: u64) -> Result<Option<Batch>>;

    /// Groups of a step that this rank takes.
    fn groups(&self) -> u64;
}

/// The loader at the other end of a link.
pub struct LoaderSource {
    endpoint: Arc<Endpoint>,
    hello: Hello,
    patience: Duration,
    device: Device,
    stop: Stop,
    feed: Option<Feed>,
    epoch_len: u64,
    groups: Range<u64>,
    restarts: u32,
}

impl LoaderSource {
    /// Connects to the loader for the first time; `None` if a stop was asked for before there was one.
    pub fn connect(
        endpoint: Endpoint,
        hello: Hello,
        patience: Duration,
        device: Device,
        stop: Stop,
    ) -> Result<Option<LoaderSource>> {
        let endpoint = Arc::new(endpoint);
        let mut attempts = 0;
        let Some(feed) = connect(&endpoint, &hello, patience, &stop, &mut attempts)? else {
            return Ok(None);
        };
        let (epoch_len, groups) = (feed.epoch_len(), hello.groups(feed.welcome().groups));
        ensure!(epoch_len > 0, "the loader announces epochs without steps");
        Ok(Some(LoaderSource {
            endpoint,
            hello,
            patience,
            device,
            stop,
            feed: Some(feed),
            epoch_len,
            groups,
            restarts: 0,
        }))
    }

    /// Steps of an epoch.
    pub fn epoch_len(&self) -> u64 {
        self.epoch_len
    }

    /// Loaders that were lost on the way.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// Takes leave, so that the loader knows this is not a death.
    pub fn goodbye(self) {
        if let Some(feed) = self.feed {
            feed.goodbye();
        }
    }

    /// A feed that will deliver `step` next.
    fn reconnect(&mut self, step: u64, attempts: &mut u32) -> Result<bool> {
        self.feed = None;
        self.hello.first_step = step;
        let Some(feed) = connect(
            &self.endpoint,
            &self.hello,
            self.patience,
            &self.stop,
            attempts,
        )?
        else {
            return Ok(false);
        };
        let groups = self.hello.groups(feed.welcome().groups);
        ensure!(
            feed.epoch_len() == self.epoch_len && groups == self.groups,
            "the new loader has epochs of {} steps and serves groups {groups:?}; the one before had {} and {:?}",
            feed.epoch_len(),
            self.epoch_len,
            self.groups
        );
        self.feed = Some(feed);
        Ok(true)
    }
}

impl Source for LoaderSource {
    fn take(&mut self, step: u64, group: u64) -> Result<Option<Batch>> {
        let (start, wanted) = (Instant::now(), (step, self.groups.start + group));
        let (mut attempts, mut asked) = (0, None);
        loop {
            let Some(feed) = &mut self.feed else {
                if !self.reconnect(step, &mut attempts)? {
                    return Ok(None);
                }
                continue;
            };
            match feed.next_within(TICK) {
                Ok(Some(slot)) => {
                    let waited = start.elapsed();
                    let batch = if (slot.step(), slot.group()) == wanted {
                        let geometry = *feed.geometry();
                        let raw = Raw {
                            images: slot.images(),
                            size: (geometry.height, geometry.width),
                            context: (0..geometry.context_masks)
                                .map(|mask| slot.context(mask))
                                .collect(),
                            targets: (0..geometry.target_masks)
                                .map(|mask| slot.target(mask))
                                .collect(),
                            sample_ids: slot.sample_ids(),
                            flags: slot.flags(),
                        };
                        Some(Batch {
                            waited,
                            ..Batch::new(&raw, self.device)?
                        })
                    } else {
                        // A loader that took over in the middle of a step begins it again: seen already.
                        None
                    };
                    feed.release(slot);
                    if batch.is_some() {
                        return Ok(batch);
                    }
                }
                Ok(None) => {
                    if self.stop.asked().is_some()
                        && asked.get_or_insert_with(Instant::now).elapsed() > GRACE
                    {
                        return Ok(None);
                    }
                }
                Err(
                    error @ (link::Error::LoaderDied { .. } | link::Error::LoaderClosed { .. }),
                ) => {
                    if self.stop.asked().is_some() {
                        return Ok(None);
                    }
                    eprintln!("{error}; waiting for another one at step {step}");
                    self.restarts += 1;
                    self.feed = None;
                }
                Err(error) => return Err(error).context("no more data"),
            }
        }
    }

    fn groups(&self) -> u64 {
        self.groups.end - self.groups.start
    }
}

/// A feed, within `patience`; `None` if a stop was asked for first.
fn connect(
    endpoint: &Arc<Endpoint>,
    hello: &Hello,
    patience: Duration,
    stop: &Stop,
    attempts: &mut u32,
) -> Result<Option<Feed>> {
    loop {
        // A thread of its own, because connecting may take all of `patience` and a signal must not. When a stop is
        // asked for, the thread is left behind: the process is about to end.
        let (sender, receiver) = mpsc::channel();
        let (endpoint, hello) = (Arc::clone(endpoint), hello.clone());
        std::thread::spawn(move || {
            // Nobody receives it any more if a stop was asked for in the meantime.
            let _ = sender.send(Feed::connect(&endpoint, &hello, patience));
        });
        let outcome = loop {
            match receiver.recv_timeout(TICK) {
                Ok(outcome) => break outcome,
                Err(_) if stop.asked().is_some() => return Ok(None),
                Err(_) => {}
            }
        };
        match outcome {
            Ok(feed) => return Ok(Some(feed)),
            // One that dies before its welcome: the launcher, or the user, starts another.
            Err(error @ (link::Error::LoaderDied { .. } | link::Error::LoaderClosed { .. })) => {
                *attempts += 1;
                ensure!(
                    *attempts < ATTEMPTS,
                    "{ATTEMPTS} loaders ended before their first group; the last: {error}"
                );
                eprintln!("{error}; waiting for another one");
            }
            Err(error) => return Err(error).context("cannot connect to the loader"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_normalised_as_torchvision_does() {
        let images: Vec<u8> = (0..2 * 3 * 4).map(|byte| byte * 10).collect();
        let (context, target) = ([0i64, 1, 2, 3], [3i64, 0]);
        let raw = Raw {
            images: &images,
            size: (2, 2),
            context: vec![&context],
            targets: vec![&target, &target],
            sample_ids: &[7, 9],
            flags: &[0, FLAG_REPLACED],
        };
        let batch = Batch::new(&raw, Device::Cpu).unwrap();
        assert_eq!(batch.images.size(), [2, 3, 2, 2]);
        let values = Vec::<f32>::try_from(batch.images.flatten(0, -1)).unwrap();
        for (index, value) in values.into_iter().enumerate() {
            let channel = index / 4 % 3;
            assert_eq!(
                value,
                (f32::from(images[index]) / 255.0 - MEAN[channel]) / STD[channel],
                "value {index}"
            );
        }
        assert_eq!(batch.context[0].size(), [2, 2]);
        assert_eq!(
            (batch.targets.len(), batch.targets[1].size()),
            (2, vec![2, 1])
        );
        assert_eq!(
            Vec::<i64>::try_from(batch.context[0].get(1)).unwrap(),
            [2, 3]
        );
        assert_eq!((batch.replaced, &batch.sample_ids[..]), (1, &[7, 9][..]));
    }

    #[test]
    fn a_group_of_another_size_is_refused() {
        let raw = Raw {
            images: &[0; 11],
            size: (2, 2),
            context: vec![],
            targets: vec![],
            sample_ids: &[0],
            flags: &[0],
        };
        assert!(Batch::new(&raw, Device::Cpu).is_err());
    }
}
