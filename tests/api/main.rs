//! The crate's Rust API, on the CPU (and, where `KIGO_DEVICE` names one, on another device): one module a topic.

#[path = "../common/mod.rs"]
mod common;
#[path = "../fixtures/tokenizer.rs"]
mod fixtures;
#[path = "../common/plain_sampler.rs"]
mod plain_sampler;

mod advance;
mod answers;
mod answers_in_parts;
mod batch;
mod chat;
mod chat_cost;
mod chat_fuzz;
mod chat_json;
mod chat_values;
mod constraint;
mod constraint_schema;
mod continued;
mod cpu;
mod embed;
mod encoders;
mod engine;
mod experts;
mod fairness;
mod features;
mod figures;
mod files;
mod fork;
mod gbnf;
mod gguf;
mod grammar_cost;
mod held;
mod hostile_files;
mod limits;
mod logprobs;
mod long_sessions;
mod malformed;
mod mamba;
mod memory_load;
mod model;
mod newer;
mod own_threads;
mod parity;
mod parity_fixtures;
mod polled;
mod prefix;
mod pretokenizers;
mod quant;
mod same;
mod sampler;
mod save;
mod states;
mod stream;
mod taps;
mod templates;
mod text_only;
mod tokenizer;
mod tokenizer_cost;
mod tool_grammar;
mod truth;
mod vocabularies;
mod vocabulary_memory;
mod waiting;
mod waiting_polled;
mod windows;
