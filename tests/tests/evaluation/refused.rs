//! What is no evaluation.

use super::*;

#[test]
fn what_cannot_be_evaluated_is_said() {
    let site = trained();
    for (weights, more, said) in [
        ("run", &["--val", "test"][..], "which have train"),
        (
            "run",
            &["--held-out", "0.9"],
            "--held-out 0.9 is outside 0..=0.5",
        ),
        (
            "run",
            &["--set", "data.crop_size=60", "--set", "mask.patch_size=4"],
            "not made of whole patches",
        ),
        ("nothing", &[], "nothing"),
        (
            "config.yaml",
            &[],
            "neither a file of PyTorch nor a safetensors file",
        ),
    ] {
        let output = eval(&site, "knn", weights, more);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(said), "{said}: {stderr}");
    }
    // Weights from nowhere need a configuration.
    fs::copy(
        site.path("run/checkpoints/test-step00000002/encoder.safetensors"),
        site.path("encoder.safetensors"),
    )
    .expect("copied");
    let weights = site.path("encoder.safetensors");
    let output = run("trainer", &["eval", "knn", &weights, "--device", "cpu"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("--config FILE"));
}

#[test]
fn options_of_another_evaluation_and_splits_that_are_not_there_are_refused() {
    let site = trained();
    for (what, more, words) in [
        (
            "hidden",
            &["--label", "count"][..],
            "hidden blocks have no labels",
        ),
        (
            "hidden",
            &["--encoder", "context"],
            "both encoders have a part",
        ),
        ("hidden", &["--pooling", "grid"], "not pooled"),
        ("attentive", &["--pooling", "grid"], "look at the patches"),
        ("knn", &["--augment"], "--augment is of linear probes"),
        ("linear", &["--fine-tune"], "--fine-tune is of"),
        ("linear", &["--crop-scale", "0.1,1"], "--crop-scale is of"),
        (
            "attentive",
            &["--crop-scale", "0.5,0.1"],
            "two shares of an image",
        ),
        (
            "hidden",
            &["--set", "data.crop_size=32"],
            "data.crop_size is 32",
        ),
        ("knn", &["--images", "10"], "--images and --fit-images"),
        (
            "knn",
            &["--val", "test"],
            "--val test: no split of the shards, which have train, val",
        ),
        (
            "knn",
            &["--label", "distance", "--bounds", "1e9"],
            "are of one class",
        ),
    ] {
        let output = eval(&site, what, "run", more);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.code() == Some(2) && said.contains(words),
            "{more:?}: {said}"
        );
    }
    let same = [&SHORT[..], &["--val", "train"]].concat();
    let (_, warned) = said(&eval(&site, "knn", "run", &same));
    assert!(
        warned.contains("the split to learn from and to count on"),
        "{warned}"
    );
}
