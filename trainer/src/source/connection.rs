//! One loader, its ring page-locked where a GPU reads it, and the slots that are out.

use std::rc::Rc;
use std::time::Duration;

use loader::link::{self, Feed};
use loader::ring::{Geometry, SlotReader};
use tch::Device;

use super::held::Held;
use crate::Error;
use crate::torch::cuda::{Event, Registration};

/// A connection to a loader. The fields are dropped in this order: copies end, the memory is unlocked, then unmapped.
#[derive(Debug)]
pub struct Connection {
    held: Held<SlotReader, Event>,
    registration: Option<Registration>,
    feed: Feed,
}

impl Connection {
    /// Makes the ring's memory ready for copies to `device`. Where it cannot be page-locked, that is said: copies are
    /// slower then, and block.
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
            held: Held::new(),
            registration,
            feed,
        }
    }

    /// The loader's end.
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// The ring's dimensions.
    pub fn geometry(&self) -> Geometry {
        *self.feed.geometry()
    }

    /// The next slot, if it comes within `timeout`.
    pub fn next_within(&mut self, timeout: Duration) -> Result<Option<SlotReader>, link::Error> {
        self.feed.next_within(timeout)
    }

    /// Gives back what has been copied. When no slot is ready, all: the loader may be waiting for one.
    pub fn give_back(&mut self) -> Result<(), Error> {
        let feed = &mut self.feed;
        if feed.is_ready() {
            self.held.release_done(|slot| feed.release(slot))
        } else {
            self.held.release_all(|slot| feed.release(slot))
        }
    }

    /// Gives back what has been copied, without waiting.
    pub fn give_back_done(&mut self) -> Result<(), Error> {
        let feed = &mut self.feed;
        self.held.release_done(|slot| feed.release(slot))
    }

    /// Takes charge of the slot taken last, until `copied` has happened; without one, it is done with.
    pub fn done(&mut self, slot: SlotReader, copied: Option<Rc<Event>>) -> Result<(), Error> {
        self.held.push(slot, copied);
        self.give_back_done()
    }

    /// Takes leave, so that the loader knows this is not a death.
    pub fn goodbye(self) {
        drop((self.held, self.registration));
        self.feed.goodbye();
    }
}
