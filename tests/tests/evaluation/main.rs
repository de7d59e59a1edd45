//! Promise: `trainer eval` tells what an encoder is worth, the same each time and for the same weights from any file;
//! what it computed once is kept, and what is damaged is left out or made again.

mod ended;
mod hidden;
mod kept;
mod refused;
mod streamed;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Output;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use shardtool::Dataset;
use tests::{Running, Site, children, run, run_ok, signal, wait_until};

/// Probes small enough for a test.
const SHORT: [&str; 6] = ["--epochs", "4", "--lr", "0.01,0.1", "--k", "3,20"];

/// Makes images, shards and a run of two steps.
fn trained() -> Site {
    let site = Site::with_val(60, 21);
    let mut arguments = site.launch_arguments("run");
    arguments.extend(["--set", "trainer.stop_at_step=2"].map(str::to_owned));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    run_ok("trainer", &arguments);
    site
}

/// Runs `trainer eval` on weights with the site's images.
fn eval(site: &Site, what: &str, weights: &str, more: &[&str]) -> Output {
    let (weights, config, shards) = (
        site.path(weights),
        site.path("config.yaml"),
        site.path("shards"),
    );
    let mut arguments = vec![
        "eval", what, &weights, "--device", "cpu", "--config", &config, "--shards", &shards,
    ];
    arguments.extend(more);
    run("trainer", &arguments)
}

/// Returns both outputs of an evaluation that must have ended well.
fn said(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
    (stdout, stderr)
}

fn report(path: &str) -> Value {
    serde_json::from_slice(&fs::read(path).expect("a report")).expect("JSON")
}
