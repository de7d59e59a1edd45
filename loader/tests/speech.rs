//! What the loader says never decides how it ends, and a result that cannot be written has a code of its own.

#![cfg(feature = "serve")]

mod support;

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use support::process::{Place, Running, take};

fn full() -> Stdio {
    OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap()
        .into()
}

#[test]
fn a_full_disk_under_the_messages_does_not_end_the_loader() {
    let place = Place::new();
    let mut loader = place.start_loader(full());
    let mut feed = place.connect(0);
    (0..6).for_each(|_| drop(take(&mut feed)));
    feed.goodbye();
    assert!(loader.wait().success());
    assert!(!place.socket().exists());
}

#[test]
fn a_reader_of_the_messages_that_dies_does_not_end_the_loader() {
    let place = Place::new();
    let mut loader = place.start_loader(Stdio::piped());
    let mut messages = BufReader::new(loader.0.stderr.take().unwrap());
    let mut first = String::new();
    messages.read_line(&mut first).unwrap();
    assert!(first.contains("waiting for trainers at"), "{first}");
    let mut feed = place.connect(0);
    take(&mut feed);
    // From here on every message meets a pipe without a reader: the next consumer, the end of both, the totals.
    drop(messages);
    let mut second = place.connect(1);
    (0..4).for_each(|_| drop(take(&mut second)));
    second.goodbye();
    take(&mut feed);
    feed.goodbye();
    assert!(loader.wait().success());
    assert!(!place.socket().exists());
}

/// Returns what a loader says while it serves a consumer, under these options and this RUST_LOG.
fn said(options: &[&str], filter: Option<&str>) -> String {
    let place = Place::new();
    let log = place.directory.path().join("log");
    let mut command = place.serving();
    command.args(options).env_remove("RUST_LOG");
    command.envs(filter.map(|filter| ("RUST_LOG", filter)));
    command.stderr(File::create(&log).unwrap());
    let mut loader = Running(command.spawn().unwrap());
    let mut feed = place.connect(0);
    take(&mut feed);
    feed.goodbye();
    assert!(loader.wait().success());
    std::fs::read_to_string(&log).unwrap()
}

#[test]
fn options_and_rust_log_choose_how_much_is_said() {
    let usual = said(&[], None);
    assert!(usual.contains("waiting for trainers at"), "{usual}");
    assert!(
        usual.ends_with('\n') && usual.lines().count() > 2,
        "{usual}"
    );
    assert_eq!(said(&["-q"], None), "");
    assert_eq!(said(&[], Some("warn")), "");
    // What stands on the command line counts.
    assert_eq!(said(&["-q"], Some("info")), "");
    // One that means nothing is told, once.
    let odd = said(&[], Some("loader=lo\u{7}ud"));
    let named = "warning: RUST_LOG=loader=lo\\u{7}ud: error parsing level filter";
    assert!(odd.starts_with(named), "{odd}");
    assert_eq!(odd.matches("RUST_LOG").count(), 1, "{odd}");
    assert!(odd.contains("waiting for trainers at"), "{odd}");
    let more = said(&["-v"], Some("warn"));
    assert!(more.contains("waiting for trainers at"), "{more}");
}

#[test]
fn results_that_cannot_be_written_have_codes_of_their_own() {
    let place = Place::new();
    let hash = |stdout: Stdio| {
        let mut command = place.command("hash");
        command.args(["--steps", "3"]).stdout(stdout);
        let output = command.stderr(Stdio::piped()).output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(hash(writer.into()), (Some(141), String::new()));
    let (code, said) = hash(full());
    assert_eq!(code, Some(2));
    assert!(
        said.starts_with("loader: standard output: ") && said.lines().count() == 1,
        "{said}"
    );
}

#[test]
fn a_closing_word_that_cannot_be_written_changes_no_code() {
    let place = Place::new();
    let sheet = place.directory.path().join("sheet.png");
    let mut command = place.command("show");
    command.arg("--out").arg(&sheet).stdout(full());
    assert!(command.status().unwrap().success());
    assert!(sheet.exists());
}

#[test]
fn what_cannot_be_drawn_or_counted_is_told_before_the_work() {
    let place = Place::new();
    let refused = |name: &str, arguments: &[&str]| {
        let output = place.command(name).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(output.stdout, b"", "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    for out in ["sheet.gif", "sheet", "sheet.xyz"] {
        let said = refused("show", &["--out", out]);
        assert!(said.contains("ends in .png"), "{said}");
    }
    let last = u64::MAX.to_string();
    let said = refused("hash", &["--from-step", &last]);
    assert!(
        said.contains(&format!("--from-step {last}: ")) && said.contains("an epoch has 3"),
        "{said}"
    );
    let said = refused("show", &["--out", "x.png", "--step", &last]);
    assert!(said.contains(&format!("--step {last}: ")), "{said}");
}

#[test]
fn contexts_that_overlap_their_targets_are_counted_and_said_once() {
    let place = Place::new();
    let sheet = place.directory.path().join("sheet.png");
    let show = |sets: &[&str]| {
        let mut command = place.command("show");
        command.arg("--out").arg(&sheet).args(["--images", "1"]);
        for set in sets {
            command.args(["--set", set]);
        }
        let output = command.output().unwrap();
        assert!(output.status.success());
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr))
    };
    let many = "mask.num_enc_masks=64";
    let batch = ["data.batch_size=8", "optimization.global_batch=24"];
    let large = "mask.pred_mask_scale=[0.9, 1.0]";
    let (result, said) = show(&[many, batch[0], batch[1], large]);
    let count = "1536 of 1536 contexts (100.00 %) found no place clear of the targets";
    assert!(result.contains(count), "{result}");
    assert_eq!(said.matches("no place clear").count(), 1, "{said}");
    let (result, said) = show(&[many, batch[0], batch[1], "mask.pred_mask_scale=[0.15, 0.2]"]);
    assert!(!(result + &said).contains("no place clear"));
}

#[test]
fn a_control_character_in_a_name_stays_an_escape() {
    let place = Place::new();
    let mut command = place.command("hash");
    let output = command.args(["--split", "tr\x1b[2Jain"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains(r"tr\u{1b}[2Jain") && !said.contains('\x1b'),
        "{said}"
    );
}
