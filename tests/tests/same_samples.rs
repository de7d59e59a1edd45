//! Promise: which images, crops and masks a step sees depends on the configuration and the step alone, not on threads,
//! history, the ring's depth, or where one starts.

use serde_json::Value;
use tests::{Site, run, run_ok};

/// One JSON object per step: the hashes of sample ids, crop boxes, masks and pixels.
fn hashes(site: &Site, from: u32, steps: u32, more: &[&str]) -> Vec<Value> {
    let (config, shards) = (site.path("config.yaml"), site.path("shards"));
    let (from, steps) = (from.to_string(), steps.to_string());
    let mut arguments = vec!["hash", "--json", "--config", &config, "--shards", &shards];
    arguments.extend(["--from-step", &from, "--steps", &steps]);
    arguments.extend(more);
    let text = run_ok("loader", &arguments);
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a JSON object a line"))
        .collect()
}

#[test]
fn threads_ring_depth_and_starting_point_do_not_matter() {
    let site = Site::new(24);
    let expected = hashes(&site, 0, 14, &["--threads", "1"]);
    assert_eq!(expected.len(), 14, "two epochs of six steps and two more");
    assert_eq!(hashes(&site, 0, 14, &["--threads", "2"]), expected);
    assert_eq!(
        hashes(&site, 0, 14, &["--threads", "3", "--set", "loader.slots=2"]),
        expected
    );
    assert_eq!(hashes(&site, 9, 5, &[]), expected[9..]);
    // The hashes are of something: another seed changes all of them, at every step.
    let other = hashes(&site, 0, 14, &["--set", "loader.seed=1"]);
    for (ours, theirs) in expected.iter().zip(&other) {
        for key in ["samples", "crops", "masks", "pixels"] {
            assert_ne!(ours[key], theirs[key], "{key} at step {}", ours["step"]);
        }
    }
}

#[test]
fn a_mask_that_can_never_be_drawn_is_refused_at_start() {
    let site = Site::new(8);
    let output = run(
        "loader",
        &[
            "hash",
            "--config",
            &site.path("config.yaml"),
            "--shards",
            &site.path("shards"),
            "--set",
            "mask.min_keep=10",
            "--steps",
            "1",
        ],
    );
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("min_keep"), "{message}");
}
