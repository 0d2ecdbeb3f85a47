//! Engine, model and session: joins the device, the file and the tokenizer, and knows no C.
//!
//! Invariants: children hold their parents by reference count; there is no global state; nothing is printed and no
//! environment variable is read; a call that fails leaves its session's tokens and logits as they were.
mod batch;
mod device;
mod doctor;
mod embed;
mod facts;
mod generate;
mod grammar;
mod hash;
mod log;
mod logprobs;
mod memory;
mod meta;
mod model;
mod pages;
mod passes;
mod prefix;
mod save;
mod session;
mod stream;
mod tap;
mod vocabulary;

pub use batch::{Append, append_batch, sample_batch};
pub use device::{Engine, EngineOptions, MAX_THREADS};
pub use doctor::{Check, Diagnosis, Outcome, Subject, diagnose};
pub use embed::{EmbedOptions, Pooling};
pub use facts::{LayerFacts, LoadPlan};
pub use generate::{GenerateOptions, Generated, StopReason};
pub use grammar::{Constraint, Grammar};
pub use log::{LogLevel, LogSink};
pub use logprobs::{By, Logprob};
pub use model::{LoadOptions, Model, ModelFacts, TokenFlags};
pub use pages::CacheFacts;
pub use session::{Session, SessionFacts, SessionOptions};
pub use stream::TextStream;
pub use tap::{Tap, TapSink};
