//! The supervisor with shell scripts in the place of the two programs.

use std::time::Instant;

use loader::link::Endpoint;

use super::child::LEAVE;
use super::*;

/// Returns a program that runs `text`; `$FD` in it is its channel. In bash: a plain sh redirects descriptors below 10
/// only.
fn script(text: &str) -> Program {
    // The channel's number arrives as `--socket-fd N`, so it is the second argument.
    let mut program = Program::new("bash".into(), "-c");
    program.args([format!("FD=$2; {text}"), "bash".to_owned()]);
    program
}

fn run(loader: &str, trainer: &str) -> Result<u8, Error> {
    ranks(loader, &[trainer], 0)
}

/// Runs a job of several ranks. `$ATTEMPT` in their texts counts from 0.
fn ranks(loader: &str, ranks: &[&str], max_restarts: u32) -> Result<u8, Error> {
    let texts: Vec<String> = ranks.iter().map(ToString::to_string).collect();
    let programs = move |attempt| {
        let texts = texts.iter();
        texts
            .map(|text| script(&format!("ATTEMPT={attempt}; {text}")))
            .collect()
    };
    Job {
        loader: Some(script(loader)),
        ranks: Box::new(programs),
        max_restarts,
    }
    .run(&Events::deaf())
}

const WAIT_FOR_END: &str = "cat <&$FD >/dev/null";

#[test]
fn the_trainers_code_is_passed_on_and_the_loader_ends_with_it() {
    let started = Instant::now();
    assert_eq!(run(WAIT_FOR_END, "exit 7").unwrap(), 7);
    assert_eq!(run(WAIT_FOR_END, "kill -9 $$").unwrap(), 128 + 9);
    assert!(started.elapsed() < LEAVE, "closing the channel was enough");
}

#[test]
fn a_dead_loader_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let log = log.display();
    // The first loader kills itself; the second one stays. The trainer ends when two have started.
    let loader =
        format!("echo x >> {log}; test $(wc -l < {log}) -gt 1 || kill -9 $$; {WAIT_FOR_END}");
    let trainer = format!(
        "while ! test -f {log} || test $(wc -l < {log}) -lt 2; do sleep 0.05; done; exit 0"
    );
    assert_eq!(run(&loader, &trainer).unwrap(), 0);
    assert_eq!(
        std::fs::read_to_string(folder.path().join("log")).unwrap(),
        "x\nx\n"
    );
}

#[test]
fn a_loader_that_cannot_run_ends_the_job() {
    let error = run("exit 2", "exec sleep 60").unwrap_err();
    assert!(
        matches!(error, Error::LoaderCannotRun { was_running: false }),
        "{error}"
    );
    assert!(error.to_string().contains("exit code 2"), "{error}");
    assert!(!error.is_midway(), "starting it again would not help");
}

#[test]
fn a_loader_that_keeps_dying_ends_the_job() {
    let error = run("exit 3", "exec sleep 60").unwrap_err();
    assert!(
        error
            .to_string()
            .contains("5 times in a row, the last time with exit code 3"),
        "{error}"
    );
    assert!(error.is_midway());
}

#[test]
fn ranks_are_started_again_together_after_one_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let log = log.display();
    // The other rank fails because of it, later: its code is not the one that counts.
    let (one, other) = (
        "kill -9 $$".to_owned(),
        format!("echo $ATTEMPT >> {log}; sleep 0.3; exit 74"),
    );
    assert_eq!(ranks(WAIT_FOR_END, &[&one, &other], 2).unwrap(), 128 + 9);
    let read = || std::fs::read_to_string(folder.path().join("log")).unwrap();
    assert_eq!(read(), "0\n1\n2\n");
    let mended = "test $ATTEMPT -gt 0 || kill -9 $$; exit 0";
    let other = format!("{other}; ").replace("exit 74", "test $ATTEMPT -gt 0 || exit 74");
    assert_eq!(ranks(WAIT_FOR_END, &[mended, &other], 2).unwrap(), 0);
    assert_eq!(read(), "0\n1\n2\n0\n1\n");
}

#[test]
fn a_rank_that_cannot_run_is_not_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let rank = format!("echo x >> {}; exit 2", log.display());
    assert_eq!(ranks(WAIT_FOR_END, &[&rank], 3).unwrap(), 2);
    assert_eq!(std::fs::read_to_string(log).unwrap(), "x\n");
}

#[test]
fn a_stopped_rank_does_not_outlive_one_that_failed() {
    let stopped = "kill -STOP $$; exit 0";
    assert_eq!(ranks(WAIT_FOR_END, &[stopped, "exit 74"], 0).unwrap(), 74);
}

#[test]
fn children_inherit_nothing_but_their_own_channel() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("list");
    let trainer = format!("ls -l /proc/self/fd > {}; exit 0", list.display());
    assert_eq!(run(WAIT_FOR_END, &trainer).unwrap(), 0);
    let text = std::fs::read_to_string(&list).unwrap();
    assert_eq!(text.matches("socket:").count(), 1, "{text}");
}

#[test]
fn a_loader_of_this_process_ends_with_its_owner() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("ended");
    let program = script(&format!("{WAIT_FOR_END}; touch {}", mark.display()));
    let (loader, endpoint) = OwnLoader::start(&program).unwrap();
    assert!(matches!(endpoint, Endpoint::Inherited(_)));
    drop(loader);
    assert!(mark.is_file(), "closing the channel was enough");
}
