//! A reader of the pickles in PyTorch's checkpoints, which executes nothing.
//!
//! Pickle is a program for a small stack machine. The part of its language that `torch.save` uses for nested
//! dictionaries of tensors and numbers (protocol 2) builds containers and calls three kinds of names: `OrderedDict`, a
//! tensor's reconstruction, and storage types. This reader knows these and nothing else: every other instruction and
//! every other name is an error, and what a call would make is described by a [`Value`] instead of being made.
//!
//! Whatever bytes come in, memory and time are bounded by [`MAX_BYTES`] and [`MAX_VALUES`]: values live in one flat
//! list and refer to each other by number, so neither sharing nor nesting multiplies or recurses, and a value that
//! contains itself is found at the end. A tensor is checked against its storage's declared length here; the storage
//! itself is the archive's business.

mod calls;
mod machine;
pub(super) mod op;

use super::fault::Fault;
use machine::Machine;

/// Longest pickle that is read, in bytes. That of the largest official model is under 1 MiB.
pub const MAX_BYTES: usize = 16 << 20;
/// Values, references to them and memo entries in a pickle. The largest official model has some 100,000.
pub const MAX_VALUES: usize = 1 << 20;
/// Containers inside each other; an official checkpoint has 5.
const MAX_DEPTH: u8 = 32;

/// Type of a tensor's elements: the ones that weights, moments and counters come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE half precision.
    F16,
    /// Brain float.
    BF16,
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
    /// Signed 64-bit integer.
    I64,
}

impl Dtype {
    /// Bytes of an element.
    pub fn size(self) -> u64 {
        match self {
            Dtype::F16 | Dtype::BF16 => 2,
            Dtype::F32 => 4,
            Dtype::F64 | Dtype::I64 => 8,
        }
    }
}

/// The names a checkpoint may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Global {
    /// `collections.OrderedDict`
    OrderedDict,
    /// `torch._utils._rebuild_tensor_v2`
    RebuildTensor,
    /// `torch.FloatStorage` and its like.
    Storage(Dtype),
}

/// A storage: elements in a record of the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storage<'a> {
    /// Name of its record under `data/`.
    pub key: &'a str,
    /// Type of its elements.
    pub dtype: Dtype,
    /// Number of its elements.
    pub length: u64,
}

/// A view of a storage. Every element lies inside it, and there are no more of them than it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor<'a> {
    /// What it is a view of.
    pub storage: Storage<'a>,
    /// Its first element in the storage.
    pub offset: u64,
    /// Lengths, outermost dimension first.
    pub shape: Vec<u64>,
    /// Distances between neighbours in each dimension, in elements.
    pub stride: Vec<u64>,
}

impl Tensor<'_> {
    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

/// Number of a value in its pickle.
type Id = u32;

/// What a pickle describes.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// `None`
    None,
    /// `True` or `False`
    Bool(bool),
    /// An `int` of at most 64 bits.
    Int(i64),
    /// A `float`
    Float(f64),
    /// A `str`
    Text(&'a str),
    /// A `list`
    List(Vec<Id>),
    /// A `tuple`
    Tuple(Vec<Id>),
    /// A `dict` or `OrderedDict`, in the order of insertion. Keys may repeat.
    Dict(Vec<(Id, Id)>),
    /// A name that was not called.
    Global(Global),
    /// A storage that no tensor wraps.
    Storage(Box<Storage<'a>>),
    /// A tensor.
    Tensor(Box<Tensor<'a>>),
}

impl Value<'_> {
    fn kind(&self) -> &'static str {
        match self {
            Value::None => "None",
            Value::Bool(_) => "a bool",
            Value::Int(_) => "an int",
            Value::Float(_) => "a float",
            Value::Text(_) => "a string",
            Value::List(_) => "a list",
            Value::Tuple(_) => "a tuple",
            Value::Dict(_) => "a dict",
            Value::Global(_) => "a name",
            Value::Storage(_) => "a storage",
            Value::Tensor(_) => "a tensor",
        }
    }
}

/// All values of a pickle.
#[derive(Debug)]
pub struct Tree<'a> {
    nodes: Vec<Node<'a>>,
    root: Id,
    base: u64,
}

#[derive(Debug)]
struct Node<'a> {
    value: Value<'a>,
    /// Of the instruction that made it, in the pickle.
    offset: u32,
}

/// A value in its tree.
#[derive(Clone, Copy, Debug)]
pub struct Item<'t, 'a> {
    tree: &'t Tree<'a>,
    id: Id,
}

impl<'t, 'a> Item<'t, 'a> {
    /// The value itself.
    pub fn value(self) -> &'t Value<'a> {
        &self.tree.nodes[self.id as usize].value
    }

    /// A fault at the instruction that made this value.
    pub fn fault(self, cause: impl Into<String>) -> Fault {
        let offset = self.tree.nodes[self.id as usize].offset;
        Fault::new(self.tree.base + u64::from(offset), cause)
    }

    fn expected(self, what: &str) -> Fault {
        self.fault(format!("{}, expected {what}", self.value().kind()))
    }

    fn at(self, id: &Id) -> Item<'t, 'a> {
        Item {
            tree: self.tree,
            id: *id,
        }
    }

    /// Keys and values of a dictionary.
    pub fn entries(self) -> Result<impl Iterator<Item = (Item<'t, 'a>, Item<'t, 'a>)>, Fault> {
        match self.value() {
            Value::Dict(pairs) => Ok(pairs
                .iter()
                .map(move |(key, value)| (self.at(key), self.at(value)))),
            _ => Err(self.expected("a dict")),
        }
    }

    /// Elements of a list or tuple.
    pub fn elements(self) -> Result<impl ExactSizeIterator<Item = Item<'t, 'a>>, Fault> {
        match self.value() {
            Value::List(ids) | Value::Tuple(ids) => Ok(ids.iter().map(move |id| self.at(id))),
            _ => Err(self.expected("a list")),
        }
    }

    /// The value under a key of a dictionary, if it has it.
    pub fn find(self, key: &str) -> Result<Option<Item<'t, 'a>>, Fault> {
        let mut found = self
            .entries()?
            .filter(|(name, _)| matches!(name.value(), Value::Text(text) if *text == key));
        let value = found.next().map(|(_, value)| value);
        match found.next() {
            Some((second, _)) => Err(second.fault(format!("key `{key}` stands twice"))),
            None => Ok(value),
        }
    }

    /// The value under a key that a dictionary must have.
    pub fn get(self, key: &str) -> Result<Item<'t, 'a>, Fault> {
        self.find(key)?
            .ok_or_else(|| self.fault(format!("the dict lacks the key `{key}`")))
    }

    /// The text of a string.
    pub fn text(self) -> Result<&'a str, Fault> {
        match self.value() {
            Value::Text(text) => Ok(text),
            _ => Err(self.expected("a string")),
        }
    }

    /// An integer of 0 or more.
    pub fn count(self) -> Result<u64, Fault> {
        match self.value() {
            Value::Int(number) => u64::try_from(*number)
                .map_err(|_| self.fault(format!("{number}, expected 0 or more"))),
            _ => Err(self.expected("an int")),
        }
    }

    /// A number, whole or not.
    pub fn number(self) -> Result<f64, Fault> {
        match self.value() {
            Value::Int(number) => Ok(*number as f64),
            Value::Float(number) => Ok(*number),
            _ => Err(self.expected("a number")),
        }
    }

    /// A tensor.
    pub fn tensor(self) -> Result<&'t Tensor<'a>, Fault> {
        match self.value() {
            Value::Tensor(tensor) => Ok(tensor),
            _ => Err(self.expected("a tensor")),
        }
    }
}

impl<'a> Tree<'a> {
    /// Reads the pickle `bytes`, which stands at byte `base` of its file (for messages).
    pub fn read(bytes: &'a [u8], base: u64) -> Result<Tree<'a>, Fault> {
        if bytes.len() > MAX_BYTES {
            let length = bytes.len();
            return Err(Fault::new(
                base,
                format!("a pickle of {length} bytes; no checkpoint needs more than {MAX_BYTES}"),
            ));
        }
        let (nodes, root) = Machine::new(bytes, base).run()?;
        let tree = Tree { nodes, root, base };
        tree.check_nesting()?;
        Ok(tree)
    }

    /// What the pickle describes.
    pub fn root(&self) -> Item<'_, 'a> {
        Item {
            tree: self,
            id: self.root,
        }
    }

    /// Refuses a value that contains itself, and containers too deep inside each other. Visits each value once, however
    /// often it is referred to.
    fn check_nesting(&self) -> Result<(), Fault> {
        const OPEN: u8 = u8::MAX;
        // 0: not yet visited; OPEN: on the path; else the containers below and including it.
        let mut height = vec![0u8; self.nodes.len()];
        let mut path: Vec<(Id, usize)> = vec![(self.root, 0)];
        while let Some((id, next)) = path.last_mut() {
            let (id, node) = (*id, &self.nodes[*id as usize]);
            height[id as usize] = OPEN;
            if let Some(child) = node.child(*next) {
                *next += 1;
                match height[child as usize] {
                    0 => path.push((child, 0)),
                    OPEN => {
                        let item = Item {
                            tree: self,
                            id: child,
                        };
                        return Err(
                            item.fault(format!("{} that contains itself", node.value.kind()))
                        );
                    }
                    _ => {}
                }
                continue;
            }
            let below = (0..)
                .map_while(|n| node.child(n))
                .map(|child| height[child as usize]);
            let tall = 1 + below.max().unwrap_or(0);
            if tall > MAX_DEPTH {
                let item = Item { tree: self, id };
                return Err(item.fault(format!(
                    "more than {MAX_DEPTH} containers inside each other"
                )));
            }
            height[id as usize] = tall;
            path.pop();
        }
        Ok(())
    }
}

impl Node<'_> {
    /// The `n`-th value that this one contains.
    fn child(&self, n: usize) -> Option<Id> {
        match &self.value {
            Value::List(ids) | Value::Tuple(ids) => ids.get(n).copied(),
            Value::Dict(pairs) => {
                let &(key, value) = pairs.get(n / 2)?;
                Some(if n.is_multiple_of(2) { key } else { value })
            }
            _ => None,
        }
    }
}
