//! Engine, model and session: joins the device, the file and the tokenizer, and knows no C.
//!
//! Invariants: children hold their parents by reference count; there is no global state; nothing is printed and no
//! environment variable is read; a call that fails leaves its session's tokens and logits as they were.
mod advance;
mod again;
mod answers;
mod append;
mod batch;
mod cache;
mod clock;
mod constrain;
mod device;
mod embed;
mod facts;
mod figures;
mod generate;
mod generation;
mod grammar;
mod hash;
mod inspect;
mod load;
mod log;
mod logprobs;
mod meta;
mod model;
mod polled;
mod save;
mod saved_layout;
mod saved_pages;
mod schedule;
mod session;
mod slot;
mod stream;
mod tap;
mod vocabulary;

pub use crate::backend::MAX_THREADS;
pub use advance::Advanced;
pub use answers::AnswerParser;
pub use batch::{Append, append_batch, sample_batch};
pub use cache::{CacheCounts, CacheFacts};
pub use device::{Engine, EngineOptions};
pub use embed::{EmbedOptions, Pooling};
pub use facts::{LayerFacts, LoadPlan, Mixers};
pub use figures::{Failures, ModelFigures, SessionFigures};
pub use generation::{GenerateOptions, Generated, Step, StopReason, Times};
pub use grammar::{Constraint, Grammar};
pub use log::{LogLevel, LogSink};
pub use logprobs::{By, Logprob, Top};
pub use model::{CHECKPOINT_BYTES, LoadOptions, Model, ModelFacts, TokenFlags};
pub use polled::{Batch, Event, What, Work};
pub use session::{Session, SessionFacts, SessionOptions, check_salt};
pub use stream::TextStream;
pub use tap::{Tap, TapSink};
