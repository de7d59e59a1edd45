//! The batch script of a job.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::quote::{directive, pattern, shell, text};
use super::{Devices, Error, Job};

/// Seconds that the tasks of other nodes have after the first has ended.
///
/// Ranks stop together, but one may still write the checkpoint. srun's `--kill-on-bad-exit` would end it after SLURM's
/// KillWait, half a minute, and then say 137 instead of 75.
const LAST_WORK: u32 = 600;

impl Job {
    /// Returns the batch script.
    ///
    /// # Errors
    /// The option or path that makes no job.
    pub fn script(&self) -> Result<String, Error> {
        self.check()?;
        let mut out = String::from("#!/bin/bash\n");
        out += "# Made by `trainer slurm`. It can be given to sbatch again as it is.\n";
        for line in self.directives()? {
            let _ = writeln!(out, "#SBATCH {line}");
        }
        out.push('\n');
        let config = self.config(&mut out)?;
        self.step(&mut out, &config)?;
        self.end(&mut out);
        Ok(out)
    }

    /// Refuses what makes no job, whatever the cluster is like.
    fn check(&self) -> Result<(), Error> {
        let refused = |option, value: &dyn ToString, reason| {
            Err(Error::Option {
                option,
                value: value.to_string(),
                reason,
            })
        };
        for (option, number) in [
            ("--nodes", Some(self.nodes)),
            ("--tasks-per-node", Some(self.tasks_per_node)),
            ("--cpus-per-task", Some(self.cpus_per_task)),
            ("--signal-before", Some(self.signal_before)),
            ("--array-parallelism", self.at_once),
        ] {
            if number == Some(0) {
                return refused(option, &0, "at least 1 is needed");
            }
        }
        if self.configs.is_empty() {
            return Err(Error::NoConfig);
        }
        if self.signal_before > 65_535 {
            return refused(
                "--signal-before",
                &self.signal_before,
                "SLURM takes at most 65535",
            );
        }
        if u64::from(self.signal_before) >= self.time.seconds() {
            return Err(Error::NoTime {
                before: self.signal_before,
                limit: self.time.seconds(),
            });
        }
        if self.name.contains('/') || self.name.is_empty() {
            return refused(
                "--job-name",
                &self.name,
                "not the name of a file, which the script gets",
            );
        }
        for option in &self.extra {
            if !option.starts_with('-') || option.chars().any(char::is_control) {
                return refused(
                    "--extra",
                    option,
                    "not an option of sbatch, such as --exclude=node7",
                );
            }
        }
        let different: BTreeSet<_> = self.configs.iter().collect();
        if different.len() < self.configs.len() {
            return refused("--config", &"…", "a file is there twice");
        }
        Ok(())
    }

    /// Returns what sbatch is asked for, a line each.
    fn directives(&self) -> Result<Vec<String>, Error> {
        let mut lines = Vec::new();
        let mut add = |option: &'static str, value: &str| -> Result<(), Error> {
            lines.push(format!("{option}={}", directive(option, value)?));
            Ok(())
        };
        add("--job-name", &self.name)?;
        for (option, value) in [
            ("--partition", &self.partition),
            ("--account", &self.account),
            ("--qos", &self.qos),
            ("--mem", &self.mem),
        ] {
            if let Some(value) = value {
                add(option, value)?;
            }
        }
        add("--nodes", &self.nodes.to_string())?;
        add("--ntasks-per-node", "1")?;
        add("--cpus-per-task", &self.cpus().to_string())?;
        match &self.devices {
            Devices::Cpu => {}
            Devices::GpusPerNode(Some(gpus)) => add("--gpus-per-node", gpus)?,
            Devices::GpusPerNode(None) => add("--gpus-per-node", &self.tasks_per_node.to_string())?,
            Devices::Gres(gres) => add("--gres", gres)?,
        }
        add("--time", &self.time.to_string())?;
        add("--signal", &format!("USR1@{}", self.signal_before))?;
        if self.configs.len() > 1 {
            let last = self.configs.len() - 1;
            let at_once = self.at_once.map(|most| format!("%{most}"));
            add(
                "--array",
                &format!("0-{last}{}", at_once.unwrap_or_default()),
            )?;
        }
        add("--chdir", text(&self.directory)?)?;
        let name = if self.configs.len() > 1 {
            "%A_%a.out"
        } else {
            "%j.out"
        };
        add("--output", &format!("{}/{name}", pattern(&self.folder)?))?;
        lines.push("--open-mode=append".to_owned());
        lines.push(
            if self.requeues.is_some() {
                "--requeue"
            } else {
                "--no-requeue"
            }
            .to_owned(),
        );
        lines.extend(self.extra.iter().cloned());
        Ok(lines)
    }

    /// Returns the CPUs of a node's one task, which starts the ranks.
    fn cpus(&self) -> u64 {
        u64::from(self.cpus_per_task) * u64::from(self.tasks_per_node)
    }

    /// Writes what is needed to know the configuration of a job, and returns that as a word of the shell.
    fn config(&self, out: &mut String) -> Result<String, Error> {
        if let [config] = &self.configs[..] {
            return Ok(shell(&format!("--config={}", text(config)?)));
        }
        out.push_str("configs=(\n");
        for config in &self.configs {
            let _ = writeln!(out, "    {}", shell(text(config)?));
        }
        out.push_str(")\n\n");
        Ok(r#""--config=${configs[$SLURM_ARRAY_TASK_ID]}""#.to_owned())
    }

    /// Writes the step of the job: a launcher on each node, which starts a loader and the ranks.
    fn step(&self, out: &mut String, config: &str) -> Result<(), Error> {
        let tasks = self.tasks_per_node;
        let devices = match &self.devices {
            Devices::Cpu if tasks == 1 => "--devices=cpu".to_owned(),
            Devices::Cpu => format!("--devices=cpu --ranks={tasks}"),
            _ => {
                let each: Vec<String> = (0..tasks).map(|gpu| format!("cuda:{gpu}")).collect();
                format!("--devices={}", each.join(","))
            }
        };
        // srun takes the number of CPUs from its own option, not from the job's.
        let _ = writeln!(
            out,
            "srun --kill-on-bad-exit=0 --wait={LAST_WORK} --ntasks-per-node=1 --cpus-per-task={} \\",
            self.cpus()
        );
        let _ = write!(
            out,
            "    {} launch {config} \\\n    {devices}",
            shell(text(&self.program)?)
        );
        for option in &self.options {
            let _ = write!(out, " \\\n    {}", shell(option));
        }
        out.push_str("\ncode=$?\n");
        Ok(())
    }

    /// Writes what becomes of the job when its step has ended.
    fn end(&self, out: &mut String) {
        if let Some(most) = self.requeues {
            let _ = write!(
                out,
                r#"
# Stopped by a signal, with a checkpoint: the same job goes on from there.
if [ "$code" -eq 75 ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {most} ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
"#
            );
        }
        out.push_str("exit \"$code\"\n");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::process::Command;

    use super::*;

    fn job() -> Job {
        Job {
            name: "vith14".to_owned(),
            partition: Some("gpu".to_owned()),
            account: None,
            qos: None,
            nodes: 2,
            tasks_per_node: 8,
            cpus_per_task: 10,
            mem: None,
            devices: Devices::GpusPerNode(None),
            time: "1000".parse().unwrap(),
            signal_before: 120,
            requeues: Some(100),
            folder: "/runs/logs".into(),
            directory: "/home/me/ijepa".into(),
            extra: Vec::new(),
            configs: vec!["configs/in1k_vith14_ep300.yaml".into()],
            at_once: None,
            program: "/opt/ijepa/trainer".into(),
            options: vec!["--shards=/data/in1k.shards".to_owned()],
        }
    }

    #[test]
    fn two_nodes_of_eight_gpus() {
        let expected = r#"#!/bin/bash
# Made by `trainer slurm`. It can be given to sbatch again as it is.
#SBATCH --job-name=vith14
#SBATCH --partition=gpu
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=80
#SBATCH --gpus-per-node=8
#SBATCH --time=16:40:00
#SBATCH --signal=USR1@120
#SBATCH --chdir=/home/me/ijepa
#SBATCH --output=/runs/logs/%j.out
#SBATCH --open-mode=append
#SBATCH --requeue

srun --kill-on-bad-exit=0 --wait=600 --ntasks-per-node=1 --cpus-per-task=80 \
    /opt/ijepa/trainer launch --config=configs/in1k_vith14_ep300.yaml \
    --devices=cuda:0,cuda:1,cuda:2,cuda:3,cuda:4,cuda:5,cuda:6,cuda:7 \
    --shards=/data/in1k.shards
code=$?

# Stopped by a signal, with a checkpoint: the same job goes on from there.
if [ "$code" -eq 75 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 100 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"#;
        assert_eq!(job().script().unwrap(), expected);
    }

    #[test]
    fn what_is_asked_for_stands_in_the_script() {
        let job = Job {
            account: Some("a b".to_owned()),
            qos: Some("long".to_owned()),
            mem: Some("400G".to_owned()),
            devices: Devices::Gres("gpu:a100:8".to_owned()),
            requeues: None,
            extra: vec!["--exclude=node7".to_owned()],
            configs: vec!["a.yaml".into(), "b.yaml".into(), "c.yaml".into()],
            at_once: Some(2),
            ..job()
        };
        let script = job.script().unwrap();
        for line in [
            "#SBATCH --account=\"a b\"\n",
            "#SBATCH --qos=long\n",
            "#SBATCH --mem=400G\n",
            "#SBATCH --gres=gpu:a100:8\n",
            "#SBATCH --array=0-2%2\n",
            "#SBATCH --output=/runs/logs/%A_%a.out\n",
            "#SBATCH --no-requeue\n#SBATCH --exclude=node7\n",
            "    b.yaml\n",
        ] {
            assert!(script.contains(line), "{line} is not in\n{script}");
        }
        assert!(
            !script.contains("scontrol") && !script.contains("--gpus"),
            "{script}"
        );
        let cpu = |tasks_per_node| Job {
            devices: Devices::Cpu,
            tasks_per_node,
            ..self::job()
        };
        assert!(cpu(1).script().unwrap().contains("--devices=cpu \\\n"));
        assert!(
            cpu(2)
                .script()
                .unwrap()
                .contains("--devices=cpu --ranks=2 \\\n")
        );
    }

    #[test]
    fn what_makes_no_job_is_refused_with_its_option() {
        type Change = fn(&mut Job);
        let changes: [(&str, Change); 13] = [
            ("--nodes `0`", |job| job.nodes = 0),
            ("--tasks-per-node `0`", |job| job.tasks_per_node = 0),
            ("--cpus-per-task `0`", |job| job.cpus_per_task = 0),
            ("--signal-before `0`", |job| job.signal_before = 0),
            ("--signal-before `65536`", |job| job.signal_before = 65_536),
            ("--signal-before 60000", |job| job.signal_before = 60_000),
            ("--array-parallelism `0`", |job| job.at_once = Some(0)),
            ("no configuration", |job| job.configs.clear()),
            ("--config", |job| job.configs = vec!["a".into(), "a".into()]),
            ("--job-name `a/b`", |job| job.name = "a/b".to_owned()),
            ("--extra `x\\n--y`", |job| {
                job.extra = vec!["x\n--y".to_owned()]
            }),
            ("--extra `-x\\n#SBATCH`", |job| {
                job.extra = vec!["-x\n#SBATCH".to_owned()]
            }),
            ("--partition `a\\nb`", |job| {
                job.partition = Some("a\nb".to_owned())
            }),
        ];
        for (named, change) in changes {
            let mut job = job();
            change(&mut job);
            let error = job.script().unwrap_err().to_string();
            assert!(
                error.starts_with(named),
                "{error} does not begin with {named}"
            );
        }
    }

    /// Runs a script with srun and scontrol replaced, and returns its exit code and what these were given.
    fn run(job: &Job, variables: &[(&str, &str)], srun_ends: i32) -> (i32, String) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("srun", format!("printf '[%s]' \"$@\"; exit {srun_ends}")),
            ("scontrol", "printf '{%s}' \"$@\"".to_owned()),
        ] {
            let path = folder.path().join(name);
            fs::write(&path, format!("#!/bin/bash\n{text}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        }
        let path = std::env::var("PATH").unwrap();
        let output = Command::new("bash")
            .arg("-c")
            .arg(job.script().unwrap())
            .env("PATH", format!("{}:{path}", folder.path().display()))
            .env("SLURM_JOB_ID", "17")
            .env_remove("SLURM_RESTART_COUNT")
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        (output.status.code().unwrap(), said)
    }

    #[test]
    fn only_a_stopped_run_goes_back_into_the_queue_and_not_for_ever() {
        for code in [0, 1, 2, 74, 137] {
            let (ended, said) = run(&job(), &[], code);
            assert_eq!((ended, said.contains("requeue")), (code, false));
        }
        let (ended, said) = run(&job(), &[], 75);
        assert_eq!(ended, 75);
        assert!(said.ends_with("{requeue}{17}"), "{said}");
        assert!(
            run(&job(), &[("SLURM_RESTART_COUNT", "99")], 75)
                .1
                .contains("requeue")
        );
        assert!(
            !run(&job(), &[("SLURM_RESTART_COUNT", "100")], 75)
                .1
                .contains("requeue")
        );
    }

    #[test]
    fn hostile_names_reach_the_program_whole() {
        let name = "it's a \"$(id)\" \\ `x` *";
        let mut job = Job {
            configs: vec![Path::new("/c").join(name)],
            options: vec![format!("--set=logging.folder={name}")],
            ..job()
        };
        let (_, said) = run(&job, &[], 0);
        assert!(said.contains(&format!("[--config=/c/{name}]")), "{said}");
        assert!(
            said.contains(&format!("[--set=logging.folder={name}]")),
            "{said}"
        );

        job.configs.push("b.yaml".into());
        let (_, said) = run(&job, &[("SLURM_ARRAY_TASK_ID", "0")], 0);
        assert!(said.contains(&format!("[--config=/c/{name}]")), "{said}");
        let (_, said) = run(&job, &[("SLURM_ARRAY_TASK_ID", "1")], 0);
        assert!(said.contains("[--config=b.yaml]"), "{said}");
    }
}
