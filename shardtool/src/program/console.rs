//! Standard error: the subscriber of all events, and the progress bar above which it writes.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, IsTerminal, Write as _};
use std::panic::PanicHookInfo;
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, WeakProgressBar};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::escaped::write_char;
use crate::{Escaped, regular};

/// How much a program says: options that all commands have.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub struct Verbosity {
    /// Say warnings and errors only, and draw no progress bar
    #[arg(
        short,
        long,
        global = true,
        conflicts_with = "verbose",
        help_heading = "Messages"
    )]
    quiet: bool,
    /// Say more (-v), or everything (-vv); without it or -q, RUST_LOG decides
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Messages")]
    verbose: u8,
}

impl Verbosity {
    /// Returns the options that have another program say as much as this one.
    pub fn arguments(self) -> Vec<String> {
        let mut arguments = vec!["-v".to_owned(); self.verbose.into()];
        if self.quiet {
            arguments.push("-q".to_owned());
        }
        arguments
    }

    /// Returns what of the events is said, and what is wrong with the variable that should decide it.
    fn filter(self) -> (EnvFilter, Option<String>) {
        // Chosen for our own crates: what libraries say is their developers' business.
        let ours = |level: &str| {
            let targets = ["shardtool", "loader", "exchange", "trainer"]
                .map(|target| format!("{target}={level}"));
            EnvFilter::new(format!("error,{}", targets.join(",")))
        };
        let chosen = match (self.quiet, self.verbose) {
            (true, _) => ours("warn"),
            (false, 0) => return from_variable(std::env::var_os(VARIABLE), || ours("info")),
            (false, 1) => ours("debug"),
            (false, _) => ours("trace"),
        };
        (chosen, None)
    }
}

/// The variable that decides where no option does.
const VARIABLE: &str = "RUST_LOG";

/// Returns the filter that the variable's `value` describes, else the `usual` one; and why it describes none.
fn from_variable(
    value: Option<OsString>,
    usual: impl FnOnce() -> EnvFilter,
) -> (EnvFilter, Option<String>) {
    let Some(value) = value else {
        return (usual(), None);
    };
    let filter = match value.to_str() {
        Some(text) => EnvFilter::try_new(text).map_err(|fault| fault.to_string()),
        None => Err("not UTF-8".to_owned()),
    };
    match filter {
        Ok(filter) => (filter, None),
        Err(fault) => {
            let value = Escaped::new(&value);
            let warning = format!("{VARIABLE}={value}: {fault}; taken as not set");
            (usual(), Some(warning))
        }
    }
}

/// What this process is called in its messages.
struct Identity {
    name: &'static str,
    quiet: bool,
}

static IDENTITY: OnceLock<Identity> = OnceLock::new();
/// The rank of this process, where there are several.
static RANK: OnceLock<u32> = OnceLock::new();
/// The file that takes all messages but warnings and errors, where there is one.
static FILE: OnceLock<File> = OnceLock::new();
/// The variable that says nothing usable, if it does.
static FAULTY: OnceLock<&str> = OnceLock::new();
static BAR: Mutex<Option<WeakProgressBar>> = Mutex::new(None);
/// Where in the source the last panic happened.
static PANIC: Mutex<String> = Mutex::new(String::new());

/// Installs the subscriber and a panic hook that prints nothing. A second call changes nothing.
pub(super) fn install(name: &'static str, verbosity: &Verbosity) {
    let identity = Identity {
        name,
        quiet: verbosity.quiet,
    };
    if IDENTITY.set(identity).is_err() {
        return;
    }
    let (filter, fault) = verbosity.filter();
    // A test or an embedding program may have a subscriber of its own, which then stays.
    let _ = tracing_subscriber::registry()
        .with(Lines.with_filter(filter))
        .try_init();
    if let Some(fault) = fault {
        tracing::warn!("{fault}");
        let _ = FAULTY.set(VARIABLE);
    }
    std::panic::set_hook(Box::new(note_panic));
}

/// Keeps where a panic happened, and says all that is known of it to who asked for details.
fn note_panic(info: &PanicHookInfo<'_>) {
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let message = crate::panics::message(info.payload());
    tracing::debug!("panic at {place}: {message}");
    let trace = Backtrace::capture();
    if trace.status() == BacktraceStatus::Captured {
        tracing::debug!("{trace}");
    }
    *PANIC.lock().unwrap_or_else(PoisonError::into_inner) = place;
}

/// Returns where in the source the last panic happened.
pub(super) fn last_panic() -> String {
    PANIC.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Puts `[rank n]` in front of every message from now on, where there are several ranks.
pub fn set_rank(rank: u32, world: u32) {
    if world > 1 {
        let _ = RANK.set(rank);
    }
}

/// Has all messages written to the file at `path` from now on, after what it holds; standard error keeps warnings and
/// errors.
///
/// # Errors
/// If it is no [regular file](regular::append) or cannot be opened; nothing changes then.
pub fn log_to(path: &Path) -> io::Result<()> {
    let file = regular::append(path)?;
    let _ = FILE.set(file);
    Ok(())
}

/// Returns the variable that was said to be of no use: programs that this one starts need not say so again.
pub fn faulty_variable() -> Option<&'static str> {
    FAULTY.get().copied()
}

/// Returns a progress bar on standard error that messages are written above.
///
/// It is invisible where standard error is no terminal and under `--quiet`. `template` is one of
/// [`indicatif`](ProgressStyle::with_template)'s.
///
/// # Panics
/// If `template` is malformed.
pub fn progress_bar(length: Option<u64>, template: &str) -> ProgressBar {
    let quiet = IDENTITY.get().is_some_and(|identity| identity.quiet);
    let target = if quiet || !std::io::stderr().is_terminal() {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr_with_hz(4)
    };
    let style = ProgressStyle::with_template(template).expect("the template is a constant");
    let bar = ProgressBar::with_draw_target(length, target).with_style(style);
    *BAR.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.downgrade());
    bar
}

/// A subscriber's layer that writes each event as whole lines.
struct Lines;

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut words = Words::default();
        event.record(&mut words);
        let mut line = String::new();
        if let Some(rank) = RANK.get() {
            let _ = write!(line, "[rank {rank}] ");
        }
        match *event.metadata().level() {
            Level::ERROR => {
                let name = IDENTITY.get().map_or("error", |identity| identity.name);
                let _ = write!(line, "{name}: ");
            }
            Level::WARN => line.push_str("warning: "),
            _ => {}
        }
        for character in words.message.trim_end().chars().chain(words.fields.chars()) {
            let _ = write_char(&mut line, character, true);
        }
        line.push('\n');
        let file = FILE.get();
        if let Some(mut file) = file {
            // As on standard error: what cannot be written is dropped.
            let _ = file.write_all(line.as_bytes());
        }
        if file.is_none() || *event.metadata().level() <= Level::WARN {
            say(line.as_bytes());
        }
    }
}

/// Writes to standard error, with the progress bar out of the way. What cannot be written is dropped.
fn say(lines: &[u8]) {
    let bar = BAR.lock().unwrap_or_else(PoisonError::into_inner);
    // One write for whole lines: those of other processes at the same terminal or file stay whole, too.
    let write = || drop(std::io::stderr().lock().write_all(lines));
    match bar.as_ref().and_then(WeakProgressBar::upgrade) {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// The message of an event, and its other fields as ` name=value`.
#[derive(Default)]
struct Words {
    message: String,
    fields: String,
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
    }
}
