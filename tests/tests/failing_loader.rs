//! Promise: a loader that fails, hangs or never answers ends no run without its checkpoint, and is named.

use rustix::process::Signal;
use shardtool::process::Process;
use tests::{Running, Site, child_of, signal, wait_until};

fn launch(site: &Site, run: &str, log: &str) -> Running {
    Running::start("trainer", &site.launch_arguments(run), &site.path(log))
}

#[test]
fn a_ring_that_fails_under_launch_costs_no_step() {
    let site = Site::new(24);
    let expected = site.undisturbed_losses();
    assert_eq!(expected.len(), 18, "24 images / 4 a batch × 3 epochs");

    // Damage that is mended before the next loader looks: the launcher stands still meanwhile.
    let mut running = launch(&site, "mended", "mended.log");
    site.wait_for_steps("mended", 3);
    let loader = child_of(running.id(), "loader");
    signal(running.id(), Signal::STOP);
    site.flip_samples();
    wait_until("the loader to end", || {
        Process::look(loader).is_none_or(|loader| loader.is_dead())
    });
    site.flip_samples();
    signal(running.id(), Signal::CONT);
    running.wait_ok();
    let said = running.stderr();
    assert!(said.contains("the loader ended (exit code 74)"), "{said}");
    assert_eq!(site.exact_losses("mended"), expected, "{said}");

    // Damage that stays.
    let mut running = launch(&site, "damaged", "damaged.log");
    site.wait_for_steps("damaged", 3);
    site.flip_samples();
    assert_eq!(running.wait().code(), Some(74), "{}", running.stderr());
    let said = running.stderr();
    let done = site.exact_losses("damaged").len();
    assert!((3..18).contains(&done), "{done} steps");
    assert!(site.has_checkpoint("damaged", done), "{said}");
    assert!(said.contains("5 times in a row"), "{said}");
    site.flip_samples();
    launch(&site, "damaged", "again.log").wait_ok();
    assert_eq!(site.exact_losses("damaged"), expected);
    assert_eq!(site.processes(), [], "processes left behind");
}

#[test]
fn a_loader_whose_rings_keep_failing_is_given_up() {
    let site = Site::new(24);
    let socket = site.path("loader.sock");
    let loader = site.start_loader(&socket, &["--stay"]);
    let mut trainer = site.start_trainer("run", &socket, &[]);
    site.wait_for_steps("run", 3);
    site.flip_samples();
    assert_eq!(trainer.wait().code(), Some(74), "{}", trainer.stderr());
    let said = trainer.stderr();
    assert!(
        said.contains("8 loaders ended one after the other"),
        "{said}"
    );
    assert_eq!(said.matches("waiting for another one").count(), 7, "{said}");
    let done = site.exact_losses("run").len();
    assert!(site.has_checkpoint("run", done), "{said}");
    let log = loader.stderr();
    assert!(log.matches("a ring failed").count() <= 9, "{log}");

    site.flip_samples();
    site.start_trainer("run", &socket, &[]).wait_ok();
    assert_eq!(site.exact_losses("run").len(), 18, "every step once");
}

#[test]
fn a_loader_that_is_stopped_is_named_before_its_welcome() {
    let site = Site::new(8);
    let socket = site.path("loader.sock");
    let loader = site.start_loader(&socket, &[]);
    signal(loader.id(), Signal::STOP);
    let patience = ["--set", "trainer.loader_patience=8"];
    let mut trainer = site.start_trainer("run", &socket, &patience);
    assert_eq!(trainer.wait().code(), Some(2), "{}", trainer.stderr());
    let said = trainer.stderr();
    let named = format!(
        "the loader (process {}, stopped) has not answered for",
        loader.id()
    );
    assert_eq!(
        said.matches(&named).count(),
        2,
        "once while it waits, once at the end: {said}"
    );
}

#[test]
fn a_loader_that_is_stopped_in_the_middle_of_a_run_is_given_up() {
    let site = Site::new(24);
    let socket = site.path("loader.sock");
    let loader = site.start_loader(&socket, &[]);
    let patience = ["--set", "trainer.loader_patience=30"];
    let mut trainer = site.start_trainer("run", &socket, &patience);
    site.wait_for_steps("run", 3);
    signal(loader.id(), Signal::STOP);
    assert_eq!(trainer.wait().code(), Some(74), "{}", trainer.stderr());
    let said = trainer.stderr();
    let named = format!(
        "the loader (process {}, stopped) has sent nothing for",
        loader.id()
    );
    assert_eq!(said.matches(&named).count(), 2, "{said}");
    let done = site.exact_losses("run").len();
    assert!(site.has_checkpoint("run", done), "{said}");
}
