//! Who runs it.

pub mod batch;
pub mod loaded;
pub mod measure;
pub mod pipeline;
pub mod prefill;
#[allow(missing_docs)]
pub mod prefill_rows;
pub mod sample;
pub mod tap;
