//! Slots whose copies to the device may still be going on: given back in order, each after its copy.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::Error;
use crate::torch::cuda;

/// The end of a piece of work on the device.
pub trait Completion {
    /// Tells whether it has come.
    fn happened(&self) -> Result<bool, Error>;
    /// Blocks until it has come.
    fn wait(&self) -> Result<(), Error>;
}

impl Completion for cuda::Event {
    fn happened(&self) -> Result<bool, Error> {
        cuda::Event::happened(self)
    }

    fn wait(&self) -> Result<(), Error> {
        self.synchronize()
    }
}

/// Slots `S`, oldest first, each with the completion `C` of its copy, or without one where it is not copied.
///
/// Dropping it waits for the copies: what they read is about to go.
#[derive(Debug)]
pub struct InFlight<S, C: Completion>(VecDeque<(S, Option<Rc<C>>)>);

impl<S, C: Completion> InFlight<S, C> {
    /// Returns a queue without slots.
    pub fn new() -> Self {
        InFlight(VecDeque::new())
    }

    /// Takes charge of the slot that was taken last.
    pub fn push(&mut self, slot: S, copied: Option<Rc<C>>) {
        self.0.push_back((slot, copied));
    }

    /// Releases the slots whose copies are done, in order, without waiting for any.
    ///
    /// # Errors
    /// If the device is lost.
    pub fn release_done(&mut self, mut release: impl FnMut(S)) -> Result<(), Error> {
        while let Some((slot, copied)) = self.0.pop_front() {
            if let Some(completion) = &copied
                && !completion.happened()?
            {
                self.0.push_front((slot, copied));
                break;
            }
            release(slot);
        }
        Ok(())
    }

    /// Waits for every copy and releases all slots.
    ///
    /// # Errors
    /// If the device is lost.
    pub fn release_all(&mut self, mut release: impl FnMut(S)) -> Result<(), Error> {
        while let Some((slot, copied)) = self.0.pop_front() {
            if let Some(completion) = copied {
                completion.wait()?;
            }
            release(slot);
        }
        Ok(())
    }
}

impl<S, C: Completion> Drop for InFlight<S, C> {
    fn drop(&mut self) {
        for (_, copied) in &self.0 {
            // This fails only if the device is lost, and its copies with it.
            let _ = copied.as_ref().map(|completion| completion.wait());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A completion that comes when told to, or when waited for.
    #[derive(Default)]
    struct Fake(Cell<bool>);

    impl Completion for Fake {
        fn happened(&self) -> Result<bool, Error> {
            Ok(self.0.get())
        }

        fn wait(&self) -> Result<(), Error> {
            self.0.set(true);
            Ok(())
        }
    }

    #[test]
    fn slots_go_back_in_order_and_not_before_their_copies() {
        let completions: Vec<Rc<Fake>> = (0..3).map(|_| Rc::default()).collect();
        let (mut slots, mut released) = (InFlight::new(), Vec::new());
        slots.push(0, Some(Rc::clone(&completions[0])));
        slots.push(1, Some(Rc::clone(&completions[1])));
        slots.push(2, None); // not copied, but behind one that is
        slots.push(3, Some(Rc::clone(&completions[2])));
        slots.release_done(|slot| released.push(slot)).unwrap();
        assert!(released.is_empty());
        completions[1].0.set(true);
        slots.release_done(|slot| released.push(slot)).unwrap();
        assert!(released.is_empty(), "the second waits for the first");
        completions[0].0.set(true);
        slots.release_done(|slot| released.push(slot)).unwrap();
        assert_eq!(released, [0, 1, 2]);
        slots.release_all(|slot| released.push(slot)).unwrap();
        assert_eq!(released, [0, 1, 2, 3]);
        assert!(completions[2].0.get(), "it was waited for");
        let last: Rc<Fake> = Rc::default();
        slots.push(4, Some(Rc::clone(&last)));
        drop(slots);
        assert!(last.0.get(), "so was the one that was left");
    }
}
