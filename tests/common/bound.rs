//! Tiny models with a file changed: how they are described, and why they are refused.

use super::rewritten::Rewritten;
use super::tiny::Tiny;
use kigo::gguf::{Gguf, TensorType, Value};
use kigo::model::{Config, bind};

/// The description of a tiny model with other keys.
pub fn config(arch: &str, keys: &[(&str, Value<'static>)]) -> Config {
    let with = keys.iter().map(|&(key, value)| (format!("{arch}.{key}"), value)).collect();
    let bytes = Tiny { with, ..Tiny::new(arch, TensorType::F16) }.bytes();
    bind(&Gguf::from_bytes(&bytes).expect("opens")).expect("binds").0
}

/// Why a changed file is refused.
pub fn refused(arch: &str, change: impl FnOnce(&mut Rewritten)) -> String {
    let mut file = Rewritten::of(&Tiny::new(arch, TensorType::F16));
    change(&mut file);
    bind(&Gguf::from_bytes(&file.bytes()).expect("opens")).expect_err("is refused").to_string()
}

/// Why a file with other keys is.
pub fn refused_with(arch: &str, key: &str, value: Value<'static>) -> String {
    let bytes = Tiny { with: vec![(format!("{arch}.{key}"), value)], ..Tiny::new(arch, TensorType::F16) }.bytes();
    bind(&Gguf::from_bytes(&bytes).expect("opens")).expect_err("is refused").to_string()
}
