//! What a host sees: the C programs of `tests/c` and `examples-c`, built with this build's header and library, and run.

#[path = "../common/mod.rs"]
mod common;
#[path = "../fixtures/tokenizer.rs"]
mod fixtures;
#[path = "../native/mod.rs"]
mod native;

mod calls;
mod driver;
mod examples;
mod hosting;
mod memory;
mod own;
mod serve;
mod trust;
