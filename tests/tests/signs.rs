//! Promise: a run whose features collapse, or whose target stands still, is told of in words while it trains, and one
//! that is well is left in peace.

use tests::{Running, Site};

const PAGE: &str = "see trainer/LEARNING.md#signs-of-collapse";

/// Trains for 64 steps of 4 images, measured twice, and returns what was said of signs.
fn warnings(site: &Site, run: &str, sets: &[&str]) -> Vec<String> {
    let mut arguments = site.launch_arguments(run);
    for set in ["optimization.steps=64", "trainer.signs_every=32"] {
        arguments.extend(["--set".to_owned(), set.to_owned()]);
    }
    for set in sets {
        arguments.extend(["--set".to_owned(), (*set).to_owned()]);
    }
    let mut launch = Running::start("trainer", &arguments, &site.path(&format!("{run}.log")));
    launch.wait_ok();
    let said = launch.stderr();
    assert!(
        said.contains("  rank "),
        "the console shows the rank: {said}"
    );
    let said = said.lines().filter(|line| line.contains(PAGE));
    said.map(String::from).collect()
}

#[test]
fn collapse_is_told_in_words_and_a_run_that_learns_is_not_warned_of() {
    let site = Site::new(128);
    let has = |said: &[String], words: &str| said.iter().any(|line| line.contains(words));
    let gentle = "optimization.lr=0.0004";
    let term = "method.variance_covariance=0.003";

    let well = warnings(
        &site,
        "well",
        &[gentle, term, "optimization.ema=[0.999,1.0]"],
    );
    assert!(well.is_empty(), "{well:#?}");

    let frozen = warnings(
        &site,
        "frozen",
        &[gentle, term, "optimization.ema=[1.0,1.0]"],
    );
    assert!(
        has(&frozen, "the target encoder does not move at all"),
        "{frozen:#?}"
    );

    let huge = ["optimization.lr=0.1", "optimization.start_lr=0.1"];
    let huge = warnings(&site, "huge", &huge);
    assert!(has(&huge, "complete collapse"), "{huge:#?}");

    let tiny = warnings(&site, "tiny", &["optimization.ema=[0.0,0.0]"]);
    assert!(has(&tiny, "collapse"), "{tiny:#?}");
}
