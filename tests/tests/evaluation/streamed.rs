//! Probes whose images come from a loader in each epoch, and fine-tuning.

use super::*;

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
