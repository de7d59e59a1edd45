//! Promise: a run that is interrupted and started again with the same command goes on at the same step with the same
//! images, and its losses equal those of a run that was left alone.

use rustix::process::Signal;
use tests::{Running, Site, child_of, signal};

#[test]
fn an_interrupted_run_equals_an_undisturbed_one() {
    let site = Site::new(32);
    Running::start(
        "trainer",
        &site.launch_arguments("undisturbed"),
        &site.path("undisturbed.log"),
    )
    .wait_ok();

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
    assert_eq!(
        site.exact_losses("interrupted"),
        site.exact_losses("undisturbed")
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
