//! Promise: a run that is interrupted and started again with the same command goes on at the same step with the same
//! images, and its losses equal those of a run that was left alone.

use rustix::process::Signal;
use tests::{Running, Site, child_of, signal, wait_until};

#[test]
fn an_interrupted_run_equals_an_undisturbed_one() {
    let site = Site::new(32);
    let undisturbed = site.undisturbed_losses();

    let arguments = site.launch_arguments("interrupted");
    // A signal to the launcher: it is forwarded, the step is finished and kept, and the code asks for a new start.
    let mut first = Running::start("trainer", &arguments, &site.path("first.log"));
    site.wait_for_steps("interrupted", 3);
    signal(first.id(), Signal::TERM);
    assert_eq!(first.wait().code(), Some(75), "{}", first.stderr());
    let kept = site.exact_losses("interrupted").len();
    assert!(
        (3..24).contains(&kept),
        "interrupted in the middle, after {kept} steps"
    );

    // A kill: the steps since the last checkpoint are run again, and their rows are not logged twice.
    let mut second = Running::start("trainer", &arguments, &site.path("second.log"));
    site.wait_for_steps("interrupted", kept + 6);
    signal(child_of(second.id(), "trainer"), Signal::KILL);
    assert_eq!(second.wait().code(), Some(128 + 9));

    Running::start("trainer", &arguments, &site.path("third.log")).wait_ok();
    assert_eq!(site.exact_losses("interrupted"), undisturbed);
}

/// A launcher that is killed leaves a trainer that finishes its step; a new start waits for it.
#[test]
fn a_run_that_is_started_again_at_once_waits_for_the_one_before() {
    let site = Site::new(32);
    let arguments = site.launch_arguments("run");
    let mut first = Running::start("trainer", &arguments, &site.path("first.log"));
    site.wait_for_steps("run", 3);
    let orphan = child_of(first.id(), "trainer");
    signal(orphan, Signal::STOP);
    signal(first.id(), Signal::KILL);
    first.wait();

    let mut second = Running::start("trainer", &arguments, &site.path("second.log"));
    wait_until("the orphan to be waited for", || {
        second.stderr().contains("at most for its end")
    });
    signal(orphan, Signal::CONT);
    second.wait_ok();
    assert_eq!(site.exact_losses("run"), site.undisturbed_losses());
}

/// The one time at which a kill could leave half a checkpoint: while one is being written beside the training.
#[test]
fn a_kill_while_a_checkpoint_is_written_costs_nothing_but_time() {
    let site = Site::new(32);
    let mut arguments = site.launch_arguments("killed");
    arguments.extend(["--set".to_owned(), "checkpoint.every_steps=3".to_owned()]);
    let mut first = Running::start("trainer", &arguments, &site.path("first.log"));
    let folder = site.path("killed/checkpoints");
    let names = || {
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
    };
    wait_until("a checkpoint that is being written", || {
        names().any(|name| name.starts_with(".tmp-"))
    });
    signal(child_of(first.id(), "trainer"), Signal::KILL);
    assert_eq!(first.wait().code(), Some(128 + 9));
    assert!(
        names().any(|name| name.starts_with(".tmp-")),
        "killed too late"
    );

    Running::start("trainer", &arguments, &site.path("second.log")).wait_ok();
    assert!(
        !names().any(|name| name.starts_with(".tmp-")),
        "left behind"
    );
    assert_eq!(site.exact_losses("killed"), site.undisturbed_losses());
}

#[test]
fn one_device_accumulates_the_groups_of_many() {
    let site = Site::new(32);
    let mut arguments = site.launch_arguments("run");
    arguments.extend([
        "--set".to_owned(),
        "optimization.global_batch=16".to_owned(),
    ]);
    let mut launch = Running::start("trainer", &arguments, &site.path("run.log"));
    launch.wait_ok();
    assert_eq!(
        site.exact_losses("run").len(),
        6,
        "3 epochs of 32 / 16 steps"
    );
    let said = launch.stderr();
    assert!(
        said.contains("global batch 16 = 4 group(s) of 4, 4 on each of 1 rank(s)"),
        "{said}"
    );
}

#[test]
fn a_run_directory_is_never_overwritten() {
    let site = Site::new(8);
    let mut arguments = site.launch_arguments("run");
    Running::start("trainer", &arguments, &site.path("first.log")).wait_ok();
    let losses = site.exact_losses("run");
    arguments.extend(["--resume".to_owned(), "never".to_owned()]);
    let mut second = Running::start("trainer", &arguments, &site.path("second.log"));
    assert_eq!(second.wait().code(), Some(2), "{}", second.stderr());
    assert_eq!(site.exact_losses("run"), losses);
}

/// A terminal's Ctrl-C reaches launcher and trainer at the same moment, and the launcher passes it on besides.
#[test]
fn one_ctrl_c_to_all_processes_is_one_request() {
    let site = Site::new(32);
    let arguments = site.launch_arguments("run");
    for number in 0..3 {
        let log = site.path(&format!("{number}.log"));
        let mut launch = Running::start("trainer", &arguments, &log);
        site.wait_for_steps("run", 3 * (number + 1));
        let trainer = child_of(launch.id(), "trainer");
        signal(launch.id(), Signal::INT);
        signal(trainer, Signal::INT);
        assert_eq!(launch.wait().code(), Some(75), "{}", launch.stderr());
    }
}
