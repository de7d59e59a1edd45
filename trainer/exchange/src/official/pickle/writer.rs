//! Writing the pickles that `torch.load(weights_only=True)` reads: nested dictionaries of numbers and tensors.

use super::{Dtype, op};

/// A value to write.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// `None`
    None,
    /// `True` or `False`
    Bool(bool),
    /// An `int`.
    Int(i64),
    /// A `float`.
    Float(f64),
    /// A `tuple` of at most three.
    Tuple(Vec<Node>),
    /// A `list`.
    List(Vec<Node>),
    /// A `dict`.
    Dict(Vec<(Key, Node)>),
    /// An `OrderedDict`.
    Ordered(Vec<(Key, Node)>),
    /// A contiguous tensor in storage number `storage`.
    Tensor {
        /// Number of its record.
        storage: usize,
        /// Type of its elements.
        dtype: Dtype,
        /// Its lengths.
        shape: Vec<u64>,
    },
}

/// A key of a dictionary.
#[derive(Clone, Debug, PartialEq)]
pub enum Key {
    /// A name.
    Text(String),
    /// A number.
    Int(i64),
}

impl From<&str> for Key {
    fn from(text: &str) -> Key {
        Key::Text(text.to_owned())
    }
}

/// Returns the pickle (protocol 2) of `root`.
pub fn write(root: &Node) -> Vec<u8> {
    let mut bytes = vec![op::PROTO, 2];
    node(&mut bytes, root);
    bytes.push(op::STOP);
    bytes
}

fn node(bytes: &mut Vec<u8>, value: &Node) {
    match value {
        Node::None => bytes.push(op::NONE),
        Node::Bool(true) => bytes.push(op::NEWTRUE),
        Node::Bool(false) => bytes.push(op::NEWFALSE),
        Node::Int(number) => int(bytes, *number),
        Node::Float(number) => {
            bytes.push(op::BINFLOAT);
            bytes.extend(number.to_be_bytes());
        }
        Node::Tuple(items) => {
            items.iter().for_each(|item| node(bytes, item));
            bytes.push(match items.len() {
                1 => op::TUPLE1,
                2 => op::TUPLE2,
                3 => op::TUPLE3,
                length => unreachable!("tuples of {length} are not written"),
            });
        }
        Node::List(items) => {
            bytes.extend([op::EMPTY_LIST, op::MARK]);
            items.iter().for_each(|item| node(bytes, item));
            bytes.push(op::APPENDS);
        }
        Node::Dict(pairs) => {
            bytes.push(op::EMPTY_DICT);
            items(bytes, pairs);
        }
        Node::Ordered(pairs) => {
            empty_ordered(bytes);
            items(bytes, pairs);
        }
        Node::Tensor {
            storage,
            dtype,
            shape,
        } => tensor(bytes, *storage, *dtype, shape),
    }
}

fn items(bytes: &mut Vec<u8>, pairs: &[(Key, Node)]) {
    bytes.push(op::MARK);
    for (key, value) in pairs {
        match key {
            Key::Text(key) => text(bytes, key),
            Key::Int(key) => int(bytes, *key),
        }
        node(bytes, value);
    }
    bytes.push(op::SETITEMS);
}

fn empty_ordered(bytes: &mut Vec<u8>) {
    bytes.extend(b"ccollections\nOrderedDict\n");
    bytes.extend([op::EMPTY_TUPLE, op::REDUCE]);
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.push(op::BINUNICODE);
    bytes.extend((text.len() as u32).to_le_bytes());
    bytes.extend(text.bytes());
}

fn int(bytes: &mut Vec<u8>, number: i64) {
    if let Ok(number) = u8::try_from(number) {
        bytes.extend([op::BININT1, number]);
    } else if let Ok(number) = i32::try_from(number) {
        bytes.push(op::BININT);
        bytes.extend(number.to_le_bytes());
    } else {
        bytes.extend([op::LONG1, 8]);
        bytes.extend(number.to_le_bytes());
    }
}

fn lengths(bytes: &mut Vec<u8>, lengths: impl Iterator<Item = u64>) {
    bytes.push(op::MARK);
    lengths.for_each(|length| int(bytes, length as i64));
    bytes.push(op::TUPLE);
}

fn tensor(bytes: &mut Vec<u8>, storage: usize, dtype: Dtype, shape: &[u64]) {
    let kind = match dtype {
        Dtype::F16 => "Half",
        Dtype::BF16 => "BFloat16",
        Dtype::F32 => "Float",
        Dtype::F64 => "Double",
        Dtype::I64 => "Long",
    };
    bytes.extend(b"ctorch._utils\n_rebuild_tensor_v2\n");
    bytes.push(op::MARK);
    bytes.push(op::MARK);
    text(bytes, "storage");
    bytes.extend(format!("ctorch\n{kind}Storage\n").bytes());
    text(bytes, &storage.to_string());
    text(bytes, "cpu");
    int(bytes, shape.iter().product::<u64>() as i64);
    bytes.extend([op::TUPLE, op::BINPERSID]);
    int(bytes, 0);
    lengths(bytes, shape.iter().copied());
    let strides = (0..shape.len()).map(|i| shape[i + 1..].iter().product());
    lengths(bytes, strides);
    bytes.push(op::NEWFALSE); // requires_grad
    empty_ordered(bytes); // hooks
    bytes.extend([op::TUPLE, op::REDUCE]);
}
