//! Promise: a run that goes through an official checkpoint file trains on as if nothing had happened.

use tests::{Running, Site, run_ok};

fn launch(site: &Site, run: &str, more: &[&str]) {
    let mut arguments = site.launch_arguments(run);
    arguments.extend(more.iter().map(ToString::to_string));
    Running::start("trainer", &arguments, &site.path(&format!("{run}.log"))).wait_ok();
}

#[test]
fn training_continues_from_an_imported_checkpoint_bit_by_bit() {
    // 8 images, 4 a step: an official file ends with an epoch, that is after an even number of steps.
    let site = Site::new(8);
    launch(&site, "whole", &["--set", "trainer.stop_at_step=6"]);
    launch(&site, "first", &["--set", "trainer.stop_at_step=2"]);

    let file = site.path("moved.pth.tar");
    let first = site.path("first");
    run_ok(
        "trainer",
        &["export", "--to", "official", "--out", &file, &first],
    );
    let (config, shards, second) = (
        site.path("config.yaml"),
        site.path("shards"),
        site.path("second"),
    );
    run_ok(
        "trainer",
        &[
            "import", &file, "--out", &second, "--config", &config, "--shards", &shards,
        ],
    );
    launch(&site, "second", &["--set", "trainer.stop_at_step=6"]);

    let whole = site.exact_losses("whole");
    assert_eq!(whole.len(), 6);
    assert_eq!(site.exact_losses("first"), whole[..2]);
    assert_eq!(site.exact_losses("second"), whole[2..]);
}
