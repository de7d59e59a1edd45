//! What the pickle calls, and what the calls would make: the only part of the language that could do harm.

use half::f16;
use shardtool::Escaped;

use super::machine::Machine;
use super::value::{Global, Id, Storage, Tensor, Value};
use crate::official::fault::{Cause, Fault};

/// Most dimensions of a tensor.
const MAX_DIMENSIONS: usize = 8;

impl<'a> Machine<'a> {
    /// Describes what a call would make.
    ///
    /// What is not known is called nowhere: the result stands for it, and can be used for nothing.
    pub(super) fn call(&mut self) -> Result<(), Fault> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let Value::Tuple(arguments) = self.value(arguments) else {
            return Err(self.fault("a call without a tuple of arguments"));
        };
        match self.value(callee) {
            &Value::Foreign(name) => self.push(Value::Foreign(name)),
            Value::Global(Global::OrderedDict) if arguments.is_empty() => {
                self.push(Value::Dict(Vec::new()))
            }
            Value::Global(Global::RebuildTensor) => {
                if let Some(&Value::Foreign(name)) = arguments.first().map(|id| self.value(*id)) {
                    return self.push(Value::Foreign(name));
                }
                let tensor = self.tensor(arguments)?;
                self.push(Value::Tensor(Box::new(tensor)))
            }
            Value::Global(Global::RebuildParameter) => match arguments.first() {
                // A parameter is its tensor, which is there already.
                Some(&tensor) => self.push_again(tensor),
                None => Err(self.fault("a parameter of no tensor")),
            },
            Value::Global(Global::Encode) => {
                let made = self.encoded(arguments);
                self.push(made.unwrap_or(Value::Foreign("_codecs\nencode")))
            }
            Value::Global(Global::NumpyDtype) => {
                let made = match arguments.first().map(|id| self.value(*id)) {
                    Some(&Value::Text(name)) => Value::NumpyDtype(name),
                    _ => Value::Foreign("numpy\ndtype"),
                };
                self.push(made)
            }
            Value::Global(Global::NumpyScalar) => {
                let made = self.number(arguments);
                self.push(made.unwrap_or(Value::Foreign("numpy\nscalar")))
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

    /// Describes an object of a class, which is not made.
    pub(super) fn make(&mut self) -> Result<(), Fault> {
        let (_arguments, class) = (self.pop()?, self.pop()?);
        match self.value(class) {
            &Value::Foreign(name) => self.push(Value::Foreign(name)),
            other => {
                let kind = other.kind();
                Err(self.fault(format!("an object of {kind}")))
            }
        }
    }

    /// Returns the bytes that `_codecs.encode(TEXT, 'latin1')` stands for, where they could be a number's.
    fn encoded(&self, arguments: &[Id]) -> Option<Value<'a>> {
        let &Value::Text(text) = self.value(*arguments.first()?) else {
            return None;
        };
        let (mut bytes, mut length) = ([0; 8], 0);
        for character in text.chars() {
            *bytes.get_mut(length)? = u8::try_from(character).ok()?;
            length += 1;
        }
        Some(Value::Bytes(bytes, length as u8))
    }

    /// Returns the number that NumPy's `scalar(TYPE, BYTES)` stands for.
    fn number(&self, arguments: &[Id]) -> Option<Value<'a>> {
        let &[kind, bytes] = arguments else {
            return None;
        };
        let (&Value::NumpyDtype(kind), &Value::Bytes(bytes, length)) =
            (self.value(kind), self.value(bytes))
        else {
            return None;
        };
        let bytes = &bytes[..length.into()];
        Some(match kind {
            "f8" => Value::Float(f64::from_le_bytes(bytes.try_into().ok()?)),
            "f4" => Value::Float(f32::from_le_bytes(bytes.try_into().ok()?).into()),
            "f2" => Value::Float(f16::from_le_bytes(bytes.try_into().ok()?).into()),
            "i8" => Value::Int(i64::from_le_bytes(bytes.try_into().ok()?)),
            "i4" => Value::Int(i32::from_le_bytes(bytes.try_into().ok()?).into()),
            "i2" => Value::Int(i16::from_le_bytes(bytes.try_into().ok()?).into()),
            "i1" => Value::Int(i8::from_le_bytes(bytes.try_into().ok()?).into()),
            "u1" => Value::Int(u8::from_le_bytes(bytes.try_into().ok()?).into()),
            "u2" => Value::Int(u16::from_le_bytes(bytes.try_into().ok()?).into()),
            "u8" => Value::Int(u64::from_le_bytes(bytes.try_into().ok()?).try_into().ok()?),
            "u4" => Value::Int(u32::from_le_bytes(bytes.try_into().ok()?).into()),
            _ => return None,
        })
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

    /// Passes over the attributes of an object, which nothing here needs, such as a state dictionary's `_metadata`.
    pub(super) fn build(&mut self) -> Result<(), Fault> {
        let attributes = self.pop()?;
        // NumPy's types say their byte order so: (3, '<', …).
        let big_endian = matches!(self.value(attributes), Value::Tuple(items)
            if items.get(1).is_some_and(|id| matches!(self.value(*id), Value::Text(">"))));
        match self.top()? {
            Value::Dict(_) | Value::Foreign(_) => Ok(()),
            dtype @ Value::NumpyDtype(_) => {
                if big_endian {
                    *dtype = Value::Foreign("numpy\ndtype");
                }
                Ok(())
            }
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
                            &Value::Foreign(name),
                            Value::Text(_),
                            Value::Text(_),
                            Value::Int(_),
                        ] => return self.push(Value::Foreign(name)),
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
