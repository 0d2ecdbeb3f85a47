//! Metadata values as views into the file.

use std::fmt;

use super::cursor::Cursor;
use crate::alloc::reserve;
use crate::error::Result;

/// The type of a metadata value; the discriminant is the number in the file.
#[allow(missing_docs)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum ValueType {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl ValueType {
    /// All types, in the order of their numbers.
    pub const ALL: [ValueType; 13] = [
        ValueType::U8,
        ValueType::I8,
        ValueType::U16,
        ValueType::I16,
        ValueType::U32,
        ValueType::I32,
        ValueType::F32,
        ValueType::Bool,
        ValueType::String,
        ValueType::Array,
        ValueType::U64,
        ValueType::I64,
        ValueType::F64,
    ];

    /// The type with this number in the file.
    pub fn from_number(number: u32) -> Option<ValueType> {
        ValueType::ALL.get(number as usize).copied()
    }

    /// The number that stands for this type in the file.
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// Bytes of one value; `None` for strings and arrays.
    pub const fn fixed_bytes(self) -> Option<usize> {
        match self {
            ValueType::U8 | ValueType::I8 | ValueType::Bool => Some(1),
            ValueType::U16 | ValueType::I16 => Some(2),
            ValueType::U32 | ValueType::I32 | ValueType::F32 => Some(4),
            ValueType::U64 | ValueType::I64 | ValueType::F64 => Some(8),
            ValueType::String | ValueType::Array => None,
        }
    }
}

/// One metadata value.
#[allow(missing_docs)]
#[derive(Clone, Copy, Debug)]
pub enum Value<'g> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(&'g str),
    Array(Array<'g>),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl<'g> Value<'g> {
    /// A number or bool from its little-endian bytes; `None` when they are too few, and for strings and arrays.
    pub(super) fn scalar(ty: ValueType, bytes: &[u8]) -> Option<Value<'g>> {
        fn head<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
            bytes.first_chunk().copied()
        }
        Some(match ty {
            ValueType::U8 => Value::U8(u8::from_le_bytes(head(bytes)?)),
            ValueType::I8 => Value::I8(i8::from_le_bytes(head(bytes)?)),
            ValueType::U16 => Value::U16(u16::from_le_bytes(head(bytes)?)),
            ValueType::I16 => Value::I16(i16::from_le_bytes(head(bytes)?)),
            ValueType::U32 => Value::U32(u32::from_le_bytes(head(bytes)?)),
            ValueType::I32 => Value::I32(i32::from_le_bytes(head(bytes)?)),
            ValueType::F32 => Value::F32(f32::from_le_bytes(head(bytes)?)),
            ValueType::Bool => Value::Bool(head::<1>(bytes)?[0] != 0),
            ValueType::U64 => Value::U64(u64::from_le_bytes(head(bytes)?)),
            ValueType::I64 => Value::I64(i64::from_le_bytes(head(bytes)?)),
            ValueType::F64 => Value::F64(f64::from_le_bytes(head(bytes)?)),
            ValueType::String | ValueType::Array => return None,
        })
    }

    /// Its type.
    pub fn value_type(&self) -> ValueType {
        match self {
            Value::U8(_) => ValueType::U8,
            Value::I8(_) => ValueType::I8,
            Value::U16(_) => ValueType::U16,
            Value::I16(_) => ValueType::I16,
            Value::U32(_) => ValueType::U32,
            Value::I32(_) => ValueType::I32,
            Value::F32(_) => ValueType::F32,
            Value::Bool(_) => ValueType::Bool,
            Value::String(_) => ValueType::String,
            Value::Array(_) => ValueType::Array,
            Value::U64(_) => ValueType::U64,
            Value::I64(_) => ValueType::I64,
            Value::F64(_) => ValueType::F64,
        }
    }

    /// The number, if it is an integer of any width; wide enough for all of them.
    pub fn as_int(&self) -> Option<i128> {
        Some(match *self {
            Value::U8(v) => v.into(),
            Value::I8(v) => v.into(),
            Value::U16(v) => v.into(),
            Value::I16(v) => v.into(),
            Value::U32(v) => v.into(),
            Value::I32(v) => v.into(),
            Value::U64(v) => v.into(),
            Value::I64(v) => v.into(),
            _ => return None,
        })
    }

    /// The number, if it is a float of either width.
    pub fn as_float(&self) -> Option<f64> {
        match *self {
            Value::F32(v) => Some(v.into()),
            Value::F64(v) => Some(v),
            _ => None,
        }
    }

    /// The string.
    pub fn as_text(&self) -> Option<&'g str> {
        match *self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The array.
    pub fn as_array(&self) -> Option<Array<'g>> {
        match *self {
            Value::Array(array) => Some(array),
            _ => None,
        }
    }
}

impl fmt::Display for Value<'_> {
    /// Scalars and strings as they are; arrays as `[a, b, c]`, strings inside quoted.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::U8(v) => write!(f, "{v}"),
            Value::I8(v) => write!(f, "{v}"),
            Value::U16(v) => write!(f, "{v}"),
            Value::I16(v) => write!(f, "{v}"),
            Value::U32(v) => write!(f, "{v}"),
            Value::I32(v) => write!(f, "{v}"),
            Value::F32(v) => write!(f, "{v}"),
            Value::Bool(v) => write!(f, "{v}"),
            Value::String(v) => write!(f, "{v}"),
            Value::U64(v) => write!(f, "{v}"),
            Value::I64(v) => write!(f, "{v}"),
            Value::F64(v) => write!(f, "{v}"),
            Value::Array(array) => {
                write!(f, "[")?;
                for (i, value) in array.values().enumerate() {
                    let comma = if i == 0 { "" } else { ", " };
                    match value {
                        Value::String(text) => write!(f, "{comma}{text:?}")?,
                        value => write!(f, "{comma}{value}")?,
                    }
                }
                write!(f, "]")
            }
        }
    }
}

/// An array of numbers, bools or strings, still as the file's bytes: reading it allocates nothing.
#[derive(Clone, Copy, Debug)]
pub struct Array<'g> {
    pub(super) ty: ValueType,
    pub(super) len: usize,
    pub(super) bytes: &'g [u8],
}

impl<'g> Array<'g> {
    /// Type of the elements, never `Array`.
    pub fn element_type(&self) -> ValueType {
        self.ty
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All elements.
    pub fn values(&self) -> impl Iterator<Item = Value<'g>> + use<'g> {
        let (ty, bytes) = (self.ty, self.bytes);
        let mut strings = self.strings();
        (0..self.len).map_while(move |i| match ty.fixed_bytes() {
            Some(size) => Value::scalar(ty, bytes.get(i * size..)?),
            None => strings.next().map(Value::String),
        })
    }

    /// The elements as integers; none if they are of another type.
    pub fn ints(&self) -> impl Iterator<Item = i128> + use<'g> {
        self.values().map_while(|v| v.as_int())
    }

    /// The elements as f32 (f64 rounded); none if they are of another type.
    pub fn floats(&self) -> impl Iterator<Item = f32> + use<'g> {
        self.values().map_while(|v| v.as_float().map(|x| x as f32))
    }

    /// The elements as strings; none if they are of another type.
    pub fn strings(&self) -> Strings<'g> {
        let left = if self.ty == ValueType::String { self.len } else { 0 };
        Strings { cursor: Cursor::new(self.bytes, 0), left }
    }
}

/// An array that outlives its file.
#[derive(Clone, Debug)]
pub struct OwnedArray {
    ty: ValueType,
    len: usize,
    bytes: Vec<u8>,
}

impl OwnedArray {
    /// The array as a view.
    pub fn view(&self) -> Array<'_> {
        Array { ty: self.ty, len: self.len, bytes: &self.bytes }
    }
}

impl OwnedArray {
    /// A copy of the array. Fails with `OutOfMemory`.
    pub fn of(array: Array<'_>) -> Result<OwnedArray> {
        let mut bytes = Vec::new();
        reserve(&mut bytes, array.bytes.len())?;
        bytes.extend_from_slice(array.bytes);
        Ok(OwnedArray { ty: array.ty, len: array.len, bytes })
    }
}

/// The strings of an array, in order.
#[derive(Clone)]
pub struct Strings<'g> {
    cursor: Cursor<'g>,
    left: usize,
}

impl<'g> Iterator for Strings<'g> {
    type Item = &'g str;

    fn next(&mut self) -> Option<&'g str> {
        self.left = self.left.checked_sub(1)?;
        // Checked when the file was opened, in these very bytes.
        self.cursor.text(u64::MAX, &"").ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left))
    }
}
