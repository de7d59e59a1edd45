//! Probes of features that are computed once and kept.

use super::*;

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
