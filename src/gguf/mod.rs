//! Bounded reader of GGUF files, and the layouts of quantized blocks.
//!
//! Invariants: nothing is allocated from a number that has not been checked against the size of the file, and
//! every refusal names the field, its byte offset and the two numbers. A file that another process shortens or changes
//! while it is open gives an `Io` failure or other numbers, which were checked like all others: each is read once.

mod cursor;
mod dequant;
mod file;
pub(crate) mod grids;
mod parse;
mod quantize;
mod shards;
mod source;
mod types;
mod value;
mod write;

pub(crate) use cursor::shorten;
pub use dequant::dequantize_row;
pub(crate) use dequant::{IQ1_LEVELS, IQ2_LEVELS, IQ3_S_LEVELS, IQ3_XXS_LEVELS};
pub(crate) use dequant::{e8m0_half, even_signs, iq1_m_half, iq1_m_scale, iq4_xs_scale, tq1_digit, ue4m3_half};
pub use file::{Gguf, TensorInfo};
pub use quantize::quantize_row;
pub use source::Data;
pub use types::TensorType;
pub(crate) use types::{E2M1_LEVELS, IQ4_LEVELS};
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
/// Bytes that all before the tensors may have.
pub const MAX_HEAD_BYTES: u64 = 256 << 20;
/// The most dimensions a tensor may have.
pub const MAX_DIMS: u64 = 4;
