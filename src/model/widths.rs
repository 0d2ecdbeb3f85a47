//! How wide a model's layers are at most: what working memory is sized by.

use super::config::{Config, Ffn};

/// The most that any layer has of each, for working memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Widths {
    /// Elements of a position's queries.
    pub q: usize,
    /// Elements of its keys, or of its values.
    pub kv: usize,
    /// Rows of the gate of what every position goes through.
    pub ffn: usize,
    /// Rows of the gate of an expert.
    pub expert: usize,
    /// Experts.
    pub n_experts: usize,
    /// Those that a position goes through.
    pub n_used: usize,
    /// Elements of a head.
    pub head: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Pairs of a head that are turned.
    pub pairs: usize,
    /// Elements of a token that a mixer with a state makes with its first matrix,
    pub mix_in: usize,
    /// that its convolution makes,
    pub conv: usize,
    /// and that its last matrix reads.
    pub mix_out: usize,
    /// Heads of such a mixer that have gates.
    pub gates: usize,
    /// Elements of a position's queries where the attention is gated.
    pub gated_q: usize,
    /// Elements of a position on its way to latents and from them: queries, ranks, mixes of latents and values.
    pub latent: usize,
    /// Elements of a position's embeddings by layer, of all layers.
    pub per_layer: usize,
}

impl Config {
    /// See [`Widths`].
    pub fn widths(&self) -> Widths {
        let mut w =
            Widths { pairs: self.ropes.iter().map(|r| r.inv_freq.len()).max().unwrap_or(0), ..Widths::default() };
        w.per_layer = self.per_layer.map_or(0, |per_layer| per_layer.width * self.n_layers());
        for layer in &self.layers {
            let a = layer.attention();
            (w.q, w.kv) = (w.q.max(a.q_width()), w.kv.max(a.kv_width()));
            w.gated_q = w.gated_q.max(if a.gated { a.q_width() } else { 0 });
            (w.head, w.n_heads) = (w.head.max(a.head_dim), w.n_heads.max(a.n_heads));
            if let Some(latent) = &a.latent {
                let of_head = latent.q_dim(a.head_dim).max(latent.rank).max(latent.v_dim);
                w.latent = w.latent.max(a.n_heads * of_head).max(latent.q_rank.unwrap_or(0));
            }
            w.ffn = w.ffn.max(layer.common_ffn().map_or(0, |ffn| ffn.width));
            if let Some(mixer) = &layer.recurrent {
                (w.mix_in, w.conv) = (w.mix_in.max(mixer.in_width()), w.conv.max(mixer.conv().0));
                (w.mix_out, w.gates) = (w.mix_out.max(mixer.out_width()), w.gates.max(mixer.n_gates()));
            }
            if let Ffn::Experts(experts) = &layer.ffn {
                w.expert = w.expert.max(experts.each.width);
                (w.n_experts, w.n_used) = (w.n_experts.max(experts.n), w.n_used.max(experts.n_used));
            }
        }
        w
    }
}
