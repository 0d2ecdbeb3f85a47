//! What architectures have that not all have, and the tensors of their feed-forward parts.

use super::shapes::{Kind, Shape, TensorSpec};
use kigo::gguf::{Value, Writer};

/// The tensors of an architecture beside the matrices, and what its matrices are called.
#[derive(Clone, Copy, Debug, Default)]
pub struct Habits {
    /// LayerNorm, whose epsilon has a key of its own.
    pub layer_norm: bool,
    pub norm_bias: bool,
    pub qkv_bias: bool,
    pub o_bias: bool,
    pub ffn_bias: bool,
    pub output_bias: bool,
    /// The norms before the halves of a layer.
    pub attn_norm: bool,
    pub ffn_norm: Option<&'static str>,
    /// Those behind them.
    pub post_norms: bool,
    /// Norms of queries and keys: by head, or over the row.
    pub qk_norm: Option<bool>,
    pub fused_qkv: bool,
    pub fused_gate_up: bool,
    pub ungated: bool,
    pub sinks: bool,
    /// The rows of the queries have those of a gate beside them, head by head.
    pub gated_attention: bool,
    pub experts: Option<Experts>,
}

/// Experts half as wide as the feed-forward part that is not made of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Experts {
    pub n: usize,
    pub n_used: usize,
    /// Layers at the start without.
    pub n_dense: usize,
    /// Whether all positions share one, and whether it has a gate.
    pub shared: Option<bool>,
    pub select_bias: bool,
    /// Biases of the router and of each expert.
    pub bias: bool,
    /// Groups, and those that are used.
    pub groups: Option<(usize, usize)>,
}

impl Habits {
    pub fn of(arch: &str) -> Habits {
        let llama = Habits { attn_norm: true, ffn_norm: Some("ffn_norm"), ..Habits::default() };
        let behind = Habits { attn_norm: false, ffn_norm: None, post_norms: true, ..llama };
        let biased = Habits { norm_bias: true, qkv_bias: true, o_bias: true, ffn_bias: true, ..llama };
        let gpt = Habits { layer_norm: true, ungated: true, ..biased };
        let experts = |n, n_used| Experts { n, n_used, ..Experts::default() };
        let delta =
            Habits { ffn_norm: Some("post_attention_norm"), qk_norm: Some(true), gated_attention: true, ..llama };
        let of = |experts: Experts| Habits { experts: Some(experts), ..llama };
        match arch {
            "arcee" => Habits { ungated: true, ..llama },
            "cohere2" => Habits { layer_norm: true, ffn_norm: None, ..llama },
            "ernie4_5-moe" => of(Experts { n_dense: 1, shared: Some(false), select_bias: true, ..experts(7, 2) }),
            "deepseek2" => of(Experts {
                n_dense: 1,
                shared: Some(false),
                select_bias: true,
                groups: Some((3, 2)),
                ..experts(6, 3)
            }),
            "exaone4" => Habits { qk_norm: Some(true), ..behind },
            "gemma2" => Habits { post_norms: true, ..llama },
            "gemma3" => Habits { post_norms: true, qk_norm: Some(true), ..llama },
            "gemma4" => Habits { post_norms: true, ..of(experts(5, 2)) },
            "glm4" => Habits { post_norms: true, qkv_bias: true, fused_gate_up: true, ..llama },
            "glm4moe" => Habits {
                ffn_norm: Some("post_attention_norm"),
                qkv_bias: true,
                qk_norm: Some(true),
                ..of(Experts {
                    n_dense: 1,
                    shared: Some(false),
                    select_bias: true,
                    groups: Some((3, 2)),
                    ..experts(6, 3)
                })
            },
            "gpt-oss" => Habits {
                ffn_norm: Some("post_attention_norm"),
                qkv_bias: true,
                o_bias: true,
                sinks: true,
                ..of(Experts { bias: true, ..experts(5, 2) })
            },
            "gptneox" => Habits { fused_qkv: true, ..gpt },
            "granitemoe" => of(experts(5, 1)),
            "granitehybrid" => of(Experts { shared: Some(false), ..experts(5, 2) }),
            // The norm of what the feed-forward part reads has another name, or there is one of the layer alone.
            "falcon-h1" => Habits { ffn_norm: None, ..llama },
            "nemotron_h" => Habits { ffn_norm: None, ungated: true, ..llama },
            "nemotron_h_moe" => Habits {
                ffn_norm: None,
                ungated: true,
                ..of(Experts { shared: Some(false), select_bias: true, ..experts(6, 2) })
            },
            "hunyuan-dense" | "qwen3" | "qwen3vl" => Habits { qk_norm: Some(true), ..llama },
            "olmo2" => Habits { qk_norm: Some(false), ..behind },
            "olmoe" => Habits { qk_norm: Some(false), ..of(experts(9, 4)) },
            "phi2" => Habits { ffn_norm: None, output_bias: true, ..gpt },
            "phi3" => Habits { fused_qkv: true, fused_gate_up: true, ..llama },
            "qwen2" | "qwen2vl" => Habits { qkv_bias: true, ..llama },
            "qwen2moe" => Habits { qkv_bias: true, ..of(Experts { shared: Some(true), ..experts(5, 4) }) },
            "qwen3moe" | "qwen3vlmoe" => Habits { qk_norm: Some(true), ..of(experts(7, 2)) },
            "seed_oss" => Habits { ffn_norm: Some("post_attention_norm"), qkv_bias: true, ..llama },
            "lfm2" => Habits { qk_norm: Some(true), ..llama },
            "lfm2moe" => {
                Habits { qk_norm: Some(true), ..of(Experts { n_dense: 1, select_bias: true, ..experts(7, 2) }) }
            }
            "qwen35" => delta,
            "qwen35moe" | "qwen3next" => {
                Habits { experts: Some(Experts { shared: Some(true), ..experts(5, 2) }), ..delta }
            }
            "stablelm" => Habits { layer_norm: true, norm_bias: true, ..llama },
            "starcoder2" => gpt,
            _ => llama,
        }
    }
}

impl Shape {
    /// Its experts; a published model has more of them than a tiny one of its architecture.
    pub fn experts(&self) -> Option<Experts> {
        let experts = Habits::of(self.arch).experts?;
        let (n, n_used) = self.n_experts.unwrap_or((experts.n, experts.n_used));
        Some(Experts { n, n_used, ..experts })
    }

    /// The tensors of a layer's feed-forward part but for its norm.
    pub fn ffn_tensors(&self, list: &mut Vec<TensorSpec>, layer: usize) {
        let (d, ff, has) = (self.n_embd, self.n_ff, Habits::of(self.arch));
        let name = |role: &str| format!("blk.{layer}.{role}");
        let mut add = |role: &str, rows: usize, cols: usize, n: usize| {
            let kind = Kind::Matrix { std: 1.0 / (cols as f32).sqrt(), n };
            list.push(TensorSpec { name: name(role), rows: n * rows, cols, kind });
        };
        let Some(experts) = self.experts().filter(|experts| layer >= experts.n_dense) else {
            if !has.ungated && !has.fused_gate_up {
                add("ffn_gate.weight", ff, d, 1);
            }
            add("ffn_up.weight", if has.fused_gate_up { 2 * ff } else { ff }, d, 1);
            add("ffn_down.weight", d, ff, 1);
            for (role, n) in [("ffn_up.bias", ff), ("ffn_down.bias", d)].into_iter().filter(|_| has.ffn_bias) {
                list.push(TensorSpec { name: name(role), rows: 1, cols: n, kind: Kind::Bias });
            }
            return;
        };
        let mut parts = |kind: &str, ff: usize, n: usize| {
            if !has.ungated {
                add(&format!("ffn_gate_{kind}.weight"), ff, d, n);
            }
            add(&format!("ffn_up_{kind}.weight"), ff, d, n);
            add(&format!("ffn_down_{kind}.weight"), d, ff, n);
        };
        parts("exps", ff / 2, experts.n);
        if experts.shared.is_some() {
            parts("shexp", ff, 1);
        }
        add("ffn_gate_inp.weight", experts.n, d, 1);
        let mut bias = |there: bool, role: &str, rows: usize, cols: usize| {
            if there {
                list.push(TensorSpec { name: name(role), rows, cols, kind: Kind::Bias });
            }
        };
        bias(experts.shared == Some(true), "ffn_gate_inp_shexp.weight", 1, d);
        bias(experts.select_bias, "exp_probs_b.bias", 1, experts.n);
        bias(experts.bias, "ffn_gate_inp.bias", 1, experts.n);
        bias(experts.bias, "ffn_gate_exps.bias", experts.n, ff / 2);
        bias(experts.bias, "ffn_up_exps.bias", experts.n, ff / 2);
        bias(experts.bias, "ffn_down_exps.bias", experts.n, d);
    }

    /// The keys of its experts.
    pub fn write_experts(&self, writer: &mut Writer, experts: Experts) {
        let mut meta = |suffix: &str, value| {
            writer.meta(&format!("{}.{suffix}", self.arch), value);
        };
        let size = |n: usize| Value::U32(n as u32);
        meta("expert_count", size(experts.n));
        meta("expert_used_count", size(experts.n_used));
        meta("expert_feed_forward_length", size(self.n_ff / 2));
        if experts.shared.is_some() {
            meta("expert_shared_feed_forward_length", size(self.n_ff));
        }
        if experts.n_dense > 0 {
            meta("leading_dense_block_count", size(experts.n_dense));
        }
        if let Some((n, n_used)) = experts.groups {
            meta("expert_group_count", size(n));
            meta("expert_group_used_count", size(n_used));
            meta("expert_weights_scale", Value::F32(1.5));
        }
    }
}
