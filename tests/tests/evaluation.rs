//! Promise: `trainer eval` tells what an encoder is worth, the same each time and for the same weights from any file;
//! what it computed once is kept, and what is damaged is left out or made again.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Output;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use shardtool::Dataset;
use tests::{Running, Site, children, run, run_ok, signal, wait_until};

/// Probes small enough for a test.
const SHORT: [&str; 6] = ["--epochs", "4", "--lr", "0.01,0.1", "--k", "3,20"];

/// Makes images, shards and a run of two steps.
fn trained() -> Site {
    let site = Site::with_val(60, 21);
    let mut arguments = site.launch_arguments("run");
    arguments.extend(["--set", "trainer.stop_at_step=2"].map(str::to_owned));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    run_ok("trainer", &arguments);
    site
}

/// Runs `trainer eval` on weights with the site's images.
fn eval(site: &Site, what: &str, weights: &str, more: &[&str]) -> Output {
    let (weights, config, shards) = (
        site.path(weights),
        site.path("config.yaml"),
        site.path("shards"),
    );
    let mut arguments = vec![
        "eval", what, &weights, "--device", "cpu", "--config", &config, "--shards", &shards,
    ];
    arguments.extend(more);
    run("trainer", &arguments)
}

/// Returns both outputs of an evaluation that must have ended well.
fn said(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
    (stdout, stderr)
}

fn report(path: &str) -> Value {
    serde_json::from_slice(&fs::read(path).expect("a report")).expect("JSON")
}

#[test]
fn probes_are_the_same_again_and_features_are_computed_once() {
    let site = trained();
    let json = site.path("report.json");
    let arguments = [&SHORT[..], &["--features", "max", "--json", &json]].concat();
    let (table, first) = said(&eval(&site, "all", "run", &arguments));
    for row in ["3-nn", "20-nn", "linear"] {
        for kind in ["last ", "last4 "] {
            let is_row = |line: &str| line.starts_with(kind) && line.contains(row);
            assert!(table.lines().any(is_row), "no {kind}{row} in:\n{table}");
        }
    }
    assert!(first.contains("serving"), "{first}");
    let found = report(&json);
    assert_eq!(
        found["data"]["train"],
        serde_json::json!({"split": "train", "images": 60})
    );
    let results = found["results"].as_array().expect("a list");
    assert_eq!(results.len(), 2);
    for result in results {
        let heads = result["linear"]["heads"].as_array().expect("a list");
        assert_eq!(heads.len(), 4, "two rates, two decays");
        let best = result["linear"]["best"].as_u64().expect("a number") as usize;
        let held = |head: &Value| head["held_out"]["top1"].as_f64().expect("a share");
        assert!(heads.iter().all(|head| held(head) <= held(&heads[best])));
        let shares = result["knn"].as_array().expect("a list").iter();
        assert!(
            shares
                .clone()
                .all(|share| share["top1"].as_f64() <= share["top5"].as_f64())
        );
        assert_eq!(shares.count(), 2);
    }

    // The run keeps the scores for its report.
    let kept = || fs::read_to_string(site.path("run/evaluations.jsonl")).expect("scores");
    let row: Value = serde_json::from_str(&kept()).expect("a row");
    assert_eq!((&row["step"], &row["epoch"]), (&2.into(), &0.into()));
    assert_eq!(
        row["scores"]["20-nn top-1"],
        found["results"][0]["knn"][1]["top1"]
    );
    assert!(row["scores"]["last4, linear top-1"].is_f64(), "{row}");
    let page = site.path("page.html");
    run_ok("trainer", &["report", &site.path("run"), "--out", &page]);
    assert!(
        fs::read_to_string(&page)
            .expect("a page")
            .contains("scores/20-nn top-1")
    );
    // Those of fresh weights are not the run's.
    said(&eval(&site, "knn", "run", &["--untrained"]));
    assert_eq!(kept().lines().count(), 1);

    // Kept features are read, and no loader is started.
    let (again, second) = said(&eval(&site, "all", "run", &arguments));
    assert_eq!(again, table);
    assert!(
        second.contains("features of 60 images from") && !second.contains("serving"),
        "{second}"
    );
    // Those of the last block are among them, if they are looked for in the same place.
    let kept: Vec<_> = fs::read_dir(site.path("run/checkpoints"))
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|end| end == "eval"))
        .collect();
    let [kept] = &kept[..] else {
        panic!("{kept:?}");
    };
    let train = kept.join("train-target-64px-last4.safetensors");
    let sound = fs::read(&train).expect("kept features");
    for (damage, why) in [
        (flipped(&sound), "checksum"),
        (b"no tensors".to_vec(), "computing them anew"),
    ] {
        fs::write(&train, damage).expect("written");
        let (again, said) = said(&eval(&site, "all", "run", &arguments));
        assert_eq!(again, table);
        assert!(
            said.contains(why) && said.contains("computing them anew"),
            "{said}"
        );
        let anew = fs::read(&train).expect("kept features");
        assert!(anew == sound, "other bytes than before");
    }
    // Other images under the same name.
    let other = [&arguments[..], &["--set", "loader.eval_resize=64"]].concat();
    let (_, said) = said(&eval(&site, "all", "run", &other));
    assert!(
        said.contains("features of other weights, images or settings"),
        "{said}"
    );
}

fn flipped(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    *bytes.last_mut().expect("some bytes") ^= 1;
    bytes
}

#[test]
fn equal_weights_are_worth_the_same_whatever_file_they_are_in() {
    let site = trained();
    let json = site.path("report.json");
    let probe = |weights: &str, more: &[&str]| {
        let arguments = [&SHORT[..], &["--json", &json], more].concat();
        said(&eval(&site, "knn", weights, &arguments));
        let found = report(&json);
        (
            found["weights"]["checksum"].clone(),
            found["results"].clone(),
        )
    };
    let ours = probe("run", &[]);
    for (format, name) in [("official", "jepa.pth.tar"), ("hf", "model")] {
        let (run, path) = (site.path("run"), site.path(name));
        run_ok("trainer", &["export", &run, "--to", format, "--out", &path]);
        assert_eq!(probe(name, &[]), ours, "{format}");
        assert!(Path::new(&format!("{path}.eval")).is_dir());
    }
    // Nearest neighbours need no predictor.
    let predictor = site.path("run/checkpoints/test-step00000002/predictor.safetensors");
    let aside = site.path("predictor");
    fs::rename(&predictor, &aside).expect("moved");
    assert_eq!(probe("run", &[]), ours);
    let blind = eval(&site, "hidden", "run", &[]);
    assert_eq!(blind.status.code(), Some(2));
    fs::rename(&aside, &predictor).expect("moved back");
    let context = probe("run", &["--encoder", "context"]);
    assert_ne!(context.0, ours.0);
    // In a run directory the configuration need not be named.
    let (run, shards) = (site.path("run"), site.path("shards"));
    run_ok(
        "trainer",
        &["eval", "knn", &run, "--device", "cpu", "--shards", &shards],
    );
}

#[test]
fn a_few_labels_are_named_by_a_list_or_drawn() {
    let site = trained();
    let json = site.path("report.json");
    let probed = |more: &[&str]| {
        let arguments = [more, &["--json", &json]].concat();
        let (table, _) = said(&eval(&site, "lowshot", "run", &arguments));
        assert!(table.contains("low-shot"), "{table}");
        report(&json)["results"][0]["lowshot"].clone()
    };
    let dataset = Dataset::open(Path::new(&site.path("shards"))).expect("shards");
    let split = dataset.split("train").expect("a split");
    // As the official lists have it: without the directory of the class.
    let names = (0..60).step_by(3).map(|id| {
        let name = split.sample(id).name().expect("a path");
        name.rsplit('/').next().expect("a part").to_owned() + "\n"
    });
    let list = site.path("list.txt");
    fs::write(&list, names.collect::<String>()).expect("a list");
    assert_eq!(probed(&["--lowshot", &list])["images"], 20);
    let few = probed(&["--per-class", "7", "--seed", "3"]);
    assert_eq!(few["images"], 21);
    assert_eq!(probed(&["--per-class", "7", "--seed", "3"]), few);
    let (_, warned) = said(&eval(&site, "lowshot", "run", &["--per-class", "21"]));
    assert!(
        warned.contains("--per-class 21: 3 of 3 classes have fewer images"),
        "{warned}"
    );

    fs::write(&list, "n01440764_10026.JPEG\n").expect("a list");
    for (more, said) in [
        (
            &["--lowshot", &list][..],
            "\"n01440764_10026.JPEG\" of the list is no image of the split",
        ),
        (&[], "--lowshot LIST or --per-class N"),
    ] {
        let output = eval(&site, "lowshot", "run", more);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(said), "{said}: {stderr}");
    }
}

#[test]
fn a_damaged_image_is_named_and_left_out() {
    let site = trained();
    site.flip_sample(7);
    let json = site.path("report.json");
    let arguments = [&SHORT[..], &["--json", &json]].concat();
    let (_, stderr) = said(&eval(&site, "all", "run", &arguments));
    assert!(stderr.contains("is damaged and left out"), "{stderr}");
    assert!(
        stderr.contains("1 of 60 images cannot be read, and are left out"),
        "{stderr}"
    );
    assert_eq!(report(&json)["data"]["train"]["images"], 59);
}

#[test]
fn a_signal_ends_an_evaluation_at_once() {
    let site = trained();
    let (weights, shards) = (site.path("run"), site.path("shards"));
    let mut arguments = vec![
        "eval", "linear", &weights, "--device", "cpu", "--shards", &shards,
    ];
    // Longer than anybody waits.
    arguments.extend(["--epochs", "1000000000"]);
    let arguments: Vec<String> = arguments.into_iter().map(String::from).collect();
    let mut running = Running::start("trainer", &arguments, &site.path("eval.log"));
    wait_until("the features", || {
        running.stderr().contains("\"val\": features of")
    });
    signal(running.id(), Signal::TERM);
    assert_eq!(running.wait().signal(), Some(15));
}

#[test]
fn an_evaluation_whose_loader_is_lost_can_be_started_again() {
    let site = trained();
    let (weights, shards) = (site.path("run"), site.path("shards"));
    for what in ["features", "hidden"] {
        let log = site.path(&format!("{what}.log"));
        let mut arguments = vec![
            "eval", what, &weights, "--device", "cpu", "--shards", &shards,
        ];
        arguments.extend(["--set", "data.batch_size=1", "--set", "loader.slots=2"]);
        let arguments: Vec<String> = arguments.into_iter().map(String::from).collect();
        let lost = (0..20).any(|_| {
            let mut running = Running::start("trainer", &arguments, &log);
            wait_until("the loader", || running.stderr().contains("serving rank 0"));
            // It may be at the second split already, or gone.
            for (loader, _) in children(running.id()) {
                let loader = Pid::from_raw(loader.cast_signed()).expect("a process");
                let _ = kill_process(loader, Signal::KILL);
            }
            let code = running.wait().code();
            assert!(
                code == Some(74) || code == Some(0),
                "{what}: {code:?}: {}",
                running.stderr()
            );
            code == Some(74)
        });
        assert!(lost, "20 evaluations were faster than this test");
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        run_ok("trainer", &arguments);
    }
}

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
fn hidden_blocks_are_looked_for_with_any_networks_and_the_same_each_time() {
    let site = trained();
    let json = site.path("hidden.json");
    let small = ["--json", &json, "--set", "data.batch_size=8"];
    let (table, _) = said(&eval(&site, "hidden", "run", &small));
    let found = report(&json);
    assert_eq!(
        (found["images"].as_u64(), found["fitted"].as_u64()),
        (Some(21), Some(60))
    );
    let rows = found["rows"].as_array().expect("rows");
    let names: Vec<_> = rows
        .iter()
        .map(|row| row["name"].as_str().expect("a name"))
        .collect();
    assert_eq!(names[0], "chance");
    assert_eq!((names.len(), names[3]), (4, "the predictor"));
    assert!(names.iter().all(|name| table.contains(name)), "{table}");
    assert_eq!(rows[0]["top1"], 100.0 / 21.0);
    let (again, _) = said(&eval(&site, "hidden", "run", &small));
    assert_eq!(again, table);

    // Fresh weights are others, and the baselines do not know them.
    let (fresh, _) = said(&eval(
        &site,
        "hidden",
        "run",
        &[&small[..], &["--untrained"]].concat(),
    ));
    assert!(fresh.starts_with("fresh weights"), "{fresh}");
    let fresh = report(&json);
    assert_eq!(fresh["rows"].as_array().expect("rows")[..3], rows[..3]);
    assert_ne!(fresh["rows"][3], rows[3]);

    // In one split, an image is either looked for or learnt from.
    let one = ["--val", "train", "--images", "20"];
    said(&eval(&site, "hidden", "run", &[&small[..], &one].concat()));
    let found = report(&json);
    assert_eq!(
        (found["images"].as_u64(), found["fitted"].as_u64()),
        (Some(20), Some(40))
    );
    // Too few images are refused in words.
    let few = eval(
        &site,
        "hidden",
        "run",
        &[&small[..], &["--fit-images", "1"]].concat(),
    );
    let words = String::from_utf8_lossy(&few.stderr).into_owned();
    assert!(
        few.status.code() == Some(2) && words.contains("too few images"),
        "{words}"
    );
}

#[test]
fn a_label_column_stands_for_the_class() {
    let site = trained();
    let json = site.path("report.json");
    for (more, classes) in [
        (&["--label", "count"][..], None),
        (&["--label", "distance", "--bounds", "3.6,5"], Some(3)),
    ] {
        let arguments = [&SHORT[..], &["--json", &json], more].concat();
        let (table, _) = said(&eval(&site, "linear", "run", &arguments));
        let found = report(&json);
        assert_eq!(found["data"]["label"], more[1]);
        let count = found["data"]["classes"].as_u64().expect("a number");
        assert!(
            count > 1 && classes.is_none_or(|classes| count == classes),
            "{count}"
        );
        assert!(
            table.contains(&format!("{count} classes of {:?}", more[1])),
            "{table}"
        );
    }
    let none = eval(&site, "linear", "run", &["--label", "colour"]);
    let words = String::from_utf8_lossy(&none.stderr).into_owned();
    assert!(
        none.status.code() == Some(2) && words.contains("count, distance"),
        "{words}"
    );
}

#[test]
fn an_encoder_of_ones_own_is_read_back_from_what_others_read() {
    let site = Site::with_val(60, 21);
    let sizes = [
        "meta.model_name=custom",
        "meta.embed_dim=48",
        "meta.depth=2",
        "meta.num_heads=2",
        "meta.pred_emb_dim=48",
    ];
    let mut arguments = site.launch_arguments("run");
    for set in sizes.iter().chain(&["trainer.stop_at_step=2"]) {
        arguments.extend(["--set".to_owned(), (*set).to_owned()]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    run_ok("trainer", &arguments);
    let (run, official) = (site.path("run"), site.path("own.pth.tar"));
    run_ok(
        "trainer",
        &["export", &run, "--to", "official", "--out", &official],
    );
    let sets: Vec<&str> = sizes.iter().flat_map(|set| ["--set", set]).collect();
    let rows = |weights: &str| {
        let (table, _) = said(&eval(&site, "knn", weights, &sets));
        let rows = table.lines().filter(|line| line.contains("-nn"));
        rows.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(rows("own.pth.tar"), rows("run"));
    let hidden = [&sets[..], &["--set", "data.batch_size=8"]].concat();
    said(&eval(&site, "hidden", "own.pth.tar", &hidden));
    // Nothing but a configuration tells the heads.
    let unknown = eval(&site, "knn", "own.pth.tar", &[]);
    assert_eq!(unknown.status.code(), Some(2));
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

#[test]
fn probes_of_changing_crops_are_the_same_again_and_keep_no_features() {
    let site = trained();
    site.flip_sample(7);
    let json = site.path("report.json");
    let short = ["--epochs", "3", "--batch", "16", "--json", &json];
    let kept = |name: &str| {
        let path = site.path(&format!("run/checkpoints/test-step00000002.eval/{name}"));
        Path::new(&path).exists()
    };
    for (what, more, probe, key) in [
        (
            "attentive",
            &["--lr", "0.001,0.01"][..],
            "attentive",
            "attentive",
        ),
        (
            "linear",
            &["--augment", "--lr", "0.01,0.1"],
            "linear, crops",
            "linear",
        ),
    ] {
        let arguments = [&short[..], more].concat();
        let (table, stderr) = said(&eval(&site, what, "run", &arguments));
        assert!(table.contains(probe), "{table}");
        assert!(stderr.contains("is damaged and left out"), "{stderr}");
        let grid = report(&json)["results"][0][key].clone();
        // A tenth of 60 is held out.
        assert_eq!(grid["trained_on"], 54, "{grid}");
        assert_eq!(grid["held_out_images"], 6);
        let heads = grid["heads"].as_array().expect("a list").len();
        assert_eq!(heads, if key == "linear" { 4 } else { 2 });
        let again = said(&eval(&site, what, "run", &arguments)).0;
        assert_eq!(again, table);
        let other = [&arguments[..], &["--crop-scale", "0.9,1"]].concat();
        said(&eval(&site, what, "run", &other));
        assert_eq!(report(&json)["crop_scale"], serde_json::json!([0.9, 1.0]));
    }
    assert!(!kept("train-target-64px-last.safetensors"));
    // A column of labels takes the place of the class here too.
    let arguments = [&short[..], &["--label", "count"]].concat();
    let (table, _) = said(&eval(&site, "attentive", "run", &arguments));
    assert!(table.contains("classes of \"count\""), "{table}");
    // The run keeps these scores under names of their own.
    let kept = fs::read_to_string(site.path("run/evaluations.jsonl")).expect("scores");
    for name in ["\"attentive top-1\"", "\"augmented linear top-1\""] {
        assert!(kept.contains(name), "{kept}");
    }
}

#[test]
fn an_encoder_is_fine_tuned_on_the_labelled_images_alone() {
    let site = trained();
    let json = site.path("report.json");
    let arguments = [
        "--fine-tune",
        "--per-class",
        "5",
        "--epochs",
        "2",
        "--json",
        &json,
    ];
    let (table, stderr) = said(&eval(&site, "lowshot", "run", &arguments));
    assert!(
        table.contains("fine-tuned") && table.contains("2 epochs"),
        "{table}"
    );
    let found = report(&json);
    assert!(
        found["results"][0]["fine_tuned"]["top1"].is_f64(),
        "{found}"
    );
    assert_eq!(found["results"][0]["lowshot"]["images"], 15);
    // The rate and decay of small encoders.
    assert_eq!(found["fine_tuned"]["lrs"], serde_json::json!([3e-5]));
    assert_eq!(
        found["fine_tuned"]["weight_decays"],
        serde_json::json!([0.05])
    );
    // Fifteen images are one step of fifteen.
    assert!(stderr.contains("in groups of 15"), "{stderr}");
    let again = said(&eval(&site, "lowshot", "run", &arguments)).0;
    assert_eq!(again, table);
}

#[test]
fn clevrs_own_files_are_two_tasks() {
    let site = trained();
    let images = fs::read_dir(site.path("images/train")).expect("classes");
    let mut images: Vec<_> = images
        .flat_map(|class| fs::read_dir(class.expect("a class").path()).expect("images"))
        .map(|image| image.expect("an image").path())
        .collect();
    images.sort();
    let folder = site.root().join("CLEVR_v1.0");
    fs::create_dir_all(folder.join("scenes")).expect("a folder");
    for (split, images) in [("train", &images[..40]), ("val", &images[40..])] {
        let below = folder.join("images").join(split);
        fs::create_dir_all(&below).expect("a folder");
        let scenes = images.iter().enumerate().map(|(number, image)| {
            let name = format!("CLEVR_{split}_{number:06}.jpg");
            fs::copy(image, below.join(&name)).expect("copied");
            let object = |at: usize| {
                let depth = 7.75 + 0.5 * (number % 6 + at) as f64;
                serde_json::json!({"shape": "cube", "pixel_coords": [1, 2, depth]})
            };
            let objects: Vec<Value> = (0..3 + number % 3).map(object).collect();
            serde_json::json!({"image_filename": name, "split": split, "objects": objects})
        });
        let scenes: Vec<Value> = scenes.collect();
        let text = serde_json::json!({"info": {"version": "1.0"}, "scenes": scenes});
        let path = folder.join(format!("scenes/CLEVR_{split}_scenes.json"));
        fs::write(path, text.to_string()).expect("scenes");
    }
    let (source, shards, json) = (
        site.path("CLEVR_v1.0"),
        site.path("clevr"),
        site.path("report.json"),
    );
    run_ok("shardtool", &["build", &source, "--out", &shards]);
    let dataset = Dataset::open(Path::new(&shards)).expect("shards");
    let sample = dataset.split("val").expect("a split").sample(8);
    let label = |name| sample.label(name).expect("a value").to_string();
    assert_eq!(
        (label("count"), label("distance")),
        ("5".into(), "8.75".into())
    );

    let tasks = |more: &[&str]| {
        let (weights, config) = (site.path("run"), site.path("config.yaml"));
        let fixed = [
            "eval", "tasks", &weights, "--device", "cpu", "--config", &config, "--shards", &shards,
        ];
        run("trainer", &[&fixed, more].concat())
    };
    let arguments = [&SHORT[..], &["--json", &json]].concat();
    let (table, _) = said(&tasks(&arguments));
    assert!(table.contains("classes of \"count\"") && table.contains("6 classes of \"distance\""));
    let found = report(&json);
    let of = |at: usize, key: &str| found[at]["data"][key].clone();
    assert_eq!(
        (of(0, "label"), of(0, "classes")),
        ("count".into(), 3.into())
    );
    assert_eq!(
        (of(1, "label"), of(1, "classes")),
        ("distance".into(), 6.into())
    );
    let named = tasks(&["--label", "count"]);
    assert_eq!(named.status.code(), Some(2));
}
