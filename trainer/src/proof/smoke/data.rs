//! From a real ring, in memory that two mappings share, to tensors.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use loader::memory::Mapping;
use loader::ring::{self, Claimer, Consumer, Geometry, Publisher, SlotReader};
use tch::{Device, Kind, Tensor};

use crate::source::device_buffers::DeviceBuffers;
use crate::source::in_flight::InFlight;
use crate::source::{Group, Raw};
use crate::torch::cuda::{Event, Registration, Stream};

const SLOTS: usize = 2;
/// Images of a slot: as large as in the official runs where speed is looked at, else small.
const MANY: usize = 128;
const FEW: usize = 8;
const SIDE: usize = 224;
const PATCHES: usize = 196;
/// How long anything here may take before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// Both ends of a ring.
struct Ring {
    claimer: Claimer,
    publisher: Publisher,
    consumer: Consumer,
    geometry: Geometry,
    filled: u64,
}

impl Ring {
    fn new(images: usize) -> Result<Ring> {
        let geometry = Geometry {
            slots: SLOTS,
            images_per_slot: images,
            channels: 3,
            height: SIDE,
            width: SIDE,
            context_masks: 1,
            target_masks: 4,
            max_context: PATCHES,
            max_target: PATCHES,
        };
        let len = geometry.total_len()?;
        let (theirs, file) = Mapping::create(len)?;
        let (claimer, publisher) = ring::create(Arc::new(theirs), geometry)?;
        let consumer = ring::attach(Arc::new(Mapping::open(file, len)?))?;
        Ok(Ring {
            claimer,
            publisher,
            consumer,
            geometry,
            filled: 0,
        })
    }

    /// Fills and publishes a slot with bytes and masks that follow from its number, and takes it.
    fn slot(&mut self) -> Result<SlotReader> {
        self.slot_of(SIDE)
    }

    /// Does so with images of `side` pixels.
    fn slot_of(&mut self, side: usize) -> Result<SlotReader> {
        let number = self.filled;
        let (slot, images, masks) = self.claimer.claim_for((side, side), PATIENCE)?;
        let count = images.len() as i64;
        for mut image in images {
            let index = image.index() as u64;
            for (pixel, place) in image.pixels().iter_mut().zip(number * 7 + index..) {
                *pixel = (place.wrapping_mul(0x9e37_79b9) >> 13) as u8;
            }
            image.finish(number * count as u64 + index, None, 0);
        }
        let mask = |patches: i64, from: i64| -> Vec<i64> {
            (0..count * patches)
                .map(|place| (place + from) % PATCHES as i64)
                .collect()
        };
        let targets = [mask(30, 1), mask(30, 2), mask(30, 3), mask(30, 4)];
        masks.finish(number, 0, &[mask(70 + number as i64, 0)], &targets);
        self.publisher.publish(slot)?;
        self.filled += 1;
        Ok(self.consumer.next(PATIENCE)?)
    }

    fn registration(&self) -> Result<Registration> {
        // SAFETY: every caller drops the registration before the ring.
        Ok(unsafe { Registration::new(self.consumer.memory()) }?)
    }
}

fn equal(one: &Group, other: &Group) -> bool {
    let tensors = |batch: &Group| -> Vec<Tensor> {
        let masks = batch.context.iter().chain(&batch.targets);
        let all = std::iter::once(&batch.images).chain(masks);
        all.map(|tensor| tensor.to_device(Device::Cpu)).collect()
    };
    let pairs = tensors(one).into_iter().zip(tensors(other));
    pairs.into_iter().all(|(one, other)| one.equal(&other))
}

/// Checks a group as the training loop gets it, against the plain way on the CPU: equal in every bit.
pub(super) fn tensors(device: Device) -> Result<String> {
    let mut ring = Ring::new(FEW)?;
    let mut stage = match device.is_cuda() {
        true => Some(DeviceBuffers::new(device, ring.geometry)?),
        false => None,
    };
    // More than there are buffers and slots, so that both come round again; some smaller than there is room for.
    for round in 0..5 {
        let slot = ring.slot_of(if round % 3 == 1 { SIDE / 2 } else { SIDE })?;
        let raw = Raw::of(&slot, &ring.geometry);
        let expected = Group::new(&raw, Device::Cpu)?;
        let batch = match &mut stage {
            None => Group::new(&raw, device)?,
            Some(stage) => {
                stage.begin(&slot, Duration::ZERO)?.synchronize()?;
                let batch = stage.finish((slot.step(), slot.group()))?;
                batch.expect("it was begun")
            }
        };
        ensure!(equal(&batch, &expected), "group {round} came out otherwise");
        ring.consumer.release(slot);
    }
    Ok("5 groups, normalised, equal in every bit".to_owned())
}

/// Page-locks the memory of a ring.
pub(super) fn registration(_: Device) -> Result<String> {
    let ring = Ring::new(MANY)?;
    let start = Instant::now();
    let registration = ring.registration()?;
    let took = start.elapsed();
    drop(registration);
    let again = ring.registration()?;
    drop(again);
    let mib = ring.geometry.total_len()? >> 20;
    Ok(format!(
        "a memfd of {mib} MiB, twice; {:.1} ms",
        took.as_secs_f64() * 1e3
    ))
}

/// Measures how fast a slot's images get to the device: page-locked, and not.
pub(super) fn bandwidth(device: Device) -> Result<String> {
    let mut ring = Ring::new(MANY)?;
    let slot = ring.slot()?;
    let bytes = slot.images();
    let target = Tensor::empty([bytes.len() as i64], (Kind::Uint8, device));
    let stream = Stream::new()?;
    let rate = |from: &[u8]| -> Result<f64> {
        const TIMES: u32 = 20;
        let (start, end) = (Event::timed()?, Event::timed()?);
        let copy = || -> Result<()> {
            // SAFETY: both ends outlive the `synchronize` below, and nothing else touches the target.
            unsafe { stream.copy(from, &target) }?;
            Ok(())
        };
        copy()?; // the first is slower
        start.record(&stream)?;
        let copied = (0..TIMES).try_for_each(|_| copy());
        end.record(&stream)?;
        stream.synchronize()?;
        copied?;
        Ok(f64::from(TIMES) * from.len() as f64 / end.ms_since(&start)? / 1e6)
    };
    let pageable = rate(bytes)?;
    let registration = ring.registration()?;
    let locked = rate(bytes)?;
    drop(registration);
    let expected = Tensor::from_slice(bytes);
    ensure!(
        target.to_device(Device::Cpu).equal(&expected),
        "other bytes"
    );
    Ok(format!(
        "{locked:.1} GB/s page-locked, {pageable:.1} GB/s without"
    ))
}

/// Checks that a copy queued while the device computes is done before the computing is.
pub(super) fn overlap(device: Device) -> Result<String> {
    let mut ring = Ring::new(MANY)?;
    let slot = ring.slot()?;
    let registration = ring.registration()?;
    let mut stage = DeviceBuffers::new(device, ring.geometry)?;
    let compute = Stream::compute();
    let (start, end) = (Event::timed()?, Event::timed()?);
    let a = Tensor::randn([4096, 4096], (Kind::Float, device));
    let mut product = a.matmul(&a); // so that the library is there
    compute.synchronize()?;
    start.record(&compute)?;
    // Some 140 GFLOP each: tens of milliseconds, against less than one for the copy.
    for _ in 0..20 {
        product = a.matmul(&a);
    }
    end.record(&compute)?;
    let copied = stage.begin(&slot, Duration::ZERO)?;
    copied.synchronize()?;
    let beside = !end.happened()?;
    compute.synchronize()?;
    drop((product, stage, registration));
    ensure!(beside, "the copy waited until the device had computed");
    Ok(format!(
        "a copy ended inside {:.1} ms of matrix products",
        end.ms_since(&start)?
    ))
}

/// Slots go back to the producer when their copies have ended, without anybody waiting for the device.
pub(super) fn release(device: Device) -> Result<String> {
    let mut ring = Ring::new(MANY)?;
    let registration = ring.registration()?;
    let mut stage = DeviceBuffers::new(device, ring.geometry)?;
    let mut in_flight: InFlight<SlotReader, Event> = InFlight::new();
    for _ in 0..SLOTS {
        let slot = ring.slot()?;
        let place = (slot.step(), slot.group());
        let copied: Rc<Event> = stage.begin(&slot, Duration::ZERO)?;
        in_flight.push(slot, Some(copied));
        stage.finish(place)?;
    }
    ensure!(
        ring.claimer.claim(Duration::ZERO).is_err(),
        "a slot was free while both were held"
    );
    let (start, mut looks) = (Instant::now(), 0);
    let mut back = 0;
    while back < SLOTS {
        in_flight.release_done(|slot| {
            ring.consumer.release(slot);
            back += 1;
        })?;
        looks += 1;
        ensure!(
            start.elapsed() < PATIENCE,
            "{back} of {SLOTS} after {PATIENCE:?}"
        );
    }
    let _again = ring.claimer.claim(Duration::ZERO)?;
    drop((in_flight, stage, registration));
    Ok(format!(
        "{SLOTS} slots in {:.2} ms, {looks} looks",
        start.elapsed().as_secs_f64() * 1e3
    ))
}
