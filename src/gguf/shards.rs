//! Split models: `NAME-00001-of-0000N.gguf` to `NAME-0000N-of-0000N.gguf`.
//!
//! Each file is a complete GGUF with `split.no` (from 0), `split.count` and `split.tensors.count` (over all files);
//! the first carries the model's metadata.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use super::cursor::refuse;
use super::parse::{self, Contents, MetaEntry};
use super::source::{OpenFile, Source};
use super::value::ValueType;
use crate::alloc::reserve;
use crate::error::{Error, GgufFault, Result};

const NO: &str = "split.no";
const COUNT: &str = "split.count";
const TENSORS: &str = "split.tensors.count";

/// Bytes of a file read at first: the whole head of a small vocabulary's.
const FIRST_READ: u64 = 256 << 10;

/// One file of a model.
#[derive(Debug)]
pub(super) struct Shard<'a> {
    pub source: Source<'a>,
    pub contents: Contents,
}

/// Opens the file, or all files of the split model that it belongs to.
pub(super) fn open(path: &Path) -> Result<Vec<Shard<'static>>> {
    let Some((prefix, n)) = split_name(path).filter(|&(_, n)| n > 1) else {
        let shard = open_one(path)?;
        check_alone(&shard, Some(path))?;
        return Ok(vec![shard]);
    };
    let mut shards = Vec::new();
    for i in 0..n {
        let path: PathBuf = path.with_file_name(format!("{prefix}-{}.gguf", place(i, n)));
        let shard = open_one(&path).map_err(|e| in_file(e, i, n))?;
        check(&shard, NO, i, i, n).and_then(|()| check(&shard, COUNT, n, i, n)).map_err(|e| in_file(e, i, n))?;
        reserve(&mut shards, 1)?;
        shards.push(shard);
    }
    let n_tensors = shards.iter().map(|s| s.contents.tensors.len() as u64).sum();
    check(&shards[0], TENSORS, n_tensors, 0, n).map_err(|e| in_file(e, 0, n))?;
    Ok(shards)
}

/// "00001-of-00003": how the name of file `i`, from 0, of `n` ends.
fn place(i: impl Into<i128>, n: impl Into<i128>) -> String {
    format!("{:05}-of-{:05}", i.into() + 1, n.into())
}

/// Refuses a file that says it is one of several: it lies in memory, or under a name that does not say so.
pub(super) fn check_alone(shard: &Shard<'_>, path: Option<&Path>) -> Result<()> {
    let count = shard.int(COUNT)?.unwrap_or(1);
    if count == 1 {
        return Ok(());
    }
    let i = shard.int(NO)?.unwrap_or(0);
    match path {
        _ if count < 1 || i < 0 || i >= count => {
            let (found, expected) = (format!("{count} with {NO} {i}"), format!("more than {NO}, which counts from 0"));
            Err(Error::Model { name: format!("key \"{COUNT}\""), found, expected })
        }
        None => Err(Error::UnsupportedValue {
            name: format!("key \"{COUNT}\" of bytes in memory"),
            found: format!("{count}, with file {} here", i + 1),
            expected: "1: the others could not be found".into(),
        }),
        Some(path) => Err(Error::Model {
            name: "file name".into(),
            found: format!("{:?}", path.file_name().unwrap_or_default()),
            expected: format!("\"...-{}.gguf\", because {NO} is {i} and {COUNT} is {count}", place(i, count)),
        }),
    }
}

fn open_one(path: &Path) -> Result<Shard<'static>> {
    let mut file = OpenFile::open(path)?;
    let mut needed = FIRST_READ;
    let contents = loop {
        file.read_head(needed)?;
        let wants = Cell::new(0);
        match parse::parse(file.head(), file.len(), &wants) {
            Ok(contents) => break contents,
            Err(e) if wants.get() == 0 => return Err(e),
            // Twice as much each time, so that all reading and parsing is at most twice the last.
            Err(_) => needed = wants.get().max(2 * file.head().len() as u64),
        }
    };
    file.cut_head(contents.end);
    Ok(Shard { source: Source::File(file), contents })
}

/// `NAME` and `N` of `NAME-0000K-of-0000N.gguf`, `1 <= K <= N`.
fn split_name(path: &Path) -> Option<(&str, u64)> {
    let stem = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
    let (rest, n) = stem.rsplit_once("-of-")?;
    let (prefix, k) = rest.rsplit_once('-')?;
    let number = |digits: &str| -> Option<u64> {
        let all_digits = digits.len() == 5 && digits.bytes().all(|b| b.is_ascii_digit());
        digits.parse().ok().filter(|_| all_digits)
    };
    let (k, n) = (number(k)?, number(n)?);
    (1..=n).contains(&k).then_some((prefix, n))
}

/// Checks that a key of file `i` of `n` is there, an integer, and equal to `expected`.
fn check(shard: &Shard<'_>, key: &str, expected: u64, i: u64, n: u64) -> Result<()> {
    let field = format!("key \"{key}\"");
    match (shard.int(key)?, shard.meta_entry(key)) {
        (Some(found), _) if found == i128::from(expected) => Ok(()),
        // A negative number is shown as its two's complement.
        (Some(found), Some(entry)) => {
            Err(refuse(&field, entry.value.start as u64, GgufFault::Mismatch, found as u64, expected))
        }
        _ => {
            let expected = format!("{expected}, because the name ends in \"{}.gguf\"", place(i, n));
            Err(Error::Model { name: field, found: "missing".into(), expected })
        }
    }
}

impl Shard<'_> {
    /// The entry of a key.
    pub(super) fn meta_entry(&self, key: &str) -> Option<&MetaEntry> {
        let (bytes, contents) = (self.source.head(), &self.contents);
        let name = |i: u32| parse::text(bytes, &contents.meta[i as usize].key);
        let at = contents.meta_by_key.binary_search_by(|&i| name(i).cmp(key)).ok()?;
        Some(&contents.meta[contents.meta_by_key[at] as usize])
    }

    /// The key's integer.
    fn int(&self, key: &str) -> Result<Option<i128>> {
        let Some(entry) = self.meta_entry(key) else { return Ok(None) };
        let value = entry.read(self.source.head()).and_then(|v| v.as_int());
        let (found, needed) = (entry.ty.number().into(), ValueType::U16.number().into());
        let wrong = || refuse(&format!("key \"{key}\""), entry.at, GgufFault::WrongType, found, needed);
        value.map(Some).ok_or_else(wrong)
    }
}

/// Says which of the files a refusal is about, if there are several.
pub(super) fn in_file(error: Error, i: u64, n: u64) -> Error {
    match error {
        error if n == 1 => error,
        Error::Gguf { field, offset, fault, found, limit } => {
            Error::Gguf { field: format!("file {} of {n}: {field}", i + 1), offset, fault, found, limit }
        }
        Error::Model { name, found, expected } => {
            Error::Model { name: format!("file {} of {n}: {name}", i + 1), found, expected }
        }
        Error::UnsupportedValue { name, found, expected } => {
            Error::UnsupportedValue { name: format!("file {} of {n}: {name}", i + 1), found, expected }
        }
        other => other,
    }
}
