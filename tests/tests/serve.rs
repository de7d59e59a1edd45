//! Promise: `trainer serve` shows what a log holds as it grows, writes nothing, and ends when it is asked to.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tests::{program, run};

fn row(step: u64) -> String {
    format!(
        "{{\"step\":{step},\"epoch\":1,\"itr\":{step},\"loss\":0.5,\"step_ms\":1,\"wait_ms\":0}}\n"
    )
}

/// Returns the content of an answer to a request of a path.
fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").expect("it takes a request");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .expect("an answer of text");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer
}

#[test]
fn a_growing_log_is_followed_until_a_signal_comes() {
    let run = tempfile::tempdir().expect("a temporary directory");
    let log = run.path().join("jepa_r0.jsonl");
    fs::write(&log, row(0)).expect("a log");
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Command::new(program("trainer"))
            .args(["serve", "--listen", "127.0.0.1:0", "-q"])
            .arg(run.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut said = String::new();
        let stdout = server.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut said).expect("a line");
        let address = said.trim().strip_prefix("http://").expect("an address");
        let address = address.trim_end_matches('/');
        assert!(get(address, "/").contains("data-mode=\"live\""));
        let steps = fs::read_to_string(&log).expect("the log").lines().count() as u64;
        let mut file = File::options().append(true).open(&log).expect("the log");
        file.write_all(row(steps).as_bytes()).expect("a row");
        let more = get(address, &format!("/data.json?from=1-{steps}"));
        assert!(more.contains(&format!("\"steps\":[{steps}]")), "{more}");
        let metrics = get(address, "/metrics");
        let step = metrics.lines().find(|line| line.starts_with("ijepa_step{"));
        let step = step.and_then(|line| line.rsplit_once(' '));
        assert_eq!(
            step.map(|(_, step)| step),
            Some(&*steps.to_string()),
            "{metrics}"
        );
        let pid = Pid::from_child(&server);
        kill_process(pid, signal).expect("it lives");
        let status = server.wait().expect("it ends");
        assert_eq!(status.signal(), Some(signal.as_raw()), "{status}");
    }
    let left = fs::read_dir(run.path()).expect("the run directory").count();
    assert_eq!(left, 1, "it wrote something");
}

#[test]
fn others_are_let_in_only_where_that_is_said() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    fs::write(folder.path().join("jepa_r0.jsonl"), row(0)).expect("a log");
    let place = folder.path().to_str().expect("UTF-8");
    let refused = run("trainer", &["serve", place, "--listen", "0.0.0.0:0"]);
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("--allow-remote"), "{said}");
}
