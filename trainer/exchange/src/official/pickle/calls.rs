//! What the pickle calls, and what the calls would make: the only part of the language that could do harm.

use shardtool::Escaped;

use super::machine::Machine;
use super::value::{Global, Id, Storage, Tensor, Value};
use crate::official::fault::{Cause, Fault};

/// Most dimensions of a tensor.
const MAX_DIMENSIONS: usize = 8;

impl<'a> Machine<'a> {
    /// Describes what a call would make, of one of the two names that may be called.
    pub(super) fn call(&mut self) -> Result<(), Fault> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let Value::Tuple(arguments) = self.value(arguments) else {
            return Err(self.fault("a call without a tuple of arguments"));
        };
        match self.value(callee) {
            Value::Global(Global::OrderedDict) if arguments.is_empty() => {
                self.push(Value::Dict(Vec::new()))
            }
            Value::Global(Global::RebuildTensor) => {
                let tensor = self.tensor(arguments)?;
                self.push(Value::Tensor(Box::new(tensor)))
            }
            other => {
                let kind = other.kind();
                Err(self.fault(format!(
                    "a call of {kind} with {} arguments",
                    arguments.len()
                )))
            }
        }
    }

    fn tensor(&self, arguments: &[Id]) -> Result<Tensor<'a>, Fault> {
        let &[storage, offset, shape, stride, requires_grad, hooks] = arguments else {
            let count = arguments.len();
            return Err(self.fault(format!("a tensor of {count} arguments, expected 6")));
        };
        let Value::Storage(storage) = self.value(storage) else {
            let kind = self.value(storage).kind();
            return Err(self.fault(format!("a tensor of {kind}, expected a storage")));
        };
        if !matches!(self.value(requires_grad), Value::Bool(_))
            || !matches!(self.value(hooks), Value::Dict(hooks) if hooks.is_empty())
        {
            return Err(self.fault("a tensor with hooks, which would be code"));
        }
        let &Value::Int(offset) = self.value(offset) else {
            return Err(self.fault("a tensor whose offset is no int"));
        };
        let tensor = Tensor {
            storage: **storage,
            offset: u64::try_from(offset)
                .map_err(|_| self.fault(format!("a tensor at offset {offset}")))?,
            shape: self.lengths(shape)?,
            stride: self.lengths(stride)?,
        };
        if tensor.shape.len() != tensor.stride.len() {
            let (lengths, strides) = (tensor.shape.len(), tensor.stride.len());
            return Err(self.fault(format!(
                "a tensor of {lengths} lengths and {strides} strides"
            )));
        }
        if !is_inside(&tensor) {
            let cause = format!(
                "a tensor of {:?} (strides {:?}, offset {}) that its storage `{}` of {} elements does not hold",
                tensor.shape,
                tensor.stride,
                tensor.offset,
                Escaped::new(tensor.storage.key),
                tensor.storage.length
            );
            return Err(self.fault(Cause::Tensor(cause)));
        }
        Ok(tensor)
    }

    fn lengths(&self, tuple: Id) -> Result<Vec<u64>, Fault> {
        let Value::Tuple(items) = self.value(tuple) else {
            return Err(self.fault("a tensor whose lengths are no tuple"));
        };
        if items.len() > MAX_DIMENSIONS {
            return Err(self.fault(format!("a tensor of {} dimensions", items.len())));
        }
        let length = |&id: &Id| match self.value(id) {
            Value::Int(length) => u64::try_from(*length).ok(),
            _ => None,
        };
        let lengths: Option<Vec<u64>> = items.iter().map(length).collect();
        lengths.ok_or_else(|| self.fault("a tensor with a length that is no int of 0 or more"))
    }

    /// Passes over the attributes of a state dictionary, which nothing here needs.
    pub(super) fn build(&mut self) -> Result<(), Fault> {
        let attributes = self.pop()?;
        let Value::Dict(attributes) = self.value(attributes) else {
            return Err(self.fault("attributes that are no dict"));
        };
        let allowed = |key: &Id| matches!(self.value(*key), Value::Text("_metadata"));
        // Looking at many of them again at each place that refers to them would take hours.
        if attributes.len() > 1 || !attributes.iter().all(|(key, _)| allowed(key)) {
            return Err(self.fault("attributes other than a state dictionary's `_metadata`"));
        }
        match self.top()? {
            Value::Dict(_) => Ok(()),
            other => {
                let kind = other.kind();
                Err(self.fault(format!("the pickle sets attributes of {kind}")))
            }
        }
    }

    /// Takes up a reference to a storage: `("storage", type, key, device, length)`.
    pub(super) fn storage(&mut self) -> Result<(), Fault> {
        let reference = self.pop()?;
        let storage = match self.value(reference) {
            Value::Tuple(items) => match items[..] {
                [tag, kind, key, device, length] => {
                    match [tag, kind, key, device, length].map(|id| self.value(id)) {
                        [
                            Value::Text("storage"),
                            Value::Global(Global::Storage(dtype)),
                            Value::Text(key),
                            Value::Text(_),
                            Value::Int(length),
                        ] => u64::try_from(*length).ok().map(|length| Storage {
                            key,
                            dtype: *dtype,
                            length,
                        }),
                        _ => None,
                    }
                }
                _ => None,
            },
            _ => None,
        };
        match storage {
            Some(storage) => self.push(Value::Storage(Box::new(storage))),
            None => Err(self.fault("a reference that is no storage's")),
        }
    }
}

/// Tells whether all elements lie in the storage, and are no more than it has (as those of an expanded tensor would
/// be).
fn is_inside(tensor: &Tensor<'_>) -> bool {
    let length = tensor.storage.length;
    let elements = tensor
        .shape
        .iter()
        .try_fold(1u64, |product, &length| product.checked_mul(length));
    let fits = elements.is_some_and(|elements| elements <= length)
        && length.checked_mul(tensor.storage.dtype.size()).is_some();
    if tensor.shape.contains(&0) {
        // No element, but the product above must not have overflowed on the way.
        return fits && tensor.offset <= length;
    }
    let last = tensor
        .shape
        .iter()
        .zip(&tensor.stride)
        .try_fold(tensor.offset, |sum, (&length, &stride)| {
            sum.checked_add((length - 1).checked_mul(stride)?)
        });
    fits && last.is_some_and(|last| last < length)
}
