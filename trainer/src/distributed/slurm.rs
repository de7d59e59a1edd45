//! The place of this process in a SLURM job step, as the variables of `srun` tell it.
//!
//! Only a step counts. The batch shell of a job has `SLURM_PROCID=0` and the job's `SLURM_NTASKS` as well, so a program
//! that it runs without `srun` would take itself for the first of many: without `SLURM_STEP_ID` there is no place here.
//! The shell that `salloc` may start has a step number, out of the range that steps count in, and is none either.
//!
//! What describes this step is preferred to what describes the job, which may be larger.

use shardtool::Escaped;

use super::nodelist;

/// The largest number of a step that `srun` gives; those above stand for shells and SLURM's own helpers.
const LAST_STEP: u64 = 0xffff_fff0;

/// The first of the ports that [`Step::port`] gives: above those of services, below those that Linux hands out.
const FIRST_PORT: u16 = 20_000;

/// How many ports there are to give.
const PORTS: u64 = 12_000;

/// Ports between those of two steps in a row. It is prime to [`PORTS`] and long, so that a step does not meet the next
/// job.
const STRIDE: u64 = 5_003;

/// The reason why SLURM's variables do not give a place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A variable that srun sets is not there.
    #[error("{variable} is not set, but SLURM_STEP_ID is: was the environment cut down?")]
    Missing {
        /// The variable; the first where one of several would do.
        variable: &'static str,
    },
    /// A variable does not hold a number of the right range.
    #[error(
        "{variable}=`{}`: not a whole number from {low} to {high}",
        Escaped::new(value)
    )]
    Number {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// The smallest number that makes sense.
        low: u64,
        /// The largest one.
        high: u64,
    },
    /// A list of nodes that cannot be read.
    #[error("{variable}=`{}`: {cause}", Escaped::new(value))]
    Nodes {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        cause: nodelist::Error,
    },
    /// A list of tasks per node that cannot be read, or that does not fit the numbers of nodes and tasks.
    #[error(
        "{variable}=`{}`: not the tasks of {nodes} node(s), {tasks} in all",
        Escaped::new(value)
    )]
    TasksPerNode {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// Nodes of the step.
        nodes: u32,
        /// Tasks of the step.
        tasks: u32,
    },
    /// The step has another number of nodes than names of nodes.
    #[error("{variable}=`{}`: {found} node(s) of {expected}", Escaped::new(value))]
    NodeCount {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// Names in it.
        found: usize,
        /// Nodes of the step.
        expected: u32,
    },
    /// The node is not the one that the step's list has in this place.
    #[error(
        "SLURMD_NODENAME=`{}`, but node {node} of the step is `{}`: are these variables of another job?",
        Escaped::new(found),
        Escaped::new(listed)
    )]
    OtherNode {
        /// Number of the node in the step.
        node: u32,
        /// The node of that number.
        listed: String,
        /// The node that this is.
        found: String,
    },
}

/// The place of this process in a job step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Number of the job; each element of an array has its own. A job that is requeued keeps it.
    pub job: u32,
    /// Number of the step in its job, from 0.
    pub step: u32,
    /// How often the job was requeued.
    pub restarts: u32,
    /// Number of this task in the step, from 0.
    pub rank: u32,
    /// Tasks of the step.
    pub world: u32,
    /// Number of this task on its node, from 0.
    pub local_rank: u32,
    /// Tasks on this node.
    pub local_world: u32,
    /// Number of this node in the step, from 0.
    pub node: u32,
    /// Names of the step's nodes.
    pub nodes: Vec<String>,
    /// Address of the host on which srun was called, where that is likely to be the first node.
    launched_from: Option<String>,
}

impl Step {
    /// Returns the place of this process, or `None` outside of a step. `variable` gives the environment.
    ///
    /// # Errors
    /// The variable at fault, with its value.
    pub fn from_variables(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Step>, Error> {
        let read = Variables(&variable);
        if read.one_of(&["SLURM_STEP_ID"]).is_none() {
            return Ok(None);
        }
        let step = read.number(&["SLURM_STEP_ID"], 0, u64::from(u32::MAX))?;
        if step > LAST_STEP {
            return Ok(None);
        }
        let job = read.number(&["SLURM_JOB_ID", "SLURM_JOBID"], 1, u64::from(u32::MAX))?;
        let tasks = ["SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_NPROCS"];
        let world = read.number(&tasks, 1, u64::from(u32::MAX))?;
        let rank = read.number(&["SLURM_PROCID"], 0, world - 1)?;
        let nodes = [
            "SLURM_STEP_NUM_NODES",
            "SLURM_NNODES",
            "SLURM_JOB_NUM_NODES",
        ];
        let count = read.number(&nodes, 1, nodelist::MOST as u64)?;
        let node = read.number(&["SLURM_NODEID"], 0, count - 1)?;

        let per_node = ["SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"];
        let (per_node, value) = read.needed(&per_node)?;
        let local_world = tasks_per_node(&value, count, world)
            .and_then(|tasks| tasks.get(node as usize).copied())
            .ok_or(Error::TasksPerNode {
                variable: per_node,
                value,
                nodes: count as u32,
                tasks: world as u32,
            })?;
        let local_rank = read.number(&["SLURM_LOCALID"], 0, local_world - 1)?;

        let listed = [
            "SLURM_STEP_NODELIST",
            "SLURM_JOB_NODELIST",
            "SLURM_NODELIST",
        ];
        let (list, value) = read.needed(&listed)?;
        let nodes = nodelist::expand(&value).map_err(|cause| Error::Nodes {
            variable: list,
            value: value.clone(),
            cause,
        })?;
        if nodes.len() as u64 != count {
            return Err(Error::NodeCount {
                variable: list,
                value,
                found: nodes.len(),
                expected: count as u32,
            });
        }
        let listed = &nodes[node as usize];
        if let Some((_, found)) = read.one_of(&["SLURMD_NODENAME"])
            && found != *listed
        {
            return Err(Error::OtherNode {
                node: node as u32,
                listed: listed.clone(),
                found,
            });
        }
        let restarts = match read.one_of(&["SLURM_RESTART_COUNT"]) {
            Some(_) => read.number(&["SLURM_RESTART_COUNT"], 0, u64::from(u32::MAX))?,
            None => 0,
        };
        // A batch script runs on the first node of its job, and so does an srun in it.
        let job_nodes = read.one_of(&["SLURM_JOB_NODELIST"]);
        let job_nodes = job_nodes.and_then(|(_, list)| nodelist::expand(&list).ok());
        let same_first = job_nodes.is_none_or(|job_nodes| job_nodes.first() == nodes.first());
        let launched_from = read.one_of(&["SLURM_LAUNCH_NODE_IPADDR"]);
        Ok(Some(Step {
            job: job as u32,
            step: step as u32,
            restarts: restarts as u32,
            rank: rank as u32,
            world: world as u32,
            local_rank: local_rank as u32,
            local_world: local_world as u32,
            node: node as u32,
            nodes,
            launched_from: launched_from.filter(|_| same_first).map(|(_, host)| host),
        }))
    }

    /// Returns the host of rank 0, where ranks meet: the step's first node if its name `resolves`, else the address
    /// from which srun was called.
    ///
    /// Names of nodes do not have to be names of hosts. That address is of the first node when srun stands in a batch
    /// script; called elsewhere, ranks do not find each other there, and say so.
    pub fn master(&self, resolves: impl FnOnce(&str) -> bool) -> &str {
        let first = &self.nodes[0];
        match &self.launched_from {
            Some(address) if !resolves(first) => address,
            _ => first,
        }
    }

    /// Returns the port at which ranks meet: the same in all of a step, from 20000 to 31999.
    ///
    /// Steps of equal number in jobs fewer than 12,000 apart have different ports, and so have the steps of a job; a
    /// job that is requeued has its port again.
    pub fn port(&self) -> u16 {
        let place = u64::from(self.job) + u64::from(self.step) % PORTS * STRIDE;
        FIRST_PORT + (place % PORTS) as u16
    }

    /// Returns a text that no other start of any step has: by it ranks know that they belong together.
    pub fn run_identity(&self) -> String {
        format!("slurm-{}.{}-{}", self.job, self.step, self.restarts)
    }
}

/// Reads what SLURM writes as `2(x3),1`: the tasks of each node. `None` unless they are those of so many nodes and
/// tasks.
fn tasks_per_node(text: &str, nodes: u64, tasks: u64) -> Option<Vec<u64>> {
    let mut counts = Vec::new();
    for part in text.split(',') {
        let (count, times) = match part.split_once("(x") {
            Some((count, times)) => (count, times.strip_suffix(')')?.parse().ok()?),
            None => (part, 1_u64),
        };
        let count: u64 = count.parse().ok()?;
        if count == 0 || times == 0 || times > nodes - counts.len() as u64 {
            return None;
        }
        counts.extend((0..times).map(|_| count));
    }
    let sum = counts
        .iter()
        .try_fold(0_u64, |sum, &count| sum.checked_add(count));
    (counts.len() as u64 == nodes && sum == Some(tasks)).then_some(counts)
}

/// The environment.
struct Variables<'a, F>(&'a F);

impl<F: Fn(&str) -> Option<String>> Variables<'_, F> {
    /// Returns the first of `names` that is set and not empty, with its value.
    fn one_of(&self, names: &[&'static str]) -> Option<(&'static str, String)> {
        names.iter().find_map(|&name| {
            let value = (self.0)(name)?;
            (!value.is_empty()).then_some((name, value))
        })
    }

    /// Returns the first of `names` that is set, which one must be.
    fn needed(&self, names: &[&'static str]) -> Result<(&'static str, String), Error> {
        let variable = names[0];
        self.one_of(names).ok_or(Error::Missing { variable })
    }

    /// Returns the number in the first of `names` that is set.
    fn number(&self, names: &[&'static str], low: u64, high: u64) -> Result<u64, Error> {
        let (variable, value) = self.needed(names)?;
        match value.parse() {
            Ok(number) if (low..=high).contains(&number) => Ok(number),
            _ => Err(Error::Number {
                variable,
                value,
                low,
                high,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
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
}
