//! Promise: crops may change their size in mid-run, and a run over such changes is as exact as any: stopped, killed and
//! taken up before, at and after them, it equals one that was left alone, in every loss and every weight.

use std::fs;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;
use tests::{Running, Site, child_of, run, run_ok, signal};

/// Three epochs of four steps, each with a size of its own: changes at steps 4 and 8.
const SIZES: &str = "{0: 64, 1: 80, 2: 72}";
const STEPS: usize = 12;

fn site(crop_size: &str) -> Site {
    let site = Site::new(16);
    let path = site.path("config.yaml");
    let text = fs::read_to_string(&path).unwrap();
    let changed = text.replace("crop_size: 64", &format!("crop_size: {crop_size}"));
    fs::write(&path, changed).unwrap();
    site
}

/// Returns the bytes of all tensors of the run's last checkpoint.
fn last_tensors(site: &Site, run: &str) -> Vec<Vec<u8>> {
    let folder = site.path(&format!("{run}/checkpoints/test-step{STEPS:08}"));
    ["encoder", "predictor", "target_encoder", "optimizer"]
        .map(|part| fs::read(Path::new(&folder).join(format!("{part}.safetensors"))).unwrap())
        .to_vec()
}

fn assert_undisturbed(site: &Site, run: &str, undisturbed: &[(u64, f64)]) {
    assert_eq!(site.exact_losses(run), undisturbed, "{run}");
    assert!(
        last_tensors(site, run) == last_tensors(site, "undisturbed"),
        "{run}: other weights at its end"
    );
    assert_eq!(site.processes(), [], "{run}: processes left behind");
}

fn launch(site: &Site, run: &str, sets: &[&str]) -> Running {
    let mut arguments = site.launch_arguments(run);
    for set in sets {
        arguments.extend(["--set".to_owned(), (*set).to_owned()]);
    }
    Running::start("trainer", &arguments, &site.path(&format!("{run}.log")))
}

#[test]
fn a_run_over_changes_of_size_is_exact_wherever_it_is_interrupted() {
    let site = site(SIZES);
    let undisturbed = site.undisturbed_losses();
    assert_eq!(undisturbed.len(), STEPS);

    // It ends a step before a change, at it and a step behind, and is taken up there.
    for end in [3, 4, 5, 8] {
        launch(&site, "stopped", &[&format!("trainer.stop_at_step={end}")]).wait_ok();
        assert!(site.has_checkpoint("stopped", end), "ends at {end}");
    }
    launch(&site, "stopped", &[]).wait_ok();
    assert_undisturbed(&site, "stopped", &undisturbed);

    // Its trainer is killed in each epoch, and what is taken up may be a few steps back.
    let often = ["checkpoint.every_steps=1"];
    for rows in [2, 6, 10] {
        let mut running = launch(&site, "killed", &often);
        site.wait_for_steps("killed", rows);
        signal(child_of(running.id(), "trainer"), Signal::KILL);
        assert_eq!(running.wait().code(), Some(128 + 9), "{}", running.stderr());
    }
    launch(&site, "killed", &often).wait_ok();
    assert_undisturbed(&site, "killed", &undisturbed);

    // Its loader is killed, with crops of the next size in the ring already.
    let mut running = launch(&site, "orphaned", &[]);
    for rows in [3, 7] {
        site.wait_for_steps("orphaned", rows);
        signal(child_of(running.id(), "loader"), Signal::KILL);
    }
    running.wait_ok();
    assert_undisturbed(&site, "orphaned", &undisturbed);
}

#[test]
fn so_is_one_whose_programs_are_started_by_hand() {
    let site = site(SIZES);
    let undisturbed = site.undisturbed_losses();
    let socket = site.path("loader.sock");
    let mut loader = site.start_loader(&socket, &["--stay"]);
    for end in ["3", "4", "9"] {
        let set = format!("trainer.stop_at_step={end}");
        site.start_trainer("by_hand", &socket, &["--set", &set])
            .wait_ok();
    }
    assert_eq!(site.exact_losses("by_hand"), undisturbed[..9]);
    site.start_trainer("by_hand", &socket, &[]).wait_ok();

    // One loader after the other serves one trainer through all sizes.
    let mut trainer = site.start_trainer("two_loaders", &socket, &[]);
    site.wait_for_steps("two_loaders", 3);
    signal(loader.id(), Signal::KILL);
    loader.wait();
    let mut loader = site.start_loader(&socket, &[]);
    trainer.wait_ok();
    loader.wait_ok();
    for run in ["by_hand", "two_loaders"] {
        assert_undisturbed(&site, run, &undisturbed);
    }
}

/// What every program makes of a step, or of a checkpoint, is of the size of its epoch.
#[test]
fn steps_and_checkpoints_are_of_the_size_of_their_epoch() {
    let site = site(SIZES);
    let found = site.hashes(0..12, &["--workers", "2"]);
    for (epoch, size) in ["64", "80", "72"].into_iter().enumerate() {
        let set = format!("data.crop_size={size}");
        let alone = site.hashes(0..12, &["--set", &set]);
        let steps = 4 * epoch..4 * epoch + 4;
        assert_eq!(found[steps.clone()], alone[steps], "crops of {size}");
    }

    // A tile is enlarged by a whole factor to 224 pixels or more, and has a margin of a 28th on either side.
    let (config, shards) = (site.path("config.yaml"), site.path("shards"));
    for (step, width) in [("3", 256 + 2 * 9), ("4", 240 + 2 * 8), ("8", 288 + 2 * 10)] {
        let png = site.path("sheet.png");
        let options = [
            "--config", &config, "--shards", &shards, "--images", "1", "--step", step,
        ];
        run_ok("loader", &[&["show", "--out", &png], &options[..]].concat());
        let png = fs::read(png).unwrap();
        assert_eq!(
            u32::from_be_bytes(png[16..20].try_into().unwrap()),
            width,
            "step {step}"
        );
    }

    launch(&site, "run", &["checkpoint.keep=9"]).wait_ok();
    for (step, size) in [(4, 64), (8, 80), (12, 72)] {
        let checkpoint = site.path(&format!("run/checkpoints/test-step{step:08}"));
        let out = site.path(&format!("exported{step}"));
        run_ok(
            "trainer",
            &["export", &checkpoint, "--to", "hf", "--out", &out],
        );
        let config: Value =
            serde_json::from_slice(&fs::read(format!("{out}/config.json")).unwrap()).unwrap();
        assert_eq!(config["image_size"], size, "after {step} steps");
    }
}

/// A size may be changed by hand as well, where it is allowed; one size by epoch is the size.
#[test]
fn a_size_may_be_changed_where_a_run_goes_on() {
    let site = site("64");
    let one = site.hashes(0..2, &[]);
    assert_eq!(site.hashes(0..2, &["--set", "data.crop_size={0: 64}"]), one);
    launch(&site, "run", &["trainer.stop_at_step=2"]).wait_ok();
    launch(
        &site,
        "run",
        &["trainer.stop_at_step=4", "data.crop_size={0: 64}"],
    )
    .wait_ok();

    let larger = ["--set", "data.crop_size={0: 64, 1: 80}"];
    let mut arguments = site.launch_arguments("run");
    arguments.extend(larger.map(String::from));
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let refused = run("trainer", &words);
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{message}");
    let change = r#"data.crop_size: {"0":64,"1":80} now, 64 then"#;
    assert!(message.contains(change), "{message}");
    assert!(message.contains("--allow data.crop_size"), "{message}");

    arguments.extend(["--allow", "data.crop_size"].map(String::from));
    Running::start("trainer", &arguments, &site.path("allowed.log")).wait_ok();
    // The sizes of before were these, so it is the run that had the two from the start.
    let mut whole = site.launch_arguments("whole");
    whole.extend(larger.map(String::from));
    Running::start("trainer", &whole, &site.path("whole.log")).wait_ok();
    assert_eq!(site.exact_losses("run"), site.exact_losses("whole"));
    assert!(last_tensors(&site, "run") == last_tensors(&site, "whole"));
}
