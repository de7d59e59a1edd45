//! The CPUs that a process may use.

/// Returns how many threads this process can run at a time: what affinity and control group leave to it, at least one.
pub fn count() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
