//! Promise: a message that cannot be written never ends a run and never changes its exit code. A result that cannot be
//! written ends its program at once, quietly where nobody reads any more.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, PipeReader, pipe};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::process::Signal;
use tests::{Running, Site, program, signal};

/// Steps of a run: an epoch of 48 images in batches of 4.
const STEPS: usize = 12;

fn site() -> Site {
    Site::new(48)
}

/// Returns the arguments of a run that has something to say after each step.
fn arguments(site: &Site, run: &str) -> Vec<String> {
    let mut arguments = site.launch_arguments(run);
    let sets = ["trainer.log_every=1", "optimization.epochs=1"];
    arguments.extend(
        sets.iter()
            .flat_map(|set| ["--set".to_owned(), (*set).to_owned()]),
    );
    arguments
}

/// Asserts that a run came to its end with all that it should leave.
fn assert_whole(site: &Site, run: &str, trainer: &mut Running) {
    assert_eq!(trainer.wait().code(), Some(0), "{run}");
    assert_eq!(site.exact_losses(run).len(), STEPS, "{run}");
    assert!(has_checkpoint(site, run, STEPS), "{run}");
}

fn has_checkpoint(site: &Site, run: &str, step: usize) -> bool {
    let path = format!("{run}/checkpoints/test-step{step:08}/checkpoint.json");
    Path::new(&site.path(&path)).is_file()
}

fn full() -> File {
    let full = OpenOptions::new().write(true).open("/dev/full");
    full.expect("/dev/full takes writers")
}

/// Starts a run with both its outputs in one pipe, as in `2>&1 |`.
fn into_a_pipe(arguments: &[String]) -> (Running, PipeReader) {
    let (reader, writer) = pipe().expect("a pipe");
    let again = writer.try_clone().expect("a second writer");
    let trainer = Running::start_with("trainer", arguments, writer, again);
    (trainer, reader)
}

#[test]
fn a_reader_that_leaves_ends_no_run() {
    let site = site();

    // `2>&1 | head -5`: it leaves before the first step.
    let (mut trainer, reader) = into_a_pipe(&arguments(&site, "head"));
    assert_eq!(BufReader::new(reader).lines().take(5).flatten().count(), 5);
    assert_whole(&site, "head", &mut trainer);

    // A `tee` that is killed in the middle of the run.
    let (mut trainer, reader) = into_a_pipe(&arguments(&site, "tee"));
    let mut tee = Command::new("cat")
        .stdin(reader)
        .stdout(Stdio::null())
        .spawn()
        .expect("cat is there");
    site.wait_for_steps("tee", 4);
    tee.kill().expect("cat is killed");
    tee.wait().expect("cat is waited for");
    assert_whole(&site, "tee", &mut trainer);
    assert_eq!(site.exact_losses("tee"), site.exact_losses("head"));
}

#[test]
fn a_signal_after_the_reader_has_left_still_ends_with_75() {
    let site = site();
    let (mut trainer, reader) = into_a_pipe(&arguments(&site, "run"));
    drop(reader);
    site.wait_for_steps("run", 3);
    signal(trainer.id(), Signal::TERM);
    assert_eq!(trainer.wait().code(), Some(75));
    let done = site.exact_losses("run").len();
    assert!(has_checkpoint(&site, "run", done), "after {done} steps");
}

#[test]
fn a_full_disk_behind_an_output_ends_no_run() {
    let site = site();
    let mut stderr = Running::start_with("trainer", &arguments(&site, "2"), Stdio::null(), full());
    assert_whole(&site, "2", &mut stderr);
    let mut stdout = Running::start_with("trainer", &arguments(&site, "1"), full(), Stdio::null());
    assert_whole(&site, "1", &mut stdout);
}

#[test]
fn a_quiet_run_says_nothing_and_logs_everything() {
    let site = site();
    let mut quiet = arguments(&site, "run");
    quiet.push("-q".to_owned());
    let mut trainer = Running::start("trainer", &quiet, &site.path("log"));
    assert_whole(&site, "run", &mut trainer);
    let said = trainer.stderr();
    assert!(
        said.lines().all(|line| line.starts_with("warning: ")),
        "{said}"
    );
    let text = fs::read_to_string(site.path("run/test_r0.csv")).expect("the official log");
    assert_eq!(text.lines().count(), 1 + STEPS);
}

#[test]
fn a_result_that_cannot_be_written_ends_its_program() {
    let site = Site::new(8);
    let row = r#"{"step":0,"total_steps":9,"epoch":1,"itr":0,"loss":0.5,"context_len":12.0,"target_len":9.0,"lr":0.001,
        "weight_decay":0.04,"momentum":0.996,"images":8,"replaced":0,"step_ms":1.0,"wait_ms":0.0,"images_per_s":8000.0}"#;
    fs::write(site.path("test_r0.jsonl"), row.replace('\n', " ") + "\n").expect("a log");
    let (shards, config) = (site.path("shards"), site.path("config.yaml"));
    let (log, picture) = (site.path("test_r0.jsonl"), site.path("loss.png"));
    let commands: [(&str, &[&str]); 4] = [
        ("trainer", &["plot", &log, "--out", &picture]),
        ("shardtool", &["inspect", &shards]),
        ("shardtool", &["verify", &shards]),
        (
            "loader",
            &["hash", "--config", &config, "--shards", &shards],
        ),
    ];
    for (name, arguments) in commands {
        let run = |stdout: Stdio| -> Output {
            let mut command = Command::new(program(name));
            command.args(arguments).stdout(stdout);
            command.output().expect("the program starts")
        };
        let (said, full) = (
            |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned(),
            run(full().into()),
        );
        assert_eq!(full.status.code(), Some(2), "{name} {arguments:?}");
        let last = said(&full).lines().last().unwrap_or_default().to_owned();
        assert!(
            last.starts_with(&format!("{name}: standard output: No space left")),
            "{name} {arguments:?}: {last}"
        );

        let (reader, writer) = pipe().expect("a pipe");
        drop(reader);
        let gone = run(writer.into());
        assert_eq!(gone.status.code(), Some(141), "{name} {arguments:?}");
        assert!(!said(&gone).contains("rror"), "{}", said(&gone));
    }
}

#[test]
fn a_variable_of_no_use_is_said_once() {
    let site = site();
    let mut command = Command::new(program("trainer"));
    let output = command
        .args(arguments(&site, "run"))
        .env("RUST_LOG", "trainer=lo\u{7}ud")
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches("RUST_LOG").count(), 1, "{said}");
}
