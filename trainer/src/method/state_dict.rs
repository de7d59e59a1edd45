//! Sets of tensors by name: what checkpoints hold of networks and optimiser.

use std::collections::{BTreeMap, BTreeSet};

use tch::Tensor;

use crate::Error;

/// Copies `from` into the tensors of `into`, which must have the same names, shapes and types.
///
/// Checks all of them before it writes any.
///
/// # Errors
/// [`Error::MissingTensor`], [`Error::UnknownTensor`] or [`Error::TensorForm`] where the two sets differ.
pub(crate) fn load(
    into: &[(String, Tensor)],
    from: &BTreeMap<String, Tensor>,
) -> Result<(), Error> {
    let form = |tensor: &Tensor| -> Result<String, Error> {
        Ok(format!("{:?} {:?}", tensor.f_kind()?, tensor.size()))
    };
    for (name, tensor) in into {
        let given = from
            .get(name)
            .ok_or_else(|| Error::MissingTensor(name.clone()))?;
        let (expected, found) = (form(tensor)?, form(given)?);
        if found != expected {
            return Err(Error::TensorForm {
                name: name.clone(),
                expected,
                found,
            });
        }
    }
    let known: BTreeSet<&String> = into.iter().map(|(name, _)| name).collect();
    if let Some(unknown) = from.keys().find(|name| !known.contains(name)) {
        return Err(Error::UnknownTensor(unknown.clone()));
    }
    tch::no_grad(|| {
        for (name, tensor) in into {
            tensor.shallow_clone().f_copy_(&from[name])?;
        }
        Ok(())
    })
}
