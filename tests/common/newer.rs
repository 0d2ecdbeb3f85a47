//! Tensors and keys of architectures whose layers are not all alike in their attention, or have more than one matrix of each.

use super::shapes::{Kind, Shape, TensorSpec};
use kigo::gguf::{Value, ValueType, Writer};

fn matrix(list: &mut Vec<TensorSpec>, name: String, rows: usize, cols: usize, n: usize) {
    let kind = Kind::Matrix { std: 1.0 / (cols as f32).sqrt(), n };
    list.push(TensorSpec { name, rows: n * rows, cols, kind });
}

fn norm(list: &mut Vec<TensorSpec>, name: String, cols: usize) {
    list.push(TensorSpec { name, rows: 1, cols, kind: Kind::Norm });
}

/// Elements of a token's embedding for one layer of a tiny Gemma 4.
const PER_LAYER: usize = 32;
/// Which layers of a tiny Gemma 4 have a window; the second half reads the keys and values of the first.
const WINDOWED: [bool; 4] = [true, false, true, false];

/// Sizes of a tiny DeepSeek 2 by that of a head: `(q_rank, rank, turned, v_dim)`.
fn latent(head: usize) -> (usize, usize, usize, usize) {
    (2 * head, 2 * head, head / 2, head + 8)
}

impl Shape {
    /// The tensors of a layer's attention, where the architecture has its own.
    pub fn own_attention(&self, list: &mut Vec<TensorSpec>, layer: usize) -> bool {
        let (d, n) = (self.n_embd, self.n_heads);
        let name = |role: &str| format!("blk.{layer}.{role}.weight");
        match self.arch {
            "deepseek2" => {
                let (nope, (q_rank, rank, turned, v_dim)) = (self.head_dim, latent(self.head_dim));
                matrix(list, name("attn_q_a"), q_rank, d, 1);
                norm(list, name("attn_q_a_norm"), q_rank);
                matrix(list, name("attn_q_b"), n * (nope + turned), q_rank, 1);
                matrix(list, name("attn_kv_a_mqa"), rank + turned, d, 1);
                norm(list, name("attn_kv_a_norm"), rank);
                matrix(list, name("attn_k_b"), rank, nope, n);
                matrix(list, name("attn_v_b"), v_dim, rank, n);
                matrix(list, name("attn_output"), d, n * v_dim, 1);
                true
            }
            "gemma4" => {
                let windowed = WINDOWED[layer];
                let (head, n_kv) =
                    if windowed { (self.head_dim / 2, self.n_kv_heads) } else { (self.head_dim, self.n_kv_heads / 2) };
                matrix(list, name("attn_q"), n * head, d, 1);
                let kind = Kind::NormOf { head_dim: head };
                list.push(TensorSpec { name: name("attn_q_norm"), rows: 1, cols: head, kind });
                if layer < WINDOWED.len() / 2 {
                    matrix(list, name("attn_k"), n_kv * head, d, 1);
                    norm(list, name("attn_k_norm"), head);
                    // Without a window the keys' matrix makes the values too.
                    if windowed {
                        matrix(list, name("attn_v"), n_kv * head, d, 1);
                    }
                }
                matrix(list, name("attn_output"), d, n * head, 1);
                true
            }
            _ => false,
        }
    }

    /// The rest of a layer that others do not have.
    pub fn own_rest(&self, list: &mut Vec<TensorSpec>, layer: usize) {
        if self.arch != "gemma4" {
            return;
        }
        let (d, ff, n_experts) = (self.n_embd, self.n_ff, self.experts().map_or(0, |experts| experts.n));
        let name = |role: &str| format!("blk.{layer}.{role}.weight");
        matrix(list, name("ffn_gate"), ff, d, 1);
        matrix(list, name("ffn_up"), ff, d, 1);
        matrix(list, name("ffn_down"), d, ff, 1);
        for role in ["pre_ffw_norm_2", "post_ffw_norm_1", "post_ffw_norm_2", "post_norm"] {
            norm(list, name(role), d);
        }
        norm(list, format!("blk.{layer}.ffn_gate_inp.scale"), d);
        norm(list, format!("blk.{layer}.ffn_down_exps.scale"), n_experts);
        norm(list, name("layer_output_scale"), 1);
        matrix(list, name("inp_gate"), PER_LAYER, d, 1);
        matrix(list, name("proj"), d, PER_LAYER, 1);
    }

    /// What belongs to no layer.
    pub fn own_model(&self, list: &mut Vec<TensorSpec>) {
        if self.arch != "gemma4" {
            return;
        }
        let all = PER_LAYER * self.n_layers;
        matrix(list, "per_layer_token_embd.weight".into(), self.n_vocab, all, 1);
        matrix(list, "per_layer_model_proj.weight".into(), all, self.n_embd, 1);
        norm(list, "per_layer_proj_norm.weight".into(), PER_LAYER);
        // A quarter of a head is turned.
        let pairs = self.head_dim / 2;
        let divisors = (0..pairs).map(|i| if i < pairs / 4 { 1.0 } else { 1e30 }).collect();
        let kind = Kind::RopeFreqs(divisors);
        list.push(TensorSpec { name: "rope_freqs.weight".into(), rows: 1, cols: pairs, kind });
    }

    /// Heads of keys, and elements of keys and of values, as the architecture has them; `false`: as others have.
    pub fn write_own_heads(&self, writer: &mut Writer) -> bool {
        let key = |suffix: &str| format!("{}.{suffix}", self.arch);
        let sizes = |writer: &mut Writer, all: &[(&str, usize)]| {
            for (suffix, n) in all {
                writer.meta(&key(suffix), Value::U32(*n as u32));
            }
        };
        match self.arch {
            "deepseek2" => {
                let (nope, (q_rank, rank, turned, v_dim)) = (self.head_dim, latent(self.head_dim));
                sizes(
                    writer,
                    &[
                        ("attention.head_count_kv", 1),
                        ("attention.q_lora_rank", q_rank),
                        ("attention.kv_lora_rank", rank),
                        ("attention.key_length", rank + turned),
                        ("attention.value_length", rank),
                        ("attention.key_length_mla", nope + turned),
                        ("attention.value_length_mla", v_dim),
                        ("rope.dimension_count", turned),
                        ("expert_gating_func", 2),
                    ],
                );
                writer.meta(&key("expert_weights_norm"), Value::Bool(true));
                true
            }
            "gemma4" => {
                let windowed = self.head_dim / 2;
                sizes(
                    writer,
                    &[
                        ("attention.key_length", self.head_dim),
                        ("attention.value_length", self.head_dim),
                        ("attention.key_length_swa", windowed),
                        ("attention.value_length_swa", windowed),
                        ("attention.shared_kv_layers", WINDOWED.len() / 2),
                        ("embedding_length_per_layer_input", PER_LAYER),
                        ("rope.dimension_count", self.head_dim),
                        ("rope.dimension_count_swa", windowed),
                    ],
                );
                let heads =
                    WINDOWED.map(|windowed| if windowed { self.n_kv_heads } else { self.n_kv_heads / 2 } as u32);
                writer.array(&key("attention.head_count_kv"), ValueType::U32, heads.map(Value::U32));
                let pattern = WINDOWED.map(Value::Bool);
                writer.array(&key("attention.sliding_window_pattern"), ValueType::Bool, pattern);
                writer.meta(&key("rope.freq_base_swa"), Value::F32(5e3));
                writer.meta(&key("final_logit_softcapping"), Value::F32(30.0));
                true
            }
            _ => false,
        }
    }
}
