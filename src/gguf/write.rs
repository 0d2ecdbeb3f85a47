//! Writes GGUF files, for tests and tools.
//!
//! It writes what it is told and checks nothing, so that tests can write what the reader refuses. The table of contents
//! is complete before any tensor's bytes: large files are streamed, at the places that [`Writer::layout`] gives.

use std::ops::Range;

use super::types::TensorType;
use super::value::{Value, ValueType};
use super::{DEFAULT_ALIGNMENT, MAGIC};

/// A GGUF file's table of contents in the making.
#[derive(Clone, Debug)]
pub struct Writer {
    version: u32,
    alignment: u64,
    meta: Vec<u8>,
    n_meta: u64,
    tensors: Vec<Declared>,
}

#[derive(Clone, Debug)]
struct Declared {
    name: String,
    ty: TensorType,
    dims: Vec<u64>,
}

impl Declared {
    fn n_bytes(&self) -> u64 {
        let n_elements: u64 = self.dims.iter().product();
        n_elements / self.ty.block_len() as u64 * self.ty.block_bytes() as u64
    }
}

/// Where everything stands in the finished file.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The bytes before the first tensor.
    pub head: Vec<u8>,
    /// Each tensor's place in the file, in the order of declaration.
    pub tensors: Vec<Range<u64>>,
    /// Bytes of the file.
    pub file_bytes: u64,
}

impl Writer {
    /// An empty file of version 2 or 3.
    pub fn new(version: u32) -> Writer {
        Writer { version, alignment: DEFAULT_ALIGNMENT, meta: Vec::new(), n_meta: 0, tensors: Vec::new() }
    }

    /// Sets the alignment of the tensors and writes the key that says so.
    pub fn alignment(&mut self, alignment: u32) -> &mut Writer {
        self.alignment = alignment.into();
        self.meta("general.alignment", Value::U32(alignment))
    }

    /// Adds a metadata entry.
    pub fn meta(&mut self, key: &str, value: Value<'_>) -> &mut Writer {
        self.key(key);
        self.meta.extend(value.value_type().number().to_le_bytes());
        match value {
            Value::Array(array) => {
                self.meta.extend(array.ty.number().to_le_bytes());
                self.meta.extend((array.len as u64).to_le_bytes());
                self.meta.extend(array.bytes);
            }
            value => self.value(value),
        }
        self
    }

    /// Adds an array; every value is of the element type, which is not `Array`.
    pub fn array<'v>(
        &mut self,
        key: &str,
        element: ValueType,
        values: impl IntoIterator<Item = Value<'v>>,
    ) -> &mut Writer {
        self.key(key);
        self.meta.extend(ValueType::Array.number().to_le_bytes());
        self.meta.extend(element.number().to_le_bytes());
        let len_at = self.meta.len();
        self.meta.extend([0; 8]);
        let mut len = 0u64;
        for value in values {
            self.value(value);
            len += 1;
        }
        self.meta[len_at..len_at + 8].copy_from_slice(&len.to_le_bytes());
        self
    }

    /// Declares a tensor; `dims` has the contiguous dimension first.
    pub fn tensor(&mut self, name: &str, ty: TensorType, dims: &[u64]) -> &mut Writer {
        self.tensors.push(Declared { name: name.into(), ty, dims: dims.into() });
        self
    }

    /// The head of the file and the places of the tensors.
    pub fn layout(&self) -> Layout {
        let mut head = Vec::new();
        head.extend(MAGIC.to_le_bytes());
        head.extend(self.version.to_le_bytes());
        head.extend((self.tensors.len() as u64).to_le_bytes());
        head.extend(self.n_meta.to_le_bytes());
        head.extend(&self.meta);
        let mut offset = 0u64;
        let mut tensors = Vec::with_capacity(self.tensors.len());
        for tensor in &self.tensors {
            head.extend((tensor.name.len() as u64).to_le_bytes());
            head.extend(tensor.name.as_bytes());
            head.extend((tensor.dims.len() as u32).to_le_bytes());
            for dim in &tensor.dims {
                head.extend(dim.to_le_bytes());
            }
            head.extend(tensor.ty.number().to_le_bytes());
            head.extend(offset.to_le_bytes());
            tensors.push(offset..offset + tensor.n_bytes());
            offset = (offset + tensor.n_bytes()).next_multiple_of(self.alignment);
        }
        let data_at = (head.len() as u64).next_multiple_of(self.alignment);
        head.resize(data_at as usize, 0);
        for range in &mut tensors {
            *range = data_at + range.start..data_at + range.end;
        }
        Layout { head, tensors, file_bytes: data_at + offset }
    }

    /// The whole file; `fill` writes the bytes of the tensor with the given index.
    pub fn to_bytes(&self, mut fill: impl FnMut(usize, &mut [u8])) -> Vec<u8> {
        let Layout { mut head, tensors, file_bytes } = self.layout();
        head.resize(file_bytes as usize, 0);
        for (i, range) in tensors.iter().enumerate() {
            fill(i, &mut head[range.start as usize..range.end as usize]);
        }
        head
    }

    fn key(&mut self, key: &str) {
        self.n_meta += 1;
        self.value(Value::String(key));
    }

    /// A value without its type; nothing for an array.
    fn value(&mut self, value: Value<'_>) {
        match value {
            Value::U8(v) => self.meta.extend(v.to_le_bytes()),
            Value::I8(v) => self.meta.extend(v.to_le_bytes()),
            Value::U16(v) => self.meta.extend(v.to_le_bytes()),
            Value::I16(v) => self.meta.extend(v.to_le_bytes()),
            Value::U32(v) => self.meta.extend(v.to_le_bytes()),
            Value::I32(v) => self.meta.extend(v.to_le_bytes()),
            Value::F32(v) => self.meta.extend(v.to_le_bytes()),
            Value::Bool(v) => self.meta.push(v.into()),
            Value::U64(v) => self.meta.extend(v.to_le_bytes()),
            Value::I64(v) => self.meta.extend(v.to_le_bytes()),
            Value::F64(v) => self.meta.extend(v.to_le_bytes()),
            Value::String(v) => {
                self.meta.extend((v.len() as u64).to_le_bytes());
                self.meta.extend(v.as_bytes());
            }
            Value::Array(_) => {}
        }
    }
}
