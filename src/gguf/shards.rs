//! Split models: `NAME-00001-of-0000N.gguf` to `NAME-0000N-of-0000N.gguf`.
//!
//! Each file is a complete GGUF with `split.no` (from 0), `split.count` and `split.tensors.count` (over all files);
//! the first carries the model's metadata.

use std::path::{Path, PathBuf};

use super::cursor::refuse;
use super::file::Shard;
use super::parse;
use super::source::Source;
use super::value::ValueType;
use crate::error::{Error, GgufFault, Result};

const NO: &str = "split.no";
const COUNT: &str = "split.count";
const TENSORS: &str = "split.tensors.count";

/// Opens the file, or all files of the split model that it belongs to.
pub(super) fn open(path: &Path) -> Result<Vec<Shard<'static>>> {
    let Some((prefix, n)) = split_name(path).filter(|&(_, n)| n > 1) else {
        let shard = open_one(path)?;
        check_alone(&shard)?;
        return Ok(vec![shard]);
    };
    let mut shards = Vec::new();
    for i in 0..n {
        let name = format!("{prefix}-{:05}-of-{n:05}.gguf", i + 1);
        let path: PathBuf = path.with_file_name(name);
        let shard = open_one(&path).map_err(|e| in_file(e, i, n))?;
        check(&shard, NO, i).and_then(|()| check(&shard, COUNT, n)).map_err(|e| in_file(e, i, n))?;
        shards.push(shard);
    }
    let n_tensors = shards.iter().map(|s| s.contents.tensors.len() as u64).sum();
    check(&shards[0], TENSORS, n_tensors).map_err(|e| in_file(e, 0, n))?;
    Ok(shards)
}

/// Refuses a file that says it is one of several.
pub(super) fn check_alone(shard: &Shard<'_>) -> Result<()> {
    match shard.meta_entry(COUNT) {
        Some(_) => check(shard, COUNT, 1),
        None => Ok(()),
    }
}

fn open_one(path: &Path) -> Result<Shard<'static>> {
    let source = Source::map(path)?;
    let contents = parse::parse(source.bytes())?;
    Ok(Shard { source, contents })
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

/// Checks that the key is there, an integer, and equal to `expected`.
fn check(shard: &Shard<'_>, key: &str, expected: u64) -> Result<()> {
    let field = format!("key \"{key}\"");
    let Some(entry) = shard.meta_entry(key) else {
        return Err(refuse(&field, 24, GgufFault::Missing, 0, 1));
    };
    let Some(found) = entry.read(shard.source.bytes()).and_then(|v| v.as_int()) else {
        let (found, needed) = (entry.ty.number().into(), ValueType::U16.number().into());
        return Err(refuse(&field, entry.at, GgufFault::WrongType, found, needed));
    };
    if found != i128::from(expected) {
        // A negative number is shown as its two's complement.
        return Err(refuse(&field, entry.value.start as u64, GgufFault::Mismatch, found as u64, expected));
    }
    Ok(())
}

/// Says which of the files a refusal is about, if there are several.
pub(super) fn in_file(error: Error, i: u64, n: u64) -> Error {
    match error {
        error if n == 1 => error,
        Error::Gguf { field, offset, fault, found, limit } => {
            Error::Gguf { field: format!("file {} of {n}: {field}", i + 1), offset, fault, found, limit }
        }
        other => other,
    }
}
