//! Weights from people one does not know: refused by name, in bounded memory, and nothing is waited for.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::make::Official;
use crate::{config, refused, run, text, trainer};

#[test]
fn shapes_that_no_network_has_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let source = text(&folder.path().join("a.pth.tar"));
    let (config, out) = (
        text(&config(folder.path())),
        text(&folder.path().join("out")),
    );
    for (name, shape, cause) in [
        // Patches without pixels, a network without width or positions.
        (
            "patch_embed.proj.weight",
            vec![192, 3, 0, 0],
            "is [192, 3, 0, 0]",
        ),
        (
            "patch_embed.proj.weight",
            vec![0, 3, 8, 8],
            "is [0, 3, 8, 8]",
        ),
        ("pos_embed", vec![1, 0, 192], "is [1, 0, 192]"),
        ("blocks.0.mlp.fc1.weight", vec![0, 192], "is [0, 192]"),
        // A predictor a million wide: moments of zero for it would take 12 TB.
        (
            "predictor_embed.weight",
            vec![1_048_572, 1],
            "predictor: tensor `mask_token` is [1, 1, 48], expected [1, 1, 1048572]",
        ),
    ] {
        let hostile = Official {
            reshaped: Some((name, shape)),
            learned: true,
            moments: false,
            ..Official::default()
        };
        hostile.write(Path::new(&source));
        let import = ["import", &source, "--out", &out];
        let said = refused(&import);
        assert!(
            said.contains(&source) && said.contains(cause),
            "{name}: {said}"
        );
        let more = ["--config", &config, "--steps-per-epoch", "5"];
        let said = refused(&[&import[..], &more].concat());
        assert!(said.contains(cause), "{name}: {said}");
        let output = trainer(&[&import[..], &more, &["--start-over"]].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        match output.status.code() {
            // The predictor is made anew instead.
            Some(0) if name.starts_with("predictor") => {
                assert!(said.contains("its predictor does not fit"), "{said}");
            }
            Some(2) => assert!(said.contains(cause), "{name}: {said}"),
            code => panic!("{name}: {code:?}: {said}"),
        }
    }
}

#[test]
fn what_is_no_file_is_refused_and_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let source = text(&folder.path().join("a.pth.tar"));
    Official::default().write(Path::new(&source));
    let (plain, model) = (folder.path().join("plain"), folder.path().join("model"));
    run(&["import", &source, "--out", &text(&plain)]);
    run(&[
        "export",
        &text(&plain),
        "--to",
        "hf",
        "--out",
        &text(&model),
    ]);
    let index = model.join("model.safetensors.index.json");
    fs::write(
        &index,
        json!({"weight_map": {"x": "other.safetensors"}}).to_string(),
    )
    .unwrap();
    fs::copy(
        model.join("model.safetensors"),
        model.join("other.safetensors"),
    )
    .unwrap();
    let checkpoint = trainer::checkpoint::find(&plain).unwrap();
    let out = text(&folder.path().join("out"));
    let mut looked_at = 0;
    for (source, file) in [
        (&source, Path::new(&source).to_owned()),
        (&text(&model), model.join("config.json")),
        (&text(&model), model.join("predictor.safetensors")),
        (&text(&model), model.join("other.safetensors")),
        (&text(&model), index.clone()),
        (&text(&checkpoint), checkpoint.join("encoder.safetensors")),
    ] {
        let aside = file.with_extension("aside");
        fs::rename(&file, &aside).unwrap();
        let made = Command::new("mkfifo").arg(&file).status();
        assert!(made.unwrap().success());
        let said = refused(&["import", source, "--out", &out]);
        assert!(said.contains(&text(&file)), "{said}");
        assert!(said.contains("a named pipe, not a regular file"), "{said}");
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        if Path::new(source) != file {
            let said = refused(&["import", source, "--out", &out]);
            assert!(said.contains("a directory, not a regular file"), "{said}");
        }
        fs::remove_dir(&file).unwrap();
        fs::rename(&aside, &file).unwrap();
        looked_at += 1;
    }
    assert_eq!(looked_at, 6);

    // A file of another kind, or of nothing.
    for content in ["", "hello"] {
        fs::write(&source, content).unwrap();
        let said = refused(&["import", &source, "--out", &out]);
        assert!(
            said.contains("neither a file of PyTorch nor a safetensors file"),
            "{said}"
        );
    }
}

#[test]
fn a_file_that_is_all_hole_costs_nothing() {
    // A terabyte that takes no room on the disk, after what a safetensors file begins with.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let header = 1u64 << 39;
    fs::write(&path, [&header.to_le_bytes()[..], b"{"].concat()).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    if file.set_len(1 << 40).is_err() {
        eprintln!("SKIPPED: the file system has no files of a terabyte");
        return;
    }
    let out = text(&folder.path().join("out"));
    let said = refused(&["import", &text(&path), "--out", &out]);
    assert!(said.contains("a.safetensors"), "{said}");
}
