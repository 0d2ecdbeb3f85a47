//! The repository as a whole: its sources' order and style, what the library exports, what `make install` puts in place.

#[path = "../common/mod.rs"]
mod common;
#[path = "../native/mod.rs"]
mod native;
#[path = "../common/sources.rs"]
mod sources;

mod abi;
mod circles;
mod documents;
mod install;
mod layering;
mod lengths;
mod limits;
mod panics;
mod sampling_rules;
mod tidy;
