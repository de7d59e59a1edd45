//! Promise: the official files' keys that are off in all of them do what they say when they are on, and nothing else.

use std::path::Path;

use tests::{Running, Site, run, run_ok};

#[test]
fn distortion_and_blur_change_pixels_and_nothing_else() {
    let site = Site::new(24);
    let plain = site.hashes(0..5, &[]);
    let strength = "data.color_jitter_strength=0.5";
    for keys in [
        &["--set", "data.use_color_distortion=true", "--set", strength][..],
        &["--set", "data.use_gaussian_blur=true"],
        &["--set", "data.use_horizontal_flip=true"],
    ] {
        let changed = site.hashes(0..5, keys);
        for (ours, theirs) in changed.iter().zip(&plain) {
            for key in ["samples", "masks"] {
                assert_eq!(ours[key], theirs[key], "{keys:?}: {key}");
            }
        }
        let mut pairs = changed.iter().zip(&plain);
        assert!(
            pairs.any(|(ours, theirs)| ours["pixels"] != theirs["pixels"]),
            "{keys:?}"
        );
        // Neither threads nor the ring's depth decide what is drawn.
        let mut threaded = keys.to_vec();
        threaded.extend(["--workers", "3", "--set", "loader.slots=2"]);
        assert_eq!(site.hashes(0..5, &threaded), changed, "{keys:?}");
    }
}

#[test]
fn a_run_from_a_local_copy_is_the_same_run() {
    let site = Site::new(8);
    let stop = ["--set", "trainer.stop_at_step=3"].map(String::from);
    let mut arguments = site.launch_arguments("plain");
    arguments.extend(stop.clone());
    Running::start("trainer", &arguments, &site.path("plain.log")).wait_ok();

    let mut arguments = site.launch_arguments("copied");
    arguments.extend(stop);
    let local = format!("loader.local_dir={}", site.path("local"));
    arguments.extend(["--set", "meta.copy_data=true", "--set", &local].map(String::from));
    let mut copied = Running::start("trainer", &arguments, &site.path("copied.log"));
    assert_eq!(copied.wait().code(), Some(0), "{}", copied.stderr());
    let said = copied.stderr();
    assert!(
        said.contains("shards are read from their copy in"),
        "{said}"
    );
    assert_eq!(site.exact_losses("copied"), site.exact_losses("plain"));

    let copies: Vec<_> = std::fs::read_dir(Path::new(&site.path("local")))
        .expect("the copy's place")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    let [copy] = &copies[..] else {
        panic!("{copies:?}")
    };
    run_ok("shardtool", &["verify", copy.to_str().expect("UTF-8")]);
}

#[test]
fn a_copy_without_a_place_is_refused_with_the_key_to_set() {
    let site = Site::new(8);
    let file = site.path("not-a-directory");
    std::fs::write(&file, "").expect("a file");
    let mut arguments = site.launch_arguments("run");
    let local = format!("loader.local_dir={file}/below");
    arguments.extend(["--set", "meta.copy_data=true", "--set", &local].map(String::from));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = run("trainer", &arguments);
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("not-a-directory/below"), "{message}");
}
