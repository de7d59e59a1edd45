//! Promise: which images, crops and masks a step sees depends on the configuration and the step alone, not on threads,
//! history, the ring's depth, or where one starts.

use tests::{Site, run};

#[test]
fn threads_ring_depth_and_starting_point_do_not_matter() {
    let site = Site::new(24);
    let expected = site.hashes(0..14, &["--workers", "1"]);
    assert_eq!(expected.len(), 14, "two epochs of six steps and two more");
    assert_eq!(site.hashes(0..14, &["--workers", "2"]), expected);
    assert_eq!(
        site.hashes(0..14, &["--threads", "3", "--set", "loader.slots=2"]),
        expected
    );
    assert_eq!(site.hashes(9..14, &[]), expected[9..]);
    // The hashes are of something: another seed changes all of them, at every step.
    let other = site.hashes(0..14, &["--set", "loader.seed=1"]);
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
