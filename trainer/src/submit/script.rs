//! The batch script of a job.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use shardtool::paths::literal;

use super::quote::{directive, pattern, shell, text};
use super::{Devices, Error, Job};

/// Seconds that the tasks of other nodes have after the first has ended.
///
/// Ranks stop together, but one may still write the checkpoint. srun's `--kill-on-bad-exit` would end it after SLURM's
/// KillWait, half a minute, and then say 137 instead of 75.
const LAST_WORK: u32 = 600;

/// The most nodes of a job, ranks of a node and seconds before its end: SLURM's limits, but for the ranks.
const MOST_NODES: u32 = 1 << 16;
const MOST_TASKS: u32 = 1024;
const MOST_SECONDS: u32 = 65_535;

/// Returns a path as an argument that is read as this path.
fn argument(path: &Path) -> Result<String, Error> {
    text(Path::new(&literal(path))).map(str::to_owned)
}

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
        for (option, number, most) in [
            ("--nodes", Some(self.nodes), MOST_NODES),
            ("--tasks-per-node", Some(self.tasks_per_node), MOST_TASKS),
            ("--cpus-per-task", Some(self.cpus_per_task), u32::MAX),
            ("--signal-before", Some(self.signal_before), MOST_SECONDS),
            ("--array-parallelism", self.at_once, u32::MAX),
        ] {
            match number {
                Some(0) => return refused(option, &0, "at least 1 is needed"),
                Some(number) if number > most => {
                    return refused(option, &number, "more than SLURM or a node can have");
                }
                _ => {}
            }
        }
        if self.configs.is_empty() {
            return Err(Error::NoConfig);
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
        let mut seen = BTreeSet::new();
        for config in &self.configs {
            if !seen.insert(config) {
                return refused("--config", &text(config)?, "the file is there twice");
            }
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
            return Ok(shell(&format!("--config={}", argument(config)?)));
        }
        out.push_str("configs=(\n");
        for config in &self.configs {
            let _ = writeln!(out, "    {}", shell(&argument(config)?));
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
mod tests;
