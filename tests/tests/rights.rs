//! Promise: what the programs write can be read by whom the umask allows, whatever the library that made the file.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use tests::{Site, program};

/// Runs a program under a umask that shares everything with the group.
fn run_sharing(name: &str, arguments: &[&str]) {
    let mut command = Command::new("sh");
    command.args(["-c", "umask 002; exec \"$@\"", "sh"]);
    let output = command.arg(program(name)).args(arguments).output();
    let output = output.expect("a shell");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {arguments:?}: {said}");
}

/// Asserts the rights of everything in a directory, and returns the number of files.
fn shared(path: &Path) -> usize {
    let found = fs::symlink_metadata(path).expect("a file that is there");
    let (kind, expected) = (
        found.file_type(),
        if found.is_dir() { 0o775 } else { 0o664 },
    );
    assert!(kind.is_dir() || kind.is_file(), "{}", path.display());
    let mode = found.permissions().mode() & 0o777;
    assert_eq!(mode, expected, "{}: {mode:o}", path.display());
    if kind.is_file() {
        return 1;
    }
    let entries = fs::read_dir(path).expect("a directory");
    entries
        .map(|entry| shared(&entry.expect("an entry").path()))
        .sum()
}

#[test]
fn files_have_the_rights_that_the_umask_asks_for() {
    let site = Site::new(8);
    let (images, shards) = (site.path("images"), site.path("shared"));
    run_sharing("shardtool", &["build", &images, "--out", &shards]);
    let mut launch = site.launch_arguments("run");
    launch.extend(["--set", "trainer.stop_at_step=1"].map(String::from));
    run_sharing(
        "trainer",
        &launch.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    let (run, plot) = (site.path("run"), site.path("loss.png"));
    run_sharing("trainer", &["plot", &run, "--out", &plot]);
    let (model, file) = (site.path("model"), site.path("a.pth.tar"));
    run_sharing("trainer", &["export", &run, "--to", "hf", "--out", &model]);
    run_sharing(
        "trainer",
        &["export", &run, "--to", "official", "--out", &file],
    );
    let imported = site.path("imported");
    run_sharing("trainer", &["import", &file, "--out", &imported]);
    let made = [&shards, &run, &plot, &model, &file, &imported].map(|path| shared(Path::new(path)));
    assert!(made.iter().sum::<usize>() > 15, "{made:?}");
}
