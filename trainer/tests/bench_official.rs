//! `trainer bench --compare-python`: what is missing is said, a variant that fails keeps no other from being measured,
//! and the real official code is measured beside ours.
//!
//! The last needs a Python with torch and a checkout of the official code: `make interop IJEPA=PATH`. Without
//! `INTEROP_PYTHON` and `INTEROP_IJEPA` it says that it was skipped.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;
use tempfile::TempDir;

/// A file that is still being written when another test starts a process cannot be executed.
static ALONE: Mutex<()> = Mutex::new(());

const SIZES: [&str; 14] = [
    "--model=vit_tiny",
    "--patch=8",
    "--size=96",
    "--batch=2",
    "--pred-depth=1",
    "--pred-width=48",
    "--threads=1",
    "--warmup=1",
    "--steps=2",
    "--rounds=2",
    "--device=cpu",
    "--dtype=float32",
    "--masks-of=3",
    "--json",
];

fn bench(checkout: &Path, python: &Path, options: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainer"));
    command.arg("bench").args(options);
    command.arg("--compare-python").arg(checkout);
    command.arg("--python").arg(python);
    if let Some(stubs) = std::env::var_os("INTEROP_LIBRARIES") {
        command.env("LD_LIBRARY_PATH", stubs);
    }
    command.output().unwrap()
}

/// What passes for a checkout until a module of it is needed.
fn checkout(folder: &Path) -> PathBuf {
    let path = folder.join("ijepa");
    fs::create_dir_all(path.join("src/models")).unwrap();
    fs::write(path.join("src/models/vision_transformer.py"), "").unwrap();
    path
}

/// A shell script in place of Python: it is asked for its PyTorch first, with `-c`.
fn pretence(folder: &Path, probe: &str, child: &str) -> PathBuf {
    let path = folder.join("python");
    let text = format!(
        "#!/bin/sh\ncase $1 in -c) {probe} ;; esac\nwork=$2\ncase $work in\n{child}\nesac\n"
    );
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

const PYTORCH: &str = r#"echo '{"torch": "2.99", "cuda": false}'; exit"#;

#[test]
fn what_is_missing_is_said() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let temp = TempDir::new().unwrap();
    let folder = temp.path();
    let checkout = checkout(folder);
    let python = pretence(folder, PYTORCH, "*) ;;");
    let absent = folder.join("absent");
    let refused = |checkout: &Path, python: &Path, options: &[&str], reason: &str| {
        let output = bench(checkout, python, options);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(reason), "{said}");
        assert!(output.stdout.is_empty(), "no result");
    };
    refused(
        folder,
        &python,
        &SIZES,
        "no src/models/vision_transformer.py there",
    );
    refused(&checkout, &absent, &SIZES, "absent: cannot be started: ");
    refused(&checkout, &python, &["--rounds=0"], "--rounds 0: ");
    refused(&checkout, &python, &["--device=cuda:999"], "cuda:999");
    let demo = concat!(
        "--config=",
        env!("CARGO_MANIFEST_DIR"),
        "/../configs/demo.yaml"
    );
    let set = "--set=optimization.global_batch=64";
    refused(&checkout, &python, &[demo, set], "one group a step");
    let without =
        "echo 'Traceback:' >&2; echo \"ModuleNotFoundError: No module named 'torch'\" >&2; exit 1";
    let python = pretence(folder, without, "*) ;;");
    let reason = "PyTorch and numpy are needed: ModuleNotFoundError: No module named 'torch'";
    refused(&checkout, &python, &SIZES, reason);
}

#[test]
fn a_variant_that_fails_keeps_no_other_from_being_measured() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let temp = TempDir::new().unwrap();
    let folder = temp.path();
    let checkout = checkout(folder);
    let child = r#"*'"variant":"eager"'*)
        while read -r _; do echo '{"step_ms": [1e6, 2e6], "peak_memory_bytes": 7}'; done ;;
    *'"variant":"sdpa"'*) read -r _; echo '{"failed": "OutOfMemoryError: no room"}' ;;
    *'"variant":"fused"'*)
        read -r _; echo '{"step_ms": [1e6], "peak_memory_bytes": 7}'; read -r _; echo 'lost: its way' >&2; exit 3 ;;
    *) kill -ALRM $$ ;;"#;
    let python = pretence(folder, PYTORCH, child);
    let output = bench(&checkout, &python, &SIZES);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["pytorch"], "2.99");
    let variants = found["variants"].as_array().unwrap();
    let failed: Vec<_> = variants
        .iter()
        .map(|each| each["failed"].as_str())
        .collect();
    let expected = [
        None,
        Some("OutOfMemoryError: no room"),
        Some("exit status: 3: lost: its way"),
        Some("no end after 900 s"),
        None,
    ];
    assert_eq!(failed, expected, "{said}");
    let [official, .., ours] = &variants[..] else {
        panic!("{found}")
    };
    assert_eq!(official["result"]["step_ms"], 1.5e6);
    assert_eq!(official["result"]["speedup"], 1.0);
    assert_eq!(official["peak_memory_bytes"], 7);
    assert!(ours["result"]["speedup"].as_f64().unwrap() > 1.0, "{ours}");
    // Every turn is in the record, and ours is of the size that was asked for.
    assert_eq!(ours["each_ms"].as_array().unwrap().len(), 2);
    assert_eq!(ours["each_ms"][1].as_array().unwrap().len(), 2);
    assert_eq!(found["batch"], 2);

    // As a table; and without anything of the official code there is no comparison.
    let python = pretence(
        folder,
        PYTORCH,
        "*) read -r _; echo '{\"failed\": \"no\"}' ;;",
    );
    let output = bench(&checkout, &python, &SIZES[..13]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert!(
        lines[0].starts_with("vit_tiny/8 at 96 px, 2 images"),
        "{text}"
    );
    assert!(
        lines[2..6].iter().all(|line| line.ends_with("failed: no")),
        "{text}"
    );
    assert!(
        lines[6].starts_with("ours  ") && lines[6].ends_with(" -"),
        "{text}"
    );
}

#[test]
fn the_official_code_is_measured_beside_ours() {
    let variables = ["INTEROP_PYTHON", "INTEROP_IJEPA"].map(std::env::var_os);
    let [Some(python), Some(checkout)] = &variables else {
        eprintln!(
            "SKIPPED: set INTEROP_PYTHON to a Python with torch and INTEROP_IJEPA to a checkout of \
             facebookresearch/ijepa, or run `make interop IJEPA=PATH`"
        );
        return;
    };
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let output = bench(checkout.as_ref(), python.as_ref(), &SIZES);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    for variant in found["variants"].as_array().unwrap() {
        // torch.compile asks for more than PyTorch: a compiler that it likes.
        if variant["name"] == "the same + torch.compile" && variant["failed"].is_string() {
            continue;
        }
        let result = &variant["result"];
        assert!(result["images_per_s"].as_f64().unwrap() > 0.0, "{variant}");
        assert!(result["mfu"].as_f64().unwrap() > 0.0, "{variant}");
        assert!(result["speedup"].as_f64().unwrap() > 0.0, "{variant}");
        // A PyTorch does not fit into less.
        assert!(
            variant["peak_memory_bytes"].as_u64().unwrap() > 50 << 20,
            "{variant}"
        );
        let rounds = variant["each_ms"].as_array().unwrap();
        assert!(
            rounds.len() == 2
                && rounds
                    .iter()
                    .all(|steps| steps.as_array().unwrap().len() == 2)
        );
    }
}
