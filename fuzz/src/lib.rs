//! What looks for the next fault: the bodies of the fuzz targets, which `targets/` gives to libFuzzer and
//! `tests/regression.rs` runs on every seed and on every case that was ever found.
#![allow(missing_docs)]

#[path = "../../tests/common/mod.rs"]
pub mod common;
#[path = "../../tests/fixtures/tokenizer.rs"]
mod fixtures;

pub mod calls;
pub mod calls_more;
pub mod chat;
pub mod gbnf;
pub mod gguf_edit;
pub mod grammar;
pub mod lark;
pub mod parser;
pub mod reader;
pub mod regex;
pub mod restore;
pub mod schema;
pub mod stream;
pub mod support;
pub mod tokenize;
