//! What the dictionary in an official checkpoint means.
//!
//! | key | value |
//! |---|---|
//! | `encoder`, `predictor`, `target_encoder` | state dictionaries, keys after `module.` if run in parallel |
//! | `opt` | AdamW's: `state` by number of the parameter, and `param_groups`, which number them |
//! | `scaler` | of the gradient scaler, or `None`; not needed here |
//! | `epoch` | whole epochs done |
//! | `loss` | mean over the last epoch |
//! | `batch_size`, `world_size`, `lr` | as configured |
//!
//! Other files of `torch.save` are read too, as far as they hold networks: [`names`](crate::names) tells which tensors
//! are whose, in dictionaries inside each other. Of the rest only what is asked for must be there and right.

use std::borrow::Borrow;
use std::path::Path;

use super::archive::Archive;
use super::fault::{Cause, Fault};
use super::optimizer::Optimizer;
use super::pickle::{Item, Value};
use crate::Error;
use crate::networks::Networks;
use crate::weights::Data;

/// Keys of an official checkpoint beside its networks.
const BESIDE: [&str; 7] = [
    "opt",
    "scaler",
    "epoch",
    "loss",
    "batch_size",
    "world_size",
    "lr",
];
/// Most dictionaries inside each other in which tensors are looked for.
const MAX_DEPTH: usize = 4;
/// Longest name of a tensor within its dictionary, in bytes.
const MAX_NAME: usize = 256;
/// Most tensors in dictionaries; the largest official model has under 1,500.
const MAX_TENSORS: usize = 1 << 16;

/// A checkpoint of the official code, or another file of networks.
#[derive(Debug)]
pub struct Checkpoint<'a> {
    /// The networks.
    pub networks: Networks<'a>,
    /// Whole epochs done.
    pub epoch: Result<Option<u64>, Fault>,
    /// Mean loss of the last epoch, where it is a number.
    pub loss: Option<f64>,
    /// Images of a step on one rank.
    pub batch_size: Option<u64>,
    /// Ranks.
    pub world_size: Option<u64>,
}

impl<'a> Checkpoint<'a> {
    /// Takes the checkpoint out of the archive of the file `path`.
    ///
    /// # Errors
    /// [`Error::Official`] with the byte of a value that has no place in a network, and those of [`Networks::gather`].
    pub fn read(path: &Path, archive: &Archive<'a>) -> Result<Checkpoint<'a>, Error> {
        let root = archive.root();
        let networks = networks(path, &[(path, archive)])?;
        let number = |key| match root.find(key)? {
            Some(item) => Ok(Some((item, archive.number(item)?))),
            None => Ok(None),
        };
        let count = |key| match number(key)? {
            None => Ok(None),
            // Whole numbers that float64 has.
            Some((_, value)) if value.fract() == 0.0 && (0.0..=1e15).contains(&value) => {
                Ok(Some(value as u64))
            }
            Some((item, value)) => {
                Err(item.content(format!("`{key}` is {value}, expected a whole number")))
            }
        };
        Ok(Checkpoint {
            networks,
            epoch: count("epoch"),
            loss: number("loss").ok().flatten().map(|(_, loss)| loss),
            batch_size: count("batch_size").ok().flatten(),
            world_size: count("world_size").ok().flatten(),
        })
    }

    /// Takes AdamW's state out of the archive, where it has one.
    ///
    /// # Errors
    /// A [`Fault`] with the byte of the value that the official code does not write in its place.
    pub fn optimizer(archive: &Archive<'a>) -> Result<Option<Optimizer<'a>>, Fault> {
        let found = archive.root().find("opt")?;
        let found = found.filter(|opt| !matches!(opt.value(), Value::None));
        found.map(|opt| Optimizer::read(archive, opt)).transpose()
    }
}

/// Returns the networks in archives that belong together, each with its file; `path` is what they are called.
///
/// # Errors
/// [`Error::Official`] with the byte of a value that has no place in a network, and those of [`Networks::gather`].
pub fn networks<'a, A: Borrow<Archive<'a>>>(
    path: &Path,
    archives: &[(&Path, A)],
) -> Result<Networks<'a>, Error> {
    let mut found = Vec::new();
    for (file, archive) in archives {
        let archive = archive.borrow();
        let mut inside = Vec::new();
        collect(archive.root(), "", 0, &mut inside)
            .map_err(|fault| Error::official(file, fault))?;
        let with_archive = |(name, item)| (name, (*file, archive, item));
        found.extend(inside.into_iter().map(with_archive));
    }
    Networks::gather(path, found, |name, (file, archive, item)| {
        let tensor = item.tensor().and_then(|tensor| archive.elements(tensor));
        let tensor = tensor.map_err(|fault| Error::official(file, fault))?;
        Data::try_from(tensor).map_err(|cause| Error::Tensor {
            path: file.to_owned(),
            name: name.to_owned(),
            cause,
        })
    })
}

/// Finds the tensors in dictionaries, and whatever else stands under the name of one.
fn collect<'t, 'a>(
    item: Item<'t, 'a>,
    prefix: &str,
    depth: usize,
    found: &mut Vec<(String, Item<'t, 'a>)>,
) -> Result<(), Fault> {
    for (key, value) in item.entries()? {
        let Value::Text(key) = key.value() else {
            continue; // as the parameters' numbers in an optimiser's state
        };
        if key.len() > MAX_NAME || (depth == 0 && BESIDE.contains(key)) {
            continue;
        }
        let name = format!("{prefix}{key}");
        match value.value() {
            Value::Dict(_) if depth < MAX_DEPTH => {
                collect(value, &format!("{name}."), depth + 1, found)?;
            }
            Value::Tensor(_) | Value::Foreign(_) if found.len() < MAX_TENSORS => {
                found.push((name, value));
            }
            Value::Tensor(_) | Value::Foreign(_) => {
                let cause = format!("more than {MAX_TENSORS} tensors");
                return Err(value.fault(Cause::TooMuch(cause)));
            }
            _ => {}
        }
    }
    Ok(())
}
