//! An opened model file, or the shards of a split one, as one table of metadata and tensors.
//!
//! Invariants: all names, shapes and byte ranges were checked when it was opened; tensor names are unique over all
//! shards; the metadata is the first shard's.

use std::cell::Cell;
use std::path::Path;

use super::cursor::refuse;
use super::parse::{self, MetaEntry, TensorEntry};
use super::shards::{self, Shard};
use super::source::{Data, Source};
use super::types::TensorType;
use super::value::{Array, Value, ValueType};
use crate::alloc::reserve;
use crate::error::{Error, GgufFault, Result};

/// An opened GGUF model. `'a` is the life of the caller's buffer; of a file it is `'static`.
#[derive(Debug)]
pub struct Gguf<'a> {
    shards: Vec<Shard<'a>>,
    /// `(shard, tensor)`, in the order of the files.
    tensors: Vec<(u32, u32)>,
    /// Indices into `tensors`, by name.
    by_name: Vec<u32>,
}

/// One tensor of the file.
#[derive(Clone, Copy, Debug)]
pub struct TensorInfo<'g> {
    /// Its name.
    pub name: &'g str,
    /// Its stored type.
    pub ty: TensorType,
    /// Elements along each dimension, the contiguous one first; one to four.
    pub dims: &'g [u64],
    /// Where its bytes begin in its file.
    pub offset: u64,
    /// The stored bytes.
    pub data: Data<'g>,
}

impl TensorInfo<'_> {
    /// Elements of a row.
    pub fn cols(&self) -> usize {
        self.dims[0] as usize
    }

    /// Rows, over all outer dimensions.
    pub fn rows(&self) -> usize {
        self.dims[1..].iter().product::<u64>() as usize
    }

    /// All elements.
    pub fn n_elements(&self) -> u64 {
        self.dims.iter().product()
    }
}

impl Gguf<'static> {
    /// Opens a file; of a split model (`NAME-00001-of-0000N.gguf`) all of its files, whichever of them is named.
    ///
    /// Fails with `Io` if a file cannot be opened, with `Gguf` if one is malformed, with `Unsupported` if it needs
    /// a version, byte order or tensor type that is not there.
    pub fn open(path: &Path) -> Result<Gguf<'static>> {
        shards::open(path).and_then(Gguf::join)
    }
}

impl<'a> Gguf<'a> {
    /// Reads a file that lies in memory, without copying it.
    ///
    /// Fails like [`Gguf::open`], and if the file is one of several of a split model.
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Gguf<'a>> {
        let contents = parse::parse(bytes, bytes.len() as u64, &Cell::new(0))?;
        let shard = Shard { source: Source::Borrowed(bytes), contents };
        shards::check_alone(&shard, None)?;
        Gguf::join(vec![shard])
    }

    /// Makes one table of the shards' tensors.
    fn join(shards: Vec<Shard<'a>>) -> Result<Gguf<'a>> {
        let mut tensors = Vec::new();
        reserve(&mut tensors, shards.iter().map(|s| s.contents.tensors.len()).sum())?;
        for (s, shard) in shards.iter().enumerate() {
            tensors.extend((0..shard.contents.tensors.len()).map(|t| (s as u32, t as u32)));
        }
        let mut gguf = Gguf { shards, tensors, by_name: Vec::new() };
        let by_name = parse::order(&gguf.tensors, |&place| gguf.entry_name(place))?;
        for pair in by_name.windows(2) {
            let place = gguf.tensors[pair[1] as usize];
            let name = gguf.entry_name(place);
            if name == gguf.entry_name(gguf.tensors[pair[0] as usize]) {
                let at = gguf.entry(place).1.name.start as u64;
                let field = format!("tensor \"{name}\" name");
                let error = refuse(&field, at, GgufFault::Duplicate, pair[1].into(), pair[0].into());
                return Err(shards::in_file(error, place.0.into(), gguf.shards.len() as u64));
            }
        }
        gguf.by_name = by_name;
        Ok(gguf)
    }

    fn entry(&self, (shard, tensor): (u32, u32)) -> (&[u8], &TensorEntry) {
        let shard = &self.shards[shard as usize];
        (shard.source.head(), &shard.contents.tensors[tensor as usize])
    }

    fn entry_name(&self, place: (u32, u32)) -> &str {
        let (bytes, entry) = self.entry(place);
        parse::text(bytes, &entry.name)
    }

    fn info(&self, place: (u32, u32)) -> TensorInfo<'_> {
        let (bytes, entry) = self.entry(place);
        TensorInfo {
            name: parse::text(bytes, &entry.name),
            ty: entry.ty,
            dims: &entry.dims[..entry.n_dims],
            offset: entry.data.start,
            data: Data::new(&self.shards[place.0 as usize].source, &entry.data),
        }
    }

    /// The format's version, 2 or 3.
    pub fn version(&self) -> u32 {
        self.shards[0].contents.version
    }

    /// Bytes of all files.
    pub fn file_bytes(&self) -> u64 {
        self.shards.iter().map(|s| s.source.len()).sum()
    }

    /// Number of tensors.
    pub fn n_tensors(&self) -> usize {
        self.tensors.len()
    }

    /// All tensors, in the order of the files.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = TensorInfo<'_>> {
        self.tensors.iter().map(|&place| self.info(place))
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<TensorInfo<'_>> {
        let at = self.by_name.binary_search_by(|&i| self.entry_name(self.tensors[i as usize]).cmp(name)).ok()?;
        Some(self.info(self.tensors[self.by_name[at] as usize]))
    }

    /// Number of metadata entries.
    pub fn n_meta(&self) -> usize {
        self.shards[0].contents.meta.len()
    }

    /// All metadata, in the order of the file.
    pub fn meta_iter(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        let Shard { source, contents } = &self.shards[0];
        let bytes = source.head();
        contents.meta.iter().filter_map(move |m| Some((parse::text(bytes, &m.key), m.read(bytes)?)))
    }

    fn meta_entry(&self, key: &str) -> Option<&MetaEntry> {
        self.shards[0].meta_entry(key)
    }

    /// The value of a key.
    pub fn meta(&self, key: &str) -> Option<Value<'_>> {
        self.meta_entry(key)?.read(self.shards[0].source.head())
    }

    /// A refusal of a key's value: where it stands and how its type differs from the one needed.
    fn wrong_type(&self, key: &str, found: ValueType, needed: ValueType) -> Error {
        let at = self.meta_entry(key).map_or(0, |m| m.at);
        refuse(&format!("key \"{key}\""), at, GgufFault::WrongType, found.number().into(), needed.number().into())
    }

    /// Reads a key through `read`, which gives `None` for a value of another type than `needed`.
    fn typed<'g, T>(
        &'g self,
        key: &str,
        needed: ValueType,
        read: impl Fn(Value<'g>) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.meta(key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.wrong_type(key, value.value_type(), needed))
    }

    /// The key's unsigned number, stored as an integer of any width.
    pub fn opt_uint(&self, key: &str) -> Result<Option<u64>> {
        let Some(value) = self.typed(key, ValueType::U32, |v| v.as_int())? else { return Ok(None) };
        u64::try_from(value).map(Some).map_err(|_| Error::Model {
            name: format!("key \"{key}\""),
            found: value.to_string(),
            expected: "a number that is not negative".into(),
        })
    }

    /// The key's number, stored as a float of either width.
    pub fn opt_float(&self, key: &str) -> Result<Option<f32>> {
        self.typed(key, ValueType::F32, |v| v.as_float().map(|x| x as f32))
    }

    /// The key's bool.
    pub fn opt_bool(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, ValueType::Bool, |v| if let Value::Bool(b) = v { Some(b) } else { None })
    }

    /// The key's string.
    pub fn opt_text(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, ValueType::String, |v| v.as_text())
    }

    /// The key's array, of elements of any type.
    pub fn opt_array(&self, key: &str) -> Result<Option<Array<'_>>> {
        self.typed(key, ValueType::Array, |v| v.as_array())
    }

    /// The key's array of strings.
    pub fn opt_strings(&self, key: &str) -> Result<Option<Array<'_>>> {
        match self.opt_array(key)? {
            Some(array) if array.element_type() != ValueType::String => {
                Err(self.wrong_type(key, array.element_type(), ValueType::String))
            }
            array => Ok(array),
        }
    }

    /// [`Gguf::opt_uint`] of a key that must be there.
    pub fn uint(&self, key: &str) -> Result<u64> {
        self.opt_uint(key)?.ok_or_else(|| missing(key, "an unsigned integer"))
    }

    /// [`Gguf::opt_float`] of a key that must be there.
    pub fn float(&self, key: &str) -> Result<f32> {
        self.opt_float(key)?.ok_or_else(|| missing(key, "a float"))
    }

    /// [`Gguf::opt_text`] of a key that must be there.
    pub fn text(&self, key: &str) -> Result<&str> {
        self.opt_text(key)?.ok_or_else(|| missing(key, "a string"))
    }

    /// [`Gguf::opt_strings`] of a key that must be there.
    pub fn strings(&self, key: &str) -> Result<Array<'_>> {
        self.opt_strings(key)?.ok_or_else(|| missing(key, "an array of strings"))
    }
}

/// A key that is needed and not there.
fn missing(key: &str, expected: &str) -> Error {
    Error::Model { name: format!("key \"{key}\""), found: "missing".into(), expected: expected.into() }
}
