//! What runs: operations, and launches as data; nothing here queues anything.
//!
//! `layer` lists a model's operations once; `lower_step`, `lower_batch` and `lower_prefill` make launches of them.

pub mod experts;
pub mod f16_batch;
pub mod ffn;
pub mod geometry;
pub mod kind;
pub mod layer;
pub mod limits;
pub mod lower_batch;
pub mod lower_prefill;
pub mod lower_step;
pub mod op;
pub mod pass;
pub mod per_layer;
pub mod prefill_attention;
pub mod prefill_workspace;
pub mod q_batch;
pub mod recurrent;
pub mod show;
pub mod split;
pub mod stage;
pub mod tables;
pub mod workspace;
