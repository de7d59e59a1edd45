use std::collections::{BTreeSet, HashMap};

use super::*;

/// What `srun --ntasks-per-node 2` gives the last of four tasks in a job of two nodes.
const LAST_OF_FOUR: [(&str, &str); 16] = [
    ("SLURM_JOB_ID", "17"),
    ("SLURM_STEP_ID", "0"),
    ("SLURM_PROCID", "3"),
    ("SLURM_NTASKS", "4"),
    ("SLURM_STEP_NUM_TASKS", "4"),
    ("SLURM_LOCALID", "1"),
    ("SLURM_NODEID", "1"),
    ("SLURM_NNODES", "2"),
    ("SLURM_STEP_NUM_NODES", "2"),
    ("SLURM_JOB_NODELIST", "node[1-2]"),
    ("SLURM_STEP_NODELIST", "node[1-2]"),
    ("SLURM_TASKS_PER_NODE", "2(x2)"),
    ("SLURM_STEP_TASKS_PER_NODE", "2(x2)"),
    ("SLURMD_NODENAME", "node2"),
    ("SLURM_LAUNCH_NODE_IPADDR", "10.78.0.1"),
    ("SLURM_ARRAY_JOB_ID", "15"),
];

/// Reads those variables with some changed; an empty value takes one away.
fn changed(changes: &[(&str, &str)]) -> Result<Option<Step>, Error> {
    let mut variables: HashMap<&str, &str> = LAST_OF_FOUR.into();
    for &(name, value) in changes {
        match value {
            "" => variables.remove(name),
            value => variables.insert(name, value),
        };
    }
    Step::from_variables(|name| variables.get(name).map(ToString::to_string))
}

#[test]
fn a_task_of_srun_has_its_place() {
    let step = changed(&[]).unwrap().unwrap();
    assert_eq!((step.job, step.step, step.restarts), (17, 0, 0));
    assert_eq!((step.rank, step.world), (3, 4));
    assert_eq!((step.local_rank, step.local_world), (1, 2));
    assert_eq!(
        (step.node, &step.nodes[..]),
        (1, &["node1".into(), "node2".into()][..])
    );
    assert_eq!(step.run_identity(), "slurm-17.0-0");

    let again = changed(&[("SLURM_RESTART_COUNT", "2")]).unwrap().unwrap();
    assert_eq!(again.restarts, 2);
    assert_ne!(again.run_identity(), step.run_identity());
}

#[test]
fn nodes_may_have_different_numbers_of_tasks() {
    let uneven = [
        ("SLURM_STEP_TASKS_PER_NODE", "2(x2),1"),
        ("SLURM_STEP_NUM_NODES", "3"),
        ("SLURM_STEP_NUM_TASKS", "5"),
        ("SLURM_STEP_NODELIST", "node[1-3]"),
    ];
    let last = [
        ("SLURM_PROCID", "4"),
        ("SLURM_NODEID", "2"),
        ("SLURM_LOCALID", "0"),
    ];
    let there = [("SLURMD_NODENAME", "node3")];
    let step = changed(&[&uneven[..], &last, &there].concat())
        .unwrap()
        .unwrap();
    assert_eq!((step.local_rank, step.local_world), (0, 1));
    assert_eq!(changed(&uneven).unwrap().unwrap().local_world, 2);
}

/// The step's own variables count: it may have fewer nodes and tasks than its job.
#[test]
fn a_step_may_be_smaller_than_its_job() {
    let step = changed(&[
        ("SLURM_STEP_ID", "1"),
        ("SLURM_STEP_NUM_TASKS", "1"),
        ("SLURM_STEP_NUM_NODES", "1"),
        ("SLURM_STEP_NODELIST", "node2"),
        ("SLURM_STEP_TASKS_PER_NODE", "1"),
        ("SLURM_PROCID", "0"),
        ("SLURM_NODEID", "0"),
        ("SLURM_LOCALID", "0"),
    ]);
    let step = step.unwrap().unwrap();
    assert_eq!((step.world, step.local_world, step.nodes.len()), (1, 1, 1));
    // srun was called on another node than this step's first.
    assert_eq!(step.master(|_| false), "node2");
}

#[test]
fn a_batch_shell_and_an_interactive_one_are_no_step() {
    assert_eq!(changed(&[("SLURM_STEP_ID", "")]), Ok(None));
    assert_eq!(changed(&[("SLURM_STEP_ID", "4294967290")]), Ok(None));
    assert_eq!(changed(&[("SLURM_STEP_ID", "4294967291")]), Ok(None));
    assert_eq!(Step::from_variables(|_| None), Ok(None));
}

#[test]
fn ranks_meet_at_the_first_node_or_where_srun_was_called() {
    let step = changed(&[]).unwrap().unwrap();
    assert_eq!(step.master(|name| name == "node1"), "node1");
    assert_eq!(step.master(|_| false), "10.78.0.1");
    let step = changed(&[("SLURM_LAUNCH_NODE_IPADDR", "")])
        .unwrap()
        .unwrap();
    assert_eq!(step.master(|_| false), "node1");
}

#[test]
fn ports_of_jobs_and_steps_near_each_other_differ() {
    let port = |job: u32, step: u32| {
        let numbers = [job, step].map(|number| number.to_string());
        let [job, step] = &numbers;
        changed(&[("SLURM_JOB_ID", job), ("SLURM_STEP_ID", step)])
            .unwrap()
            .unwrap()
            .port()
    };
    for job in [1, 999_999, u32::MAX - 12_000] {
        let jobs: BTreeSet<u16> = (0..12_000).map(|more| port(job + more, 0)).collect();
        assert_eq!(jobs.len(), 12_000);
        assert!(jobs.iter().all(|port| (20_000..32_000).contains(port)));
        // Some steps of each of some jobs in a row.
        let both: BTreeSet<u16> = (0..100)
            .flat_map(|more| [0, 1, 2, 3].map(|step| port(job + more, step)))
            .collect();
        assert_eq!(both.len(), 400);
    }
    // An element of an array has a job number of its own, and not that of the array.
    let other = changed(&[("SLURM_ARRAY_JOB_ID", "16")]).unwrap().unwrap();
    assert_eq!(other.port(), port(17, 0));
}

#[test]
fn older_names_stand_in_for_the_step_s_own() {
    let step = changed(&[
        ("SLURM_STEP_NUM_TASKS", ""),
        ("SLURM_STEP_NUM_NODES", ""),
        ("SLURM_STEP_NODELIST", ""),
        ("SLURM_STEP_TASKS_PER_NODE", ""),
        ("SLURMD_NODENAME", ""),
    ]);
    assert_eq!(step, changed(&[]));
}

#[test]
fn a_value_that_cannot_be_names_its_variable() {
    for (variable, value) in [
        ("SLURM_STEP_ID", "x"),
        ("SLURM_STEP_ID", "4294967296"),
        ("SLURM_JOB_ID", "0"),
        ("SLURM_JOB_ID", "17_3"),
        ("SLURM_PROCID", "4"),
        ("SLURM_PROCID", "-1"),
        ("SLURM_STEP_NUM_TASKS", "0"),
        ("SLURM_STEP_NUM_NODES", "99999999999"),
        ("SLURM_NODEID", "2"),
        ("SLURM_LOCALID", "2"),
        ("SLURM_RESTART_COUNT", "twice"),
        ("SLURM_STEP_NODELIST", "node[1-"),
        ("SLURM_STEP_NODELIST", "node[1-3]"),
        ("SLURM_STEP_TASKS_PER_NODE", "2(x3)"),
        ("SLURM_STEP_TASKS_PER_NODE", "2,1"),
        ("SLURM_STEP_TASKS_PER_NODE", "2(x2"),
        ("SLURM_STEP_TASKS_PER_NODE", "4(x0),4"),
        ("SLURM_STEP_TASKS_PER_NODE", "2(x18446744073709551615)"),
        ("SLURM_STEP_TASKS_PER_NODE", "18446744073709551615,5"),
        ("SLURMD_NODENAME", "node7\u{1b}[2J"),
    ] {
        let error = changed(&[(variable, value)]).unwrap_err().to_string();
        let named = format!("{variable}=`{}`", Escaped::new(value));
        assert!(error.starts_with(&named), "{error} does not name {named}");
    }
    // Of two that do not go together, the one that is out of range is named.
    for (variable, value, named) in [
        ("SLURM_STEP_NUM_TASKS", "3", "SLURM_PROCID=`3`"),
        ("SLURM_STEP_NUM_NODES", "1", "SLURM_NODEID=`1`"),
    ] {
        let error = changed(&[(variable, value)]).unwrap_err().to_string();
        assert!(error.starts_with(named), "{error} does not name {named}");
    }
    let error = changed(&[("SLURM_PROCID", "4")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "SLURM_PROCID=`4`: not a whole number from 0 to 3"
    );
    let error = changed(&[("SLURM_STEP_NODELIST", "node[1-")]).unwrap_err();
    let text =
        "SLURM_STEP_NODELIST=`node[1-`: `node[1-`: a bracket that is not closed, or not opened";
    assert_eq!(error.to_string(), text);
}

#[test]
fn a_variable_that_is_missing_is_named() {
    for name in [
        "SLURM_JOB_ID",
        "SLURM_PROCID",
        "SLURM_LOCALID",
        "SLURM_NODEID",
    ] {
        let error = changed(&[(name, "")]).unwrap_err();
        assert_eq!(error, Error::Missing { variable: name });
    }
}
