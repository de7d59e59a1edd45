//! `trainer slurm`: a run as a job of SLURM.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use shardtool::paths::{expand, literal};
use shardtool::program::{Results, Verbosity, arguments};
use shardtool::{Escaped, disk, exit, regular};
use tch::Device;
use trainer::config::Config;
use trainer::run::Resume;
use trainer::submit::{Devices, Job, TimeLimit, check_share, submit};

/// sbatch asks a controller that does not answer for some minutes.
const PATIENCE: Duration = Duration::from_secs(600);

/// Longest list of configurations that is read.
const MAX_LIST: u64 = 1 << 20;

/// What a rank computes on.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum DeviceKind {
    /// A GPU for each rank
    Cuda,
    /// The CPUs of the node
    Cpu,
}

/// Submit a run to SLURM: it stops before its time is up, goes back into the queue and goes on
#[derive(clap::Args)]
pub struct Args {
    /// Configuration file; given several times, an array of jobs, one for each
    #[arg(
        long = "config",
        value_name = "FILE",
        visible_alias = "fname",
        required = true,
        value_parser = arguments::path()
    )]
    configs: Vec<PathBuf>,
    /// The file of --config lists the configuration files
    #[arg(long)]
    batch_launch: bool,
    /// Directory for the script and for what the jobs say
    #[arg(long, value_name = "DIR", value_parser = arguments::path())]
    folder: PathBuf,
    /// Nodes of a job
    #[arg(long, value_name = "N", default_value_t = 1)]
    nodes: u32,
    /// Ranks on each node
    #[arg(long, value_name = "N", default_value_t = 1)]
    tasks_per_node: u32,
    /// Time of a start: minutes, or as SLURM writes it (1-12:00:00)
    #[arg(long, value_name = "MINUTES", default_value = "4300")]
    time: TimeLimit,
    /// Seconds before the end at which the run writes a checkpoint and stops; SLURM may be a minute early
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    signal_before: u32,
    /// How often a stopped run goes back into the queue
    #[arg(long, value_name = "N", default_value_t = 100)]
    max_requeues: u32,
    /// Times that the ranks start again within the job, from the last checkpoint, when one died or failed
    #[arg(long, value_name = "N", default_value_t = 3)]
    max_restarts: u32,
    /// Go back into the queue after a stop, and when a node fails: the default
    #[arg(long, overrides_with = "no_requeue")]
    requeue: bool,
    /// End the job after a stop, and when a node fails
    #[arg(long)]
    no_requeue: bool,
    /// Partition [default: the cluster's]
    #[arg(long, value_name = "NAME")]
    partition: Option<String>,
    /// Account to charge
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// Quality of service
    #[arg(long, value_name = "NAME")]
    qos: Option<String>,
    /// What ranks compute on
    #[arg(long, value_enum, default_value_t = DeviceKind::Cuda)]
    device: DeviceKind,
    /// GPUs of a node, as in a100:8 [default: one for each rank]
    #[arg(long, value_name = "[TYPE:]N")]
    gpus_per_node: Option<String>,
    /// GPUs of a node where the cluster knows them by this option, as in gpu:a100:8
    #[arg(long, value_name = "LIST", conflicts_with = "gpus_per_node")]
    gres: Option<String>,
    /// CPUs of each rank, with its share of the loader
    #[arg(long, value_name = "N", default_value_t = 10)]
    cpus_per_task: u32,
    /// Memory of a node, as in 400G [default: the cluster's]
    #[arg(long, value_name = "SIZE")]
    mem: Option<String>,
    /// Name of the job, and of the script [default: that of the first configuration]
    #[arg(long, value_name = "NAME")]
    job_name: Option<String>,
    /// Jobs of the array that run at the same time [default: all]
    #[arg(long, value_name = "N")]
    array_parallelism: Option<u32>,
    /// Another option for sbatch, as in --extra=--exclude=node7; may be repeated
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    extra: Vec<String>,
    /// Print the script, and submit nothing
    #[arg(long)]
    dry_run: bool,
    /// Directory of the shards, instead of loader.shards
    #[arg(long, value_name = "DIR", value_parser = arguments::path())]
    shards: Option<PathBuf>,
    /// Override one key of all configurations, as in optimization.epochs=10; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = arguments::text())]
    sets: Vec<String>,
    /// Where to begin, as with `trainer launch`
    #[arg(long, value_name = "auto|last-good|never|DIR", value_parser = super::resume())]
    resume: Option<Resume>,
    /// Keys that may differ from those of the checkpoint to continue, as with `trainer launch`
    #[arg(long, value_name = "KEY", num_args = 1.., value_delimiter = ',', value_parser = arguments::text())]
    allow: Vec<String>,
}

pub fn run(args: &Args, verbosity: &Verbosity, out: &mut Results) -> Result<u8> {
    let job = args.job(verbosity)?;
    let script = job.script()?;
    args.check(&job)?;
    let path = job.folder.join(format!("{}.sbatch", job.name));
    if args.dry_run {
        write!(out, "{script}")?;
        tracing::info!(
            "not submitted; without --dry-run: sbatch {}",
            Escaped::new(&path)
        );
        return Ok(exit::FINE);
    }
    fs::create_dir_all(&job.folder).with_context(|| Escaped::new(&job.folder).to_string())?;
    disk::write(&path, script.as_bytes()).with_context(|| Escaped::new(&path).to_string())?;
    let number = submit(OsStr::new("sbatch"), &path, PATIENCE)
        .with_context(|| Escaped::new(&path).to_string())?;
    writeln!(out, "{number}")?;
    let (jobs, log) = match job.configs.len() {
        1 => ("job".to_owned(), format!("{number}.out")),
        several => (
            format!("array of {several} jobs"),
            format!("{number}_*.out"),
        ),
    };
    tracing::info!(
        "submitted: {jobs} {number} of {} rank(s) each; output in {}",
        job.ranks(),
        Escaped::new(&job.folder.join(log))
    );
    Ok(exit::FINE)
}

/// Returns an option with its value, which a script can hold if it is text.
fn option(name: &str, value: OsString) -> Result<String> {
    let text = value.into_string();
    let text = text.map_err(|value| anyhow!("{name} {}: not UTF-8", Escaped::new(&value)))?;
    Ok(format!("{name}={text}"))
}

impl Args {
    /// Returns the job that the options ask for.
    fn job(&self, verbosity: &Verbosity) -> Result<Job> {
        let configs = if self.batch_launch {
            self.listed()?
        } else {
            self.configs.clone()
        };
        let name = match (
            &self.job_name,
            configs.first().and_then(|config| config.file_stem()),
        ) {
            (Some(name), _) => name.clone(),
            (None, Some(stem)) => stem.to_string_lossy().into_owned(),
            (None, None) => "ijepa".to_owned(),
        };
        let devices = match (self.device, &self.gres, &self.gpus_per_node) {
            (DeviceKind::Cpu, None, None) => Devices::Cpu,
            (DeviceKind::Cpu, ..) => bail!("--device cpu: --gres and --gpus-per-node ask for GPUs"),
            (DeviceKind::Cuda, Some(gres), _) => Devices::Gres(gres.clone()),
            (DeviceKind::Cuda, None, gpus) => Devices::GpusPerNode(gpus.clone()),
        };
        let mut options = verbosity.arguments();
        if self.max_restarts > 0 {
            options.push(format!("--max-restarts={}", self.max_restarts));
        }
        if let Some(shards) = &self.shards {
            options.push(option("--shards", literal(shards))?);
        }
        options.extend(self.sets.iter().map(|set| format!("--set={set}")));
        if let Some(resume) = &self.resume {
            options.push(option("--resume", resume.argument())?);
        }
        if !self.allow.is_empty() {
            options.push(format!("--allow={}", self.allow.join(",")));
        }
        Ok(Job {
            name,
            partition: self.partition.clone(),
            account: self.account.clone(),
            qos: self.qos.clone(),
            nodes: self.nodes,
            tasks_per_node: self.tasks_per_node,
            cpus_per_task: self.cpus_per_task,
            mem: self.mem.clone(),
            devices,
            time: self.time,
            signal_before: self.signal_before,
            requeues: (!self.no_requeue).then_some(self.max_requeues),
            folder: std::path::absolute(&self.folder).context("--folder")?,
            directory: std::env::current_dir().context("the working directory")?,
            extra: self.extra.clone(),
            configs,
            at_once: self.array_parallelism,
            program: std::env::current_exe().context("the path of this program")?,
            options,
        })
    }

    /// Reads the list of configurations, YAML as the official launcher takes it.
    fn listed(&self) -> Result<Vec<PathBuf>> {
        let [list] = &self.configs[..] else {
            bail!(
                "--batch-launch: one file with a list is needed, not {}",
                self.configs.len()
            );
        };
        let named = || Escaped::new(list).to_string();
        let bytes = regular::read(list, MAX_LIST).with_context(named)?;
        let text = String::from_utf8(bytes).with_context(named)?;
        let written: Vec<String> = serde_saphyr::from_str(&text)
            .ok()
            .with_context(|| format!("{}: not a list of files (- a.yaml)", named()))?;
        let paths = written.iter().map(|path| expand(path.as_ref()));
        paths.collect::<Result<_, _>>().with_context(named)
    }

    /// Finds the faults of every configuration here, not after hours in a queue.
    fn check(&self, job: &Job) -> Result<()> {
        let ranks = job.ranks();
        let mut folders: BTreeMap<PathBuf, &Path> = BTreeMap::new();
        for path in &job.configs {
            let named = || Escaped::new(path).to_string();
            let config = Config::load(path, &self.sets, self.shards.as_deref())?;
            config.check_allowed(&self.allow)?;
            config.model()?;
            let groups = check_share(&config, ranks).with_context(named)?;
            if !groups.is_multiple_of(ranks) {
                tracing::warn!(
                    "{}: {groups} groups of a step on {ranks} ranks: some have one more, for which the others wait",
                    named()
                );
            }
            let device = match self.device {
                DeviceKind::Cuda => Device::Cuda(0),
                DeviceKind::Cpu => Device::Cpu,
            };
            for warning in config.warnings(device, ranks) {
                tracing::warn!("{}: {warning}", named());
            }
            let folder = config.folder()?.to_owned();
            if let Some(other) = folders.insert(folder.clone(), path) {
                bail!(
                    "{} and {}: the same run directory, {} (logging.folder)",
                    Escaped::new(other),
                    named(),
                    Escaped::new(&folder)
                );
            }
        }
        Ok(())
    }
}
