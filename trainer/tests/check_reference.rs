//! `trainer check-reference`: the recorded sets pass, spoiled ones fail, unreadable ones are named.
//!
//! `tests/reference/a` and `b` were recorded by `tests/tools/make_reference.py` from the official code: `a` whole and
//! with two context masks, `b` reduced and with schedules that end before the run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use tempfile::TempDir;

fn set(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/reference")
        .join(name)
}

/// A copy of a set to spoil.
fn copy(name: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(set(name)).unwrap() {
        let entry = entry.unwrap();
        fs::write(
            folder.path().join(entry.file_name()),
            fs::read(entry.path()).unwrap(),
        )
        .unwrap();
    }
    folder
}

fn check(folder: &Path) -> Output {
    check_with(folder, &[])
}

fn check_with(folder: &Path, options: &[&str]) -> Output {
    // One thread: these models are tiny, and many run at once.
    // Without the library path of whoever runs the tests: the binary must find libtorch by itself.
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainer"));
    command
        .env_remove("LD_LIBRARY_PATH")
        .env("OMP_NUM_THREADS", "1")
        .arg("check-reference")
        .arg(folder)
        .arg("--json")
        .args(options)
        .output()
        .unwrap()
}

/// The names of the groups that failed, and the exit code.
fn faults(folder: &Path) -> (Vec<String>, i32) {
    faults_of(check(folder))
}

fn faults_of(output: Output) -> (Vec<String>, i32) {
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("no report: {}", String::from_utf8_lossy(&output.stderr)));
    let failed = report["groups"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|group| group["pass"] == false);
    let names = failed
        .map(|group| group["name"].as_str().unwrap().to_string())
        .collect();
    (names, output.status.code().unwrap())
}

/// Changes the first element of a tensor of floats.
fn change(folder: &Path, file: &str, tensor: &str, by: impl Fn(f64) -> f64) {
    let path = folder.join(file);
    let mut bytes = fs::read(&path).unwrap();
    let (place, dtype) = {
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let view = file.tensor(tensor).unwrap();
        (
            view.data().as_ptr().addr() - bytes.as_ptr().addr(),
            view.dtype(),
        )
    };
    if dtype == Dtype::F64 {
        let old = f64::from_le_bytes(bytes[place..place + 8].try_into().unwrap());
        bytes[place..place + 8].copy_from_slice(&by(old).to_le_bytes());
    } else {
        let old = f32::from_le_bytes(bytes[place..place + 4].try_into().unwrap());
        bytes[place..place + 4].copy_from_slice(&(by(f64::from(old)) as f32).to_le_bytes());
    }
    fs::write(path, bytes).unwrap();
}

/// Changes a number in meta.json.
fn change_meta(folder: &Path, pointer: &str, by: impl Fn(f64) -> f64) {
    let path = folder.join("meta.json");
    let mut meta: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let value = meta.pointer_mut(pointer).unwrap();
    *value = by(value.as_f64().unwrap()).into();
    fs::write(path, meta.to_string()).unwrap();
}

#[test]
fn recorded_sets_pass() {
    for name in ["a", "b"] {
        assert_eq!(faults(&set(name)), (vec![], 0), "set {name}");
    }
}

#[test]
fn the_public_set_passes() {
    let shared = std::env::var("IJEPA_SHARED").map(PathBuf::from);
    let shared =
        shared.unwrap_or_else(|_| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"));
    let folder = shared.join("reference/parity");
    if !folder.exists() {
        eprintln!("SKIPPED: no reference set at {}", folder.display());
        return;
    }
    assert_eq!(faults(&folder), (vec![], 0));
}

#[test]
fn every_quantity_is_really_compared() {
    type Spoil = fn(&Path);
    let cases: [(&str, Spoil); 12] = [
        ("position embeddings", |f| {
            change(f, "init.safetensors", "encoder.pos_embed", |x| x + 1e-5)
        }),
        ("forward, step 1", |f| {
            change(f, "forward.safetensors", "predictor.block0", |x| x + 1e-4)
        }),
        ("forward, step 1, against float64", |f| {
            change(f, "forward_f64.safetensors", "target.raw", |x| x + 1e-4)
        }),
        ("two context masks: forward", |f| {
            change(f, "nenc2.safetensors", "target.final", |x| x + 1e-4)
        }),
        ("two context masks: gradients", |f| {
            change(f, "nenc2.safetensors", "grad.predictor.mask_token", |x| {
                x * 1.01
            })
        }),
        ("gradients, step 1", |f| {
            change(f, "grads_step1.safetensors", "encoder.norm.bias", |x| {
                x * 1.001
            })
        }),
        ("gradients, step 5", |f| {
            change(f, "grads_step5.safetensors", "encoder.norm.bias", |x| {
                x * 1.001
            })
        }),
        ("states, step 1", |f| {
            change(f, "state_step1.safetensors", "predictor.mask_token", |x| {
                x + 1e-6
            })
        }),
        ("states, step 5", |f| {
            change(
                f,
                "state_step5.safetensors",
                "target_encoder.norm.bias",
                |x| x + 1e-5,
            )
        }),
        ("moments, step 5", |f| {
            change(
                f,
                "adam_step5.safetensors",
                "exp_avg_sq.encoder.norm.bias",
                |x| x * 1.001,
            )
        }),
        ("losses", |f| {
            change_meta(f, "/steps/11/loss", |x| x * 1.00001)
        }),
        ("gradient norms", |f| {
            change_meta(f, "/steps/11/grad_stats/avg", |x| x * 1.0001)
        }),
    ];
    for (group, spoil) in cases {
        let folder = copy("a");
        spoil(folder.path());
        let (failed, code) = faults(folder.path());
        assert_eq!(code, 1, "{group}");
        assert!(
            failed.iter().any(|name| name == group),
            "{group}: {failed:?}"
        );
    }
}

#[test]
fn schedules_are_compared_to_the_last_bit() {
    for (group, key) in [
        ("learning rate", "lr"),
        ("weight decay", "wd"),
        ("momentum", "momentum"),
    ] {
        let folder = copy("a");
        change_meta(folder.path(), &format!("/steps/7/{key}"), |x| x.next_up());
        assert_eq!(faults(folder.path()), (vec![group.to_string()], 1));
    }
}

#[test]
fn samples_and_sums_of_a_reduced_set_are_compared() {
    let folder = copy("b");
    let tensor = "encoder.blocks.2.mlp.fc1.weight";
    change(folder.path(), "state_step1_sub.safetensors", tensor, |x| {
        x + 1e-4
    });
    change_meta(
        folder.path(),
        &format!("/tensor_stats/target_step5_full:target_{tensor}/l2"),
        |x| x * 1.001,
    );
    let (failed, code) = faults(folder.path());
    assert_eq!(
        (failed, code),
        (
            vec!["states, step 1".into(), "states, step 5: statistics".into()],
            1
        )
    );
}

#[test]
fn a_different_method_fails() {
    // The same run with other settings than those that made the records.
    let cases: [(&str, f64, &str); 3] = [
        ("/config/ipe_scale", 1.0, "learning rate"),
        ("/config/final_wd", 0.41, "weight decay"),
        ("/config/heads", 6.0, "forward, step 1"),
    ];
    for (pointer, value, group) in cases {
        let folder = copy("a");
        let path = folder.path().join("meta.json");
        let mut meta: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let old = meta.pointer_mut(pointer).unwrap();
        *old = if old.is_i64() || old.is_u64() {
            (value as i64).into()
        } else {
            value.into()
        };
        fs::write(path, meta.to_string()).unwrap();
        let (failed, code) = faults(folder.path());
        assert!(
            code == 1 && failed.iter().any(|name| name == group),
            "{pointer}: {code} {failed:?}"
        );
    }
}

#[test]
fn what_a_set_lacks_is_named() {
    let folder = copy("a");
    fs::remove_file(folder.path().join("adam_step5.safetensors")).unwrap();
    fs::remove_file(folder.path().join("nenc2.safetensors")).unwrap();
    let output = check(folder.path());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        report["absent"],
        serde_json::json!(["nenc2", "adam_step5: 94 of 94 tensors"])
    );
}

#[test]
fn unreadable_sets_exit_2_and_name_the_file() {
    type Spoil = fn(&Path);
    let cases: [(&str, Spoil); 5] = [
        ("meta.json", |f| {
            fs::remove_file(f.join("meta.json")).unwrap()
        }),
        ("meta.json", |f| {
            fs::write(f.join("meta.json"), "{\"config\": 3}").unwrap()
        }),
        ("init.safetensors", |f| {
            fs::remove_file(f.join("init.safetensors")).unwrap()
        }),
        ("inputs.safetensors", |f| {
            let bytes = fs::read(f.join("inputs.safetensors")).unwrap();
            fs::write(f.join("inputs.safetensors"), &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("init.safetensors", |f| {
            change_meta(f, "/mlp_ratio", |_| 3.0)
        }),
    ];
    for (file, spoil) in cases {
        let folder = copy("a");
        spoil(folder.path());
        let output = check(folder.path());
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{file}: {message}");
        assert!(message.contains(file), "{file}: {message}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn autocast_has_tolerances_of_its_own() {
    let bf16 = |folder: &Path| faults_of(check_with(folder, &["--dtype", "bf16"]));
    for name in ["a", "b"] {
        assert_eq!(bf16(&set(name)), (vec![], 0), "set {name}");
        let output = check_with(&set(name), &["--dtype", "bf16"]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["dtype"], "bf16");
        let group = |name: &str| {
            let groups = report["groups"].as_array().unwrap();
            let found = groups.iter().find(|group| group["name"] == name);
            found.unwrap_or_else(|| panic!("no {name}"))["ratio"]
                .as_f64()
                .unwrap()
        };
        // It really is another precision: about one rounding off, where float32 would be a ten-thousandth.
        assert!((0.2..4.0).contains(&group("forward, step 1")));
        assert_eq!(group("momentum"), 0.0);
    }
    // What it can tell from rounding: a method that is off.
    type Spoil = fn(&Path);
    let cases: [(&str, Spoil); 5] = [
        ("forward, step 1", |f| {
            change(
                f,
                "init.safetensors",
                "encoder.blocks.0.norm1.weight",
                |x| x + 3.0,
            )
        }),
        ("learning rate", |f| {
            change_meta(f, "/steps/7/lr", f64::next_up)
        }),
        ("gradients, step 1", |f| {
            change(f, "grads_step1.safetensors", "encoder.norm.bias", |_| 1.0)
        }),
        ("states, step 5", |f| {
            change(f, "state_step5.safetensors", "predictor.mask_token", |x| {
                x + 0.1
            })
        }),
        ("losses", |f| change_meta(f, "/steps/11/loss", |x| x * 1.02)),
    ];
    for (group, spoil) in cases {
        let folder = copy("a");
        spoil(folder.path());
        let (failed, code) = bf16(folder.path());
        assert!(
            code == 1 && failed.iter().any(|name| name == group),
            "{group}: {failed:?}"
        );
    }
}

#[test]
fn a_device_that_is_not_there_is_a_clear_error() {
    if tch::Cuda::is_available() {
        assert_eq!(
            faults_of(check_with(&set("a"), &["--device", "cuda:0"])),
            (vec![], 0)
        );
        return;
    }
    let output = check_with(&set("a"), &["--device", "cuda:0"]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("device `cuda:0`: "), "{message}");
    assert!(output.stdout.is_empty());
}
