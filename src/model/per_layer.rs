//! Embeddings by layer: each token has a row for every layer, which is read with the token and added behind that layer.
//!
//! ```text
//! once a token, of the stream x as it begins, P = width, D = n_embd:
//!     e = embd_scale * per_layer_embd[t]                # [n_layers, P]
//!     m = Wmodel x / sqrt(D)                            # [n_layers, P]
//!     r = (rms_norm(m of each layer) * norm + e) / sqrt(2)
//! behind each layer, of the stream as it is then:
//!     x += rms_norm(Wproj (activation(Wgate x) * r of the layer)) * post_norm
//! ```

use super::dense::Activation;
use super::range::{check, in_range, positive};
use crate::error::Result;

/// What a model with embeddings by layer has; see the module's formula.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PerLayer {
    /// Elements of a token's row for one layer; a multiple of 8.
    pub width: usize,
    /// Multiplies the rows.
    pub embd_scale: f32,
    /// The function on the gate.
    pub activation: Activation,
}

impl PerLayer {
    pub(super) fn validate(&self) -> Result<()> {
        let name = "width of embeddings by layer (embedding_length_per_layer_input)";
        in_range(name, self.width, 1 << 16)?;
        check(self.width.is_multiple_of(8), name, &self.width, &|| "a multiple of 8".into())?;
        positive("scale of embeddings by layer", self.embd_scale)
    }
}
