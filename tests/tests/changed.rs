//! Promise: what a user changes in the middle of a run is refused by name, and taken up where it is asked for; and the
//! command that the refusal tells is one that is accepted.

use std::fs;

use tests::{Running, Site, run_ok};

/// Runs `trainer launch` to its end; returns its exit code and all that it said.
fn launch(site: &Site, run: &str, more: &[&str]) -> (Option<i32>, String) {
    let mut arguments = vec!["launch".to_owned()];
    arguments.extend(site.training_arguments(run));
    arguments.extend(["--devices".to_owned(), "cpu".to_owned()]);
    arguments.extend(more.iter().map(ToString::to_string));
    let out = site.path("out.log");
    let file = fs::File::create(&out).unwrap();
    let mut running = Running::start_with("trainer", &arguments, file.try_clone().unwrap(), file);
    let code = running.wait().code();
    (code, fs::read_to_string(&out).unwrap())
}

/// Returns what a message says after `before` on a line.
fn after<'a>(message: &'a str, before: &str) -> Vec<&'a str> {
    let line = message.lines().find_map(|line| line.split_once(before));
    let (_, rest) = line.unwrap_or_else(|| panic!("{before:?} is not in {message}"));
    rest.split_whitespace().collect()
}

fn steps(site: &Site, run: &str) -> Vec<u64> {
    let losses = site.exact_losses(run);
    losses.into_iter().map(|(step, _)| step).collect()
}

fn json(path: &str) -> serde_json::Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

const TO_GO_ON: &str = "add to the command: ";

/// A finished run is given another epoch and another rate, by the commands that it tells.
#[test]
fn a_finished_run_gets_more_epochs_by_the_command_that_it_tells() {
    let site = Site::new(16);
    assert_eq!(launch(&site, "run", &[]).0, Some(0));
    assert_eq!(steps(&site, "run"), Vec::from_iter(0..12));

    let (code, said) = launch(&site, "run", &[]);
    assert_eq!(code, Some(0));
    assert!(
        said.contains("nothing to do: ") && said.contains("epoch 3 of 3"),
        "{said}"
    );
    let told = after(&said, TO_GO_ON);
    assert_eq!(
        told,
        [
            "--set",
            "optimization.epochs=4",
            "--allow",
            "optimization.epochs"
        ]
    );

    let faster = [&told[..], &["--set", "optimization.lr=0.002"]].concat();
    let (code, said) = launch(&site, "run", &faster);
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("optimization.lr: 0.002 now, 0.001 then"),
        "{said}"
    );
    let params = fs::read_to_string(site.path("run/params-ijepa.yaml")).unwrap();
    assert!(
        params.contains("epochs: 3"),
        "a refusal writes nothing: {params}"
    );
    let more = [&faster[..], &after(&said, TO_GO_ON)].concat();
    let (code, said) = launch(&site, "run", &more);
    assert_eq!(code, Some(0), "{said}");
    for told in [
        "from step 12 on: optimization.epochs: 4 now, 3 then",
        "from step 12 on: optimization.lr: 0.002 now, 0.001 then",
    ] {
        assert!(said.contains(told), "{said}");
    }
    assert_eq!(steps(&site, "run"), Vec::from_iter(0..16));
    let params = fs::read_to_string(site.path("run/params-ijepa.yaml")).unwrap();
    assert!(
        params.contains("epochs: 4") && params.contains("lr: 0.002"),
        "{params}"
    );
    let state = json(&site.path("run/checkpoints/test-step00000016/checkpoint.json"));
    assert_eq!(state["lineage"][0]["step"], 12);
    assert_eq!(
        state["lineage"][0]["changes"][0]["key"],
        "optimization.epochs"
    );
    // The same command has nothing left to change.
    let (code, said) = launch(&site, "run", &more);
    assert_eq!(code, Some(0));
    assert!(
        said.contains("nothing to do") && !said.contains("from step"),
        "{said}"
    );
}

/// Smaller groups under the same global batch, in a directory of its own; stopped on the way, and exact all the same.
#[test]
fn a_run_goes_on_elsewhere_with_other_groups_and_stays_exact() {
    let site = Site::new(16);
    let batch = ["--set", "optimization.global_batch=8"];
    let stop = [&batch[..], &["--set", "trainer.stop_at_step=2"]].concat();
    assert_eq!(launch(&site, "run", &stop).0, Some(0));

    let old = site.path("run");
    let from = [
        &batch[..],
        &["--resume", &old, "--set", "data.batch_size=2"],
    ]
    .concat();
    let (code, said) = launch(&site, "whole", &from);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("data.batch_size: 2 now, 4 then"), "{said}");
    let allowed = [&from[..], &after(&said, TO_GO_ON)].concat();
    assert_eq!(launch(&site, "whole", &allowed).0, Some(0));
    assert_eq!(steps(&site, "whole"), Vec::from_iter(2..6));

    let stop = [&allowed[..], &["--set", "trainer.stop_at_step=4"]].concat();
    assert_eq!(launch(&site, "parts", &stop).0, Some(0));
    // The very command again goes on here, though the other run is where it was.
    assert_eq!(launch(&site, "parts", &allowed).0, Some(0));
    assert_eq!(site.exact_losses("parts"), site.exact_losses("whole"));
    assert_eq!(
        steps(&site, "run"),
        [0, 1],
        "the run it came from stays as it was"
    );
}

/// Other images in the same directory: epochs of another length, and rows that are cut where they belong.
#[test]
fn other_images_are_told_and_training_goes_on_exactly() {
    let site = Site::new(16);
    let more = site.path("more.shards");
    run_ok(
        "shardtool",
        &[
            "synth",
            &site.path("more"),
            "--images",
            "24",
            "--classes",
            "3",
        ],
    );
    run_ok("shardtool", &["build", &site.path("more"), "--out", &more]);
    for run in ["whole", "parts"] {
        // Six steps of epochs of four; those of the other images have six.
        assert_eq!(
            launch(&site, run, &["--set", "trainer.stop_at_step=6"]).0,
            Some(0)
        );
    }
    let other = ["--set".to_owned(), format!("loader.shards={more}")];
    let other = [&other[0][..], &other[1]];
    // `--shards` is among the arguments of every run here, and the last one counts.
    let shards = |run: &str, more_arguments: &[&str]| {
        let mut arguments = site.training_arguments(run);
        let place = arguments
            .iter()
            .position(|each| each == "--shards")
            .unwrap();
        arguments.drain(place..place + 2);
        arguments.splice(0..0, ["launch", "--devices", "cpu"].map(String::from));
        arguments.extend(other.iter().chain(more_arguments).map(ToString::to_string));
        let log = site.path("other.log");
        let mut running = Running::start("trainer", &arguments, &log);
        (running.wait().code(), running.stderr())
    };
    let (code, said) = shards("whole", &[]);
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("loader.shards: \"manifest checksum"),
        "{said}"
    );
    let told = after(&said, TO_GO_ON);
    assert_eq!(told, ["--allow", "loader.shards"]);
    let (code, said) = shards("whole", &told);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("from step 6 on: epochs of 6 steps now, 4 then"),
        "{said}"
    );
    assert_eq!(steps(&site, "whole"), Vec::from_iter(0..18));

    let stop = [&told[..], &["--set", "trainer.stop_at_step=9"]].concat();
    assert_eq!(shards("parts", &stop).0, Some(0));
    // From here on without leave: nothing changes any more.
    assert_eq!(shards("parts", &[]).0, Some(0));
    assert_eq!(site.exact_losses("parts"), site.exact_losses("whole"));
    assert_eq!(
        site.losses("parts").len(),
        18,
        "every row of the official log, once"
    );
}

#[test]
fn networks_of_other_sizes_are_refused_by_name() {
    let site = Site::new(8);
    assert_eq!(
        launch(&site, "run", &["--set", "trainer.stop_at_step=1"]).0,
        Some(0)
    );
    let (code, said) = launch(&site, "run", &["--set", "meta.pred_depth=3"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("Set meta.pred_depth as before") && !said.contains("--allow"),
        "{said}"
    );
    let (code, said) = launch(&site, "run", &["--allow", "meta.pred_depth"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("--allow meta.pred_depth: decides the sizes of the networks"),
        "{said}"
    );
    assert_eq!(steps(&site, "run"), [0]);
}
