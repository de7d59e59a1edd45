//! Groups on their way to a GPU: copied from page-locked slots by a stream of their own, while the GPU computes.
//!
//! ```text
//! copy stream:     … wait free[k] ─ copy slot → buffer k ─ record copied[k] …            (group n + 1)
//! compute stream:  … step n ……………………………………………… wait copied[k] ─ normalise, masks ─ record free[k] ─ step n + 1 …
//! host:            begin(n + 1) ……………… copied[k] has happened: slot given back ………… finish()
//! ```
//!
//! Two buffers take turns. The host waits for nothing: the two streams wait for each other's events.

use std::rc::Rc;
use std::time::Duration;

use loader::ring::{Geometry, SlotReader};
use tch::{Device, Kind, Tensor};

use super::group::{Group, Normaliser, Raw};
use crate::Error;
use crate::torch::cuda::{Event, Stream};

/// Two buffers on the device, which receive groups in turn.
#[derive(Debug)]
pub struct DeviceBuffers {
    geometry: Geometry,
    normaliser: Normaliser,
    copies: Stream,
    compute: Stream,
    buffers: [Buffer; 2],
    turn: usize,
    begun: Option<Begun>,
}

/// Room for one group, and the events that pass it to and fro.
#[derive(Debug)]
struct Buffer {
    pixels: Tensor,       // (B · 3 · the most pixels) bytes, filled from the start
    context: Vec<Tensor>, // (B · the most patches) each, filled from the start
    targets: Vec<Tensor>,
    copied: Rc<Event>,
    free: Event,
}

/// A group whose copy was queued.
#[derive(Debug)]
struct Begun {
    place: (u64, u64),
    buffer: usize,
    size: (usize, usize),
    lengths: (i64, i64),
    sample_ids: Vec<u64>,
    labels: Vec<i64>,
    flags: Vec<u8>,
    replaced: u64,
    waited: Duration,
}

impl DeviceBuffers {
    /// Makes buffers for the groups of a ring of these dimensions.
    ///
    /// `device` is a GPU and this thread's current one.
    ///
    /// # Errors
    /// Too little memory on the device, above all.
    pub fn new(device: Device, geometry: Geometry) -> Result<DeviceBuffers, Error> {
        let compute = Stream::compute();
        let size = |number: usize| number as i64;
        let images = size(geometry.images_per_slot);
        let buffer = || -> Result<Buffer, Error> {
            let masks = |count: usize, most: usize| {
                let make = |_| Tensor::f_empty([images * size(most)], (Kind::Int64, device));
                (0..count).map(make).collect::<Result<Vec<_>, _>>()
            };
            let pixels = images * 3 * size(geometry.height) * size(geometry.width);
            let buffer = Buffer {
                pixels: Tensor::f_empty([pixels], (Kind::Uint8, device))?,
                context: masks(geometry.context_masks, geometry.max_context)?,
                targets: masks(geometry.target_masks, geometry.max_target)?,
                copied: Rc::new(Event::new()?),
                free: Event::new()?,
            };
            // The memory may have belonged to tensors that work in the compute stream still reads.
            buffer.free.record(&compute)?;
            Ok(buffer)
        };
        // The link refuses rings of other images.
        debug_assert_eq!(geometry.channels, 3);
        Ok(DeviceBuffers {
            buffers: [buffer()?, buffer()?],
            normaliser: Normaliser::new(device)?,
            copies: Stream::new()?,
            geometry,
            compute,
            turn: 0,
            begun: None,
        })
    }

    /// Tells whether a group has been begun and not finished.
    pub fn has_begun(&self) -> bool {
        self.begun.is_some()
    }

    /// Queues the copy of a group that took `waited` to come.
    ///
    /// The slot must be kept until the event that is returned has happened.
    ///
    /// # Errors
    /// If the device refuses; no copy is left behind then.
    ///
    /// # Panics
    /// If the one before was not finished.
    pub fn begin(&mut self, slot: &SlotReader, waited: Duration) -> Result<Rc<Event>, Error> {
        assert!(self.begun.is_none(), "one group at a time");
        let raw = Raw::of(slot, &self.geometry);
        let (copies, buffer) = (&self.copies, &self.buffers[self.turn]);
        copies.wait(&buffer.free)?;
        let masks = |from: &[&[i64]], to: &[Tensor]| -> Result<(), Error> {
            from.iter().zip(to).try_for_each(|(from, to)| {
                // SAFETY: as below.
                unsafe { copies.copy(from, to) }
            })
        };
        // SAFETY: the slot stays the caller's until `copied`, and nobody writes to a taken slot. The buffer lives as
        // long as `self`, whose drop waits; the compute stream has done with it at `free` and comes back after
        // `copied`.
        let queued = unsafe { copies.copy(raw.images, &buffer.pixels) }
            .and_then(|()| masks(&raw.context, &buffer.context))
            .and_then(|()| masks(&raw.targets, &buffer.targets))
            .and_then(|()| buffer.copied.record(copies));
        if let Err(error) = queued {
            // The caller will not keep the slot: no copy may be left. This fails only if the device is lost as well.
            let _ = copies.synchronize();
            return Err(error);
        }
        self.begun = Some(Begun {
            place: (slot.step(), slot.group()),
            buffer: self.turn,
            size: raw.size,
            lengths: (slot.context_len() as i64, slot.target_len() as i64),
            sample_ids: raw.sample_ids.to_vec(),
            labels: raw.labels.to_vec(),
            flags: raw.flags.to_vec(),
            replaced: raw.replaced(),
            waited,
        });
        self.turn = 1 - self.turn;
        Ok(Rc::clone(&buffer.copied))
    }

    /// Returns the group that was begun, if it is the one at `place` (step, group); another one is dropped.
    ///
    /// Its tensors are complete for everything queued in the compute stream from now on.
    ///
    /// # Errors
    /// Too little memory on the device, above all.
    pub fn finish(&mut self, place: (u64, u64)) -> Result<Option<Group>, Error> {
        let Some(begun) = self.begun.take() else {
            return Ok(None);
        };
        let buffer = &self.buffers[begun.buffer];
        if begun.place != place {
            return Ok(None);
        }
        self.compute.wait(&buffer.copied)?;
        let images = self.geometry.images_per_slot as i64;
        // Copied once more, on the device: autograd keeps masks until the backward pass, and the buffer is needed.
        let masks = |masks: &[Tensor], length: i64| -> Result<Vec<Tensor>, Error> {
            let copies = masks.iter().map(|mask| {
                let rows = mask.f_narrow(0, 0, images * length)?;
                let rows = rows.f_view([images, length])?;
                let mut copy = rows.f_empty_like()?;
                copy.f_copy_(&rows)?;
                Ok(copy)
            });
            copies.collect()
        };
        let (height, width) = (begun.size.0 as i64, begun.size.1 as i64);
        let pixels = buffer.pixels.f_narrow(0, 0, images * 3 * height * width)?;
        let pixels = pixels.f_view([images, 3, height, width])?;
        let group = Group {
            images: self.normaliser.apply(&pixels)?,
            context: masks(&buffer.context, begun.lengths.0)?,
            targets: masks(&buffer.targets, begun.lengths.1)?,
            sample_ids: begun.sample_ids,
            labels: begun.labels,
            flags: begun.flags,
            replaced: begun.replaced,
            waited: begun.waited,
        };
        buffer.free.record(&self.compute)?;
        Ok(Some(group))
    }
}

impl Drop for DeviceBuffers {
    fn drop(&mut self) {
        // The buffers go back to libtorch's allocator, which knows nothing of the copy stream.
        let _ = self.copies.synchronize();
    }
}
