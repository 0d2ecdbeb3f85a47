//! Named activations, and who sees which of them.
//!
//! Invariant: a backend asks [`TapObserver::wants`] before it brings an activation anywhere, and shows no other: on a GPU
//! each costs a transfer and a wait.

/// The names of activations: each keeps its place, and later ones follow.
pub const TAP_NAMES: [&str; 21] = [
    "embed",
    "attn_norm",
    "q_rope",
    "k_rope",
    "v",
    "attn_mix",
    "attn_out",
    "ffn_norm",
    "ffn_act",
    "ffn_out",
    "resid",
    "final_norm",
    "logits",
    "moe_logits",
    "moe_ids",
    "moe_weights",
    "conv",
    "beta",
    "decay",
    "mix_state",
    "gate",
];

/// The place of an activation in the order in which a pass makes them, a layer's among themselves.
pub fn tap_order(name: &str) -> usize {
    let at = |name: &str| TAP_NAMES.iter().position(|known| *known == name).unwrap_or(TAP_NAMES.len());
    match name {
        // Behind what the experts read, before what they make.
        "moe_logits" | "moe_ids" | "moe_weights" => 10 * at("ffn_norm") + 1 + at(name) - at("moe_logits"),
        // Between what a mixer reads and what it makes; a gate of attention is made behind its values.
        "conv" | "beta" | "decay" | "mix_state" | "gate" => 10 * at("v") + 1 + at(name) - at("conv"),
        _ => 10 * at(name),
    }
}

/// A named activation.
pub struct TapEvent<'a> {
    /// One of [`TAP_NAMES`].
    pub name: &'static str,
    /// The layer, or -1 outside of one.
    pub layer: i32,
    /// Index of the sequence in the batch.
    pub sequence: usize,
    /// Position of the first row.
    pub position: usize,
    /// Rows, one a token.
    pub rows: usize,
    /// Elements of a row.
    pub cols: usize,
    /// `[rows, cols]`, valid during the call.
    pub data: &'a [f32],
}

/// Sees activations. A closure over events sees them all.
pub trait TapObserver {
    /// Whether [`Self::show`] is to be called with this activation of this layer (-1: outside of one). The answer does not
    /// change during a pass.
    fn wants(&self, name: &str, layer: i32) -> bool;
    /// Takes an activation that is wanted.
    fn show(&mut self, event: &TapEvent<'_>);
}

impl<F: FnMut(&TapEvent<'_>)> TapObserver for F {
    fn wants(&self, _: &str, _: i32) -> bool {
        true
    }

    fn show(&mut self, event: &TapEvent<'_>) {
        self(event);
    }
}
