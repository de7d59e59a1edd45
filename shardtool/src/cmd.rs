//! The commands: each file has its arguments and its `run`.

pub mod build;
pub mod extract;
pub mod inspect;
mod reading;
pub mod synth;
pub mod verify;

use std::fmt::Write;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::builder::{PathBufValueParser, TypedValueParser};
use indicatif::{ProgressBar, ProgressState};
use shardtool::program;
use shardtool::source::expand_argument;

/// Returns the parser of a source as an argument: a path, after its split or not.
fn source() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|written| expand_argument(&written))
}

/// Progress on stderr: a bar on a terminal, elsewhere (log files) a line every ten seconds.
struct Meter {
    bar: ProgressBar,
    verb: &'static str,
    lines: bool,
    start: Instant,
    last_line: Instant,
}

impl Meter {
    fn new(verb: &'static str, total: u64) -> Meter {
        let lines = !std::io::stderr().is_terminal();
        let template = "{prefix} [{bar:20}] {human_pos}/{human_len} {msg}, {rate}/s, ETA {eta}";
        let bar = program::progress_bar(Some(total), template);
        let style = bar
            .style()
            .with_key("rate", |state: &ProgressState, out: &mut dyn Write| {
                let _ = write!(out, "{:.0}", state.per_sec()); // into a buffer, which cannot fail
            });
        bar.set_style(style.progress_chars("=> "));
        bar.set_prefix(verb);
        Meter {
            bar,
            verb,
            lines,
            start: Instant::now(),
            last_line: Instant::now(),
        }
    }

    fn update(&mut self, done: u64, total: u64, faults: u64) {
        self.bar.set_length(total);
        let faulty = match faults {
            0 => String::new(),
            faults => format!(", {faults} faulty"),
        };
        self.bar.set_message(format!("images{faulty}"));
        self.bar.set_position(done);
        if self.lines && self.last_line.elapsed() >= Duration::from_secs(10) {
            self.last_line = Instant::now();
            let rate = done as f64 / self.start.elapsed().as_secs_f64();
            let left = (total - done) as f64 / rate;
            let verb = self.verb;
            tracing::info!("{verb} {done}/{total} images{faulty}, {rate:.0}/s, ETA {left:.0} s");
        }
    }

    /// Takes the bar away and returns the seconds it was there.
    fn finish(self) -> f64 {
        self.bar.finish_and_clear();
        self.start.elapsed().as_secs_f64()
    }
}

/// Returns a size as people read it: `1.5 MiB`.
fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// Returns a number and what it counts, in words: `1 image`, `2 images`.
fn count(number: u64, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}
