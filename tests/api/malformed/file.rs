//! A correct file, its places, and the ways to make it wrong.

use kigo::error::Status;
use kigo::gguf::{TensorType, Value};

use crate::common::tiny::Tiny;

/// A correct file to be made wrong.
pub struct File {
    pub bytes: Vec<u8>,
}

impl File {
    /// The tiny qwen2 (with biases), Q4_0.
    pub fn new() -> File {
        File::of(&tiny())
    }

    pub fn of(tiny: &Tiny) -> File {
        File { bytes: tiny.bytes() }
    }

    /// Where the bytes stand for the first time.
    pub fn find(&self, needle: &[u8]) -> usize {
        self.bytes.windows(needle.len()).position(|w| w == needle).expect("stands in the file")
    }

    /// Where the type of a key's value stands; the value follows after four bytes.
    pub fn key(&self, key: &str) -> usize {
        let mut needle = (key.len() as u64).to_le_bytes().to_vec();
        needle.extend(key.as_bytes());
        self.find(&needle) + needle.len()
    }

    /// Where the dimension count of a tensor stands; of a matrix, the dimensions are at + 4 and + 12, the type at + 20,
    /// the offset at + 24; of a vector the type is at + 12.
    pub fn tensor(&self, name: &str) -> usize {
        self.key(name)
    }

    pub fn put<const N: usize>(&mut self, at: usize, bytes: [u8; N]) {
        self.bytes[at..at + N].copy_from_slice(&bytes);
    }

    pub fn u64_at(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes[at..at + 8].try_into().expect("eight bytes"))
    }

    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub fn rename(&mut self, from: &str, to: &str) {
        assert_eq!(from.len(), to.len());
        let at = self.find(from.as_bytes());
        self.bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
}

pub fn tiny() -> Tiny {
    Tiny::new("qwen2", TensorType::Q4_0)
}

/// What is said of an architecture that is none of those that are here.
pub fn no_such_architecture(found: &str) -> String {
    let names: Vec<&str> = kigo::model::ARCHITECTURES.iter().map(|a| a.name).collect();
    format!("key \"general.architecture\" is {found}; expected one of {}", names.join(", "))
}

/// The tiny model with a key of another value.
pub fn with(arch: &str, key: &str, value: Value<'static>) -> File {
    File::of(&Tiny { with: vec![(key.into(), value)], ..Tiny::new(arch, TensorType::Q4_0) })
}

/// The tiny model without a key.
pub fn without(arch: &str, key: &str) -> File {
    File::of(&Tiny { without: vec![key.into()], ..Tiny::new(arch, TensorType::Q4_0) })
}

/// A wrong file, and the status and the text that it is refused with.
pub type Case = (&'static str, File, Status, String);

pub fn bad(name: &'static str, file: File, text: impl Into<String>) -> Case {
    (name, file, Status::InvalidModel, text.into())
}

pub fn unsupported(name: &'static str, file: File, text: &str) -> Case {
    (name, file, Status::Unsupported, text.into())
}

/// The tiny file after a change; the text comes from the change.
pub fn changed(name: &'static str, change: impl FnOnce(&mut File) -> String) -> Case {
    let mut file = File::new();
    let text = change(&mut file);
    bad(name, file, text)
}

/// The tiny file with bytes put at a place; the text's `{}` is that place.
pub fn put<const N: usize>(name: &'static str, at: fn(&File) -> usize, bytes: [u8; N], text: &str) -> Case {
    changed(name, |file| {
        let at = at(file);
        file.put(at, bytes);
        text.replace("{}", &at.to_string())
    })
}

pub const HUGE: u64 = 1 << 60;

impl File {
    /// Where the tensors begin: the table ends with the last tensor's offset.
    pub fn data_at(&self) -> u64 {
        (self.tensor("output_norm.weight") as u64 + 4 + 8 + 4 + 8).next_multiple_of(32)
    }

    /// How many tensors' entries stand before a place in the table.
    pub fn index_of_tensor(&self, at: usize) -> usize {
        let names: Vec<String> = tiny().shape.tensors().into_iter().map(|t| t.name).collect();
        let table = self.tensor("token_embd.weight");
        let before = &self.bytes[table..at - 8];
        // Each entry holds its name once; the first one's stands before `table`.
        1 + (1..names.len()).filter(|&i| before.windows(names[i].len()).any(|w| w == names[i].as_bytes())).count()
    }
}
