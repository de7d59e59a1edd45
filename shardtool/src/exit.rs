//! Exit codes: what the end of a program tells whoever started it.
//!
//! `shardtool`, `loader` and `trainer` use these and no others, but for `trainer launch`, which ends with 128 + n when
//! its trainer was killed by signal n.

/// All is well.
pub const FINE: u8 = 0;
/// The program ran and found faults: rejected images, damaged samples, a loss that is not finite.
pub const FAULTS: u8 = 1;
/// The program could not begin, or a result could not be written. Starting it again in the same way would not help.
pub const COULD_NOT_RUN: u8 = 2;
/// A fault in the program itself (`EX_SOFTWARE`).
pub const INTERNAL: u8 = 70;
/// A run ended in its midst: a disk, a log or a loader failed (`EX_IOERR`), or other ranks were lost or did not come.
/// What is on disk is whole, and starting it again goes on from there.
pub const FAILED_MIDWAY: u8 = 74;
/// A run was stopped by a signal after writing a checkpoint (`EX_TEMPFAIL`). Starting it again goes on from there.
pub const PREEMPTED: u8 = 75;
/// The reader of standard output is gone, as after `| head`: the code that a shell gives for `SIGPIPE`.
pub const STDOUT_CLOSED: u8 = 141;
