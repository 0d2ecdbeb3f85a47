//! The C ABI and nothing else.
//!
//! One file is one concept and one section of `include/kigo.h`: its `//!` lines open the section, its items' docs are
//! the manual. [`SECTIONS`] is their order; `tests/repo/abi.rs` generates the header from it and compares.
//! `guard`, `args` and `handle` are the conventions, each kept in one place:
//!
//! - every entry that can fail runs inside `guard::guard`: no panic crosses, every failure leaves its text;
//! - every pointer that comes in is read by `args`, where NULL, alignment, sizes and UTF-8 are checked;
//! - every handle is a counted reference made by `handle`, cloned for the length of a call.
#![allow(unsafe_code, non_camel_case_types)]
// What callers must keep to stands once, in the header's conventions; C has no structs by value to pass instead.
#![allow(clippy::missing_safety_doc, clippy::too_many_arguments)]

mod args;
mod guard;
mod handle;
mod last_error;
mod layout;
#[cfg(test)]
mod tests;

pub mod answers;
pub mod batch;
pub mod chat;
pub mod constraint;
pub mod devices;
pub mod doctor;
pub mod embed;
pub mod engine;
pub mod facts;
pub mod figures;
pub mod generate;
pub mod host;
pub mod log;
pub mod logprobs;
pub mod metadata;
pub mod model;
pub mod polled;
pub mod prefix;
pub mod sampling;
pub mod session;
pub mod status;
pub mod stream;
pub mod tap;
pub mod tokenizer;
pub mod version;

/// The header's sections in order: `(file, heading)`.
pub const SECTIONS: [(&str, &str); 25] = [
    ("status", "Status and errors"),
    ("version", "Versions"),
    ("log", "Logs"),
    ("devices", "Devices"),
    ("host", "The host's part"),
    ("engine", "Engine"),
    ("model", "Model"),
    ("facts", "Model facts"),
    ("metadata", "Metadata"),
    ("tokenizer", "Tokenizer"),
    ("chat", "Chat"),
    ("sampling", "Sampling parameters"),
    ("session", "Session"),
    ("prefix", "Kept prefixes"),
    ("logprobs", "Log probabilities"),
    ("generate", "Generation"),
    ("constraint", "Constraints"),
    ("answers", "Answers"),
    ("batch", "Batches"),
    ("polled", "Polled batches"),
    ("figures", "Figures"),
    ("embed", "Embeddings"),
    ("tap", "Taps"),
    ("doctor", "Doctor"),
    ("stream", "Stream"),
];

/// What the section files share.
mod prelude {
    pub(super) use super::args::*;
    pub(super) use super::guard::{guard, guard_free, signal_safe};
    pub(super) use super::handle::*;
    pub(super) use super::status::kigo_status;
    pub(super) use crate::error::{Error, Result};
    pub(super) use crate::process::outside;
    pub(super) use std::ffi::{c_char, c_void};
}
