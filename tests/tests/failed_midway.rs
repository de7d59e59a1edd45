//! Promise: a run that cannot go on keeps the steps that it has done, ends with a code of its own, and goes on from
//! there when it is started again.

use rustix::process::Signal;
use tests::{Running, Site, signal, wait_until};

#[test]
fn a_loader_that_is_gone_for_good_costs_no_step() {
    let site = Site::new(32);
    let socket = site.path("loader.sock");
    let mut serve = ["run", "--socket", &socket].map(String::from).to_vec();
    serve.extend(
        [
            "--config",
            &site.path("config.yaml"),
            "--shards",
            &site.path("shards"),
        ]
        .map(String::from),
    );
    let mut train = vec!["train".to_owned()];
    train.extend(site.training_arguments("run"));
    train.extend(["--device", "cpu", "--socket", &socket].map(String::from));
    train.extend(["--set", "trainer.loader_patience=20"].map(String::from));

    let mut loader = Running::start("loader", &serve, &site.path("loader.log"));
    wait_until("the loader's socket", || {
        std::path::Path::new(&socket).exists()
    });
    let mut trainer = Running::start("trainer", &train, &site.path("trainer.log"));
    site.wait_for_steps("run", 3);
    signal(loader.id(), Signal::KILL);
    loader.wait();
    assert_eq!(trainer.wait().code(), Some(74), "{}", trainer.stderr());
    let done = site.exact_losses("run").len();
    assert!((3..24).contains(&done), "{done} steps");
    let checkpoint = format!("run/checkpoints/test-step{done:08}/checkpoint.json");
    assert!(
        std::path::Path::new(&site.path(&checkpoint)).is_file(),
        "{}",
        trainer.stderr()
    );

    let mut loader = Running::start("loader", &serve, &site.path("loader2.log"));
    let mut trainer = Running::start("trainer", &train, &site.path("trainer2.log"));
    trainer.wait_ok();
    loader.wait_ok();
    assert_eq!(site.exact_losses("run").len(), 24, "every step once");
    let said = trainer.stderr();
    assert!(
        said.contains(&format!("continuing at step {done} from")),
        "{said}"
    );
}

#[test]
fn a_run_without_a_loader_has_not_begun() {
    let site = Site::new(8);
    let mut train = vec!["train".to_owned()];
    train.extend(site.training_arguments("run"));
    train.extend(["--device", "cpu", "--socket", &site.path("nobody.sock")].map(String::from));
    train.extend(["--set", "trainer.loader_patience=1"].map(String::from));
    let mut trainer = Running::start("trainer", &train, &site.path("trainer.log"));
    assert_eq!(trainer.wait().code(), Some(2), "{}", trainer.stderr());
    assert!(
        trainer.stderr().contains("nobody.sock"),
        "{}",
        trainer.stderr()
    );
}
