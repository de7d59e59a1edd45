//! Hidden blocks.

use super::*;

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
