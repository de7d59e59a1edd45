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
mod tests;
