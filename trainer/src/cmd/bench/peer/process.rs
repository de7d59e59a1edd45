//! The processes that measure, and the Python that runs the official code.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Deserialize;
use serde_json::Value;
use shardtool::Escaped;
use tch::Device;

/// Longest that a turn of the official code may take, in seconds: the first one of a variant compiles.
pub const PATIENCE: u32 = 900;
/// Longest reason that stands in the table, in characters.
const REASON: usize = 160;

/// What Python says about itself.
#[derive(Deserialize)]
struct Probe {
    torch: String,
    cuda: bool,
}

/// Returns the release of Python's PyTorch; fails where Python cannot do what is asked for.
pub fn probe(python: &OsStr, device: Device) -> Result<String> {
    let name = Escaped::new(python);
    let output = python_command(python)
        .args(["-c", "import json, numpy, torch; print(json.dumps({'torch': torch.__version__, 'cuda': torch.cuda.is_available()}))"])
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("--python {name}: cannot be started"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "--python {name}: PyTorch and numpy are needed: {}",
        last_line(&errors).unwrap_or("it says nothing")
    );
    let probe: Probe =
        serde_json::from_slice(&output.stdout).with_context(|| format!("--python {name}"))?;
    ensure!(
        probe.cuda || !device.is_cuda(),
        "--python {name}: its PyTorch {} sees no GPU",
        probe.torch
    );
    Ok(probe.torch)
}

/// Returns a Python that finds its own PyTorch: not the libtorch that this program was started with.
pub fn python_command(python: &OsStr) -> Command {
    let mut command = Command::new(python);
    command.env("PYTHONWARNINGS", "ignore");
    if let Some(paths) = std::env::var_os("LD_LIBRARY_PATH") {
        let others =
            std::env::split_paths(&paths).filter(|path| !path.join("libtorch_cpu.so").exists());
        // They came from such a list, so they can be in one.
        if let Ok(others) = std::env::join_paths(others) {
            command.env("LD_LIBRARY_PATH", others);
        }
    }
    command
}

/// A process that measures whenever it is sent a line. Killed when dropped.
pub struct Process {
    child: Child,
    asks: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    log: PathBuf,
}

/// What a turn showed.
pub struct Answer {
    /// Durations in milliseconds.
    pub step_ms: Vec<f64>,
    /// In bytes.
    pub peak_memory_bytes: Option<u64>,
}

impl Process {
    pub fn start(mut command: Command, log: PathBuf) -> Result<Process> {
        let errors = File::create(&log).with_context(|| Escaped::new(&log).to_string())?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .with_context(|| format!("cannot start {}", Escaped::new(command.get_program())))?;
        let answers = child.stdout.take().context("its output")?;
        Ok(Process {
            asks: child.stdin.take(),
            answers: BufReader::new(answers),
            child,
            log,
        })
    }

    /// Has it measure once more.
    pub fn turn(&mut self) -> Result<Answer> {
        // One that has ended already is found out by the missing answer.
        let _ = self.asks.as_mut().map(|pipe| pipe.write_all(b"\n"));
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        if line.is_empty() {
            return Err(self.reason()?);
        }
        let answer: Value =
            serde_json::from_str(&line).with_context(|| format!("it answered {line}"))?;
        if let Some(reason) = answer["failed"].as_str() {
            bail!("{}", shortened(reason));
        }
        // Ours has more to tell.
        let steps = answer
            .pointer("/each/step_ms")
            .unwrap_or(&answer["step_ms"]);
        let steps: Vec<f64> = Vec::deserialize(steps).context("its step_ms")?;
        ensure!(!steps.is_empty(), "it timed no step");
        Ok(Answer {
            step_ms: steps,
            peak_memory_bytes: answer["peak_memory_bytes"].as_u64(),
        })
    }

    /// Returns why it ended without an answer.
    fn reason(&mut self) -> Result<anyhow::Error> {
        let status = self.child.wait()?;
        if status.signal() == Some(libc::SIGALRM) {
            return Ok(anyhow!("no end after {PATIENCE} s"));
        }
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        Ok(match last_line(&log) {
            Some(line) => anyhow!("{status}: {}", shortened(line)),
            None => anyhow!("{status}"),
        })
    }

    /// Lets it end by itself, which frees what processes of its own it has; not for long.
    pub fn end(mut self) {
        self.asks = None;
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(20) && matches!(self.child.try_wait(), Ok(None))
        {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; there is nothing left to do then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn last_line(text: &str) -> Option<&str> {
    text.lines().map(str::trim).rfind(|line| !line.is_empty())
}

fn shortened(reason: &str) -> String {
    match reason.char_indices().nth(REASON) {
        Some((end, _)) => format!("{}…", &reason[..end]),
        None => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_reasons_end_between_characters() {
        assert_eq!(shortened("short"), "short");
        assert_eq!(
            shortened(&"ä".repeat(200)),
            format!("{}…", "ä".repeat(REASON))
        );
    }
}
