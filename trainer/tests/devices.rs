//! A device that is not there: every command says so and could not run, with and without the feature `cuda`.

use std::process::Command;

#[test]
fn an_absent_gpu_is_an_error_of_every_command() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let (config, set) = (
        format!("{root}/configs/demo.yaml"),
        format!("{root}/trainer/tests/reference/a"),
    );
    // A number that no machine has.
    let gpu = "cuda:999";
    for args in [
        &["smoke", "--device", gpu][..],
        &["smoke", "--json", "--device", gpu],
        &["bench", "--device", gpu],
        &["check-reference", &set, "--device", gpu],
        &["train", "--config", &config, "--device", gpu],
        &["launch", "--config", &config, "--devices", gpu],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_trainer"))
            .args(args)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains("device `cuda:999`: "), "{args:?}: {said}");
        assert!(output.stdout.is_empty(), "{args:?} has no result");
    }
}
