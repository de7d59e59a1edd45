//! What the promises in `tests/tests/` share: a small image set made by the programs themselves, the programs spawned
//! as a user would spawn them, and waits that end.
//!
//! Each file in `tests/tests/` keeps one promise between the programs. They are run after
//! `cargo build --workspace --bins`, which puts the programs beside the tests.

mod faults;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use shardtool::Dataset;
use shardtool::process::Process;

pub use faults::Faults;

/// No wait in these tests is longer: a hang becomes a failure that says what was awaited.
pub const PATIENCE: Duration = Duration::from_secs(900);

/// Returns the built program `name`, in the directory above the one this test was started from.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test knows its own path");
    let path = test
        .parent()
        .and_then(Path::parent)
        .expect("target/<profile>/deps")
        .join(name);
    assert!(
        path.exists(),
        "{} is not built: run `cargo build --workspace --bins` first",
        path.display()
    );
    path
}

/// Runs a program to its end and returns what it said; the caller judges the exit code.
pub fn run(name: &str, arguments: &[&str]) -> Output {
    Command::new(program(name))
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Runs a program that must succeed and returns its stdout.
pub fn run_ok(name: &str, arguments: &[&str]) -> String {
    let output = run(name, arguments);
    assert!(
        output.status.success(),
        "{name} {arguments:?} ended with {}\n--- stdout\n{}\n--- stderr\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    String::from_utf8(output.stdout).expect("stdout is text")
}

/// A directory of its own with generated images, their shards, and a configuration small enough for a CPU test.
pub struct Site {
    root: tempfile::TempDir,
}

impl Site {
    /// Makes `images` training images and builds their shards.
    pub fn new(images: u32) -> Site {
        Site::with_val(images, 0)
    }

    /// Makes `images` training images and `val` others to evaluate with, and builds their shards.
    pub fn with_val(images: u32, val: u32) -> Site {
        let root = tempfile::tempdir().expect("a temporary directory");
        let site = Site { root };
        run_ok(
            "shardtool",
            &[
                "synth",
                &site.path("images"),
                "--images",
                &images.to_string(),
                "--val",
                &val.to_string(),
                "--classes",
                "3",
            ],
        );
        run_ok(
            "shardtool",
            &[
                "build",
                &site.path("images"),
                "--out",
                &site.path("shards"),
                "--shard-size",
                "1MiB",
            ],
        );
        fs::write(site.path("config.yaml"), CONFIG).expect("the configuration is written");
        site
    }

    /// Returns `name` inside this site, as text for a command line.
    pub fn path(&self, name: &str) -> String {
        self.root
            .path()
            .join(name)
            .to_str()
            .expect("temporary paths are UTF-8")
            .to_owned()
    }

    /// Returns the site's directory, by which the processes that work on it are recognised.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Returns the arguments of `trainer launch` for the run directory `run`.
    pub fn launch_arguments(&self, run: &str) -> Vec<String> {
        let mut arguments = vec!["launch".to_owned()];
        arguments.extend(self.training_arguments(run));
        arguments.extend(["--devices".to_owned(), "cpu".to_owned()]);
        arguments
    }

    /// Returns the arguments that `trainer train` and `trainer launch` share.
    pub fn training_arguments(&self, run: &str) -> Vec<String> {
        let folder = format!("logging.folder={}", self.path(run));
        [
            "--config",
            &self.path("config.yaml"),
            "--shards",
            &self.path("shards"),
            "--set",
            &folder,
        ]
        .map(String::from)
        .to_vec()
    }

    /// Returns the losses in the run's official CSV, as printed: the comparison is of text, so it is exact.
    pub fn losses(&self, run: &str) -> Vec<String> {
        let text =
            fs::read_to_string(Path::new(&self.path(run)).join("test_r0.csv")).unwrap_or_default();
        text.lines()
            .skip(1)
            .filter_map(|row| row.split(',').nth(2))
            .map(String::from)
            .collect()
    }

    /// Returns every full-precision loss in the run's JSONL log, by step.
    pub fn exact_losses(&self, run: &str) -> Vec<(u64, f64)> {
        let path = Path::new(&self.path(run)).join("test_r0.jsonl");
        let text =
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        text.lines()
            .map(|row| {
                serde_json::from_str::<serde_json::Value>(row).expect("a JSON object a line")
            })
            .filter_map(|row| Some((row.get("step")?.as_u64()?, row.get("loss")?.as_f64()?)))
            .collect()
    }

    /// Returns the losses of a run of the same images and configuration that nothing disturbs.
    pub fn undisturbed_losses(&self) -> Vec<(u64, f64)> {
        let arguments = self.launch_arguments("undisturbed");
        Running::start("trainer", &arguments, &self.path("undisturbed.log")).wait_ok();
        self.exact_losses("undisturbed")
    }

    /// Returns what the loader makes of each of these steps, one JSON object a step: the hashes of sample ids, crop
    /// boxes, masks and pixels.
    pub fn hashes(&self, steps: std::ops::Range<u32>, more: &[&str]) -> Vec<serde_json::Value> {
        let (config, shards) = (self.path("config.yaml"), self.path("shards"));
        let (from, count) = (steps.start.to_string(), steps.len().to_string());
        let mut arguments = vec!["hash", "--json", "--config", &config, "--shards", &shards];
        arguments.extend(["--from-step", &from, "--steps", &count]);
        arguments.extend(more);
        let text = run_ok("loader", &arguments);
        text.lines()
            .map(|line| serde_json::from_str(line).expect("a JSON object a line"))
            .collect()
    }

    /// Damages every sample of the shards by changing a byte of each; done twice, it mends them.
    pub fn flip_samples(&self) {
        let dataset = Dataset::open(Path::new(&self.path("shards"))).expect("shards");
        let split = &dataset.splits()[0];
        for id in 0..split.len() {
            self.flip_sample(id);
        }
    }

    /// Damages a sample of the first split by changing a byte; done twice, it mends it.
    pub fn flip_sample(&self, id: u64) {
        let dataset = Dataset::open(Path::new(&self.path("shards"))).expect("shards");
        let sample = dataset.splits()[0].sample(id);
        let at = sample.entry().offset + u64::from(sample.entry().length) / 2;
        let mut byte = [0];
        let mut options = File::options();
        options.read(true).write(true);
        let file = options.open(sample.shard().path()).expect("a shard");
        file.read_exact_at(&mut byte, at).expect("a payload");
        file.write_all_at(&[!byte[0]], at).expect("room");
    }

    /// Tells whether the run has a checkpoint after so many steps.
    pub fn has_checkpoint(&self, run: &str, steps: usize) -> bool {
        let file = format!("{run}/checkpoints/test-step{steps:08}/checkpoint.json");
        Path::new(&self.path(&file)).is_file()
    }

    /// Starts a loader by hand at `socket`, and returns when that is there.
    pub fn start_loader(&self, socket: &str, more: &[&str]) -> Running {
        let (config, shards) = (self.path("config.yaml"), self.path("shards"));
        let mut arguments = vec!["run", "--config", &config, "--shards", &shards];
        arguments.extend(["--socket", socket]);
        arguments.extend(more);
        let arguments: Vec<String> = arguments.into_iter().map(String::from).collect();
        let running = Running::start("loader", &arguments, &format!("{socket}.log"));
        wait_until("the loader's socket", || Path::new(socket).exists());
        running
    }

    /// Starts a trainer by hand that looks for its loader at `socket`.
    pub fn start_trainer(&self, run: &str, socket: &str, more: &[&str]) -> Running {
        let mut arguments = vec!["train".to_owned()];
        arguments.extend(self.training_arguments(run));
        arguments.extend(["--device", "cpu", "--socket", socket].map(String::from));
        arguments.extend(more.iter().map(ToString::to_string));
        Running::start("trainer", &arguments, &self.path(&format!("{run}.log")))
    }

    /// Waits until the run has logged `rows` steps.
    pub fn wait_for_steps(&self, run: &str, rows: usize) {
        wait_until(&format!("{rows} steps in {run}"), || {
            self.losses(run).len() >= rows
        });
    }

    /// Processes whose command line names this site: what a killed run may have left behind.
    pub fn processes(&self) -> Vec<(u32, String)> {
        let needle = self.root().to_str().expect("UTF-8").to_owned();
        processes()
            .into_iter()
            .filter(|(_, command)| command.contains(&needle))
            .collect()
    }
}

/// A ViT-tiny at 64 px: the smallest official model on the smallest grid whose masks are always feasible.
const CONFIG: &str = "\
data:
  batch_size: 4
  color_jitter_strength: 0.0
  crop_scale: [0.3, 1.0]
  crop_size: 64
  image_folder: unused
  num_workers: 2
  pin_mem: true
  root_path: $replace_this_with_absolute_path_to_your_datasets_directory
  use_color_distortion: false
  use_gaussian_blur: false
  use_horizontal_flip: false
logging:
  folder: $replace_this_with_path_for_experiment_logs
  write_tag: test
mask:
  allow_overlap: false
  aspect_ratio: [0.75, 1.5]
  enc_mask_scale: [0.85, 1.0]
  min_keep: 4
  num_enc_masks: 1
  num_pred_masks: 4
  patch_size: 8
  pred_mask_scale: [0.15, 0.2]
meta:
  copy_data: false
  load_checkpoint: false
  model_name: vit_tiny
  pred_depth: 2
  pred_emb_dim: 96
  read_checkpoint: null
  use_bfloat16: false
optimization:
  ema: [0.996, 1.0]
  epochs: 3
  final_lr: 1.0e-06
  final_weight_decay: 0.4
  ipe_scale: 1.0
  lr: 0.001
  start_lr: 0.0002
  warmup: 1
  weight_decay: 0.04
checkpoint: {min_minutes: 0}
";

/// A program that is running; killed when dropped, so that a failed test leaves nothing behind.
pub struct Running {
    child: Child,
    name: String,
    stderr: PathBuf,
}

impl Running {
    /// Starts a program with its stderr in `log`.
    pub fn start(name: &str, arguments: &[String], log: &str) -> Running {
        let file = File::create(log).expect("the log file is created");
        let mut running = Running::start_with(name, arguments, Stdio::null(), file);
        running.stderr = PathBuf::from(log);
        running
    }

    /// Starts a program in the foreground of `terminal`, its controlling one, with its stderr in `log`.
    pub fn start_in_terminal(
        name: &str,
        arguments: &[String],
        terminal: File,
        log: &str,
    ) -> Running {
        let output = terminal.try_clone().expect("a descriptor is left");
        // It becomes the program itself, under the same number: a child that leads no group need not fork.
        let child = Command::new("setsid")
            .arg("--ctty")
            .arg(program(name))
            .args(arguments)
            .stdin(terminal)
            .stdout(output)
            .stderr(File::create(log).expect("the log file is created"))
            .spawn()
            .expect("setsid, of util-linux, is installed");
        Running {
            child,
            name: name.to_owned(),
            stderr: PathBuf::from(log),
        }
    }

    /// Starts a command with its stderr in `log`.
    pub fn start_command(mut command: Command, log: &str) -> Running {
        let file = File::create(log).expect("the log file is created");
        let name = command.get_program().to_string_lossy().into_owned();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file);
        let child = command.spawn();
        Running {
            child: child.unwrap_or_else(|error| panic!("{name}: {error}")),
            name,
            stderr: PathBuf::from(log),
        }
    }

    /// Starts a program that writes to `stdout` and `stderr`, of which nothing is kept.
    pub fn start_with(
        name: &str,
        arguments: &[String],
        stdout: impl Into<Stdio>,
        stderr: impl Into<Stdio>,
    ) -> Running {
        let child = Command::new(program(name))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        Running {
            child,
            name: name.to_owned(),
            stderr: PathBuf::new(),
        }
    }

    /// Returns the process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns what it has said on stderr so far.
    pub fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// Waits for the end, however long the patience lasts.
    pub fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the child can be waited for") {
                return status;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "{} did not end; its stderr:\n{}",
                self.name,
                self.stderr()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the end, which must be a success.
    pub fn wait_ok(&mut self) {
        let status = self.wait();
        assert!(
            status.success(),
            "{} ended with {status}; its stderr:\n{}",
            self.name,
            self.stderr()
        );
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process that must exist.
pub fn signal(process: u32, signal: rustix::process::Signal) {
    let id = rustix::process::Pid::from_raw(i32::try_from(process).expect("a process id"))
        .expect("not zero");
    rustix::process::kill_process(id, signal)
        .unwrap_or_else(|error| panic!("signal to {process}: {error}"));
}

/// Returns the child of `parent` that runs the program `name`.
pub fn child_of(parent: u32, name: &str) -> u32 {
    let mut found = None;
    wait_until(&format!("a {name} started by {parent}"), || {
        let mut children = children(parent).into_iter();
        found = children.find_map(|(id, its_name)| (its_name == name).then_some(id));
        found.is_some()
    });
    found.expect("waited for")
}

/// Returns the children of `parent` that live, with the names of their programs.
pub fn children(parent: u32) -> Vec<(u32, String)> {
    let ids = processes().into_iter().map(|(id, _)| id);
    ids.filter_map(|id| {
        let process = Process::look(id)?;
        (process.parent == parent).then_some((id, process.name))
    })
    .collect()
}

/// Polls until `condition` holds; panics with `what` when the patience ends.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Returns every living process with its command line, arguments separated by spaces.
fn processes() -> Vec<(u32, String)> {
    let directory = fs::read_dir("/proc").expect("/proc is mounted");
    let ids = directory
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter_map(|id| {
        let command = fs::read(format!("/proc/{id}/cmdline")).ok()?;
        let mut text = String::new();
        for argument in command
            .split(|&byte| byte == 0)
            .filter(|argument| !argument.is_empty())
        {
            let _ = write!(text, "{} ", String::from_utf8_lossy(argument));
        }
        // A zombie has no command line; it is dead and only waits to be collected.
        (!text.is_empty()).then_some((id, text))
    })
    .collect()
}
