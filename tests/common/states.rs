//! The tensors and keys of layers with a state in tiny models: short convolutions, DeltaNets of two key heads and four value heads, and
//! Mamba2 of six heads in two groups; and those of layers that are a mixer or a feed-forward part alone.

use super::shapes::{Kind, Shape, TensorSpec};
use kigo::gguf::{Value, ValueType, Writer};

/// Tokens that a convolution sees.
const CONV: usize = 3;
const KEY_HEADS: usize = 2;
const VALUE_HEADS: usize = 4;
/// Of a Mamba2.
const HEADS: usize = 6;
const GROUPS: usize = 2;
const STATE: usize = 24;

impl Shape {
    /// Whether a layer has a state.
    pub fn is_recurrent(&self, layer: usize) -> bool {
        match self.arch {
            "lfm2" | "lfm2moe" | "granitehybrid" => layer % 3 != 1,
            "qwen35" | "qwen35moe" | "qwen3next" => layer.is_multiple_of(2),
            "nemotron_h" | "nemotron_h_moe" => layer.is_multiple_of(4),
            "falcon-h1" => true,
            _ => false,
        }
    }

    /// Whether it has attention.
    pub fn is_attentive(&self, layer: usize) -> bool {
        match self.arch {
            "falcon-h1" => true,
            "nemotron_h" | "nemotron_h_moe" => layer % 4 == 2,
            _ => !self.is_recurrent(layer),
        }
    }

    /// Whether it has a feed-forward part.
    pub fn has_ffn(&self, layer: usize) -> bool {
        !self.arch.starts_with("nemotron") || !layer.is_multiple_of(2)
    }

    fn is_mamba(&self) -> bool {
        matches!(self.arch, "granitehybrid" | "nemotron_h" | "nemotron_h_moe" | "falcon-h1")
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
        if self.is_mamba() {
            let (width, channels) = (HEADS * self.head_dim, HEADS * self.head_dim + 2 * GROUPS * STATE);
            add("ssm_in.weight", width + channels + HEADS, d, matrix(d));
            add("ssm_conv1d.weight", channels, CONV, Kind::Norm);
            if self.arch != "nemotron_h" {
                add("ssm_conv1d.bias", 1, channels, Kind::Bias);
            }
            add("ssm_dt.bias", 1, HEADS, Kind::Bias);
            add("ssm_a", HEADS, 1, Kind::Decay);
            add("ssm_d", HEADS, 1, Kind::Norm);
            if self.arch != "falcon-h1" {
                add("ssm_norm.weight", GROUPS, width / GROUPS, Kind::Norm);
            }
            add("ssm_out.weight", d, width, matrix(width));
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

    /// A size of the layers that have it: one for all, or an array with zeros for the others.
    pub fn write_sizes(&self, writer: &mut Writer, suffix: &str, n: usize, has: &dyn Fn(usize) -> bool) {
        let key = format!("{}.{suffix}", self.arch);
        if (0..self.n_layers).all(has) {
            writer.meta(&key, Value::U32(n as u32));
            return;
        }
        let sizes = (0..self.n_layers).map(|layer| Value::U32(if has(layer) { n as u32 } else { 0 }));
        writer.array(&key, ValueType::U32, sizes.collect::<Vec<_>>());
    }

    /// The keys of such layers, and the heads of keys, which some layers may have none of.
    pub fn write_recurrent(&self, writer: &mut Writer) {
        let key = |suffix: &str| format!("{}.{suffix}", self.arch);
        let size = |n: usize| Value::U32(n as u32);
        self.write_sizes(writer, "attention.head_count_kv", self.n_kv_heads, &|layer| {
            self.is_attentive(layer) || self.arch.starts_with("qwen3")
        });
        if self.arch.starts_with("lfm2") {
            writer.meta(&key("shortconv.l_cache"), size(CONV));
        }
        if self.is_mamba() {
            writer.meta(&key("ssm.conv_kernel"), size(CONV));
            writer.meta(&key("ssm.state_size"), size(STATE));
            writer.meta(&key("ssm.group_count"), size(GROUPS));
            writer.meta(&key("ssm.time_step_rank"), size(HEADS));
            writer.meta(&key("ssm.inner_size"), size(HEADS * self.head_dim));
        }
        if self.arch == "granitehybrid" {
            writer.meta(&key("rope.scaling.finetuned"), Value::Bool(false));
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
