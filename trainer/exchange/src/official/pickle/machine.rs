//! The stack machine that a pickle programs.

use std::collections::{BTreeSet, HashMap};

use super::value::{Dtype, Global, Id, Made, Value};
use super::{MAX_VALUES, op};
use crate::official::fault::{Cause, Fault};

/// Longest module or attribute name, in bytes.
const MAX_NAME: usize = 256;
/// Most unknown names that are kept to be told.
const MAX_FOREIGN: usize = 100;

/// What a program made.
pub struct Ran<'a> {
    /// Every value.
    pub nodes: Vec<Made<'a>>,
    /// Number of the value that it ends with.
    pub root: Id,
    /// Names that are not known, module and name on a line each.
    pub foreign: BTreeSet<&'a str>,
}

/// The machine in the middle of a program.
pub struct Machine<'a> {
    bytes: &'a [u8],
    base: u64,
    /// Next byte to read.
    at: usize,
    /// First byte of the instruction in progress.
    start: usize,
    nodes: Vec<Made<'a>>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    pushed: usize,
    /// Names that are not known.
    foreign: BTreeSet<&'a str>,
}

impl<'a> Machine<'a> {
    /// Makes a machine for the program `bytes`, which stands at byte `base` of its file.
    pub fn new(bytes: &'a [u8], base: u64) -> Machine<'a> {
        Machine {
            bytes,
            base,
            at: 0,
            start: 0,
            nodes: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            pushed: 0,
            foreign: BTreeSet::new(),
        }
    }

    /// Runs the program.
    pub fn run(mut self) -> Result<Ran<'a>, Fault> {
        if self.bytes.get(..2) != Some(&[op::PROTO, 2]) {
            return Err(self.fault("not a pickle of protocol 2"));
        }
        self.at = 2;
        loop {
            self.start = self.at;
            let [code] = self.take()?;
            if code == op::STOP {
                break;
            }
            self.step(code)?;
        }
        if self.stack.len() != 1 || !self.marks.is_empty() {
            return Err(self.fault("the pickle ends with an unfinished value"));
        }
        if self.at != self.bytes.len() {
            return Err(self.fault("the pickle ends before its record does"));
        }
        Ok(Ran {
            root: self.pop()?,
            nodes: self.nodes,
            foreign: self.foreign,
        })
    }

    fn step(&mut self, code: u8) -> Result<(), Fault> {
        match code {
            op::MARK => {
                self.count()?;
                self.marks.push(self.stack.len());
                Ok(())
            }
            op::NONE => self.push(Value::None),
            op::NEWTRUE => self.push(Value::Bool(true)),
            op::NEWFALSE => self.push(Value::Bool(false)),
            op::BININT => {
                let number = i32::from_le_bytes(self.take()?);
                self.push(Value::Int(number.into()))
            }
            op::BININT1 => {
                let [number] = self.take()?;
                self.push(Value::Int(number.into()))
            }
            op::BININT2 => {
                let number = u16::from_le_bytes(self.take()?);
                self.push(Value::Int(number.into()))
            }
            op::LONG1 => {
                let number = self.long()?;
                self.push(number)
            }
            op::BINFLOAT => {
                let number = f64::from_be_bytes(self.take()?);
                self.push(Value::Float(number))
            }
            op::BINUNICODE => {
                let length = u32::from_le_bytes(self.take()?);
                let bytes = self.slice(length as usize)?;
                let text = std::str::from_utf8(bytes)
                    .map_err(|_| self.fault("a string that is not UTF-8"))?;
                self.push(Value::Text(text))
            }
            op::EMPTY_LIST => self.push(Value::List(Vec::new())),
            op::EMPTY_DICT => self.push(Value::Dict(Vec::new())),
            op::EMPTY_TUPLE => self.push(Value::Tuple(Vec::new())),
            op::TUPLE1 => self.tuple(1),
            op::TUPLE2 => self.tuple(2),
            op::TUPLE3 => self.tuple(3),
            op::TUPLE => {
                let items = self.pop_to_mark()?;
                self.push(Value::Tuple(items))
            }
            op::APPEND => {
                let item = self.pop()?;
                self.append(vec![item])
            }
            op::APPENDS => {
                let items = self.pop_to_mark()?;
                self.append(items)
            }
            op::SETITEM => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(&[key, value])
            }
            op::SETITEMS => {
                let items = self.pop_to_mark()?;
                self.set(&items)
            }
            op::BINPUT => {
                let [slot] = self.take()?;
                self.remember(slot.into())
            }
            op::LONG_BINPUT => {
                let slot = u32::from_le_bytes(self.take()?);
                self.remember(slot)
            }
            op::BINGET => {
                let [slot] = self.take()?;
                self.recall(slot.into())
            }
            op::LONG_BINGET => {
                let slot = u32::from_le_bytes(self.take()?);
                self.recall(slot)
            }
            op::GLOBAL => {
                let name = self.global()?;
                self.push(name)
            }
            op::REDUCE => self.call(),
            op::NEWOBJ => self.make(),
            op::BUILD => self.build(),
            op::BINPERSID => self.storage(),
            _ => Err(self.fault(Cause::UnsafeInstruction(code))),
        }
    }

    pub(super) fn fault(&self, cause: impl Into<Cause>) -> Fault {
        Fault::new(self.base + self.start as u64, cause)
    }

    fn slice(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let rest = &self.bytes[self.at..];
        if length > rest.len() {
            return Err(self.fault("the pickle breaks off"));
        }
        self.at += length;
        Ok(&rest[..length])
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        Ok(self.slice(N)?.try_into().expect("a slice of N bytes"))
    }

    /// Counts what takes memory.
    fn count(&mut self) -> Result<(), Fault> {
        self.pushed += 1;
        if self.pushed > MAX_VALUES {
            let cause = format!("more than {MAX_VALUES} values in a pickle");
            return Err(self.fault(Cause::TooMuch(cause)));
        }
        Ok(())
    }

    pub(super) fn push(&mut self, value: Value<'a>) -> Result<(), Fault> {
        self.count()?;
        self.stack.push(self.nodes.len() as Id);
        self.nodes.push(Made {
            value,
            offset: self.start as u32,
        });
        Ok(())
    }

    /// Puts a value on the stack that was made before.
    pub(super) fn push_again(&mut self, id: Id) -> Result<(), Fault> {
        self.count()?;
        self.stack.push(id);
        Ok(())
    }

    /// Takes the top of the stack, but nothing below the last mark.
    pub(super) fn pop(&mut self) -> Result<Id, Fault> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(self.fault("the pickle takes from an empty stack"));
        }
        Ok(self.stack.pop().expect("longer than its floor"))
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, Fault> {
        match self.marks.pop() {
            Some(mark) => Ok(self.stack.split_off(mark)),
            None => Err(self.fault("the pickle takes up to a mark that was never set")),
        }
    }

    pub(super) fn top(&mut self) -> Result<&mut Value<'a>, Fault> {
        let id = self.pop()?;
        self.stack.push(id);
        Ok(&mut self.nodes[id as usize].value)
    }

    pub(super) fn value(&self, id: Id) -> &Value<'a> {
        &self.nodes[id as usize].value
    }

    fn tuple(&mut self, length: usize) -> Result<(), Fault> {
        let mut items = Vec::with_capacity(length);
        for _ in 0..length {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push(Value::Tuple(items))
    }

    fn append(&mut self, items: Vec<Id>) -> Result<(), Fault> {
        match self.top()? {
            Value::List(list) => {
                list.extend(items);
                Ok(())
            }
            Value::Foreign(_) => Ok(()),
            other => {
                let kind = other.kind();
                Err(self.fault(format!("the pickle appends to {kind}")))
            }
        }
    }

    fn set(&mut self, items: &[Id]) -> Result<(), Fault> {
        if !items.len().is_multiple_of(2) {
            return Err(self.fault("the pickle sets a key without a value"));
        }
        match self.top()? {
            Value::Dict(pairs) => {
                pairs.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
                Ok(())
            }
            Value::Foreign(_) => Ok(()),
            other => {
                let kind = other.kind();
                Err(self.fault(format!("the pickle sets items of {kind}")))
            }
        }
    }

    fn remember(&mut self, slot: u32) -> Result<(), Fault> {
        self.count()?;
        let id = self.pop()?;
        self.stack.push(id);
        self.memo.insert(slot, id);
        Ok(())
    }

    fn recall(&mut self, slot: u32) -> Result<(), Fault> {
        match self.memo.get(&slot) {
            Some(&id) => self.push_again(id),
            None => Err(self.fault(format!(
                "the pickle recalls value {slot}, which it never stored"
            ))),
        }
    }

    /// Reads a little-endian integer that says its own length.
    fn long(&mut self) -> Result<Value<'a>, Fault> {
        let [length] = self.take()?;
        let bytes = self.slice(length.into())?;
        if length > 8 {
            return Ok(Value::Foreign("builtins\nint"));
        }
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut full = [if negative { 0xff } else { 0 }; 8];
        full[..bytes.len()].copy_from_slice(bytes);
        Ok(Value::Int(i64::from_le_bytes(full)))
    }

    fn line(&mut self) -> Result<&'a str, Fault> {
        let rest = &self.bytes[self.at..];
        let window = &rest[..rest.len().min(MAX_NAME + 1)];
        let length = window.iter().position(|&byte| byte == b'\n');
        let line = length.and_then(|length| std::str::from_utf8(&window[..length]).ok());
        let line = line.ok_or_else(|| self.fault("a name that does not end, or is no text"))?;
        self.at += line.len() + 1;
        Ok(line)
    }

    /// Reads a name; one that is not known stands for itself, and for whatever is done with it.
    fn global(&mut self) -> Result<Value<'a>, Fault> {
        let start = self.at;
        let (module, name) = (self.line()?, self.line()?);
        let global = match (module, name) {
            ("collections", "OrderedDict") => Global::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Global::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Global::RebuildParameter,
            ("torch", "HalfStorage") => Global::Storage(Dtype::F16),
            ("torch", "BFloat16Storage") => Global::Storage(Dtype::BF16),
            ("torch", "FloatStorage") => Global::Storage(Dtype::F32),
            ("torch", "DoubleStorage") => Global::Storage(Dtype::F64),
            ("torch", "LongStorage") => Global::Storage(Dtype::I64),
            ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Global::NumpyScalar,
            ("numpy", "dtype") => Global::NumpyDtype,
            ("_codecs", "encode") => Global::Encode,
            _ => {
                // Both lines, without the end of the second.
                let both = std::str::from_utf8(&self.bytes[start..self.at - 1]);
                let both = both.expect("two lines of text");
                if self.foreign.len() < MAX_FOREIGN {
                    self.foreign.insert(both);
                }
                return Ok(Value::Foreign(both));
            }
        };
        Ok(Value::Global(global))
    }
}
