//! Bounded reader of GGUF files, and the layouts of quantized blocks.
//!
//! Invariants: nothing is allocated from a number that has not been checked against the size of the file, and
//! every refusal names the field, its byte offset and the two numbers. A mapped file must not be truncated by
//! another process while it is open: the system answers that with SIGBUS, which no check here can see.

mod cursor;
mod dequant;
mod file;
mod parse;
mod quantize;
mod shards;
mod source;
mod types;
mod value;
mod write;

pub use dequant::dequantize_row;
pub use file::{Gguf, TensorInfo};
pub use quantize::quantize_row;
pub use types::TensorType;
pub use value::{Array, OwnedArray, Strings, Value, ValueType};
pub use write::{Layout, Writer};

/// The four bytes a file starts with, as a little-endian number.
pub const MAGIC: u32 = 0x4655_4747;
/// Alignment of the tensors where the file names none.
pub const DEFAULT_ALIGNMENT: u64 = 32;
/// Metadata entries and tensors a file may have, each.
pub const MAX_ENTRIES: u64 = 65_536;
/// Bytes a metadata key may have (the specification's bound).
pub const MAX_KEY_BYTES: u64 = 65_535;
/// Bytes a tensor's name may have.
pub const MAX_NAME_BYTES: u64 = 255;
/// The largest alignment a file may ask for.
pub const MAX_ALIGNMENT: u64 = 65_536;
/// The most dimensions a tensor may have.
pub const MAX_DIMS: u64 = 4;
