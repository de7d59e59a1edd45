//! Promise: what cannot be read of shards costs samples, which are named; what cannot be read of weights is an error
//! that names the file. No process is lost by either.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use shardtool::Dataset;
use tests::{Running, Site, program, run, run_ok};

/// A page of a shard, and the samples that have bytes in it.
struct Page {
    shard: PathBuf,
    offset: u64,
    samples: Vec<u64>,
}

const PAGE: u64 = 4096;

impl Page {
    /// Returns the page in the middle of a sample of the site's shards.
    fn of(site: &Site, sample: u64) -> Page {
        let dataset = Dataset::open(site.path("shards").as_ref()).expect("whole shards");
        let split = dataset.split("train").expect("the only split");
        let (shard, entry) = (split.sample(sample).shard(), split.sample(sample).entry());
        let offset = (entry.offset + u64::from(entry.length) / 2) / PAGE * PAGE;
        let touched = |&id: &u64| {
            let sample = split.sample(id);
            let entry = sample.entry();
            let begins = entry.offset < offset + PAGE;
            let ends = entry.offset + u64::from(entry.length) > offset;
            sample.shard().path() == shard.path() && begins && ends
        };
        Page {
            shard: shard.path().to_owned(),
            offset,
            samples: (0..split.len()).filter(touched).collect(),
        }
    }
}

/// Runs a program beside a copy of one of the site's directories in `full/`, which is a full file system in memory,
/// where a page of a file is a hole: whoever maps the file and touches it is sent SIGBUS, as by a bad sector. None,
/// loudly, where a user may not mount anything.
fn with_hole(
    site: &Site,
    (directory, file, offset): (&str, &str, u64),
    name: &str,
    arguments: &[String],
) -> Option<Output> {
    const SCRIPT: &str = "set -e
        mkdir -p full
        mount -t tmpfs -o size=256m tmpfs full
        cp -r $1 full/
        fallocate --punch-hole --offset $3 --length 4096 full/$1/$2
        cat /dev/zero > full/filler 2> /dev/null || true
        shift 3
        exec \"$@\"";
    let unshare = |script: &str, more: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", script, "sh"]);
        command.args(more).current_dir(site.root());
        command
    };
    let probe = unshare("mkdir -p full && mount -t tmpfs tmpfs full", &[]).output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        eprintln!("SKIPPED: no user and mount namespaces here, so no bad page is tried");
        return None;
    }
    let mut command = unshare(SCRIPT, &[directory, file, &offset.to_string()]);
    command.arg(program(name)).args(arguments);
    Some(command.output().expect("unshare has just run"))
}

/// Returns both streams of a program that must have ended with this code.
fn ended(output: &Output, code: i32) -> (String, String) {
    let [stdout, stderr] =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert_eq!(
        output.status.code(),
        Some(code),
        "{}\n{stdout}\n{stderr}",
        output.status
    );
    (stdout, stderr)
}

/// Returns how messages tell of a sample: its shard and its number there.
fn told(page: &Page, id: u64) -> String {
    let file = page.shard.file_name().expect("a file").to_string_lossy();
    let dataset = Dataset::open(page.shard.parent().expect("a directory")).expect("whole shards");
    let sample = dataset
        .split("train")
        .expect("the only split")
        .sample(id)
        .index();
    format!("{file}: sample {sample} ")
}

#[test]
fn a_page_that_cannot_be_had_costs_its_samples() {
    let site = Site::new(48);
    let page = Page::of(&site, 7);
    assert!(page.samples.contains(&7));
    let text = |arguments: &[&str]| {
        arguments
            .iter()
            .map(|&text| text.to_owned())
            .collect::<Vec<_>>()
    };

    let shard = page.shard.file_name().expect("a file").to_string_lossy();
    let hole = ("shards", &*shard, page.offset);
    let Some(verified) = with_hole(&site, hole, "shardtool", &text(&["verify", "full/shards"]))
    else {
        return;
    };
    let (stdout, _) = ended(&verified, 1);
    let damaged = page.samples.len();
    assert!(stdout.contains(&format!("{damaged} damaged")), "{stdout}");
    for &id in &page.samples {
        assert!(stdout.contains(&told(&page, id)), "{stdout}");
    }

    let extract = text(&["extract", "full/shards", "--sample", "7", "--out", "7.jpg"]);
    let (_, stderr) = ended(
        &with_hole(&site, hole, "shardtool", &extract).expect("as before"),
        2,
    );
    assert!(stderr.contains(&told(&page, 7)), "{stderr}");

    // Three epochs, in which every sample has its turn.
    let mut launch = site.launch_arguments("run");
    let shards = launch
        .iter()
        .position(|text| *text == site.path("shards"))
        .expect("--shards");
    launch[shards] = "full/shards".to_owned();
    let (_, stderr) = ended(
        &with_hole(&site, hole, "trainer", &launch).expect("as before"),
        0,
    );
    assert_eq!(
        site.exact_losses("run").len(),
        36,
        "48 images / 4 a batch × 3 epochs"
    );
    for &id in &page.samples {
        let line = stderr.lines().find(|line| line.contains(&told(&page, id)));
        assert!(
            line.is_some_and(|line| line.contains("replaced by another")),
            "{stderr}"
        );
    }
}

#[test]
fn a_page_of_weights_that_cannot_be_had_is_an_error() {
    let site = Site::new(8);
    let arguments = site.launch_arguments("run");
    Running::start("trainer", &arguments, &site.path("log")).wait_ok();
    std::fs::create_dir(site.path("weights")).expect("a new directory");
    let official = site.path("weights/official.pth.tar");
    let export = [
        "export",
        &site.path("run"),
        "--to",
        "official",
        "--out",
        &official,
    ];
    run_ok("trainer", &export);
    let newest = std::fs::read_dir(site.path("run/checkpoints")).expect("checkpoints");
    let newest = newest.flatten().map(|entry| entry.path()).max();
    let newest = newest.expect("one of them");
    std::fs::rename(newest, site.path("weights/newest")).expect("the same file system");

    let (out, config) = (site.path("out"), site.path("config.yaml"));
    for (file, arguments) in [
        (
            "newest/encoder.safetensors",
            ["export", "full/weights/newest", "--to", "hf", "--out", &out].as_slice(),
        ),
        (
            "official.pth.tar",
            &[
                "import",
                "full/weights/official.pth.tar",
                "--config",
                &config,
                "--out",
                &out,
            ],
        ),
    ] {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let Some(output) = with_hole(&site, ("weights", file, 4096), "trainer", &arguments) else {
            return;
        };
        let (_, stderr) = ended(&output, 2);
        assert!(stderr.contains(&format!("full/weights/{file}")), "{stderr}");
        assert!(stderr.contains("a page of it cannot be read"), "{stderr}");
    }
}

#[test]
fn a_shard_that_is_gone_or_cut_is_named() {
    let site = Site::new(8);
    let shard = PathBuf::from(site.path("shards/train-00000.shard"));
    let bytes = std::fs::read(&shard).expect("a shard");
    let (shards, config) = (site.path("shards"), site.path("config.yaml"));
    let cut: &dyn Fn(&Path) =
        &|path| std::fs::write(path, &bytes[..bytes.len() / 2]).expect("a file");
    let gone: &dyn Fn(&Path) = &|path| std::fs::remove_file(path).expect("a file");
    for spoil in [cut, gone] {
        spoil(&shard);
        for (name, arguments) in [
            ("shardtool", ["verify", &shards].as_slice()),
            ("shardtool", &["inspect", &shards]),
            (
                "loader",
                &["hash", "--config", &config, "--shards", &shards],
            ),
            ("loader", &["run", "--config", &config, "--shards", &shards]),
        ] {
            let (_, stderr) = ended(&run(name, arguments), 2);
            assert!(
                stderr.contains("train-00000.shard: "),
                "{name} {arguments:?}: {stderr}"
            );
        }
    }
}
