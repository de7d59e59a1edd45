//! Promise: a killed trainer leaves no process, socket or shared memory behind, and the next start needs no clean-up.

use rustix::process::Signal;
use std::os::unix::process::ExitStatusExt;
use tests::{Running, Site, child_of, signal, wait_until};

#[test]
fn under_launch() {
    let site = Site::new(32);
    let arguments = site.launch_arguments("run");

    let mut launch = Running::start("trainer", &arguments, &site.path("first.log"));
    site.wait_for_steps("run", 10);
    signal(child_of(launch.id(), "trainer"), Signal::KILL);
    assert_eq!(
        launch.wait().code(),
        Some(128 + 9),
        "launch ends with the trainer's code:\n{}",
        launch.stderr()
    );
    wait_until("the loader to end with its trainer", || {
        site.processes().is_empty()
    });

    // The killed run had finished its first epoch of 8 steps, so it goes on from there.
    let mut again = Running::start("trainer", &arguments, &site.path("second.log"));
    again.wait_ok();
    assert_eq!(
        site.exact_losses("run").len(),
        24,
        "every step once:\n{}",
        again.stderr()
    );
    assert_eq!(site.processes(), []);
}

#[test]
fn a_killed_launcher_takes_its_children_along() {
    let site = Site::new(32);
    let mut launch = Running::start(
        "trainer",
        &site.launch_arguments("run"),
        &site.path("launch.log"),
    );
    site.wait_for_steps("run", 2);
    signal(launch.id(), Signal::KILL);
    assert_eq!(launch.wait().signal(), Some(9));
    wait_until("trainer and loader to end with their launcher", || {
        site.processes().is_empty()
    });
}

#[test]
fn a_pair_started_by_hand() {
    let site = Site::new(32);
    let socket = site.path("loader.sock");
    let loader: Vec<String> = [
        "run",
        "--config",
        &site.path("config.yaml"),
        "--shards",
        &site.path("shards"),
        "--socket",
        &socket,
    ]
    .map(String::from)
    .to_vec();
    let mut trainer = vec!["train".to_owned()];
    trainer.extend(site.training_arguments("run"));
    trainer.extend(["--socket", &socket, "--device", "cpu"].map(String::from));

    let mut first_loader = Running::start("loader", &loader, &site.path("loader1.log"));
    let mut first_trainer = Running::start("trainer", &trainer, &site.path("trainer1.log"));
    site.wait_for_steps("run", 10);
    signal(first_trainer.id(), Signal::KILL);
    assert_eq!(first_trainer.wait().signal(), Some(9));
    // The loader's last consumer is gone, so it ends too, and takes its socket with it.
    first_loader.wait_ok();
    assert!(
        !std::path::Path::new(&socket).exists(),
        "the socket is left behind"
    );

    // This time the loader dies first and cannot remove its socket; the next one recognises it as stale.
    let mut second_loader = Running::start("loader", &loader, &site.path("loader2.log"));
    wait_until("the second loader's socket", || {
        std::path::Path::new(&socket).exists()
    });
    signal(second_loader.id(), Signal::KILL);
    second_loader.wait();
    assert!(
        std::path::Path::new(&socket).exists(),
        "a killed loader cannot remove its socket"
    );

    let mut third_loader = Running::start("loader", &loader, &site.path("loader3.log"));
    let mut second_trainer = Running::start("trainer", &trainer, &site.path("trainer2.log"));
    second_trainer.wait_ok();
    third_loader.wait_ok();
    assert_eq!(site.exact_losses("run").len(), 24);
    assert_eq!(site.processes(), []);
}
