//! What runs: launches as data.

pub mod f16_batch;
#[allow(missing_docs)]
pub mod program;
pub mod q_batch;
pub mod workspace;
