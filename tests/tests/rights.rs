//! Promise: what the programs write can be read by whom the umask allows, whatever the library that made the file.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use tests::{Site, program};

/// Runs a program under a umask.
fn run_under(umask: u32, name: &str, arguments: &[&str]) {
    let mut command = Command::new("sh");
    let script = format!("umask {umask:03o}; exec \"$@\"");
    command.args(["-c", &script, "sh"]);
    let output = command.arg(program(name)).args(arguments).output();
    let output = output.expect("a shell");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {arguments:?}: {said}");
}

/// Asserts the rights of everything in a directory, and returns the number of files.
fn judged(umask: u32, path: &Path) -> usize {
    let found = fs::symlink_metadata(path).expect("a file that is there");
    let (kind, expected) = (
        found.file_type(),
        if found.is_dir() { 0o777 } else { 0o666 } & !umask,
    );
    assert!(kind.is_dir() || kind.is_file(), "{}", path.display());
    let mode = found.permissions().mode() & 0o777;
    assert_eq!(mode, expected, "{}: {mode:o}", path.display());
    if kind.is_file() {
        return 1;
    }
    let entries = fs::read_dir(path).expect("a directory");
    entries
        .map(|entry| judged(umask, &entry.expect("an entry").path()))
        .sum()
}

#[test]
fn files_have_the_rights_that_the_umask_asks_for() {
    // Shared with a group, and with nobody.
    [0o002, 0o077]
        .into_iter()
        .for_each(files_have_the_rights_of);
}

fn files_have_the_rights_of(umask: u32) {
    let site = Site::new(8);
    let (images, shards) = (site.path("images"), site.path("shared"));
    run_under(umask, "shardtool", &["build", &images, "--out", &shards]);
    let mut launch = site.launch_arguments("run");
    launch.extend(["--set", "trainer.stop_at_step=1"].map(String::from));
    run_under(
        umask,
        "trainer",
        &launch.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    let (run, plot) = (site.path("run"), site.path("loss.png"));
    run_under(umask, "trainer", &["plot", &run, "--out", &plot]);
    let (model, file) = (site.path("model"), site.path("a.pth.tar"));
    run_under(
        umask,
        "trainer",
        &["export", &run, "--to", "hf", "--out", &model],
    );
    run_under(
        umask,
        "trainer",
        &["export", &run, "--to", "official", "--out", &file],
    );
    let imported = site.path("imported");
    run_under(umask, "trainer", &["import", &file, "--out", &imported]);
    let made =
        [&shards, &run, &plot, &model, &file, &imported].map(|path| judged(umask, Path::new(path)));
    assert!(made.iter().sum::<usize>() > 15, "{made:?}");
}
