//! One loader, its ring page-locked where a GPU reads it, and the slots that are out.

use std::rc::Rc;
use std::time::Duration;

use loader::link::{self, Feed};
use loader::ring::{Geometry, SlotReader};
use tch::Device;

use super::in_flight::InFlight;
use crate::Error;
use crate::torch::cuda::{Event, Registration};

/// A connection to a loader.
///
/// The fields are dropped in this order: copies end, the memory is unlocked, then unmapped.
#[derive(Debug)]
pub struct Connection {
    copies: InFlight<SlotReader, Event>,
    registration: Option<Registration>,
    feed: Feed,
}

impl Connection {
    /// Makes the ring's memory ready for copies to `device`.
    ///
    /// Where it cannot be page-locked, a warning says so: copies are slower then, and block.
    pub fn new(feed: Feed, device: Device) -> Connection {
        let registration = device.is_cuda().then(|| {
            // SAFETY: the feed keeps its mapping, and is dropped after the registration.
            unsafe { Registration::new(feed.memory()) }
        });
        let registration = registration.and_then(|registration| {
            registration
                .inspect_err(|error| {
                    tracing::warn!(
                        "{error}: the ring is not page-locked, copies from it are slower"
                    );
                })
                .ok()
        });
        Connection {
            copies: InFlight::new(),
            registration,
            feed,
        }
    }

    /// Returns the link to the loader.
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// Returns the ring's dimensions.
    pub fn geometry(&self) -> Geometry {
        *self.feed.geometry()
    }

    /// Returns the next slot, if it comes within `timeout`.
    ///
    /// # Errors
    /// If the loader ended, or sent what it should not.
    pub fn next_within(&mut self, timeout: Duration) -> Result<Option<SlotReader>, link::Error> {
        self.feed.next_within(timeout)
    }

    /// Gives back what has been copied, or all slots when none is ready: the loader may be waiting for one.
    ///
    /// # Errors
    /// If the device is lost.
    pub fn give_back(&mut self) -> Result<(), Error> {
        let feed = &mut self.feed;
        if feed.is_ready() {
            self.copies.release_done(|slot| feed.release(slot))
        } else {
            self.copies.release_all(|slot| feed.release(slot))
        }
    }

    /// Gives back what has been copied, without waiting.
    ///
    /// # Errors
    /// If the device is lost.
    pub fn give_back_done(&mut self) -> Result<(), Error> {
        let feed = &mut self.feed;
        self.copies.release_done(|slot| feed.release(slot))
    }

    /// Takes charge of the slot taken last, until `copied` has happened; without one, it is done with.
    ///
    /// # Errors
    /// If the device is lost.
    pub fn done(&mut self, slot: SlotReader, copied: Option<Rc<Event>>) -> Result<(), Error> {
        self.copies.push(slot, copied);
        self.give_back_done()
    }

    /// Tells the loader that this end is no death, and closes the connection.
    pub fn goodbye(self) {
        drop((self.copies, self.registration));
        self.feed.goodbye();
    }
}
