//! `trainer bench` under a limit of memory: an error with advice, and an exit code of its own choosing.

use std::process::Command;

/// Memory of the process, in KiB: enough for libtorch and the networks, too little for a group's activations.
const LIMIT: u64 = 3 << 20;

#[test]
fn out_of_memory_is_an_error_that_says_how_to_need_less() {
    let output = Command::new("sh")
        .args(["-c", r#"ulimit -v "$1" && shift && exec "$@""#, "sh"])
        .arg(LIMIT.to_string())
        .arg(env!("CARGO_BIN_EXE_trainer"))
        .args(["bench", "--model=vit_small", "--batch=512", "--threads=1"])
        .args(["--warmup=0", "--steps=1", "--device=cpu"])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    for part in [
        "not enough memory during",
        "512 images of 224x224 pixels",
        "trainer.activation_checkpointing",
        "meta.use_bfloat16",
        "data.batch_size",
    ] {
        assert!(errors.contains(part), "{part}: {errors}");
    }
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(!errors.contains("frame #"), "{errors}");
    assert!(output.stdout.is_empty());
}
