//! Promise: `trainer plan` says what a run will need without beginning it, from shards where there are some.

use tests::{Site, run, run_ok};

#[test]
fn a_plan_is_of_the_shards_and_the_configuration() {
    let site = Site::new(32);
    let (config, shards) = (site.path("config.yaml"), site.path("shards"));
    let plan = [
        "plan",
        "--config",
        &config,
        "--gpu",
        "a100-80",
        "--devices",
        "2",
    ];

    let text = run_ok(
        "trainer",
        &[&plan[..], &["--shards", &shards, "--json"]].concat(),
    );
    let found: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(found["images"]["count"], 32);
    // Two ranks with a group of 4 each; 3 epochs.
    assert_eq!(
        (&found["global_batch"], &found["steps"]),
        (&8.into(), &12.into())
    );
    assert_eq!(found["fits"], "yes");
    let hours = &found["hours"];
    assert!(
        hours["best"].as_f64() > Some(0.0) && hours["best"].as_f64() <= hours["worst"].as_f64()
    );

    // Without shards, the number that is named, or ImageNet's; in words where nobody asks for JSON.
    let text = run_ok("trainer", &[&plan[..], &["--images", "800"]].concat());
    assert!(text.contains("300 (3 epochs of 100)"), "{text}");
    let text = run_ok("trainer", &plan);
    assert!(
        text.contains("1,281,167") && text.contains("as nothing else is said"),
        "{text}"
    );
}

#[test]
fn what_cannot_be_planned_is_refused_with_its_reason() {
    let site = Site::new(8);
    let config = site.path("config.yaml");
    for (more, reason) in [
        (&["--gpu", "K80"][..], "known are B200"),
        (&["--gpu", "H100", "--devices", "0"], "--devices 0"),
        (
            &["--gpu", "H100", "--images", "7", "--devices", "2"],
            "7 images are less than a step's 8",
        ),
        (
            &["--gpu", "H100", "--set", "optimization.global_batch=12"],
            "8 rank(s) cannot share",
        ),
        (&["--gpu", "H100", "--shards", "missing"], "missing"),
    ] {
        let output = run("trainer", &[&["plan", "--config", &config], more].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{more:?}: {said}");
        assert!(said.contains(reason), "{more:?}: {said}");
    }
}
