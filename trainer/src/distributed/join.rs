//! From a place to ranks that are connected.

use std::time::{Duration, Instant};

use super::ranks::{Peers, Ranks};
use super::store::{Served, Store};
use super::{Error, Meeting, Place, World, address};
use crate::stop::Stop;
use crate::torch::shim::distributed::{Device, Group};

/// Time of one attempt of two ranks to connect; libtorch makes up to five.
const CONNECT: Duration = Duration::from_secs(20);
/// Time in which another run may be what the last attempt at this one left.
const LEFTOVER: Duration = Duration::from_secs(15);
/// Between two looks for a stop while others are waited for.
const LOOK: Duration = Duration::from_secs(1);

/// How ranks come together, and how patient they are.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The network interface at which this rank listens; by default the one that reaches the meeting place.
    pub interface: Option<String>,
    /// Time in which all ranks must have come, and in which each must do its part of a step.
    pub patience: Duration,
}

/// Meets the other ranks and connects with them; `None` if a stop was asked for before all had come.
///
/// # Errors
/// Who did not come, or why they cannot connect.
pub fn join(place: &Place, terms: &Terms, stop: &Stop) -> Result<Option<Ranks>, Error> {
    let world = place.world;
    let Some(meeting) = &place.meeting else {
        return Ok(Some(Ranks::alone()));
    };
    let served = (world.rank == 0 && !meeting.is_served)
        .then(|| Served::of(meeting))
        .transpose()?;
    let Some(store) = Store::connect(meeting, terms.patience, stop)? else {
        return Ok(None);
    };
    is_ours(&store, meeting, world)?;
    let run = &meeting.run;
    announce(&store, run, world)?;
    if !all_came(&store, run, world, terms, stop)? {
        return Ok(None);
    }
    let names = (0..world.world).map(|rank| store.get(&name_key(run, rank), LOOK));
    let names = names.collect::<Result<Vec<_>, _>>()?;
    let device = address::device(meeting, terms.interface.as_deref())?;
    let group = connect(&store, run, world, &device, terms.patience)?;
    tracing::debug!("{} ranks: {}", world.world, names.join("; "));
    let peers = Peers::new(group, store, run.clone(), names, stop.clone(), served);
    Ok(Some(Ranks::with(world, peers)))
}

/// Makes sure that this run meets there, and no other.
fn is_ours(store: &Store, meeting: &Meeting, world: World) -> Result<(), Error> {
    const KEY: &str = "ijepa/run";
    if world.rank == 0 {
        return store.set(KEY, &meeting.run);
    }
    let begun = Instant::now();
    loop {
        // Where rank 0 has not said so yet, waiting for all ranks will tell.
        let theirs = match store.has(KEY)? {
            true => store.get(KEY, LOOK)?,
            false => return Ok(()),
        };
        if theirs == meeting.run {
            return Ok(());
        }
        if begun.elapsed() > LEFTOVER {
            return Err(Error::OtherRun {
                place: store.place().to_owned(),
                theirs,
                ours: meeting.run.clone(),
            });
        }
        std::thread::sleep(LOOK);
    }
}

/// Says that this rank has come, which only one process may say.
fn announce(store: &Store, run: &str, world: World) -> Result<(), Error> {
    let rank = world.rank;
    if store.add(&format!("{run}/claim/{rank}"), 1)? != 1 {
        let by = store.get(&name_key(run, rank), LOOK);
        return Err(Error::Twice {
            rank,
            by: by.unwrap_or_else(|_| "another process".to_owned()),
        });
    }
    let host = shardtool::disk::host_name();
    let name = format!("rank {rank} (process {} on {host})", std::process::id());
    store.set(&name_key(run, rank), &name)?;
    store.add(&here_key(run), 1).map(drop)
}

/// Waits until all ranks have come; false if a stop was asked for.
fn all_came(
    store: &Store,
    run: &str,
    world: World,
    terms: &Terms,
    stop: &Stop,
) -> Result<bool, Error> {
    let begun = Instant::now();
    let mut is_said = false;
    while !store.reaches(&here_key(run), world.world.into(), LOOK)? {
        if stop.asked().is_some() {
            return Ok(false);
        }
        let waited = begun.elapsed();
        if waited > terms.patience {
            let mut ranks = Vec::new();
            for rank in 0..world.world {
                if !store.has(&name_key(run, rank))? {
                    ranks.push(rank);
                }
            }
            return Err(Error::Missing {
                ranks,
                world: world.world,
                waited,
            });
        }
        if !std::mem::replace(&mut is_said, true) {
            tracing::info!("waiting for all {} ranks at {}", world.world, store.place());
        }
    }
    Ok(true)
}

fn connect(
    store: &Store,
    run: &str,
    world: World,
    device: &Device,
    patience: Duration,
) -> Result<Group, Error> {
    let (Device::Interface(at) | Device::Address(at)) = device;
    let at = at.clone();
    let (prefix, device) = (format!("{run}/gloo"), device.clone());
    let joined = store.within(CONNECT * 6, move |store| {
        let waits = [CONNECT, patience];
        Group::join(store, &prefix, world.rank, world.world, &device, waits)
    });
    joined.map_err(|error| match error {
        Error::Store { cause, .. } => Error::Connect {
            world: world.world,
            at,
            cause,
        },
        other => other,
    })
}

fn name_key(run: &str, rank: u32) -> String {
    format!("{run}/rank/{rank}")
}

fn here_key(run: &str) -> String {
    format!("{run}/here")
}
