//! What several test files share: models made of random numbers, and the vocabularies to go with them.
//!
//! - [`apart`]: a test in a process of its own;
//! - [`blocks::Blocks`]: random blocks of each type (also used by `examples/random_gguf.rs`);
//! - [`bound`]: tiny models with a file changed, described or refused;
//! - [`described::Described`]: one of any description;
//! - [`features`]: what descriptions can say, as changes of one;
//! - [`tiny::Tiny`]: a whole model of each architecture in a few hundred kilobytes;
//! - [`probe::Probe`]: a device that fails where a test wants it to;
//! - [`hold`]: a session held to a grammar;
//! - [`hooked::Hooked`]: a device with something of a test's in front of each pass;
//! - [`hostile`]: texts of grammars that grow until a parser is overwhelmed;
//! - [`kept`]: sessions of a model that keeps prefixes;
//! - [`kept_states`]: sessions of models with states, on any device;
//! - [`long`]: sessions of a model with LongRoPE;
//! - [`newer`]: tensors and keys that few architectures have;
//! - [`rewritten::Rewritten`]: the file of a tiny model, its tensors changed and written again;
//! - [`run`]: a file on a device, and the logits of a list of tokens;
//! - [`shapes`]: the sizes of real models, their metadata and lists of tensors (also used by `examples/random_gguf.rs`);
//! - [`states`]: the tensors of layers with a state;
//! - [`windows`]: sessions of models with windows, on any device.
#![allow(dead_code)] // each test program uses its own part

pub mod apart;
pub mod blocks;
pub mod bound;
pub mod described;
pub mod features;
#[cfg(kigo_cuda)]
pub mod gpu;
pub mod habits;
pub mod hold;
pub mod hooked;
pub mod hostile;
pub mod kept;
pub mod kept_states;
pub mod long;
pub mod newer;
pub mod probe;
pub mod random;
pub mod recipes;
pub mod rewritten;
pub mod run;
pub mod shapes;
pub mod states;
pub mod tiny;
pub mod vocab;
pub mod windows;
