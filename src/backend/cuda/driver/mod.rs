//! The device: its memory, streams, graphs and events, and the functions of CUDA behind them.

mod buffer;
pub mod context;
mod gpu;
pub mod list;
/// cbindgen:ignore
mod registry;
mod stream;
/// cbindgen:ignore
#[allow(missing_docs)]
pub mod sys;

pub use buffer::{Buffer, Pinned};
pub use gpu::{Code, Gpu};
pub use stream::{Event, Graph, Stream};
pub use sys::Address;
