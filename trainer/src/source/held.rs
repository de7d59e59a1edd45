//! Slots whose copies to the device may still be going on: given back in order, each after its copy.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::Error;

use crate::torch::cuda;

/// Something that happens once, on the device.
pub trait Moment {
    /// Whether it has.
    fn happened(&self) -> Result<bool, Error>;
    /// Blocks until it has.
    fn wait(&self) -> Result<(), Error>;
}

impl Moment for cuda::Event {
    fn happened(&self) -> Result<bool, Error> {
        cuda::Event::happened(self)
    }

    fn wait(&self) -> Result<(), Error> {
        self.synchronize()
    }
}

/// Slots `S`, oldest first, each with the end `M` of its copy; none for one that is not copied. Dropping it waits for
/// the copies: what they read is about to go.
#[derive(Debug)]
pub struct Held<S, M: Moment>(VecDeque<(S, Option<Rc<M>>)>);

impl<S, M: Moment> Held<S, M> {
    /// No slot.
    pub fn new() -> Self {
        Held(VecDeque::new())
    }

    /// Takes charge of the slot that was taken last.
    pub fn push(&mut self, slot: S, copied: Option<Rc<M>>) {
        self.0.push_back((slot, copied));
    }

    /// Releases the slots whose copies are done, in order, without waiting for any.
    pub fn release_done(&mut self, mut release: impl FnMut(S)) -> Result<(), Error> {
        while let Some((slot, copied)) = self.0.pop_front() {
            if let Some(moment) = &copied
                && !moment.happened()?
            {
                self.0.push_front((slot, copied));
                break;
            }
            release(slot);
        }
        Ok(())
    }

    /// Waits for every copy and releases all slots.
    pub fn release_all(&mut self, mut release: impl FnMut(S)) -> Result<(), Error> {
        while let Some((slot, copied)) = self.0.pop_front() {
            if let Some(moment) = copied {
                moment.wait()?;
            }
            release(slot);
        }
        Ok(())
    }
}

impl<S, M: Moment> Drop for Held<S, M> {
    fn drop(&mut self) {
        for (_, copied) in &self.0 {
            // This fails only if the device is lost, and its copies with it.
            let _ = copied.as_ref().map(|moment| moment.wait());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// Happens when told to, or when waited for.
    #[derive(Default)]
    struct Fake(Cell<bool>);

    impl Moment for Fake {
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
        let moments: Vec<Rc<Fake>> = (0..3).map(|_| Rc::default()).collect();
        let (mut held, mut released) = (Held::new(), Vec::new());
        held.push(0, Some(Rc::clone(&moments[0])));
        held.push(1, Some(Rc::clone(&moments[1])));
        held.push(2, None); // not copied, but behind one that is
        held.push(3, Some(Rc::clone(&moments[2])));
        held.release_done(|slot| released.push(slot)).unwrap();
        assert!(released.is_empty());
        moments[1].0.set(true);
        held.release_done(|slot| released.push(slot)).unwrap();
        assert!(released.is_empty(), "the second waits for the first");
        moments[0].0.set(true);
        held.release_done(|slot| released.push(slot)).unwrap();
        assert_eq!(released, [0, 1, 2]);
        held.release_all(|slot| released.push(slot)).unwrap();
        assert_eq!(released, [0, 1, 2, 3]);
        assert!(moments[2].0.get(), "it was waited for");
        let last: Rc<Fake> = Rc::default();
        held.push(4, Some(Rc::clone(&last)));
        drop(held);
        assert!(last.0.get(), "so was the one that was left");
    }
}
