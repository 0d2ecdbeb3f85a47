//! Kigo, an embeddable engine for large language models behind a C ABI.
//!
//! The map, each module using only those below it (held by `tests/repo/layering.rs`):
//!
//! | module | does |
//! |---|---|
//! | [`c_api`] | the C ABI and nothing else |
//! | [`doctor`] | checks of a device with a model: a user of the engine |
//! | [`engine`] | engine, model, session, cache bookkeeping: joins what is below, knows no C |
//! | [`backend`] | the trait at the height of a forward pass; `reference`, `cpu`, `cuda` |
//! | [`chat`] | answers taken apart: thinking, text and calls, in the way of the model's template |
//! | [`tokenizer`] | text to ids and back, chat templates, the UTF-8 stream |
//! | [`sampler`] | logits to a token |
//! | `schema` | what every reader of JSON schemas goes by |
//! | [`model`] | one description of a decoder-only transformer, filled in from GGUF keys |
//! | [`gguf`] | bounded reader, quantized block layouts |
//! | [`process`] | what stays the host's: floating-point state, signals, panics' messages, forked children |
//! | [`alloc`] | memory asked for before it is needed |
//! | [`error`] | every failure as a value |

pub mod alloc;
pub mod backend;
pub mod c_api;
pub mod chat;
pub mod doctor;
pub mod engine;
pub mod error;
pub mod gguf;
pub mod model;
pub mod process;
pub mod sampler;
mod schema;
pub mod tokenizer;

// The integration tests' helpers, which name this crate from the outside, for the tests inside.
#[cfg(test)]
#[path = "../tests/common/mod.rs"]
mod common;
#[cfg(test)]
extern crate self as kigo;
