//! Promise: a path means what a shell would have made of it, and a name need not be text. What cannot be used is
//! refused by name, and nothing is ever written under another name than the one that was meant.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tests::{Site, program};

/// A name in Latin-1, as old disks hold them.
const LATIN: &[u8] = b"caf\xe9";

fn latin() -> &'static OsStr {
    OsStr::from_bytes(LATIN)
}

/// Joins pieces of an argument.
fn joined(pieces: &[&OsStr]) -> OsString {
    pieces.iter().copied().collect()
}

/// A site whose directory is also the home of the programs, which run below it.
struct Home {
    site: Site,
    work: PathBuf,
}

impl Home {
    fn new() -> Home {
        let site = Site::new(8);
        let work = site.root().join("work");
        fs::create_dir(&work).expect("a directory to work in");
        Home { site, work }
    }

    fn run<A: AsRef<OsStr>>(&self, name: &str, arguments: &[A]) -> Output {
        let mut command = Command::new(program(name));
        command.current_dir(&self.work).args(arguments);
        command.env("HOME", self.site.root()).env("PLACE", "work");
        command.env("EMPTY", "").env_remove("NOT_SET");
        command.output().expect("the program starts")
    }

    /// Runs a program that must succeed.
    #[track_caller]
    fn run_ok<A: AsRef<OsStr> + std::fmt::Debug>(&self, name: &str, arguments: &[A]) {
        let output = self.run(name, arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name} {arguments:?}: {said}");
    }

    /// Runs a program that must refuse its arguments, and returns what it says.
    #[track_caller]
    fn refused<A: AsRef<OsStr> + std::fmt::Debug>(&self, name: &str, arguments: &[A]) -> String {
        let output = self.run(name, arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(
            output.status.code(),
            Some(2),
            "{name} {arguments:?}: {said}"
        );
        said
    }

    fn has(&self, name: &str) -> bool {
        self.site.root().join(name).exists()
    }

    /// Returns the names of all that was made in the directory where the programs run.
    fn made(&self) -> Vec<OsString> {
        let entries = fs::read_dir(&self.work).expect("it is there");
        entries
            .map(|entry| entry.expect("an entry").file_name())
            .collect()
    }
}

/// A run of one step.
const SHORT: [&str; 6] = [
    "--devices",
    "cpu",
    "--set",
    "trainer.stop_at_step=1",
    "--set",
    "trainer.threads=1",
];

#[test]
fn home_and_variables_are_expanded_wherever_a_path_is_named() {
    let home = Home::new();
    home.run_ok(
        "shardtool",
        &["build", "train=~/images/train", "--out=~/$PLACE-set"],
    );
    assert!(home.has("work-set/dataset.json"));
    home.run_ok(
        "loader",
        &["hash", "--config=~/config.yaml", "--shards=~/shards"],
    );
    // Passed on by the launcher, to the loader and to the trainer: a dollar sign survives each reading.
    let run = ["launch", "--config=~/config.yaml", "--shards=$HOME/shards"];
    let folder = ["--set", "logging.folder=${HOME}/a$$PLACE"];
    home.run_ok("trainer", &[&run[..], &folder, &SHORT].concat());
    assert!(home.has("a$PLACE/checkpoints"));
    let again = ["--set", "logging.folder=~/b", "--resume=~/a$$PLACE"];
    home.run_ok("trainer", &[&run[..], &again, &SHORT].concat());
    // What was resolved and stored is a configuration of the same run.
    let stored = [
        "launch",
        "--config=~/a$$PLACE/params-ijepa.yaml",
        "--shards=~/shards",
    ];
    home.run_ok("trainer", &[&stored[..], &SHORT].concat());

    // A job's script is read by a shell, and its options by the programs.
    let job = [
        "slurm",
        "--dry-run",
        "--device=cpu",
        "--config=~/config.yaml",
        "--folder=~",
    ];
    let options = [
        "--shards=~/a$$PLACE",
        "--resume=$HOME/b",
        "--set=logging.folder=~/b",
    ];
    let output = home.run("trainer", &[&job[..], &options].concat());
    let script = String::from_utf8_lossy(&output.stdout);
    let root = home.site.root().display();
    for expected in [
        format!("--config={root}/config.yaml "),
        format!("'--shards={root}/a$$PLACE' "),
        format!("--resume={root}/b\n"),
        "'--set=logging.folder=~/b' ".to_owned(),
    ] {
        assert!(script.contains(&expected), "{expected} is not in\n{script}");
    }

    // In a file.
    let text = fs::read_to_string(home.site.path("config.yaml")).expect("the configuration");
    let text = text.replace("$replace_this_with_path_for_experiment_logs", "~/c");
    fs::write(
        home.work.join("c.yaml"),
        text + "loader: {shards: $HOME/shards}\n",
    )
    .expect("room");
    home.run_ok(
        "trainer",
        &[&["launch", "--config", "c.yaml"][..], &SHORT].concat(),
    );
    assert!(home.has("c/checkpoints"));
    home.run_ok("trainer", &["plot", "~/c", "--out=~/c.png"]);
    assert!(home.has("c.png"));
    assert_eq!(home.made(), ["c.yaml"]);
}

#[test]
fn a_path_that_cannot_be_expanded_is_refused_and_nothing_is_made() {
    let home = Home::new();
    let config = home.site.path("config.yaml");
    let shards = home.site.path("shards");
    let launch = ["launch", "--config", &config, "--shards", &shards];
    for (folder, expected) in [
        ("$NOT_SET/x", "--set logging.folder: \"$NOT_SET/x\""),
        ("$EMPTY/x", "EMPTY is empty"),
        ("~somebody/x", "./~somebody"),
        ("run-$(date)", "$(date) has no meaning"),
        ("${NOT_SET:-x}", "${NOT_SET:-x} has no meaning"),
    ] {
        let set = format!("logging.folder={folder}");
        let said = home.refused("trainer", &[&launch[..], &["--set", &set], &SHORT].concat());
        assert!(said.contains(expected), "{said}");
        let out = format!("--out={folder}");
        let said = home.refused("shardtool", &["build", "../images", &out]);
        assert!(said.contains("--out <DIR>"), "{said}");
    }
    let text = fs::read_to_string(&config).expect("the configuration");
    let text = text.replace("$replace_this_with_path_for_experiment_logs", "$NOT_SET");
    fs::write(&config, text).expect("room");
    let said = home.refused("trainer", &[&launch[..], &SHORT].concat());
    let expected = format!("{config}: logging.folder: \"$NOT_SET\"");
    assert!(said.contains(&expected), "{said}");
    assert!(said.contains("NOT_SET is not set"), "{said}");
    assert_eq!(home.made(), [""; 0]);
}

#[test]
fn names_need_not_be_text() {
    let home = Home::new();
    let (config, shards) = (home.site.path("config.yaml"), home.site.path("shards"));
    let inside = |name: &str| joined(&[latin(), "/".as_ref(), name.as_ref(), latin()]);
    let dir = home.work.join(latin());
    fs::create_dir(&dir).expect("a directory");
    let image = |name: &str| fs::read_dir(home.site.root().join("images/train").join(name));
    let first = image("circle").expect("a class").next().expect("an image");
    fs::create_dir_all(dir.join("images/circle")).expect("room");
    fs::copy(
        first.expect("an image").path(),
        dir.join("images/circle/1.jpg"),
    )
    .expect("a copy");

    let text = |text: &str| OsString::from(text);
    let images = joined(&[latin(), "/images".as_ref()]);
    home.run_ok("shardtool", &[text("build"), images.clone()]);
    let of_split = joined(&["val=".as_ref(), &images]);
    let set = inside("set");
    home.run_ok(
        "shardtool",
        &[text("build"), of_split, text("--out"), set.clone()],
    );
    home.run_ok(
        "shardtool",
        &[text("verify"), set.clone(), text("--repair"), images],
    );
    home.run_ok("shardtool", &[text("inspect"), set.clone()]);
    home.run_ok(
        "shardtool",
        &[
            text("extract"),
            set.clone(),
            text("--split=val"),
            text("--sample=0"),
            text("--out"),
            inside("x.jpg"),
        ],
    );

    let its_config = inside("config.yaml");
    fs::copy(&config, home.work.join(&its_config)).expect("a copy");
    let its_shards = inside("shards");
    copy(Path::new(&shards), &home.work.join(&its_shards));
    let of_config = [
        text("--config"),
        its_config.clone(),
        text("--shards"),
        its_shards,
    ];
    home.run_ok("loader", &[&[text("hash")][..], &of_config].concat());

    // A run below such a directory: the resolved configuration is text, so only the path to it may be none.
    let mut launch = Command::new(program("trainer"));
    launch.current_dir(&dir).arg("launch").arg("--config");
    launch
        .arg(home.work.join(&its_config))
        .args(["--shards", &shards])
        .args(SHORT);
    let output = launch.args(["--set", "logging.folder=run"]).output();
    let output = output.expect("the program starts");
    assert!(output.status.success(), "{output:?}");
    let run = joined(&[latin(), "/run".as_ref()]);
    home.run_ok(
        "trainer",
        &[
            text("plot"),
            run.clone(),
            text("--out"),
            joined(&[latin(), "/loss.png".as_ref()]),
        ],
    );
    let hf = inside("hf");
    home.run_ok(
        "trainer",
        &[
            text("export"),
            run.clone(),
            text("--to=hf"),
            text("--out"),
            hf.clone(),
        ],
    );
    home.run_ok(
        "trainer",
        &[text("import"), hf, text("--out"), inside("imported")],
    );
    // Twice: the second goes on in its own directory, which is known to have come from there.
    for last in ["2", "3"] {
        let mut resume = [
            "launch",
            "--config",
            &config,
            "--shards",
            &shards,
            "--devices=cpu",
        ]
        .map(text)
        .to_vec();
        resume.extend([text("--set"), text(&format!("trainer.stop_at_step={last}"))]);
        resume.extend([
            text("--set"),
            text("trainer.threads=1"),
            text("--set"),
            text("logging.folder=on"),
        ]);
        resume.push(joined(&["--resume=".as_ref(), &run]));
        home.run_ok("trainer", &resume);
    }
    let checkpoints = fs::read_dir(home.work.join("on/checkpoints"))
        .expect("a run")
        .count();
    assert_eq!(checkpoints, 2);

    // What is stored as text cannot be other, and is named.
    let launch = ["launch", "--config", &config, "--devices=cpu"].map(text);
    let said = home.refused("trainer", &[&launch[..], &[text("--shards"), set]].concat());
    assert!(
        said.contains(r"loader.shards: caf\xe9/setcaf\xe9: not UTF-8"),
        "{said}"
    );
    let folder = joined(&["logging.folder=".as_ref(), latin()]);
    let said = home.refused("trainer", &[&launch[..], &[text("--set"), folder]].concat());
    assert!(
        said.contains("--set <KEY=VALUE>") && said.contains(r"caf\xe9: not UTF-8"),
        "{said}"
    );

    // Nothing went to the same name in UTF-8, or with a sign for what is no text.
    let names = all_names(&home.work);
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        let bytes = name.as_bytes();
        assert!(
            !bytes.windows(3).any(|three| three == "\u{fffd}".as_bytes()),
            "{name:?}"
        );
        assert!(
            !bytes.windows(2).any(|two| two == "é".as_bytes()),
            "{name:?}"
        );
    }
}

/// Copies the files of a directory.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a new directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
    }
}

/// Returns the names of everything below a directory.
fn all_names(dir: &Path) -> Vec<OsString> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let entry = entry.expect("an entry");
        names.push(entry.file_name());
        if entry.path().is_dir() {
            names.extend(all_names(&entry.path()));
        }
    }
    names
}
