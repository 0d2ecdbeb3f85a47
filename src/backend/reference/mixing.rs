//! What one token's way through mixers with a state needs.

use super::zeros;
use crate::error::Result;
use crate::model::Config;

/// A sequence's state, and the activations of one token on the way through it.
pub(super) struct Mixing {
    pub state: Vec<f32>, // of all layers, one behind the other
    pub input: Vec<f32>, // [in_width]
    pub conv: Vec<f32>,  // [C]
    pub mix: Vec<f32>,   // what the last matrix reads
    pub gate: Vec<f32>,  // as wide, or as queries are
    pub beta: Vec<f32>,  // [N]
    pub decay: Vec<f32>, // [N]
    pub delta: Vec<f64>, // [V]
    pub out: Vec<f32>,   // [D]
}

impl Mixing {
    pub fn new(c: &Config) -> Result<Mixing> {
        let most = c.widths();
        Ok(Mixing {
            state: zeros(c.state_len())?,
            input: zeros(most.mix_in)?,
            conv: zeros(most.conv)?,
            mix: zeros(most.mix_out)?,
            gate: zeros(most.mix_out.max(most.gated_q))?,
            beta: zeros(most.gates)?,
            decay: zeros(most.gates)?,
            delta: zeros(most.mix_out)?,
            out: zeros(if most.mix_in == 0 { 0 } else { c.n_embd })?,
        })
    }
}
