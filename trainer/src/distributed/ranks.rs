//! What connected ranks do together.

use tch::{Kind, Tensor};

use super::obituary::{LastWords, Obituaries};
use super::store::{Served, Store};
use super::{Error, World};
use crate::stop::{self, Stop};
use crate::torch::shim::distributed::{Group, Reducer};

/// This process among the ranks of a run, connected to the others if there are any.
#[derive(Debug)]
pub struct Ranks {
    world: World,
    peers: Option<Peers>,
}

/// The other ranks.
#[derive(Debug)]
pub(super) struct Peers {
    /// Sums the gradients; dropped before the group that it uses.
    reducer: Option<Reducer>,
    group: Group,
    obituaries: Obituaries,
    /// Who each rank is, for messages.
    names: Vec<String>,
    stop: Stop,
    /// The signal for which all ranks stop after this step.
    agreed: Option<i32>,
    /// The store, if this rank serves it.
    _served: Option<Served>,
}

impl Peers {
    pub(super) fn new(
        group: Group,
        store: Store,
        run: String,
        names: Vec<String>,
        stop: Stop,
        served: Option<Served>,
    ) -> Peers {
        Peers {
            reducer: None,
            group,
            obituaries: Obituaries::new(store, run),
            names,
            stop,
            agreed: None,
            _served: served,
        }
    }
}

impl Ranks {
    /// Returns the only rank of a run.
    pub fn alone() -> Ranks {
        Ranks {
            world: World::alone(),
            peers: None,
        }
    }

    pub(super) fn with(world: World, peers: Peers) -> Ranks {
        Ranks {
            world,
            peers: Some(peers),
        }
    }

    /// Returns this rank's place.
    pub fn world(&self) -> World {
        self.world
    }

    /// Returns the signal for which this run stops: the one that this process got, if it is alone, and else the one on
    /// which all ranks have [agreed](Ranks::agree).
    pub fn asked(&self, stop: &Stop) -> Option<&'static str> {
        match &self.peers {
            None => stop.asked(),
            Some(peers) => peers.agreed.map(stop::name),
        }
    }

    /// Returns the signal that asked this process to stop; 0 if none did.
    pub fn own_signal(&self) -> i32 {
        let peers = self.peers.as_ref();
        peers.and_then(|peers| peers.stop.signal()).unwrap_or(0)
    }

    /// Takes note of what [`Ranks::own_signal`] is on every rank: one that was asked to stop stops all.
    pub fn agree(&mut self, signals: impl Iterator<Item = i32>) {
        if let Some(peers) = &mut self.peers {
            peers.agreed = signals.max().filter(|&signal| signal > 0).or(peers.agreed);
        }
    }

    /// Tells if there is no other rank.
    pub fn are_one(&self) -> bool {
        self.peers.is_none()
    }

    /// Returns what a rank is called in messages.
    pub fn name(&self, rank: usize) -> String {
        let names = self.peers.as_ref().map(|peers| &peers.names);
        names
            .and_then(|names| names.get(rank).cloned())
            .unwrap_or_else(|| format!("rank {rank}"))
    }

    /// Returns every rank's numbers, of which each has as many.
    ///
    /// # Errors
    /// [`Error::Lost`].
    pub fn gather(&self, own: &[f64]) -> Result<Vec<Vec<f64>>, Error> {
        let Some(peers) = &self.peers else {
            return Ok(vec![own.to_vec()]);
        };
        let gathered = Tensor::f_from_slice(own)
            .map_err(Into::into)
            .and_then(|own| peers.group.all_gather(&own));
        let gathered = gathered.map_err(|cause| self.lost(cause))?;
        gathered.iter().map(numbers).collect()
    }

    /// Returns every rank's text.
    ///
    /// # Errors
    /// [`Error::Lost`], or [`Error::Nonsense`].
    pub fn gather_text(&self, own: &str) -> Result<Vec<String>, Error> {
        let Some(peers) = &self.peers else {
            return Ok(vec![own.to_owned()]);
        };
        let lengths = self.gather(&[own.len() as f64])?;
        let lengths = lengths.iter().map(|length| length[0] as usize);
        let longest = lengths.clone().max().unwrap_or_default().max(1);
        let mut bytes = own.as_bytes().to_vec();
        bytes.resize(longest, 0);
        let gathered = Tensor::f_from_slice(&bytes)
            .map_err(Into::into)
            .and_then(|own| peers.group.all_gather(&own));
        let gathered = gathered.map_err(|cause| self.lost(cause))?;
        let texts = gathered.iter().zip(lengths).enumerate();
        let text = |(rank, (tensor, length)): (usize, (&Tensor, usize))| {
            let mut bytes = Vec::<u8>::try_from(tensor).map_err(crate::Error::from)?;
            bytes.truncate(length);
            String::from_utf8(bytes).map_err(|_| Error::Nonsense {
                rank: self.name(rank),
            })
        };
        texts.map(text).collect()
    }

    /// Returns what rank 0 says, which alone gives a text.
    ///
    /// # Errors
    /// [`Error::Lost`], or [`Error::Nonsense`].
    pub fn hear(&self, own: Option<&str>) -> Result<String, Error> {
        let mut texts = self.gather_text(own.unwrap_or_default())?;
        Ok(texts.swap_remove(0))
    }

    /// Overwrites the tensors by those of rank 0.
    ///
    /// # Errors
    /// [`Error::Lost`].
    pub fn take_over<'a>(
        &self,
        tensors: impl IntoIterator<Item = &'a Tensor>,
    ) -> Result<(), Error> {
        let Some(peers) = &self.peers else {
            return Ok(());
        };
        let told = peers.group.broadcast(tensors, 0);
        told.map_err(|cause| self.lost(cause))
    }

    /// Has the gradients of these parameters summed over all ranks from now on; all of them require gradients. See
    /// [`Reducer::new`] for the rest.
    ///
    /// # Errors
    /// From libtorch.
    pub fn sum_gradients_of<'a>(
        &mut self,
        parameters: impl IntoIterator<Item = &'a Tensor>,
        as_bfloat16: bool,
        bucket_bytes: usize,
    ) -> Result<(), Error> {
        if let Some(peers) = &mut self.peers {
            let reducer = Reducer::new(&peers.group, parameters, as_bfloat16, bucket_bytes)?;
            peers.reducer = Some(reducer);
        }
        Ok(())
    }

    /// Does a backward pass, the last of a step, in which the gradients are summed over all ranks.
    ///
    /// # Errors
    /// [`Error::Lost`], or that of the pass.
    pub fn sum_gradients(
        &mut self,
        backward: impl FnOnce() -> Result<(), crate::Error>,
    ) -> Result<(), Error> {
        let Some(reducer) = self.peers.as_mut().and_then(|peers| peers.reducer.as_mut()) else {
            return Ok(backward()?);
        };
        let summed = reducer
            .expect()
            .and_then(|()| backward())
            .and_then(|()| reducer.check());
        summed.map_err(|error| match error {
            torch @ crate::Error::Torch { .. } => self.lost(torch),
            other => other.into(),
        })
    }

    /// Returns what can say why this rank leaves, so that the others can name it.
    pub fn last_words(&self) -> LastWords {
        LastWords {
            rank: self.world.rank,
            obituaries: self.peers.as_ref().map(|peers| peers.obituaries.clone()),
        }
    }

    /// Says who is at fault for what libtorch says.
    fn lost(&self, cause: crate::Error) -> Error {
        let Some(peers) = &self.peers else {
            return cause.into();
        };
        if !is_of_a_peer(&cause.to_string()) {
            return cause.into();
        }
        let who = peers.obituaries.find(self.world.rank, &peers.names);
        Error::Lost { who, cause }
    }
}

/// Tells if a failure of libtorch is that of a connection: Gloo names only addresses, and no kind.
fn is_of_a_peer(text: &str) -> bool {
    ["gloo", "Application timeout", "Operation timed out", "NCCL"]
        .iter()
        .any(|sign| text.contains(sign))
}

fn numbers(tensor: &Tensor) -> Result<Vec<f64>, Error> {
    debug_assert_eq!(tensor.kind(), Kind::Double);
    Ok(Vec::<f64>::try_from(tensor).map_err(crate::Error::from)?)
}
