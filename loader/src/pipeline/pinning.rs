//! Threads and the CPUs they stay on.

use rustix::thread::CpuSet;

/// Returns the CPUs this process may run on; none where the system does not tell.
pub fn allowed_cpus() -> Vec<usize> {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..CpuSet::MAX_CPU)
            .filter(|cpu| set.is_set(*cpu))
            .collect(),
        Err(_) => Vec::new(),
    }
}

/// Keeps the calling thread on one CPU, or warns that it cannot.
pub fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        tracing::warn!("cannot pin a thread to CPU {cpu}: {error}");
    }
}
