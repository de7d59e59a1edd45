//! Where a run begins: rank 0 decides, the others hear of it.

use serde::{Deserialize, Serialize};

use super::Error;
use crate::distributed::{self, Ranks};
use crate::run::Begin;

/// What rank 0 found.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Beginning {
    /// The checkpoint to begin with, if there is one, and the images of a step.
    At(Box<Begin>, u64),
    /// This signal asked for a stop before that was known.
    Stopped(i32),
}

/// Tells what rank 0 found, `own` there, to all ranks. Why it found nothing is an error on all of them.
pub(super) fn share(
    own: Option<Result<Beginning, Error>>,
    ranks: &Ranks,
) -> Result<Beginning, Error> {
    if ranks.are_one()
        && let Some(own) = own
    {
        return own;
    }
    let told = own.as_ref().map(|own| {
        let told: Result<&Beginning, String> = own.as_ref().map_err(ToString::to_string);
        serde_json::to_string(&told).unwrap_or_default()
    });
    let heard = ranks.hear(told.as_deref())?;
    match (own, serde_json::from_str(&heard)) {
        (Some(own), _) => own,
        (None, Ok(Ok(beginning))) => Ok(beginning),
        (None, Ok(Err(reason))) => Err(distributed::Error::NotBegun { reason }.into()),
        (None, Err(_)) => Err(distributed::Error::Nonsense {
            rank: ranks.name(0),
        }
        .into()),
    }
}
