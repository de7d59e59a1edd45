//! Signals as messages: blocked in all threads, taken by one.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::{io, ptr};

/// The signals that ask for a stop.
const ASKING: [c_int; 7] = [
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGHUP,
    libc::SIGXCPU,
    libc::SIGXFSZ,
];

/// A signal that came, and who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The signal.
    pub signal: i32,
    /// The process that sent it; 0 for the kernel, as when a terminal does.
    pub sender: u32,
}

impl Heard {
    /// Returns the signal's name.
    pub fn name(&self) -> &'static str {
        name(self.signal)
    }
}

/// Has the signals that ask for a stop wait until somebody [listens](listen), in this thread and in those that it makes
/// from now on. Programs that it starts inherit that.
///
/// It may run before `main`: it calls nothing but the system.
pub fn hold() {
    mask(libc::SIG_BLOCK);
}

/// Lets them end the process again, as they do by themselves; those that came meanwhile do so now.
///
/// It may run between fork and exec: it calls nothing but the system.
pub fn release() {
    mask(libc::SIG_UNBLOCK);
}

/// Starts a thread that calls `heard` for each signal that asks for a stop. It ends with the process.
///
/// Other threads that exist already must have been made since [`hold`].
///
/// # Errors
/// If the system refuses the thread.
pub fn listen(mut heard: impl FnMut(Heard) + Send + 'static) -> io::Result<()> {
    hold();
    let listener = std::thread::Builder::new().name("signals".to_owned());
    listener.spawn(move || {
        let set = asking();
        loop {
            let mut info = MaybeUninit::uninit();
            // SAFETY: both pointers are to values of the right types that live until after the call.
            let signal = unsafe { libc::sigwaitinfo(&raw const set, info.as_mut_ptr()) };
            if signal > 0 {
                // SAFETY: the call has written it, and the kernel fills the sender in for all signals of this set.
                let sender = unsafe { info.assume_init().si_pid() };
                heard(Heard {
                    signal,
                    sender: sender.cast_unsigned(),
                });
            }
        }
    })?;
    Ok(())
}

/// Returns the name of a signal.
pub fn name(signal: c_int) -> &'static str {
    signal_hook::low_level::signal_name(signal).unwrap_or("an unknown signal")
}

/// Returns the set of signals that ask for a stop. SIGHUP is one unless it is ignored, as under `nohup`.
fn asking() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the first call initialises the set, the others change it; all take pointers to values that live here.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in ASKING {
            if signal != libc::SIGHUP || !is_ignored(signal) {
                libc::sigaddset(set.as_mut_ptr(), signal);
            }
        }
        set.assume_init()
    }
}

fn is_ignored(signal: c_int) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: it changes nothing, and writes the present action, which is read only if it did.
    unsafe {
        libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

fn mask(how: c_int) {
    let set = asking();
    // SAFETY: the set lives until after the call; the old one is not asked for.
    unsafe { libc::pthread_sigmask(how, &raw const set, ptr::null_mut()) };
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn what_children_inherit_can_be_released() {
        let (sender, receiver) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            hold();
            let blocked = || {
                let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
                let line = status.lines().find(|line| line.starts_with("SigBlk:"));
                u64::from_str_radix(line.unwrap()["SigBlk:".len()..].trim(), 16).unwrap()
            };
            let held = blocked();
            release();
            sender.send((held, blocked())).unwrap();
        });
        thread.join().unwrap();
        let (held, released) = receiver.recv().unwrap();
        for signal in ASKING {
            let bit = 1 << (signal - 1);
            assert_eq!(released & bit, 0, "{}", name(signal));
            if signal != libc::SIGHUP {
                assert_ne!(held & bit, 0, "{}", name(signal));
            }
        }
    }
}
