//! What a session computes, stage by stage: each named activation of each token, as a callback sees it. With it a wrong
//! answer can be followed to the stage where it begins; examples-c/compare.c does that.
//!
//! A pass over a model of n layers makes, for each token: `embed`; then per layer, from 0, `attn_norm` (the input
//! normalized), `q_rope` and `k_rope` (queries and keys with biases, norms and rotation), `v`, `attn_mix` (the weighted
//! values, before the output matrix), `attn_out` (behind it), `ffn_norm`, `ffn_act` (the activation of the gate, times
//! up), `ffn_out`, and `resid` (the sum that goes to the next layer); then, where logits are wanted (the last token of a
//! call), `final_norm` and `logits`. attn_out and ffn_out are those before a norm of their own, where a model has one.
//!
//! A tapped session's logits are those of an untapped one, bit for bit; it only takes longer. Without a tap nothing does.

use std::ffi::CStr;

use super::log::UserData;
use super::prelude::*;
use super::session::{kigo_session, session};
use crate::backend::{TAP_NAMES, TapEvent};
use crate::engine::Tap;

/// Tap: the embedding row, scaled where the model does. [n_rows, n_embd].
pub const KIGO_TAP_EMBED: u64 = 1;
/// Tap: the normalized input of a layer. [n_rows, n_embd].
pub const KIGO_TAP_ATTN_NORM: u64 = 2;
/// Tap: queries, rotated. [n_rows, n_heads * head_dim].
pub const KIGO_TAP_Q_ROPE: u64 = 4;
/// Tap: keys, rotated, as the cache keeps them. [n_rows, n_kv_heads * head_dim].
pub const KIGO_TAP_K_ROPE: u64 = 8;
/// Tap: values. [n_rows, n_kv_heads * head_dim].
pub const KIGO_TAP_V: u64 = 16;
/// Tap: values weighted by attention. [n_rows, n_heads * head_dim].
pub const KIGO_TAP_ATTN_MIX: u64 = 32;
/// Tap: what attention adds to the layer's input. [n_rows, n_embd].
pub const KIGO_TAP_ATTN_OUT: u64 = 64;
/// Tap: the normalized input of the feed-forward part. [n_rows, n_embd].
pub const KIGO_TAP_FFN_NORM: u64 = 128;
/// Tap: the activated gate times up. [n_rows, n_ff].
pub const KIGO_TAP_FFN_ACT: u64 = 256;
/// Tap: what the feed-forward part adds. [n_rows, n_embd].
pub const KIGO_TAP_FFN_OUT: u64 = 512;
/// Tap: a layer's output. [n_rows, n_embd].
pub const KIGO_TAP_RESID: u64 = 1024;
/// Tap: the normalized output of the last layer. [n_rows, n_embd].
pub const KIGO_TAP_FINAL_NORM: u64 = 2048;
/// Tap: the logits. [n_rows, n_vocab].
pub const KIGO_TAP_LOGITS: u64 = 4096;
/// Tap: all of them.
pub const KIGO_TAP_ALL: u64 = 8191;

const _: () = assert!(KIGO_TAP_ALL == (1 << TAP_NAMES.len()) - 1);

/// An activation of consecutive tokens, one a row.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_tap_event {
    /// sizeof(kigo_tap_event) of the library: a field behind it is not there.
    pub struct_size: usize,
    /// Its name, such as "attn_norm". A constant: never freed.
    pub name: *const c_char,
    /// `n_rows * n_cols` floats, row by row, in the host's memory. The library's, valid and unchanged during the
    /// callback: who wants them longer copies them. On the CPU they are the engine's own buffer, on a GPU a copy.
    pub data: *const f32,
    /// Tokens.
    pub n_rows: usize,
    /// Elements of a row.
    pub n_cols: usize,
    /// Position of the first token in the session.
    pub position: usize,
    /// KIGO_TAP_*: which it is.
    pub tap: u64,
    /// The layer, from 0; -1 outside of one.
    pub layer: i64,
}
sized_struct!(kigo_tap_event, bytes: 64, fields: [
    usize, *const c_char, *const f32, usize, usize, usize, u64, i64,
]);

/// Receives an activation, on the thread whose call computes it. Returns 0 to go on; anything else stops the call as
/// kigo_session_cancel() does: KIGO_STATUS_CANCELLED, or KIGO_STOP_CANCELLED of a generation. The event is valid during
/// the callback. The device is in the middle of its work: from inside, all calls with a session, and loading a model,
/// give KIGO_STATUS_BUSY; kigo_session_cancel() and destroying this session are allowed. Other threads' passes on the
/// device wait until it returns, so it must not wait for them. It must return (not throw, not longjmp).
pub type kigo_tap_callback = Option<unsafe extern "C" fn(event: *const kigo_tap_event, user_data: *mut c_void) -> i32>;

/// From the next call on that appends tokens, `tap` sees those activations whose KIGO_TAP_* bits are in `mask`. It
/// replaces an earlier one; NULL, with mask 0, ends it. A long prompt is shown piece by piece: rows of all names and
/// layers for its first tokens, then for the next ones. Cached tokens are not computed and so not shown. A fork begins
/// without a tap. A tapped session in a batch runs by itself.
///
/// INVALID_ARGUMENT: an unknown bit; a callback with mask 0, or a mask without a callback. BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_session_set_tap(
    session: *mut kigo_session,
    mask: u64,
    tap: kigo_tap_callback,
    user_data: *mut c_void,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let session = self::session(session)?;
        let mask = flags(mask, KIGO_TAP_ALL, "mask")?;
        let Some(callback) = tap else {
            if mask != 0 {
                return Err(Error::Null { name: "tap" });
            }
            return session.0.set_tap(None);
        };
        if mask == 0 {
            let expected = "KIGO_TAP_* bits with a callback".to_owned();
            return Err(Error::Argument { name: "mask", found: "0".to_owned(), expected });
        }
        let user_data = UserData(user_data);
        let sink = move |event: &TapEvent<'_>| {
            let user_data = &user_data;
            let Some(index) = TAP_NAMES.iter().position(|name| *name == event.name) else { return true };
            let event = kigo_tap_event {
                struct_size: size_of::<kigo_tap_event>(),
                name: NAMES[index].as_ptr(),
                data: event.data.as_ptr(),
                n_rows: event.rows,
                n_cols: event.cols,
                position: event.position,
                tap: 1 << index,
                layer: i64::from(event.layer),
            };
            // The caller's function, called as the header says, with an event that lives through the call.
            outside(|| callback(&raw const event, user_data.0)) == 0
        };
        session.0.set_tap(Some(Tap::new(mask, Box::new(sink))))
    })
}

/// [`TAP_NAMES`] for C.
const NAMES: [&CStr; TAP_NAMES.len()] = [
    c"embed",
    c"attn_norm",
    c"q_rope",
    c"k_rope",
    c"v",
    c"attn_mix",
    c"attn_out",
    c"ffn_norm",
    c"ffn_act",
    c"ffn_out",
    c"resid",
    c"final_norm",
    c"logits",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_backend_s() {
        for (name, wanted) in NAMES.iter().zip(TAP_NAMES) {
            assert_eq!(name.to_bytes(), wanted.as_bytes());
        }
    }
}
