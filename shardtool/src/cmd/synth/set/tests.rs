use std::collections::BTreeMap;

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::scene::{LEAST_VISIBLE, MOST_OBJECTS, visible};
use super::*;

fn silent(_: u64) {}

/// Returns every file below `root`, by relative path.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path
                    .strip_prefix(root)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn small() -> Recipe {
    Recipe {
        classes: 4,
        size: Some((96, 72)),
        ..Recipe::new(9, 3)
    }
}

#[test]
fn the_same_files_come_out_of_any_number_of_workers() {
    let root = tempfile::tempdir().unwrap();
    let (one, three) = (root.path().join("one"), root.path().join("three"));
    let a = generate(&one, &small(), 1, &silent).unwrap();
    let b = generate(&three, &small(), 3, &silent).unwrap();
    assert_eq!(a, b);
    assert_eq!(files(&one), files(&three));
    assert_eq!(
        fs::read_dir(root.path()).unwrap().count(),
        2,
        "nothing partial is left"
    );
}

/// Pixels rather than files, so that another release of the JPEG encoder is not an alarm. Change the numbers only
/// together with `VERSION`.
#[test]
fn pixels_are_golden() {
    let mut all = Xxh3::new();
    for index in 0..12 {
        let recipe = Recipe {
            classes: 12,
            size: Some((120, 90)),
            ..Recipe::new(12, 0)
        };
        all.update(&paint::paint(&recipe.at(index).scene));
    }
    let labels: String = (0..40)
        .map(|i| Recipe::new(30, 10).at(i).labels())
        .collect();
    assert_eq!(
        (all.digest(), xxh3_64(labels.as_bytes())),
        (17_034_289_246_969_137_931, 8_426_188_692_142_897_399)
    );
}

#[test]
fn a_longer_set_begins_with_the_shorter_one() {
    let (short, long) = (Recipe::new(5, 2), Recipe::new(50, 20));
    for position in 0..5 {
        assert_eq!(short.at(position).labels(), long.at(position).labels());
    }
    assert_eq!(short.at(5).labels(), long.at(50).labels());
    assert_ne!(
        short.at(0).labels().replace("train", ""),
        short.at(5).labels().replace("val", "")
    );
}

#[test]
fn another_seed_is_another_set() {
    let (a, b) = (
        Recipe::new(1, 0),
        Recipe {
            seed: 1,
            ..Recipe::new(1, 0)
        },
    );
    assert_ne!(paint::paint(&a.at(0).scene), paint::paint(&b.at(0).scene));
}

#[test]
fn the_layout_is_an_image_folder_with_labels() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("set");
    let summary = generate(&out, &small(), 2, &silent).unwrap();
    let files = files(&out);
    assert_eq!(summary.images, 12);
    assert_eq!(files.len(), 12 + 2);
    let labels = std::str::from_utf8(&files["labels.csv"]).unwrap();
    let mut lines = labels.lines();
    assert_eq!(lines.next(), Some("path,count,distance,ground"));
    let mut bytes = 0;
    for line in lines {
        let fields: Vec<_> = line.split(',').collect();
        let &[path, count, distance, ground] = fields.as_slice() else {
            panic!("{line}")
        };
        let [split, class, name] = path.split('/').collect::<Vec<_>>()[..] else {
            panic!("{path}")
        };
        assert!(
            ["train", "val"].contains(&split) && name.starts_with(class) && name.ends_with(".JPEG")
        );
        assert!(Shape::ALL[..4].iter().any(|shape| shape.name() == class));
        assert!((1..=MOST_OBJECTS).contains(&count.parse().unwrap()));
        assert!((1.0..14.0).contains(&distance.parse::<f64>().unwrap()));
        assert!(ground.parse::<usize>().unwrap() < palette::GROUNDS.len());
        let image = image::load_from_memory(&files[path]).unwrap();
        assert_eq!((image.width(), image.height()), (96, 72));
        bytes += files[path].len() as u64;
    }
    assert_eq!(bytes, summary.bytes);
    assert_eq!(
        files.keys().filter(|name| name.starts_with("val/")).count(),
        3
    );
}

/// The labels say what can be seen: every object of the count is in view, the main one is whole, nearest, and of the
/// class.
#[test]
fn labels_agree_with_the_scene() {
    let recipe = Recipe::new(400, 0);
    let mut counts = [0; MOST_OBJECTS as usize + 1];
    for index in 0..400 {
        let Picture { scene, path } = recipe.at(index);
        assert!(path.contains(scene.objects[0].shape.name()));
        assert!(scene.objects.is_sorted_by(|a, b| a.z <= b.z));
        let (w, h) = (scene.width as f32, scene.height as f32);
        for object in 0..scene.objects.len() {
            let least = if object == 0 { 0.98 } else { LEAST_VISIBLE };
            assert!(
                visible(&scene.objects, object, &scene.camera, w, h) >= least,
                "{path}"
            );
        }
        counts[scene.objects.len()] += 1;
    }
    assert!(
        counts[1..].iter().all(|&n| n > 10),
        "every count occurs: {counts:?}"
    );
}

/// Taking any one object out of a scene changes the picture where it stood: what is counted has been drawn.
#[test]
fn every_counted_object_is_drawn() {
    let recipe = Recipe {
        size: Some((200, 150)),
        ..Recipe::new(20, 0)
    };
    for index in 0..20 {
        let scene = recipe.at(index).scene;
        let whole = paint::paint(&scene);
        for object in 0..scene.objects.len() {
            let mut without = scene.clone();
            without.objects.remove(object);
            let changed = paint::paint(&without)
                .chunks_exact(3)
                .zip(whole.chunks_exact(3))
                .enumerate()
                .filter(|(i, (a, b))| {
                    let (x, y) = ((i % 200) as f32 + 0.5, (i / 200) as f32 + 0.5);
                    a != b && scene.objects[object].pixel_distance(&scene.camera, x, y) < 0.0
                })
                .count();
            assert!(
                changed >= 4,
                "image {index}, object {object}: {changed} pixels"
            );
        }
    }
}

#[test]
fn sizes_follow_the_table() {
    let recipe = Recipe::new(2000, 0);
    let sizes: Vec<_> = (0..2000)
        .map(|i| recipe.at(i).scene)
        .map(|s| (s.width, s.height))
        .collect();
    let share = |size| sizes.iter().filter(|&&s| s == size).count();
    assert_eq!(SIZES.iter().map(|(weight, _)| weight).sum::<u32>(), 100);
    assert!(
        (560..730).contains(&share((500, 375))),
        "{}",
        share((500, 375))
    );
    assert!(
        (165..285).contains(&share((375, 500))),
        "{}",
        share((375, 500))
    );
}

#[test]
fn a_finished_set_is_recognised_and_anything_else_refused() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("set");
    let first = generate(&out, &small(), 2, &silent).unwrap();
    assert!(!first.present);
    let second = generate(&out, &small(), 2, &|_| panic!("nothing is to be drawn")).unwrap();
    assert_eq!(
        second,
        Summary {
            present: true,
            ..first
        }
    );

    let other = Recipe { seed: 9, ..small() };
    assert!(matches!(
        generate(&out, &other, 1, &silent),
        Err(Error::Occupied { .. })
    ));
    fs::remove_file(out.join(small().at(0).path)).unwrap();
    assert!(matches!(
        generate(&out, &small(), 1, &silent),
        Err(Error::Io { .. })
    ));

    let foreign = root.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("holiday.jpg"), "x").unwrap();
    assert!(matches!(
        generate(&foreign, &small(), 1, &silent),
        Err(Error::Occupied { .. })
    ));
    assert_eq!(fs::read(foreign.join("holiday.jpg")).unwrap(), b"x");
}

#[test]
fn an_interrupted_run_is_cleared_and_a_running_one_respected() {
    let root = tempfile::tempdir().unwrap();
    let (out, partial) = (root.path().join("set"), root.path().join("set.partial"));
    fs::create_dir_all(partial.join("train/old")).unwrap();
    assert!(
        matches!(
            generate(&out, &small(), 1, &silent),
            Err(Error::Occupied { .. })
        ),
        "it may be the user's"
    );
    fs::write(partial.join(".synth.json"), "{}").unwrap();
    {
        let running = File::open(&partial).unwrap();
        running.lock().unwrap();
        assert!(matches!(
            generate(&out, &small(), 1, &silent),
            Err(Error::Busy { .. })
        ));
    }
    fs::create_dir(&out).unwrap();
    generate(&out, &small(), 1, &silent).unwrap();
    assert!(!out.join("train/old").exists() && !partial.exists());
}

#[test]
fn parameters_out_of_range_are_refused() {
    let out = Path::new("never-written");
    let recipes = [
        Recipe::new(17_034_289_246_969_137_931, 8_426_188_692_142_897_399),
        Recipe {
            classes: 0,
            ..Recipe::new(1, 0)
        },
        Recipe {
            classes: MOST_CLASSES + 1,
            ..Recipe::new(1, 0)
        },
        Recipe {
            size: Some((31, 31)),
            ..Recipe::new(1, 0)
        },
        Recipe {
            size: Some((4000, 100)),
            ..Recipe::new(1, 0)
        },
    ];
    for recipe in recipes {
        assert!(
            matches!(generate(out, &recipe, 1, &silent), Err(Error::Parameter(_))),
            "{recipe:?}"
        );
    }
}
