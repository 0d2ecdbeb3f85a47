//! The tensors and keys of layers with a state in tiny models: short convolutions, and DeltaNets of two key heads and four value heads.

use super::shapes::{Kind, Shape, TensorSpec};
use kigo::gguf::{Value, ValueType, Writer};

/// Tokens that a convolution sees.
const CONV: usize = 3;
const KEY_HEADS: usize = 2;
const VALUE_HEADS: usize = 4;

impl Shape {
    /// Whether a layer has a state in the place of attention.
    pub fn is_recurrent(&self, layer: usize) -> bool {
        match self.arch {
            "lfm2" | "lfm2moe" => layer % 3 != 1,
            "qwen35" | "qwen35moe" | "qwen3next" => layer.is_multiple_of(2),
            _ => false,
        }
    }

    /// The tensors of such a layer's mixer.
    pub fn recurrent_tensors(&self, list: &mut Vec<TensorSpec>, layer: usize) {
        let d = self.n_embd;
        let mut add = |role: &str, rows: usize, cols: usize, kind: Kind| {
            list.push(TensorSpec { name: format!("blk.{layer}.{role}"), rows, cols, kind });
        };
        let matrix = |cols: usize| Kind::Matrix { std: 1.0 / (cols as f32).sqrt(), n: 1 };
        if self.arch.starts_with("lfm2") {
            add("shortconv.in_proj.weight", 3 * d, d, matrix(d));
            add("shortconv.conv.weight", d, CONV, Kind::Bias);
            add("shortconv.out_proj.weight", d, d, matrix(d));
            return;
        }
        let (keys, values) = (KEY_HEADS * self.head_dim, VALUE_HEADS * self.head_dim);
        add("attn_qkv.weight", 2 * keys + values, d, matrix(d));
        add("attn_gate.weight", values, d, matrix(d));
        add("ssm_conv1d.weight", 2 * keys + values, CONV, Kind::Norm);
        if self.arch == "qwen3next" {
            add("ssm_ba.weight", 2 * VALUE_HEADS, d, matrix(d));
        } else {
            add("ssm_beta.weight", VALUE_HEADS, d, matrix(d));
            add("ssm_alpha.weight", VALUE_HEADS, d, matrix(d));
        }
        add("ssm_dt.bias", 1, VALUE_HEADS, Kind::Bias);
        add("ssm_a", 1, VALUE_HEADS, Kind::Decay);
        add("ssm_norm.weight", 1, self.head_dim, Kind::Norm);
        add("ssm_out.weight", d, values, matrix(values));
    }

    /// The keys of such layers, and the heads of keys, which some layers may have none of.
    pub fn write_recurrent(&self, writer: &mut Writer) {
        let key = |suffix: &str| format!("{}.{suffix}", self.arch);
        let size = |n: usize| Value::U32(n as u32);
        if !self.arch.starts_with("lfm2") {
            writer.meta(&key("attention.head_count_kv"), size(self.n_kv_heads));
        } else {
            let heads = |layer| if self.is_recurrent(layer) { 0 } else { self.n_kv_heads as u32 };
            let heads: Vec<Value<'_>> = (0..self.n_layers).map(|layer| Value::U32(heads(layer))).collect();
            writer.array(&key("attention.head_count_kv"), ValueType::U32, heads);
            writer.meta(&key("shortconv.l_cache"), size(CONV));
        }
        if self.arch.starts_with("qwen35") || self.arch == "qwen3next" {
            writer.meta(&key("full_attention_interval"), size(2));
            writer.meta(&key("ssm.conv_kernel"), size(CONV));
            writer.meta(&key("ssm.state_size"), size(self.head_dim));
            writer.meta(&key("ssm.group_count"), size(KEY_HEADS));
            writer.meta(&key("ssm.time_step_rank"), size(VALUE_HEADS));
            writer.meta(&key("ssm.inner_size"), size(VALUE_HEADS * self.head_dim));
            writer.meta(&key("rope.dimension_count"), size(self.head_dim / 2));
        }
    }
}
