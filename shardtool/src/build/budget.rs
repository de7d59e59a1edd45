//! Memory that workers may use together: one large image after the other, instead of as many as there are workers.

use std::sync::{Arc, Condvar, Mutex};

use crate::memory;

/// An amount of memory that is lent out.
#[derive(Debug)]
pub struct Budget {
    total: u64,
    free: Mutex<u64>,
    returned: Condvar,
}

/// Memory taken from a budget, given back on drop.
#[derive(Debug)]
pub struct Taken {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    /// Makes a budget of so many bytes.
    pub fn new(total: u64) -> Arc<Budget> {
        Arc::new(Budget {
            total,
            free: Mutex::new(total),
            returned: Condvar::new(),
        })
    }

    /// Returns how much there is when nothing is lent out.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Waits until so many bytes are free, and takes them. Who wants more than there is gets all of it, alone.
    pub fn take(self: &Arc<Budget>, bytes: u64) -> Taken {
        let bytes = bytes.min(self.total);
        let mut free = self.free.lock().expect("no thread panics with it");
        while *free < bytes {
            free = self.returned.wait(free).expect("no thread panics with it");
        }
        *free -= bytes;
        Taken {
            budget: Arc::clone(self),
            bytes,
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        *self.budget.free.lock().expect("no thread panics with it") += self.bytes;
        self.budget.returned.notify_all();
    }
}

/// What all workers of a build share: files that were read, and what their pixels become. A worker takes of the first
/// before the second and holds both, so that whoever waits for the second waits for one that waits for nothing.
#[derive(Debug, Clone)]
pub struct Memory {
    pub files: Arc<Budget>,
    pub pixels: Arc<Budget>,
}

impl Memory {
    /// Shares out a part of the memory that is available now.
    pub fn available() -> Memory {
        const LEAST: u64 = 64 << 20;
        let available = memory::available().map_or(4 << 30, |available| available.bytes);
        Memory {
            files: Budget::new((available / 8).max(LEAST)),
            pixels: Budget::new((available / 4 * 3).max(LEAST)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn no_more_is_lent_than_there_is() {
        let budget = Budget::new(100);
        let lent = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for bytes in [30, 80, 1000, 50, 20, 60] {
                let (budget, lent) = (&budget, &lent);
                scope.spawn(move || {
                    for _ in 0..200 {
                        let taken = budget.take(bytes);
                        let now = lent.fetch_add(taken.bytes, Ordering::SeqCst) + taken.bytes;
                        assert!(now <= 100);
                        lent.fetch_sub(taken.bytes, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(*budget.free.lock().unwrap(), 100);
    }
}
