//! A loader and its trainers as one job: start them, restart a loader that dies, pass signals on, end together.
//!
//! | room | what stands there |
//! |---|---|
//! | `job` | a job's programs, and its end |
//! | `child` | a program that runs with a channel to this process |
//! | `team` | the trainers, one for each rank: when one fails, all end |
//! | `loaders` | the loader that is running, and those that ran before it |
//! | `events` | signals and ends, in one queue |
//! | `supervise` | the loop that waits for signals and for ends |
//!
//! None has a name that could clash or be left behind. Each child inherits one end of a socketpair, its channel. This
//! process makes the connections between loader and trainers, and sends one end over either channel. It keeps neither
//! end, so that both sides see end-of-file when the other dies. (Where several launchers of one node share a loader, as
//! under `torchrun`, trainers find it by its name instead.)
//!
//! Who ends how:
//! * the trainers end: the loader's channel is closed, which ends it; this process exits with their code;
//! * one of several trainers fails: the others notice, rank 0 writes a checkpoint, and all are started again from
//!   there, as often as `--max-restarts` says;
//! * the loader dies: another one is started and connected, until it has died too often in a row;
//! * this process gets a signal that [asks for a stop](crate::stop): the trainer is told, writes its checkpoint and
//!   ends with 75, and so does this process; a second SIGINT ends the trainer at once;
//! * this process is killed: the kernel kills the loader and asks the trainer to write a checkpoint and stop.
//!
//! Every descriptor here closes on exec; only a child's own channel is opened up, in that child alone.

mod child;
mod error;
mod events;
mod job;
mod loaders;
mod supervise;
mod team;
#[cfg(test)]
mod tests;

pub use child::Program;
pub use error::Error;
pub use events::Events;
pub use job::Job;
pub use loaders::OwnLoader;
