//! Who runs it: `loaded` is the door; `exec` what a pass has; `single`, `together` and `prompts` the three ways of a chunk, over
//! `step`, `batch` and `prefill`, which launch; `sample` and `pipeline` choose tokens.

pub mod batch;
pub mod exec;
pub mod loaded;
pub mod measure;
pub mod model;
pub mod pages;
pub mod parts;
pub mod pipeline;
pub mod prefill;
pub mod prompts;
pub mod sample;
pub mod single;
pub mod slot;
pub mod states;
pub mod step;
pub mod tap;
pub mod together;

use crate::error::{Error, Result};

/// A fault of this library's own.
fn internal<T>(message: &str) -> Result<T> {
    Err(Error::Internal { message: message.to_string() })
}
