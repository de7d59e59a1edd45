//! The table of classes in `meta.mat`: a MATLAB 5 file with an array of structures called `synsets`.
//!
//! No more of the format is read than that needs. A file is 128 bytes of header, then elements: a type, a length, the
//! bytes, and zeros up to a multiple of 8. An element can be compressed as a whole, and an array is an element of
//! elements.

use std::collections::HashMap;
use std::io::Read;

use flate2::read::ZlibDecoder;

/// Largest content of a compressed element; that of the true file has 2 MB.
const MOST: u64 = 64 << 20;

// Types of elements.
const COMPRESSED: u32 = 15;
const ARRAY: u32 = 14;

// Classes of arrays.
const STRUCT: u8 = 2;
const CHAR: u8 = 4;

/// Reads the WordNet ids of the classes that have no others below them, by their `ILSVRC2012_ID`.
///
/// # Errors
/// If the bytes are no such file.
pub fn synsets(bytes: &[u8]) -> Result<HashMap<u32, String>, &'static str> {
    match bytes.get(124..128) {
        Some([0, 1, b'I', b'M']) => {}
        Some([1, 0, b'M', b'I']) => return Err("a MATLAB file of a big-endian machine"),
        _ => return Err("not a MATLAB 5 file"),
    }
    let mut rest = &bytes[128..];
    while !rest.is_empty() {
        let (kind, content) = element(&mut rest)?;
        let found = if kind == COMPRESSED {
            let mut plain = Vec::new();
            let mut decoder = ZlibDecoder::new(content).take(MOST);
            decoder
                .read_to_end(&mut plain)
                .map_err(|_| "a compressed element is damaged")?;
            let (kind, content) = element(&mut &plain[..])?;
            table(kind, content)?
        } else {
            table(kind, content)?
        };
        if let Some(found) = found {
            return Ok(found);
        }
    }
    Err("no array of structures called synsets")
}

/// Takes one element off the front: its type and bytes.
fn element<'a>(rest: &mut &'a [u8]) -> Result<(u32, &'a [u8]), &'static str> {
    const CUT: &str = "an element is cut off";
    let word = |at: usize| {
        let bytes = rest.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_le_bytes).ok_or(CUT)
    };
    let first = word(0)?;
    let (kind, start, length, padded) = if first >> 16 == 0 {
        let length = word(4)? as usize;
        // Compressed elements alone are not padded.
        let padded = if first == COMPRESSED {
            length
        } else {
            length.next_multiple_of(8)
        };
        (first, 8, length, padded)
    } else {
        (first & 0xffff, 4, (first >> 16) as usize, 4) // small: all within 8 bytes
    };
    if start == 4 && length > 4 {
        return Err("a small element of more than 4 bytes");
    }
    let content = rest.get(start..start + length).ok_or(CUT)?;
    *rest = rest.get(start + padded..).unwrap_or_default();
    Ok((kind, content))
}

/// An array's class, sizes and name, and the elements behind these.
struct Array<'a> {
    class: u8,
    cells: usize,
    name: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Array<'a> {
    fn new(kind: u32, content: &'a [u8]) -> Result<Array<'a>, &'static str> {
        if kind != ARRAY {
            return Err("an element is not an array");
        }
        let mut rest = content;
        let (_, flags) = element(&mut rest)?;
        let (_, sizes) = element(&mut rest)?;
        let (_, name) = element(&mut rest)?;
        let sizes = sizes.as_chunks::<4>().0.iter();
        let cells = sizes.fold(1_usize, |all, size| {
            all.saturating_mul(u32::from_le_bytes(*size) as usize)
        });
        Ok(Array {
            class: *flags.first().ok_or("an array without a class")?,
            cells,
            name,
            rest,
        })
    }

    /// Reads a string.
    fn text(mut self) -> Result<String, &'static str> {
        let (kind, content) = element(&mut self.rest)?;
        match (self.class, kind) {
            (CHAR, 1 | 2 | 16) => Ok(String::from_utf8_lossy(content).into_owned()),
            (CHAR, 4 | 17) => {
                let units = content.as_chunks::<2>().0.iter();
                let units: Vec<u16> = units.map(|unit| u16::from_le_bytes(*unit)).collect();
                Ok(String::from_utf16_lossy(&units))
            }
            _ => Err("a WordNet id is not text"),
        }
    }

    /// Reads the first number.
    fn number(mut self) -> Result<f64, &'static str> {
        let (kind, content) = element(&mut self.rest)?;
        let wrong = "a number is of no known type";
        let at = |size: usize| content.get(..size).ok_or(wrong);
        let int = |size: usize, signed: bool| -> Result<f64, &'static str> {
            let mut wide = [0; 8];
            wide[..size].copy_from_slice(at(size)?);
            let unused = 64 - 8 * size as u32;
            let bits = u64::from_le_bytes(wide) << unused;
            Ok(if signed {
                ((bits as i64) >> unused) as f64
            } else {
                (bits >> unused) as f64
            })
        };
        match kind {
            1 => int(1, true),
            2 => int(1, false),
            3 => int(2, true),
            4 => int(2, false),
            5 => int(4, true),
            6 => int(4, false),
            12 => int(8, true),
            13 => int(8, false),
            7 => Ok(f32::from_bits(int(4, false)? as u32).into()),
            9 => Ok(f64::from_le_bytes(at(8)?.try_into().map_err(|_| wrong)?)),
            _ => Err(wrong),
        }
    }
}

/// Reads the table, if an element is it.
fn table(kind: u32, content: &[u8]) -> Result<Option<HashMap<u32, String>>, &'static str> {
    if kind != ARRAY {
        return Ok(None);
    }
    let mut array = Array::new(kind, content)?;
    if array.class != STRUCT || array.name != b"synsets" {
        return Ok(None);
    }
    let (_, width) = element(&mut array.rest)?;
    let width: Result<[u8; 4], _> = width.try_into();
    let width = u32::from_le_bytes(width.map_err(|_| "no length of field names")?) as usize;
    let (_, names) = element(&mut array.rest)?;
    if width == 0 || names.is_empty() {
        return Err("a structure without fields");
    }
    let fields: Vec<&[u8]> = names
        .chunks(width)
        .map(|name| name.split(|&byte| byte == 0).next().unwrap_or_default())
        .collect();
    let mut synsets = HashMap::new();
    for _ in 0..array.cells {
        let (mut id, mut wnid, mut children) = (None, None, None);
        for field in &fields {
            let (kind, content) = element(&mut array.rest)?; // ends the loop, whatever `cells` says
            let value = || Array::new(kind, content);
            match *field {
                b"ILSVRC2012_ID" => id = Some(value()?.number()?),
                b"WNID" => wnid = Some(value()?.text()?),
                b"num_children" => children = Some(value()?.number()?),
                _ => {}
            }
        }
        let (Some(id), Some(wnid), Some(children)) = (id, wnid, children) else {
            return Err("a structure without ILSVRC2012_ID, WNID or num_children");
        };
        if children == 0.0 && synsets.insert(id as u32, wnid).is_some() {
            return Err("two classes have the same ILSVRC2012_ID");
        }
    }
    Ok(Some(synsets))
}
