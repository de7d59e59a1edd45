//! Writing what `torch.load(weights_only=True)` reads: nested dictionaries of numbers and tensors in a zip file.
//!
//! The tensors' elements go straight from where they lie into the file, one after the other; only the pickle, which
//! comes first, is put together in memory. Entries and directory use the zip format's 64-bit extensions where a size or
//! an offset needs them, and contents begin at multiples of 64 bytes, as PyTorch's do, so that it can map them.

use std::borrow::Cow;
use std::io::{self, Write};

use super::pickle::{Dtype, op};

/// Contents of entries begin at multiples of this.
const ALIGNMENT: u64 = 64;
/// Extra field of a zip header that only fills; PyTorch's choice.
const PADDING: u16 = 0x4246;
/// Extra field of the 64-bit sizes and offsets.
const WIDE: u16 = 1;
/// Version of the zip format that these files need: 4.5, for 64-bit sizes.
const NEEDED: u16 = 45;

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

/// The pickle (protocol 2) of `root`.
pub fn pickle(root: &Node) -> Vec<u8> {
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

/// Fills `zip` with an archive: the pickle of `root`, then the storages in the order of their numbers. `folder` is the
/// name of the folder inside.
pub fn archive<'a, W: Write>(
    mut zip: Zip<W>,
    folder: &str,
    root: &Node,
    storages: impl Iterator<Item = Cow<'a, [u8]>>,
) -> io::Result<()> {
    zip.add(&format!("{folder}/data.pkl"), &pickle(root))?;
    zip.add(&format!("{folder}/byteorder"), b"little")?;
    for (number, bytes) in storages.enumerate() {
        zip.add(&format!("{folder}/data/{number}"), &bytes)?;
    }
    zip.add(&format!("{folder}/version"), b"3\n")?;
    zip.finish()
}

/// A zip file in the making.
pub struct Zip<W> {
    out: W,
    /// Bytes written.
    position: u64,
    /// Of the entries so far.
    directory: Vec<u8>,
    entries: u64,
}

impl<W: Write> Zip<W> {
    /// An empty one.
    pub fn new(out: W) -> Zip<W> {
        Zip::after(out, 0)
    }

    /// An empty one behind the first `position` bytes of a file, which belong to something else.
    pub fn after(out: W, position: u64) -> Zip<W> {
        Zip {
            out,
            position,
            directory: Vec::new(),
            entries: 0,
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Stores `content` under `name`.
    pub fn add(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let (start, size) = (self.position, content.len() as u64);
        let crc = crc32fast::hash(content);
        let narrow_size = narrow(size);
        let mut extra = Vec::new();
        if narrow_size == u32::MAX {
            field(
                &mut extra,
                WIDE,
                &[size.to_le_bytes(), size.to_le_bytes()].concat(),
            );
        }
        let unpadded = start + 30 + name.len() as u64 + extra.len() as u64 + 4;
        let padding = unpadded.next_multiple_of(ALIGNMENT) - unpadded;
        field(&mut extra, PADDING, &vec![b'Z'; padding as usize]);

        let mut common = Vec::new(); // what the header and the directory both say
        common.extend(NEEDED.to_le_bytes());
        common.extend(0x0800u16.to_le_bytes()); // names are UTF-8
        common.extend([0; 2]); // stored
        common.extend([0, 0, 0x21, 0]); // midnight of the first day there is, so that equal contents give equal files
        common.extend(crc.to_le_bytes());
        common.extend(narrow_size.to_le_bytes());
        common.extend(narrow_size.to_le_bytes());
        common.extend((name.len() as u16).to_le_bytes());

        let mut header = b"PK\x03\x04".to_vec();
        header.extend(&common);
        header.extend((extra.len() as u16).to_le_bytes());
        header.extend(name.bytes());
        header.extend(&extra);
        self.write(&header)?;
        self.write(content)?;

        let mut wide = Vec::new();
        for value in [size, size, start] {
            if narrow(value) == u32::MAX {
                wide.extend(value.to_le_bytes());
            }
        }
        let mut extra = Vec::new();
        if !wide.is_empty() {
            field(&mut extra, WIDE, &wide);
        }
        let directory = &mut self.directory;
        directory.extend(b"PK\x01\x02");
        directory.extend(NEEDED.to_le_bytes()); // made by
        directory.extend(common);
        directory.extend((extra.len() as u16).to_le_bytes());
        directory.extend([0; 10]); // comment, volume, attributes
        directory.extend(narrow(start).to_le_bytes());
        directory.extend(name.bytes());
        directory.extend(extra);
        self.entries += 1;
        Ok(())
    }

    /// Writes the directory and flushes.
    pub fn finish(mut self) -> io::Result<()> {
        let (start, size) = (self.position, self.directory.len() as u64);
        let directory = std::mem::take(&mut self.directory);
        self.write(&directory)?;
        let end = self.position;
        let mut tail = b"PK\x06\x06".to_vec(); // the 64-bit end, as PyTorch writes it whatever the sizes
        tail.extend(44u64.to_le_bytes()); // bytes that follow
        tail.extend([NEEDED.to_le_bytes(), NEEDED.to_le_bytes()].concat());
        tail.extend([0; 8]); // volumes
        for number in [self.entries, self.entries, size, start] {
            tail.extend(number.to_le_bytes());
        }
        tail.extend(b"PK\x06\x07"); // where that is
        tail.extend([0; 4]);
        tail.extend(end.to_le_bytes());
        tail.extend(1u32.to_le_bytes());
        tail.extend(b"PK\x05\x06"); // the end
        tail.extend([0; 4]);
        let entries = u16::try_from(self.entries).unwrap_or(u16::MAX);
        tail.extend([entries.to_le_bytes(), entries.to_le_bytes()].concat());
        tail.extend(narrow(size).to_le_bytes());
        tail.extend(narrow(start).to_le_bytes());
        tail.extend([0; 2]);
        self.write(&tail)?;
        self.out.flush()
    }
}

/// The number as a 32-bit field has it: all ones where it stands elsewhere.
fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn field(extra: &mut Vec<u8>, id: u16, body: &[u8]) {
    extra.extend(id.to_le_bytes());
    extra.extend((body.len() as u16).to_le_bytes());
    extra.extend(body);
}
