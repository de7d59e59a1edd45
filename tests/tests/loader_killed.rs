//! Promise: a loader killed in the middle of a run costs no step and changes no loss.

use rustix::process::Signal;
use tests::{Running, Site, child_of, signal};

#[test]
fn a_killed_loader_costs_no_step_and_changes_no_loss() {
    let site = Site::new(48);

    let expected = site.undisturbed_losses();
    assert_eq!(expected.len(), 36, "48 images / 4 a batch × 3 epochs");

    let mut launch = Running::start(
        "trainer",
        &site.launch_arguments("disturbed"),
        &site.path("disturbed.log"),
    );
    for rows in [3, 9] {
        site.wait_for_steps("disturbed", rows);
        signal(child_of(launch.id(), "loader"), Signal::KILL);
    }
    launch.wait_ok();
    assert_eq!(
        site.exact_losses("disturbed"),
        expected,
        "its stderr:\n{}",
        launch.stderr()
    );
    assert_eq!(site.losses("disturbed"), site.losses("undisturbed"));
    assert_eq!(site.processes(), [], "processes left behind");
}
