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
    let changes: [(&str, Change); 15] = [
        ("--nodes `0`", |job| job.nodes = 0),
        ("--tasks-per-node `0`", |job| job.tasks_per_node = 0),
        ("--nodes `65537`", |job| job.nodes = 65_537),
        ("--tasks-per-node `1025`", |job| job.tasks_per_node = 1025),
        ("--cpus-per-task `0`", |job| job.cpus_per_task = 0),
        ("--signal-before `0`", |job| job.signal_before = 0),
        ("--signal-before `65536`", |job| job.signal_before = 65_536),
        ("--signal-before 60000", |job| job.signal_before = 60_000),
        ("--array-parallelism `0`", |job| job.at_once = Some(0)),
        ("no configuration", |job| job.configs.clear()),
        ("--config `a`", |job| {
            job.configs = vec!["a".into(), "a".into()]
        }),
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
    // The program reads two dollar signs as one.
    let config = format!("[--config=/c/{}]", name.replace('$', "$$"));
    let (_, said) = run(&job, &[], 0);
    assert!(said.contains(&config), "{said}");
    assert!(
        said.contains(&format!("[--set=logging.folder={name}]")),
        "{said}"
    );

    job.configs.push("b.yaml".into());
    let (_, said) = run(&job, &[("SLURM_ARRAY_TASK_ID", "0")], 0);
    assert!(said.contains(&config), "{said}");
    let (_, said) = run(&job, &[("SLURM_ARRAY_TASK_ID", "1")], 0);
    assert!(said.contains("[--config=b.yaml]"), "{said}");
}
