//! What a pickle can describe.

/// Type of a tensor's elements, of those that weights, moments and counters come in.
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
    /// Returns the bytes of an element.
    pub fn size(self) -> u64 {
        match self {
            Dtype::F16 | Dtype::BF16 => 2,
            Dtype::F32 => 4,
            Dtype::F64 | Dtype::I64 => 8,
        }
    }
}

/// A name that is known, and what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Global {
    /// `collections.OrderedDict`
    OrderedDict,
    /// `torch._utils._rebuild_tensor_v2`
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`
    RebuildParameter,
    /// `torch.FloatStorage` and its like.
    Storage(Dtype),
    /// `numpy.core.multiarray.scalar`
    NumpyScalar,
    /// `numpy.dtype`
    NumpyDtype,
    /// `_codecs.encode`, which bytes come as.
    Encode,
}

/// Elements in a record of the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storage<'a> {
    /// Name of its record under `data/`.
    pub key: &'a str,
    /// Type of its elements.
    pub dtype: Dtype,
    /// Number of its elements.
    pub length: u64,
}

/// A view of a storage.
///
/// Every element lies inside it, and there are no more of them than it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor<'a> {
    /// The storage it is a view of.
    pub storage: Storage<'a>,
    /// Where its first element is in the storage.
    pub offset: u64,
    /// Lengths, outermost dimension first.
    pub shape: Vec<u64>,
    /// Distances between neighbours in each dimension, in elements.
    pub stride: Vec<u64>,
}

impl Tensor<'_> {
    /// Returns the number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

/// Number of a value in its pickle.
pub type Id = u32;

/// A value that a pickle describes.
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
    /// A few bytes, as those of a number.
    Bytes([u8; 8], u8),
    /// NumPy's name of a type of numbers, little-endian.
    NumpyDtype(&'a str),
    /// A name that is not known, or what a call of it would have made: its module and itself, on a line each.
    Foreign(&'a str),
    /// A storage that no tensor wraps.
    Storage(Box<Storage<'a>>),
    /// A tensor.
    Tensor(Box<Tensor<'a>>),
}

impl Value<'_> {
    /// Returns what the value is, for messages.
    pub(super) fn kind(&self) -> &'static str {
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
            Value::Bytes(..) => "bytes",
            Value::NumpyDtype(_) => "a type of numbers",
            Value::Foreign(_) => "an object",
            Value::Storage(_) => "a storage",
            Value::Tensor(_) => "a tensor",
        }
    }
}

/// A value and where it came from.
#[derive(Debug)]
pub(super) struct Made<'a> {
    pub(super) value: Value<'a>,
    /// Distance of the instruction that made it, from the start of the pickle.
    pub(super) offset: u32,
}
