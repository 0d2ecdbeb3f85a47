//! What a session computes, stage by stage: each named activation of each token, as a callback sees it. With it a wrong
//! answer can be followed to the stage where it begins; examples-c/compare.c does that.
//!
//! A pass over a model of n layers makes, for each token: `embed`; then per layer, from 0, `attn_norm` (what attention
//! reads: the input normalized, or as it is where the layer has no norm there), `q_rope` and `k_rope` (queries and keys with
//! biases, norms, rotation, and the queries' temperature, as far as the layer has them), `v`, `attn_mix` (the weighted
//! values, before the output matrix), `attn_out` (behind it), `ffn_norm` (what the feed-forward part reads: the sum so far
//! normalized, or as it is; where both parts of a layer read its input, that), `ffn_act` (the activation of the gate, times
//! up; without a gate the activation of up) or, where the feed-forward part is made of experts, `moe_logits`, `moe_ids` and
//! `moe_weights`, `ffn_out`, and `resid` (the sum that goes to the next layer); then, where logits are wanted (the last token
//! of a call), `final_norm` and `logits`. attn_out and ffn_out are those before a norm of their own, where a model has one,
//! and before a scale. A layer that is a mixer or a feed-forward part alone has no stages of the other.
//!
//! A tapped session's logits are those of an untapped one, bit for bit; it only takes longer. Without a tap nothing does.

use std::ffi::CStr;

use super::log::UserData;
use super::prelude::*;
use super::session::{kigo_session, session};
use crate::backend::{TAP_NAMES, TapEvent};
use crate::engine::Tap;

/// Tap: the embedding row, scaled where the model does. [n_rows, n_embd].
pub const KIGO_TAP_EMBED: u32 = 1;
/// Tap: what a layer's attention reads, the normalized input. [n_rows, n_embd].
pub const KIGO_TAP_ATTN_NORM: u32 = 2;
/// Tap: queries, rotated, times their temperature. [n_rows, n_heads * head_dim].
pub const KIGO_TAP_Q_ROPE: u32 = 3;
/// Tap: keys, rotated, as the cache keeps them; of latents these and what is rotated. A layer that sees another's has none.
/// [n_rows, n_kv_heads * head_dim].
pub const KIGO_TAP_K_ROPE: u32 = 4;
/// Tap: values; none of a layer that sees another's, or whose keys are latents. [n_rows, n_kv_heads * head_dim].
pub const KIGO_TAP_V: u32 = 5;
/// Tap: values weighted by attention. [n_rows, n_heads * head_dim].
pub const KIGO_TAP_ATTN_MIX: u32 = 6;
/// Tap: what attention adds to the layer's input. [n_rows, n_embd].
pub const KIGO_TAP_ATTN_OUT: u32 = 7;
/// Tap: what the feed-forward part reads, normalized. [n_rows, n_embd].
pub const KIGO_TAP_FFN_NORM: u32 = 8;
/// Tap: the activated gate times up, or up activated. Of layers without experts. [n_rows, n_ff].
pub const KIGO_TAP_FFN_ACT: u32 = 9;
/// Tap: what the feed-forward part adds. [n_rows, n_embd].
pub const KIGO_TAP_FFN_OUT: u32 = 10;
/// Tap: a layer's output. [n_rows, n_embd].
pub const KIGO_TAP_RESID: u32 = 11;
/// Tap: the normalized output of the last layer. [n_rows, n_embd].
pub const KIGO_TAP_FINAL_NORM: u32 = 12;
/// Tap: the logits. [n_rows, n_vocab].
pub const KIGO_TAP_LOGITS: u32 = 13;
/// Tap: a router's logits, biased where it is. Of layers with experts. [n_rows, n_experts].
pub const KIGO_TAP_MOE_LOGITS: u32 = 14;
/// Tap: the experts that a token goes through, in ascending order, as numbers. [n_rows, n_experts_used].
pub const KIGO_TAP_MOE_IDS: u32 = 15;
/// Tap: what each of these is multiplied by, in the same order. [n_rows, n_experts_used].
pub const KIGO_TAP_MOE_WEIGHTS: u32 = 16;
/// Tap: what a layer's convolution makes, activated where it is. Of layers that keep a state, as those that follow but for the last.
/// [n_rows, channels].
pub const KIGO_TAP_CONV: u32 = 17;
/// Tap: how much of what is new a head's state takes: of a Mamba2 its time step. [n_rows, heads].
pub const KIGO_TAP_BETA: u32 = 18;
/// Tap: what a head's state is multiplied by before it takes it. [n_rows, heads].
pub const KIGO_TAP_DECAY: u32 = 19;
/// Tap: what the heads read of their states; of a Mamba2 with what passes them by. [n_rows, width].
pub const KIGO_TAP_MIX_STATE: u32 = 20;
/// Tap: what gates what the heads or the convolution have made, before its sigmoid or SiLU if it has one. Of attention that is gated,
/// too. [n_rows, width].
pub const KIGO_TAP_GATE: u32 = 21;
/// Every tap has a number; a later version's are larger.
const N_TAPS: u32 = KIGO_TAP_GATE;

const _: () = assert!(N_TAPS as usize == TAP_NAMES.len());

/// Type of an activation's elements: float.
pub const KIGO_TAP_TYPE_F32: u32 = 1;

/// An activation of consecutive tokens, one a row.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_tap_event {
    /// sizeof(kigo_tap_event) of the library: a field behind it is not there.
    pub struct_size: usize,
    /// Its name, such as "attn_norm". A constant: never freed.
    pub name: *const c_char,
    /// `n_rows * n_cols` elements of `element_type`, row by row, in the host's memory. The library's, valid and unchanged
    /// during the callback: who wants them longer copies them. On the CPU they are the engine's own buffer, on a GPU a copy.
    pub data: *const c_void,
    /// Tokens.
    pub n_rows: usize,
    /// Elements of a row.
    pub n_cols: usize,
    /// Position of the first token in the session.
    pub position: usize,
    /// The layer, from 0; -1 outside of one.
    pub layer: i64,
    /// KIGO_TAP_*: which it is. A later version may have more of them.
    pub tap: u32,
    /// KIGO_TAP_TYPE_*: what `data` is made of.
    pub element_type: u32,
}
sized_struct!(kigo_tap_event, bytes: 64, fields: [
    usize, *const c_char, *const c_void, usize, usize, usize, i64, u32, u32,
]);

/// Receives an activation, on the thread whose call computes it. Returns 0 to go on; anything else stops the call as
/// kigo_session_cancel() does: KIGO_STATUS_CANCELLED, or KIGO_STOP_CANCELLED of a generation. The event is valid during
/// the callback. The device is in the middle of its work: from inside, all calls with a session, and loading a model,
/// give KIGO_STATUS_BUSY; kigo_session_cancel() and destroying this session are allowed, and stop the call as a return value
/// does, also from inside the last event. Other threads' passes on the device wait until it returns, so it must not wait
/// for them. It must return (not throw, not longjmp).
pub type kigo_tap_callback = Option<unsafe extern "C" fn(event: *const kigo_tap_event, user_data: *mut c_void) -> i32>;

/// What a tap sees. 0 is the default of each field.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_tap_options {
    /// sizeof(kigo_tap_options).
    pub struct_size: usize,
    /// `n_taps` of KIGO_TAP_*, in any order, also twice; copied by the call.
    pub taps: *const u32,
    /// How many; 0: all that this library has, also such as the caller's header does not know.
    pub n_taps: usize,
    /// Receives the activations; NULL: nobody.
    pub callback: kigo_tap_callback,
    /// Handed to `callback`.
    pub user_data: *mut c_void,
}
sized_struct!(kigo_tap_options, bytes: 40, fields: [usize, *const u32, usize, kigo_tap_callback, *mut c_void]);

/// From the next call on that appends tokens, `options->callback` sees the activations that `options` name. It replaces an
/// earlier one; `options` NULL, or all defaults, ends it. A long prompt is shown piece by piece: rows of all names and
/// layers for its first tokens, then for the next ones. Cached tokens are not computed and so not shown. A fork begins
/// without a tap. A tapped session in a batch runs by itself.
///
/// INVALID_ARGUMENT: a number that is no tap's (the text has its index); taps without a callback. BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_session_set_tap(
    session: *mut kigo_session,
    options: *const kigo_tap_options,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let session = self::session(session)?;
        let options = super::args::options(options)?;
        let taps = slice(options.taps, options.n_taps, "taps")?;
        let mut mask = 0;
        for (index, &tap) in taps.iter().enumerate() {
            if !(1..=N_TAPS).contains(&tap) {
                let found = format!("{tap} at index {index}");
                return Err(Error::Argument { name: "taps", found, expected: format!("1 to {N_TAPS}") });
            }
            mask |= 1 << (tap - 1);
        }
        let Some(callback) = options.callback else {
            return if taps.is_empty() { session.0.set_tap(None) } else { Err(Error::Null { name: "callback" }) };
        };
        if taps.is_empty() {
            mask = (1 << N_TAPS) - 1;
        }
        let user_data = UserData(options.user_data);
        let sink = move |event: &TapEvent<'_>| {
            let user_data = &user_data;
            let Some(index) = TAP_NAMES.iter().position(|name| *name == event.name) else { return true };
            let event = kigo_tap_event {
                struct_size: size_of::<kigo_tap_event>(),
                name: NAMES[index].as_ptr(),
                data: event.data.as_ptr().cast(),
                n_rows: event.rows,
                n_cols: event.cols,
                position: event.position,
                layer: i64::from(event.layer),
                tap: index as u32 + 1,
                element_type: KIGO_TAP_TYPE_F32,
            };
            // The caller's function, called as the header says, with an event that lives through the call.
            outside(|| callback(&raw const event, user_data.0)) == 0
        };
        session.0.set_tap(Some(Tap::new(mask, Box::new(sink))))
    })
}

/// The name of a tap, such as "attn_norm"; NULL for a number that is none. From 1 on, until NULL: all that this library
/// has. A constant: never freed. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn kigo_tap_name(tap: u32) -> *const c_char {
    let name = usize::try_from(tap).ok().and_then(|tap| NAMES.get(tap.checked_sub(1)?));
    name.map_or(std::ptr::null(), |name| name.as_ptr())
}

/// [`TAP_NAMES`] for C.
static NAMES: [&CStr; TAP_NAMES.len()] = [
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
    c"moe_logits",
    c"moe_ids",
    c"moe_weights",
    c"conv",
    c"beta",
    c"decay",
    c"mix_state",
    c"gate",
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
