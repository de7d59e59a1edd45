//! Where a process stands among those that were started with it, read from its environment.
//!
//! The variables are those of `torchrun`, which `trainer launch` gives its ranks as well and which a person can set:
//! `RANK`, `WORLD_SIZE`, `LOCAL_RANK`, `LOCAL_WORLD_SIZE`, `MASTER_ADDR`, `MASTER_PORT`. In a step of a SLURM job, that
//! `srun` started, they are made from SLURM's own.

use super::slurm::Step;
use super::{Error, World};

/// Variable that names the run and the attempt at it: processes of another one are not let in.
pub(crate) const RUN: &str = "IJEPA_RUN";
/// Variable of `torchrun`: its agent serves the store already.
pub(crate) const IS_SERVED: &str = "TORCHELASTIC_USE_AGENT_STORE";
/// Most processes of a run that the variables may speak of.
const MOST: u32 = 65_536;

/// A process's place, and where all of them meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which of them it is.
    pub world: World,
    /// Where they meet; processes that are alone meet nobody.
    pub meeting: Option<Meeting>,
}

/// The place where the processes of a run meet: a store on a port of one of their machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meeting {
    /// Name or address of the machine.
    pub host: String,
    /// Port.
    pub port: u16,
    /// True if somebody serves it already; otherwise the first process does.
    pub is_served: bool,
    /// The run, and the attempt at it.
    pub run: String,
}

impl Place {
    /// Reads it from the variables of this process; without any, the process is alone.
    ///
    /// # Errors
    /// [`Error::Variable`] for a variable that is missing, or that says what cannot be.
    pub fn from_environment() -> Result<Place, Error> {
        Place::from_variables(&|name| std::env::var(name).ok())
    }

    /// Reads it from variables.
    pub(super) fn from_variables(get: &dyn Fn(&str) -> Option<String>) -> Result<Place, Error> {
        if get("RANK").is_some() || get("WORLD_SIZE").is_some() {
            return Place::of_torch(get);
        }
        match Step::from_variables(get)? {
            Some(step) => Ok(Place::of_slurm(&step, super::address::resolves)),
            None => Ok(Place::alone()),
        }
    }

    fn of_slurm(step: &Step, resolves: impl FnOnce(&str) -> bool) -> Place {
        let world = World {
            rank: step.rank,
            world: step.world,
            local_rank: step.local_rank,
            local_world: step.local_world,
        };
        let meeting = (step.world > 1).then(|| Meeting {
            host: step.master(resolves).to_owned(),
            port: step.port(),
            is_served: false,
            run: step.run_identity(),
        });
        Place { world, meeting }
    }

    /// Returns the place of a process that is alone.
    pub fn alone() -> Place {
        Place {
            world: World::alone(),
            meeting: None,
        }
    }

    fn of_torch(get: &dyn Fn(&str) -> Option<String>) -> Result<Place, Error> {
        let world = World {
            rank: number(get, "RANK", None)?,
            world: number(get, "WORLD_SIZE", None)?,
            local_rank: number(get, "LOCAL_RANK", Some(0))?,
            local_world: 1,
        };
        at_most("WORLD_SIZE", world.world, "what any run has", MOST)?;
        below("RANK", world.rank, "WORLD_SIZE", world.world)?;
        below("LOCAL_RANK", world.local_rank, "WORLD_SIZE", world.world)?;
        let local_world = number(get, "LOCAL_WORLD_SIZE", Some(world.local_rank + 1))?;
        at_most("LOCAL_WORLD_SIZE", local_world, "WORLD_SIZE", world.world)?;
        below(
            "LOCAL_RANK",
            world.local_rank,
            "LOCAL_WORLD_SIZE",
            local_world,
        )?;
        let world = World {
            local_world,
            ..world
        };
        if world.world == 1 {
            return Ok(Place {
                world,
                meeting: None,
            });
        }
        let named = |name: &str| get(name).filter(|value| !value.is_empty());
        let host = named("MASTER_ADDR").ok_or_else(|| missing("MASTER_ADDR", world.world))?;
        let port: u16 = number(get, "MASTER_PORT", None)?;
        let is_served = get(IS_SERVED).is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let attempt = get("TORCHELASTIC_RESTART_COUNT").unwrap_or_default();
        let run = named(RUN).unwrap_or_else(|| match named("TORCHELASTIC_RUN_ID") {
            // An elastic job may start again with other nodes, and count attempts from 0.
            Some(id) => format!("{id}/{}/{attempt}/{port}", world.world),
            // Not by the host, which may have several names.
            None => format!("by hand at {port}"),
        });
        Ok(Place {
            world,
            meeting: Some(Meeting {
                host,
                port,
                is_served,
                run,
            }),
        })
    }

    /// Returns the variables that give another process this place.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let World {
            rank,
            world,
            local_rank,
            local_world,
        } = self.world;
        let mut variables = vec![
            ("RANK", rank.to_string()),
            ("WORLD_SIZE", world.to_string()),
            ("LOCAL_RANK", local_rank.to_string()),
            ("LOCAL_WORLD_SIZE", local_world.to_string()),
        ];
        if let Some(meeting) = &self.meeting {
            let is_served = if meeting.is_served { "True" } else { "False" };
            variables.extend([
                ("MASTER_ADDR", meeting.host.clone()),
                ("MASTER_PORT", meeting.port.to_string()),
                (IS_SERVED, is_served.to_owned()),
                (RUN, meeting.run.clone()),
            ]);
        }
        variables
    }
}

/// Reads a whole number.
fn number<T: std::str::FromStr>(
    get: &dyn Fn(&str) -> Option<String>,
    name: &'static str,
    missing: Option<T>,
) -> Result<T, Error> {
    match (get(name), missing) {
        (None, Some(missing)) => Ok(missing),
        (None, None) => Err(Error::Variable {
            name,
            value: String::new(),
            problem: "is not set, though others of its kind are".to_owned(),
        }),
        (Some(value), _) => value.trim().parse().map_err(|_| Error::Variable {
            name,
            problem: "is no whole number that fits".to_owned(),
            value,
        }),
    }
}

fn below(name: &'static str, value: u32, of: &str, bound: u32) -> Result<(), Error> {
    match value < bound {
        true => Ok(()),
        false => Err(beyond(
            name,
            value,
            format!("must be below {of}, which is {bound}"),
        )),
    }
}

fn at_most(name: &'static str, value: u32, of: &str, bound: u32) -> Result<(), Error> {
    match value <= bound {
        true => Ok(()),
        false => Err(beyond(name, value, format!("is more than {of}, {bound}"))),
    }
}

fn beyond(name: &'static str, value: u32, problem: String) -> Error {
    Error::Variable {
        name,
        value: value.to_string(),
        problem,
    }
}

fn missing(name: &'static str, world: u32) -> Error {
    Error::Variable {
        name,
        value: String::new(),
        problem: format!("is not set; {world} processes need an address to meet at"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn place(variables: &[(&str, &str)]) -> Result<Place, Error> {
        let variables: HashMap<&str, &str> = variables.iter().copied().collect();
        Place::from_variables(&|name| variables.get(name).map(|&value| value.to_owned()))
    }

    #[test]
    fn what_is_given_is_read_back() {
        assert_eq!(place(&[]).unwrap(), Place::alone());
        let given = Place {
            world: World::alone().member(2, 4),
            meeting: Some(Meeting {
                host: "10.0.0.7".into(),
                port: 29_500,
                is_served: true,
                run: "a run/3".into(),
            }),
        };
        let variables = given.variables();
        let variables: Vec<_> = variables
            .iter()
            .map(|(name, value)| (*name, &**value))
            .collect();
        assert_eq!(place(&variables).unwrap(), given);
    }

    #[test]
    fn an_attempt_of_torchrun_is_not_the_one_before() {
        let run = |world, attempt| {
            let place = place(&[
                ("RANK", "0"),
                ("WORLD_SIZE", world),
                ("MASTER_ADDR", "node1"),
                ("MASTER_PORT", "29500"),
                ("TORCHELASTIC_RUN_ID", "job"),
                ("TORCHELASTIC_RESTART_COUNT", attempt),
            ]);
            place.unwrap().meeting.unwrap().run
        };
        assert_ne!(run("2", "0"), run("2", "1"));
        assert_ne!(run("2", "0"), run("3", "0"), "another number of nodes");
    }

    #[test]
    fn ranks_by_hand_may_call_their_host_by_several_names() {
        let run = |host, port| {
            let more = [("MASTER_ADDR", host), ("MASTER_PORT", port)];
            let place = place(&[&[("RANK", "0"), ("WORLD_SIZE", "2")], &more[..]].concat());
            place.unwrap().meeting.unwrap().run
        };
        assert_eq!(run("node1", "29500"), "by hand at 29500");
        assert_eq!(run("node1", "29500"), run("10.0.0.1", "29500"));
        assert_ne!(run("node1", "29500"), run("node1", "29501"));
    }

    #[test]
    fn a_node_has_as_many_ranks_as_the_local_one_shows() {
        let meeting = [("MASTER_ADDR", "a"), ("MASTER_PORT", "29500")];
        let local = |more: &[(&str, &str)]| {
            let world = [("RANK", "3"), ("WORLD_SIZE", "4")];
            let world = place(&[&world, &meeting[..], more].concat()).unwrap().world;
            (world.local_rank, world.local_world)
        };
        assert_eq!(local(&[]), (0, 1));
        assert_eq!(local(&[("LOCAL_RANK", "1")]), (1, 2));
        assert_eq!(
            local(&[("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "4")]),
            (1, 4)
        );
    }

    #[test]
    fn what_cannot_be_is_named() {
        let two = [("RANK", "1"), ("WORLD_SIZE", "2")];
        for (variables, expected) in [
            (vec![("RANK", "0")], "WORLD_SIZE"),
            (vec![("RANK", "2"), ("WORLD_SIZE", "2")], "RANK=2"),
            (vec![("RANK", "-1"), ("WORLD_SIZE", "2")], "RANK=-1"),
            (
                vec![("RANK", "0"), ("WORLD_SIZE", "65537")],
                "WORLD_SIZE=65537: is more than",
            ),
            (
                [&two[..], &[("LOCAL_RANK", "4294967295")]].concat(),
                "LOCAL_RANK=4294967295: must be below WORLD_SIZE",
            ),
            (
                [&two[..], &[("LOCAL_WORLD_SIZE", "3")]].concat(),
                "LOCAL_WORLD_SIZE=3: is more than WORLD_SIZE, 2",
            ),
            (
                [&two[..], &[("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "1")]].concat(),
                "LOCAL_RANK=1: must be below LOCAL_WORLD_SIZE, which is 1",
            ),
            (two.to_vec(), "MASTER_ADDR"),
            ([&two[..], &[("MASTER_ADDR", "a")]].concat(), "MASTER_PORT"),
            (
                [&two[..], &[("MASTER_ADDR", "a"), ("MASTER_PORT", "70000")]].concat(),
                "MASTER_PORT=70000",
            ),
        ] {
            let error = place(&variables).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
