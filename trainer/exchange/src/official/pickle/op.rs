//! The instructions of the language that are understood, and the names of some that are not.

pub const PROTO: u8 = 0x80;
pub const STOP: u8 = b'.';
pub const MARK: u8 = b'(';
pub const NONE: u8 = b'N';
pub const NEWTRUE: u8 = 0x88;
pub const NEWFALSE: u8 = 0x89;
pub const BININT: u8 = b'J';
pub const BININT1: u8 = b'K';
pub const BININT2: u8 = b'M';
pub const LONG1: u8 = 0x8a;
pub const BINFLOAT: u8 = b'G';
pub const BINUNICODE: u8 = b'X';
pub const EMPTY_LIST: u8 = b']';
pub const EMPTY_DICT: u8 = b'}';
pub const EMPTY_TUPLE: u8 = b')';
pub const TUPLE: u8 = b't';
pub const TUPLE1: u8 = 0x85;
pub const TUPLE2: u8 = 0x86;
pub const TUPLE3: u8 = 0x87;
pub const APPEND: u8 = b'a';
pub const APPENDS: u8 = b'e';
pub const SETITEM: u8 = b's';
pub const SETITEMS: u8 = b'u';
pub const BINPUT: u8 = b'q';
pub const LONG_BINPUT: u8 = b'r';
pub const BINGET: u8 = b'h';
pub const LONG_BINGET: u8 = b'j';
pub const GLOBAL: u8 = b'c';
pub const REDUCE: u8 = b'R';
pub const BUILD: u8 = b'b';
pub const BINPERSID: u8 = b'Q';
pub const NEWOBJ: u8 = 0x81;

/// Returns what Python calls an instruction that is not understood, for messages.
pub fn name(code: u8) -> &'static str {
    match code {
        b'i' => " (INST)",
        b'o' => " (OBJ)",
        b'P' => " (PERSID)",
        b'0' => " (POP)",
        b'2' => " (DUP)",
        0x82..=0x84 => " (EXT)",
        0x8b => " (LONG4)",
        0x8c => " (SHORT_BINUNICODE)",
        0x92 => " (NEWOBJ_EX)",
        0x93 => " (STACK_GLOBAL)",
        0x94 => " (MEMOIZE)",
        0x95 => " (FRAME)",
        _ => "",
    }
}
