//! One file's header, metadata and tensor table, checked field by field in file order.

use std::cell::Cell;
use std::fmt::Display;
use std::ops::Range;

use super::cursor::{Cursor, refuse, shorten};
use super::types::{self, TensorType};
use super::value::{Array, Value, ValueType};
use super::{DEFAULT_ALIGNMENT, MAGIC, MAX_ALIGNMENT, MAX_DIMS, MAX_ENTRIES, MAX_KEY_BYTES, MAX_NAME_BYTES};
use crate::alloc::reserve;
use crate::error::{Error, GgufFault, Result};

/// Bytes of magic, version and the two counts.
const HEADER_BYTES: u64 = 24;
/// The smallest metadata entry: key length, one byte of key, type, one byte of value.
const MIN_META_BYTES: u64 = 8 + 1 + 4 + 1;
/// The smallest tensor entry: name length, one byte of name, one dimension, type, offset.
const MIN_TENSOR_BYTES: u64 = 8 + 1 + 4 + 8 + 4 + 8;

/// One metadata entry, as places in the file.
#[derive(Clone, Debug)]
pub(super) struct MetaEntry {
    /// Bytes of the key.
    pub key: Range<usize>,
    pub ty: ValueType,
    /// Elements of an array (type and number); unused otherwise.
    pub element: ValueType,
    pub len: usize,
    /// Bytes of the value: of a string without its length, of an array without its head.
    pub value: Range<usize>,
    /// Where the value begins in the file, its type number included.
    pub at: u64,
}

impl MetaEntry {
    /// The value, read from the bytes this entry was parsed from.
    pub fn read<'s>(&self, bytes: &'s [u8]) -> Option<Value<'s>> {
        let part = bytes.get(self.value.clone())?;
        match self.ty {
            ValueType::String => std::str::from_utf8(part).ok().map(Value::String),
            ValueType::Array => Some(Value::Array(Array { ty: self.element, len: self.len, bytes: part })),
            ty => Value::scalar(ty, part),
        }
    }
}

/// One tensor, as places in the file.
#[derive(Clone, Debug)]
pub(super) struct TensorEntry {
    pub name: Range<usize>,
    pub ty: TensorType,
    pub dims: [u64; MAX_DIMS as usize],
    pub n_dims: usize,
    /// Relative to the data section while the table is read, absolute afterwards.
    pub data: Range<u64>,
    /// Where the offset field stands.
    pub at: u64,
}

/// One file's table of contents.
#[derive(Debug)]
pub(super) struct Contents {
    pub version: u32,
    pub meta: Vec<MetaEntry>,
    /// Indices into `meta`, by key.
    pub meta_by_key: Vec<u32>,
    pub tensors: Vec<TensorEntry>,
    /// Bytes before the tensors' contents.
    pub end: usize,
}

/// The text in a range of the bytes that were parsed.
pub(super) fn text<'s>(bytes: &'s [u8], range: &Range<usize>) -> &'s str {
    bytes.get(range.clone()).and_then(|b| std::str::from_utf8(b).ok()).unwrap_or("")
}

/// Reads and checks everything but the tensors' contents. `bytes` are the first of a file of `file_bytes`; where they
/// are too few, it fails and sets `wants`, 0 before, to how many it needs at least.
pub(super) fn parse(bytes: &[u8], file_bytes: u64, wants: &Cell<u64>) -> Result<Contents> {
    let mut cursor = Cursor::of_head(bytes, file_bytes, wants);
    let short = || refuse(&"header", 0, GgufFault::TooSmall, file_bytes, HEADER_BYTES);
    if file_bytes < 4 {
        return Err(short());
    }
    let magic = cursor.u32(&"magic")?;
    if magic != MAGIC {
        return Err(no_gguf(magic));
    }
    if file_bytes < HEADER_BYTES {
        return Err(short());
    }
    let version = cursor.u32(&"version")?;
    if version == 0 {
        return Err(refuse(&"version", 4, GgufFault::TooSmall, 0, 2));
    }
    if version & 0xffff == 0 {
        return Err(unsupported(
            &"version at byte 4",
            format!("{} as big-endian", version.swap_bytes()),
            "2 or 3 as little-endian".into(),
        ));
    }
    if version != 2 && version != 3 {
        return Err(unsupported(&"version at byte 4", version, "2 or 3".into()));
    }
    let n_tensors = count(&mut cursor, "tensor count", MIN_TENSOR_BYTES, file_bytes - HEADER_BYTES)?;
    let n_meta = count(&mut cursor, "metadata count", MIN_META_BYTES, file_bytes - HEADER_BYTES)?;

    let mut meta = Vec::new();
    reserve(&mut meta, n_meta)?;
    for i in 0..n_meta {
        meta.push(meta_entry(&mut cursor, i)?);
    }
    let meta_by_key = order(&meta, |m| text(bytes, &m.key))?;
    for pair in meta_by_key.windows(2) {
        let (first, second) = (&meta[pair[0] as usize], &meta[pair[1] as usize]);
        let key = text(bytes, &second.key);
        if key == text(bytes, &first.key) {
            let field = format!("key \"{}\"", shorten(key));
            return Err(refuse(&field, second.key.start as u64, GgufFault::Duplicate, pair[1].into(), pair[0].into()));
        }
    }

    let mut tensors = Vec::new();
    reserve(&mut tensors, n_tensors)?;
    for i in 0..n_tensors {
        tensors.push(tensor_entry(&mut cursor, i, file_bytes)?);
    }
    let alignment = alignment(bytes, &meta)?;
    // No overflow: both are far below 2^63.
    let data_at = cursor.at().next_multiple_of(alignment);
    let end = cursor.at() as usize;
    place(bytes, file_bytes, &mut tensors, data_at, alignment)?;
    Ok(Contents { version, meta, meta_by_key, tensors, end })
}

/// Indices of `items` by name, equal names in file order.
pub(super) fn order<'s, T>(items: &[T], name: impl Fn(&T) -> &'s str) -> Result<Vec<u32>> {
    let mut order = indices(items.len())?;
    // Unstable, which takes no memory: no two indices are equal.
    order.sort_unstable_by(|&a, &b| name(&items[a as usize]).cmp(name(&items[b as usize])).then(a.cmp(&b)));
    Ok(order)
}

fn indices(n: usize) -> Result<Vec<u32>> {
    let mut indices = Vec::new();
    reserve(&mut indices, n)?;
    indices.extend(0..n as u32);
    Ok(indices)
}

/// The failure of a field whose value means something which is not here.
fn unsupported(field: &dyn Display, found: impl Display, expected: String) -> Error {
    Error::UnsupportedValue { name: field.to_string(), found: found.to_string(), expected }
}

/// The types of tensors that there are, for a message.
fn known_types() -> String {
    let names: Vec<&str> = TensorType::ALL.iter().map(|ty| ty.name()).collect();
    format!("one of {}", names.join(", "))
}

/// A file that begins with something else.
fn no_gguf(magic: u32) -> Error {
    let found = magic.to_le_bytes();
    let hex = found.map(|b| format!("{b:02x}")).join(" ");
    Error::Model {
        name: "magic at byte 0".into(),
        found: format!("\"{}\" ({hex})", found.escape_ascii()),
        expected: "\"GGUF\", which a model file begins with".into(),
    }
}

/// A number of entries of at least `min_bytes` each in the rest of the file.
fn count(cursor: &mut Cursor<'_>, name: &str, min_bytes: u64, rest: u64) -> Result<usize> {
    let at = cursor.at();
    let n = cursor.u64(&name)?;
    let limit = MAX_ENTRIES.min(rest / min_bytes);
    if n > limit {
        return Err(refuse(&name, at, GgufFault::TooLarge, n, limit));
    }
    Ok(n as usize)
}

/// The bytes of a text just read; `end` is the cursor's place after it.
fn range_before(end: u64, text: &str) -> Range<usize> {
    end as usize - text.len()..end as usize
}

fn meta_entry(cursor: &mut Cursor<'_>, i: usize) -> Result<MetaEntry> {
    let at = cursor.at();
    let key = cursor.text(MAX_KEY_BYTES, &format_args!("metadata {i} key"))?;
    if key.is_empty() {
        return Err(refuse(&format_args!("metadata {i} key length"), at, GgufFault::TooSmall, 0, 1));
    }
    let key_range = range_before(cursor.at(), key);
    let key = shorten(key);
    let at = cursor.at();
    let ty = value_type(cursor, &format_args!("key \"{key}\" type"))?;
    let name = format_args!("key \"{key}\"");
    let mut entry = MetaEntry { key: key_range, ty, element: ty, len: 1, value: 0..0, at };
    match ty {
        ValueType::String => {
            let value = cursor.text(u64::MAX, &name)?;
            entry.value = range_before(cursor.at(), value);
        }
        ValueType::Array => {
            entry.element = value_type(cursor, &format_args!("{name} element type"))?;
            if entry.element == ValueType::Array {
                return Err(unsupported(&name, "an array of arrays", "an array of numbers or texts".into()));
            }
            let at = cursor.at();
            let len = cursor.u64(&format_args!("{name} array length"))?;
            let limit = cursor.left() / entry.element.fixed_bytes().unwrap_or(8) as u64;
            if len > limit {
                return Err(refuse(&format_args!("{name} array length"), at, GgufFault::TooLarge, len, limit));
            }
            entry.len = len as usize;
            let start = cursor.at() as usize;
            elements(cursor, entry.element, len, &name)?;
            entry.value = start..cursor.at() as usize;
        }
        _ => {
            let start = cursor.at() as usize;
            elements(cursor, ty, 1, &name)?;
            entry.value = start..cursor.at() as usize;
        }
    }
    Ok(entry)
}

/// Steps over `len` values, checking what can be wrong in them.
fn elements(cursor: &mut Cursor<'_>, ty: ValueType, len: u64, name: &dyn Display) -> Result<()> {
    let Some(size) = ty.fixed_bytes() else {
        for i in 0..len {
            cursor.text(u64::MAX, &format_args!("{name} element {i}"))?;
        }
        return Ok(());
    };
    let at = cursor.at();
    // `len` was checked against the bytes that remain, so this does not overflow.
    let values = cursor.take(len * size as u64, name)?;
    if ty == ValueType::Bool
        && let Some(i) = values.iter().position(|&b| b > 1)
    {
        return Err(refuse(name, at + i as u64, GgufFault::TooLarge, values[i].into(), 1));
    }
    Ok(())
}

fn value_type(cursor: &mut Cursor<'_>, name: &dyn Display) -> Result<ValueType> {
    let at = cursor.at();
    let number = cursor.u32(name)?;
    ValueType::from_number(number)
        .ok_or_else(|| refuse(name, at, GgufFault::Unknown, number.into(), ValueType::ALL.len() as u64))
}

fn tensor_entry(cursor: &mut Cursor<'_>, i: usize, file_bytes: u64) -> Result<TensorEntry> {
    let at = cursor.at();
    let name = cursor.text(MAX_NAME_BYTES, &format_args!("tensor {i} name"))?;
    if name.is_empty() {
        return Err(refuse(&format_args!("tensor {i} name length"), at, GgufFault::TooSmall, 0, 1));
    }
    let name_range = range_before(cursor.at(), name);
    let field = |what: &str| format!("tensor \"{}\" {what}", shorten(name));

    let at = cursor.at();
    let n_dims = u64::from(cursor.u32(&field("dimension count"))?);
    if n_dims == 0 {
        return Err(refuse(&field("dimension count"), at, GgufFault::TooSmall, 0, 1));
    }
    if n_dims > MAX_DIMS {
        return Err(refuse(&field("dimension count"), at, GgufFault::TooLarge, n_dims, MAX_DIMS));
    }
    let dims_at = cursor.at();
    let mut dims = [1; MAX_DIMS as usize];
    for dim in dims.iter_mut().take(n_dims as usize) {
        *dim = cursor.u64(&field("dimension"))?;
    }
    let at = cursor.at();
    let number = cursor.u32(&field("type"))?;
    let ty = match TensorType::from_number(number) {
        Some(ty) => ty,
        None => match types::unsupported_name(number) {
            Some(name) => return Err(unsupported(&field("type"), name, known_types())),
            None => {
                let limit = types::NUMBERS_END.into();
                return Err(refuse(&field("type"), at, GgufFault::Unknown, number.into(), limit));
            }
        },
    };

    // The most elements of this type that a file of this size can hold: no product below exceeds it.
    let (block_len, block_bytes) = (ty.block_len() as u64, ty.block_bytes() as u64);
    let max_elements = (file_bytes / block_bytes).saturating_mul(block_len);
    let mut n_elements = 1;
    for (d, &dim) in dims.iter().take(n_dims as usize).enumerate() {
        let at = dims_at + 8 * d as u64;
        let name = || field(&format!("dimension {d}"));
        if dim == 0 {
            return Err(refuse(&name(), at, GgufFault::TooSmall, 0, 1));
        }
        let limit = max_elements / n_elements;
        if dim > limit {
            return Err(refuse(&name(), at, GgufFault::TooLarge, dim, limit));
        }
        n_elements *= dim;
    }
    if dims[0] % block_len != 0 {
        return Err(refuse(&field("dimension 0"), dims_at, GgufFault::Misaligned, dims[0], block_len));
    }
    let n_bytes = n_elements / block_len * block_bytes;

    let at = cursor.at();
    let start = cursor.u64(&field("offset"))?;
    if start > file_bytes {
        return Err(refuse(&field("offset"), at, GgufFault::TooLarge, start, file_bytes));
    }
    Ok(TensorEntry { name: name_range, ty, dims, n_dims: n_dims as usize, data: start..start + n_bytes, at })
}

/// `general.alignment`, or the default.
fn alignment(bytes: &[u8], meta: &[MetaEntry]) -> Result<u64> {
    const KEY: &str = "key \"general.alignment\"";
    let Some(entry) = meta.iter().find(|m| text(bytes, &m.key) == "general.alignment") else {
        return Ok(DEFAULT_ALIGNMENT);
    };
    let Some(Value::U32(value)) = entry.read(bytes) else {
        let (found, limit) = (entry.ty.number().into(), ValueType::U32.number().into());
        return Err(refuse(&KEY, entry.at, GgufFault::WrongType, found, limit));
    };
    let (value, at) = (u64::from(value), entry.value.start as u64);
    if value == 0 {
        return Err(refuse(&KEY, at, GgufFault::TooSmall, 0, 8));
    }
    if value > MAX_ALIGNMENT {
        return Err(refuse(&KEY, at, GgufFault::TooLarge, value, MAX_ALIGNMENT));
    }
    if value % 8 != 0 {
        return Err(refuse(&KEY, at, GgufFault::Misaligned, value, 8));
    }
    Ok(value)
}

/// Makes the tensors' ranges absolute; checks their alignment, that they end inside the file, and that no two
/// share bytes.
fn place(bytes: &[u8], file_bytes: u64, tensors: &mut [TensorEntry], data_at: u64, alignment: u64) -> Result<()> {
    for tensor in tensors.iter_mut() {
        let field = |what: &str| format!("tensor \"{}\" {what}", shorten(text(bytes, &tensor.name)));
        if tensor.data.start % alignment != 0 {
            return Err(refuse(&field("offset"), tensor.at, GgufFault::Misaligned, tensor.data.start, alignment));
        }
        // No overflow: the start and the number of bytes were each checked against the file's size.
        let data = data_at + tensor.data.start..data_at + tensor.data.end;
        if data.end > file_bytes {
            return Err(refuse(&field("data"), data.start, GgufFault::TooLarge, data.end, file_bytes));
        }
        tensor.data = data;
    }
    let mut by_place = indices(tensors.len())?;
    by_place.sort_unstable_by_key(|&i| (tensors[i as usize].data.start, i));
    for pair in by_place.windows(2) {
        let [before, behind] = [pair[0], pair[1]].map(|i| &tensors[i as usize]);
        if behind.data.start < before.data.end {
            let field = format!("tensor \"{}\" offset", shorten(text(bytes, &behind.name)));
            let (found, limit) = (behind.data.start, before.data.end);
            return Err(refuse(&field, behind.at, GgufFault::Overlap, found, limit));
        }
    }
    Ok(())
}
