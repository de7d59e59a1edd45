//! Promise: a run is a job of SLURM by one command. It is stopped before its time is up, goes back into the queue, and
//! goes on to the losses of a run that nothing disturbed.
//!
//! `tools/slurm_up.sh` starts a SLURM of two nodes for this; where that cannot be, the test is skipped, which it says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tests::{Running, Site, program, wait_until};

/// A SLURM of two nodes on this machine, ended with this value.
struct Cluster {
    folder: PathBuf,
}

/// Returns a script of this project's tests.
fn tool(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tools")
        .join(name)
}

fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&both).into_owned()
}

impl Cluster {
    /// Starts it; `None` where it cannot be, which is said.
    fn start(folder: &Path) -> Option<Cluster> {
        let cluster = Cluster {
            folder: folder.to_owned(),
        };
        // Packages stay from one run of the tests to the next.
        let packages = program("trainer").with_file_name("slurm");
        let mut command = Command::new(tool("slurm_up.sh"));
        // Daemons outlive the script and would keep a pipe open.
        let log = folder.with_extension("log");
        let file = fs::File::create(&log).unwrap();
        command.arg(folder).env("ROOT", packages);
        command.stdout(file.try_clone().unwrap()).stderr(file);
        let status = command.status().expect("bash");
        let said = fs::read_to_string(&log).unwrap_or_default();
        match status.code() {
            Some(0) => Some(cluster),
            Some(77) => {
                eprintln!("SKIPPED: no SLURM here, so no job is tried: {said}");
                None
            }
            _ => panic!("slurm_up.sh ended with {status}: {said}"),
        }
    }

    /// Runs a command with SLURM's variables and commands.
    fn run(&self, command: &str, arguments: &[&str]) -> Output {
        let text = format!(". '{}/env' && exec \"$0\" \"$@\"", self.folder.display());
        let mut shell = Command::new("bash");
        shell.args(["-c", &text, command]).args(arguments);
        shell.output().expect("bash")
    }

    /// Runs a command that must succeed, and returns what it said on standard output.
    fn run_ok(&self, command: &str, arguments: &[&str]) -> String {
        let output = self.run(command, arguments);
        assert!(
            output.status.success(),
            "{command} {arguments:?}: {}",
            said(&output)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Submits a run by `trainer slurm` and returns the number of the job.
    fn submit(&self, arguments: &[String]) -> String {
        let trainer = program("trainer");
        let mut all = vec!["slurm"];
        all.extend(arguments.iter().map(String::as_str));
        let number = self.run_ok(trainer.to_str().unwrap(), &all);
        number.trim().to_owned()
    }

    /// Returns the value of `field` of a job.
    fn job(&self, number: &str, field: &str) -> String {
        let shown = self.run_ok("scontrol", &["show", "job", number]);
        let words = shown.split_whitespace();
        let mut values = words.filter_map(|word| word.strip_prefix(field)?.strip_prefix('='));
        values.next().unwrap_or_default().to_owned()
    }

    /// Waits until a job is in `state`; another end than that is a failure.
    fn wait_for(&self, number: &str, state: &str, log: &str) {
        wait_until(&format!("job {number} to be {state}"), || {
            let found = self.job(number, "JobState");
            let is_over = ["FAILED", "CANCELLED", "TIMEOUT", "COMPLETED", "NODE_FAIL"];
            assert!(
                found == state || !is_over.contains(&found.as_str()),
                "job {number} is {found}, not {state}:\n{}\n{}\n{}",
                fs::read_to_string(log).unwrap_or_default(),
                self.run_ok("scontrol", &["show", "job", number]),
                self.logs(),
            );
            found == state
        });
    }

    /// Returns what SLURM's daemons wrote.
    fn logs(&self) -> String {
        let names = ["slurmctld", "node1", "node2"];
        let logs = names.map(|name| fs::read_to_string(self.folder.join("log").join(name)));
        logs.map(Result::unwrap_or_default).concat()
    }

    /// Starts a job soon that waits because it was put back into the queue, for which SLURM takes two minutes.
    ///
    /// Within the second of its end it would be refused: SLURM's credentials count in seconds.
    fn hurry(&self, number: &str) {
        self.run_ok(
            "scontrol",
            &[
                "update",
                &format!("JobId={number}"),
                "StartTime=now+5seconds",
            ],
        );
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let ended = Command::new(tool("slurm_down.sh"))
            .arg(&self.folder)
            .status();
        if !std::thread::panicking() {
            assert!(ended.unwrap().success());
        }
    }
}

/// Returns the arguments of `trainer slurm` for a run of `epochs` epochs in the run directory `run`.
fn job_arguments(site: &Site, run: &str, epochs: u32, logs: &str) -> Vec<String> {
    let mut arguments = site.training_arguments(run);
    arguments.push(format!("--set=optimization.epochs={epochs}"));
    // No shell reads it: a dollar sign is written as two.
    arguments.push(format!("--folder={}", logs.replace('$', "$$")));
    arguments.extend(["--device=cpu", "--cpus-per-task=2"].map(String::from));
    arguments
}

#[test]
fn a_job_goes_on_where_it_stopped() {
    let site = Site::new(32);
    let Some(cluster) = Cluster::start(Path::new(&site.path("slurm"))) else {
        return;
    };
    let undisturbed = {
        let mut arguments = site.launch_arguments("undisturbed");
        arguments.push("--set=optimization.epochs=10".to_owned());
        Running::start("trainer", &arguments, &site.path("undisturbed.log")).wait_ok();
        site.exact_losses("undisturbed")
    };
    stopped_by_a_signal(&site, &cluster, &undisturbed);
    stopped_before_its_time_is_up(&site, &cluster);
    stopped_on_two_nodes(&site, &cluster);
}

/// A job is asked to stop in its midst, as SLURM does before it ends or moves one.
fn stopped_by_a_signal(site: &Site, cluster: &Cluster, undisturbed: &[(u64, f64)]) {
    // A name with all that shells, #SBATCH lines and SLURM's patterns have a use for.
    let logs = site.path("it's \"100%j\" $HOME #1");
    let mut arguments = job_arguments(site, "run", 10, &logs);
    arguments.push("--time=600".to_owned());
    let job = cluster.submit(&arguments);
    let log = format!("{logs}/{job}.out");

    site.wait_for_steps("run", 3);
    cluster.run_ok("scancel", &["--signal=USR1", &job]);
    cluster.wait_for(&job, "PENDING", &log);
    let text = fs::read_to_string(&log).expect("the job's output");
    assert!(text.contains("stopped by SIGUSR1"), "{text}");
    let kept = site.exact_losses("run").len();
    assert!(
        (3..undisturbed.len()).contains(&kept),
        "stopped after {kept} steps"
    );
    assert!(site.has_checkpoint("run", kept));

    cluster.hurry(&job);
    cluster.wait_for(&job, "COMPLETED", &log);
    assert_eq!(cluster.job(&job, "Restarts"), "1");
    assert_eq!(site.exact_losses("run"), undisturbed);
    assert!(
        site.processes()
            .iter()
            .all(|(_, command)| !command.contains("trainer"))
    );
}

/// Two ranks on each of two nodes train what one rank trains, and stop and go on together.
fn stopped_on_two_nodes(site: &Site, cluster: &Cluster) {
    let mut arguments = site.launch_arguments("alone");
    let sets = [
        "--set=optimization.global_batch=16",
        "--set=optimization.epochs=10",
    ];
    arguments.extend(sets.map(String::from));
    Running::start("trainer", &arguments, &site.path("alone.log")).wait_ok();
    let alone = site.exact_losses("alone");

    let logs = site.path("nodes");
    let mut arguments = job_arguments(site, "four", 10, &logs);
    arguments.push(sets[0].to_owned());
    arguments.extend(["--nodes=2", "--tasks-per-node=2", "--time=600"].map(String::from));
    let job = cluster.submit(&arguments);
    let log = format!("{logs}/{job}.out");
    site.wait_for_steps("four", 3);
    cluster.run_ok("scancel", &["--signal=USR1", &job]);
    cluster.wait_for(&job, "PENDING", &log);
    let kept = site.exact_losses("four").len();
    assert!(
        (3..alone.len()).contains(&kept),
        "stopped after {kept} steps"
    );
    assert!(site.has_checkpoint("four", kept));

    cluster.hurry(&job);
    cluster.wait_for(&job, "COMPLETED", &log);
    let text = fs::read_to_string(&log).expect("the job's output");
    assert!(text.contains("1 on each of 4 rank(s)"), "{text}");
    let four = site.exact_losses("four");
    assert_eq!(four.len(), alone.len());
    for ((step, ours), (_, expected)) in four.iter().zip(&alone) {
        let error = (ours - expected).abs() / expected;
        assert!(
            error < 1e-5,
            "step {step}: {ours} on four ranks, {expected} on one"
        );
    }
}

/// SLURM's own signal comes before the time is up, in the first half minute here; perhaps before the first step.
fn stopped_before_its_time_is_up(site: &Site, cluster: &Cluster) {
    let logs = site.path("logs");
    let mut arguments = job_arguments(site, "long", 100_000, &logs);
    arguments.extend(["--time=1", "--signal-before=40"].map(String::from));
    let job = cluster.submit(&arguments);
    let log = format!("{logs}/{job}.out");
    cluster.wait_for(&job, "RUNNING", &log);
    cluster.wait_for(&job, "PENDING", &log);
    let text = fs::read_to_string(&log).expect("the job's output");
    assert!(text.contains("stopped by SIGUSR1"), "{text}");
    let kept = site.losses("long").len();
    assert!(kept == 0 || site.has_checkpoint("long", kept), "{text}");
    cluster.run_ok("scancel", &[&job]);
}

/// What needs no SLURM: a script to look at, and refusals before a job waits in a queue for nothing.
#[test]
fn faults_are_found_before_there_is_a_job() {
    let site = Site::new(8);
    let logs = site.path("logs");
    let run = |more: &[&str]| {
        let mut command = Command::new(program("trainer"));
        command
            .arg("slurm")
            .args(job_arguments(&site, "run", 3, &logs))
            .args(more);
        command.env("PATH", site.root()).output().unwrap()
    };
    let output = run(&["--dry-run", "--nodes=2", "--tasks-per-node=2"]);
    let script = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(script.contains("--devices=cpu --ranks=2"), "{script}");
    assert!(script.contains("#SBATCH --nodes=2\n"), "{script}");
    assert!(script.contains("    --max-restarts=3 \\\n"), "{script}");
    assert!(
        !Path::new(&logs).exists(),
        "nothing is written by --dry-run"
    );

    let config = site.path("config.yaml");
    let other = site.path("other.yaml");
    fs::copy(&config, &other).unwrap();
    for (more, reason) in [
        (&["--nodes=0"][..], "--nodes `0`"),
        (&["--time=0"], "from a minute to ten years"),
        (&["--time=1"], "--signal-before 120"),
        (&["--config=missing.yaml"], "missing.yaml"),
        (&["--config", &other], "the same run directory"),
        (
            &["--set=optimization.global_batch=12", "--nodes=4"],
            "4 rank(s) cannot share",
        ),
        (
            &["--set=optimization.global_batch=10"],
            "cannot share a global batch of 10 in groups of 4",
        ),
        (&["--gres=gpu:8"], "--device cpu"),
        (&["--batch-launch"], "not a list of files"),
        (&[], "cannot run sbatch"),
    ] {
        let output = run(more);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(2), "{more:?}: {text}");
        assert!(text.contains(reason), "{more:?}: {text}");
    }
}
