//! The metadata of a model's file: keys with typed values, read as text.

use super::model::kigo_model;
use super::prelude::*;

/// Type of a metadata value, as GGUF numbers them: unsigned, 8 bits.
pub const KIGO_META_UINT8: i32 = 0;
/// Type of a metadata value, as GGUF numbers them: signed, 8 bits.
pub const KIGO_META_INT8: i32 = 1;
/// Type of a metadata value, as GGUF numbers them: unsigned, 16 bits.
pub const KIGO_META_UINT16: i32 = 2;
/// Type of a metadata value, as GGUF numbers them: signed, 16 bits.
pub const KIGO_META_INT16: i32 = 3;
/// Type of a metadata value, as GGUF numbers them: unsigned, 32 bits.
pub const KIGO_META_UINT32: i32 = 4;
/// Type of a metadata value, as GGUF numbers them: signed, 32 bits.
pub const KIGO_META_INT32: i32 = 5;
/// Type of a metadata value, as GGUF numbers them: float, 32 bits.
pub const KIGO_META_FLOAT32: i32 = 6;
/// Type of a metadata value, as GGUF numbers them: true or false.
pub const KIGO_META_BOOL: i32 = 7;
/// Type of a metadata value, as GGUF numbers them: UTF-8.
pub const KIGO_META_STRING: i32 = 8;
/// Type of a metadata value, as GGUF numbers them: an array of values of one type.
pub const KIGO_META_ARRAY: i32 = 9;
/// Type of a metadata value, as GGUF numbers them: unsigned, 64 bits.
pub const KIGO_META_UINT64: i32 = 10;
/// Type of a metadata value, as GGUF numbers them: signed, 64 bits.
pub const KIGO_META_INT64: i32 = 11;
/// Type of a metadata value, as GGUF numbers them: float, 64 bits.
pub const KIGO_META_FLOAT64: i32 = 12;

/// The value under a metadata key, as text: a string as it is, numbers in decimal, floats in the fewest digits that
/// read back as the same value, "true" and "false", arrays as JSON (a float that is not finite is null). `key_len` may
/// be KIGO_STRLEN. Text out.
///
/// NOT_FOUND: no such key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_model_meta(
    model: *const kigo_model,
    key: *const c_char,
    key_len: usize,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let out = Buffer::new(buffer, capacity, needed, "buffer")?;
        let model = borrow(model, "model")?;
        out.store_text(model.0.meta_text(text(key, key_len, "key")?)?.as_bytes())
    })
}

/// The type of the value under a metadata key: KIGO_META_*. NOT_FOUND: no such key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_model_meta_type(
    model: *const kigo_model,
    key: *const c_char,
    key_len: usize,
    meta_type: *mut i32,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        null_out(meta_type, "meta_type")?;
        let model = borrow(model, "model")?;
        meta_type.write(model.0.meta_type(text(key, key_len, "key")?)?.number() as i32);
        Ok(())
    })
}

/// The metadata key number `index`, in the order of the file; below kigo_model_facts.n_meta. Text out.
///
/// NOT_FOUND: there are not so many.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_model_meta_key(
    model: *const kigo_model,
    index: usize,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let out = Buffer::new(buffer, capacity, needed, "buffer")?;
        let model = borrow(model, "model")?;
        out.store_text(model.0.meta_key(index)?.as_bytes())
    })
}
