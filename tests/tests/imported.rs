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

#[test]
fn a_finished_run_begins_anew_with_its_weights() {
    let site = Site::new(8);
    let epochs = ["--set", "optimization.epochs=2"];
    launch(&site, "first", &epochs);
    // The same command again says why there is nothing to do, and what there is to do.
    let mut arguments = site.launch_arguments("first");
    arguments.extend(epochs.map(String::from));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let said = run_ok("trainer", &arguments);
    for part in [
        "nothing to do: ",
        "first/checkpoints/test-step00000004 stands at step 4, epoch 2 of 2 (optimization.epochs)",
        "--start-over",
    ] {
        assert!(said.contains(part), "{said}");
    }

    // Its weights under another schedule, in the run directory of the configuration.
    let (first, config, shards) = (
        site.path("first"),
        site.path("config.yaml"),
        site.path("shards"),
    );
    let folder = format!("logging.folder={}", site.path("second"));
    let import = [
        "import",
        &first,
        "--start-over",
        "--config",
        &config,
        "--shards",
        &shards,
    ];
    let said = run_ok("trainer", &[&import[..], &["--set", &folder]].concat());
    let command = format!("trainer launch --config {config} --shards {shards} --set {folder}");
    assert!(said.contains(&command), "{said}");
    launch(&site, "second", &["--set", "trainer.stop_at_step=2"]);
    let (before, after) = (site.exact_losses("first"), site.exact_losses("second"));
    let steps: Vec<u64> = after.iter().map(|(step, _)| *step).collect();
    assert_eq!(steps, [0, 1]);
    // The images of step 0, seen by weights that have been trained.
    assert_ne!(before[0], after[0]);
}
