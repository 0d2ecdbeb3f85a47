//! The sizes of models, their metadata, and the list of tensors that follows from them.

use super::habits::Habits;
use kigo::gguf::{Value, Writer};

/// Sizes and habits of a model; enough to write a file of it.
#[derive(Clone, Debug)]
pub struct Shape {
    pub name: &'static str,
    pub arch: &'static str,
    /// `tokenizer.ggml.pre`; "spm" stands for a vocabulary of the SentencePiece kind.
    pub pre: &'static str,
    pub n_layers: usize,
    pub n_embd: usize,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub head_dim: usize,
    pub n_ff: usize,
    pub n_vocab: usize,
    pub n_ctx: usize,
    pub rope_base: f32,
    pub norm_eps: f32,
    /// The output matrix is the embedding.
    pub tied: bool,
    /// The window of the layers that have one; 0 for none.
    pub window: u32,
    /// Llama 3: factor of the rope scaling; gemma3: the linear one. 1 for none.
    pub rope_factor: f32,
    /// Experts and those that are used, where they are not its architecture's of `habits.rs`.
    pub n_experts: Option<(usize, usize)>,
}

/// What a tensor is, and how its numbers are distributed.
#[derive(Clone, Debug)]
pub enum Kind {
    /// `n` of them one behind the other, whose rows are all of theirs.
    Matrix {
        std: f32,
        n: usize,
    },
    Norm,
    /// A norm of queries whose weights the scale of scores is in.
    NormOf {
        head_dim: usize,
    },
    Bias,
    /// Negative numbers.
    Decay,
    RopeFreqs(Vec<f32>),
}

/// One tensor of a shape.
#[derive(Clone, Debug)]
pub struct TensorSpec {
    pub name: String,
    pub rows: usize,
    pub cols: usize,
    pub kind: Kind,
}

impl TensorSpec {
    /// The dimensions as the file has them, the contiguous one first.
    pub fn dims(&self) -> Vec<u64> {
        match self.kind {
            Kind::Matrix { n, .. } if n > 1 => vec![self.cols as u64, (self.rows / n) as u64, n as u64],
            Kind::Matrix { .. } => vec![self.cols as u64, self.rows as u64],
            _ if self.rows > 1 => vec![self.cols as u64, self.rows as u64],
            _ => vec![self.cols as u64],
        }
    }
}

/// `(layers, width, heads, kv heads, head, feed-forward)`.
type Sizes = (usize, usize, usize, usize, usize, usize);

fn shape(name: &'static str, arch: &'static str, pre: &'static str, sizes: Sizes, n_vocab: usize) -> Shape {
    let (n_layers, n_embd, n_heads, n_kv_heads, head_dim, n_ff) = sizes;
    let (n_ctx, rope_base, norm_eps) = (32_768, 1e6, 1e-6);
    Shape {
        name,
        arch,
        pre,
        n_layers,
        n_embd,
        n_heads,
        n_kv_heads,
        head_dim,
        n_ff,
        n_vocab,
        n_ctx,
        rope_base,
        norm_eps,
        tied: true,
        window: 0,
        rope_factor: 1.0,
        n_experts: None,
    }
}

/// All named shapes; sizes from the models' published configurations.
pub fn all() -> Vec<Shape> {
    let qwen2 = |name, sizes, n_vocab| shape(name, "qwen2", "qwen2", sizes, n_vocab);
    let qwen3 = |name, sizes| Shape { n_ctx: 40_960, ..shape(name, "qwen3", "qwen2", sizes, 151_936) };
    let smollm = |name, sizes| Shape {
        n_ctx: 8192,
        rope_base: 100_000.0,
        norm_eps: 1e-5,
        ..shape(name, "llama", "smollm", sizes, 49_152)
    };
    let llama3 = |name, sizes, rope_factor| Shape {
        n_ctx: 131_072,
        rope_base: 500_000.0,
        norm_eps: 1e-5,
        rope_factor,
        ..shape(name, "llama", "llama-bpe", sizes, 128_256)
    };
    let gemma3 = |name, sizes, window| Shape { window, ..shape(name, "gemma3", "spm", sizes, 262_144) };
    vec![
        qwen2("qwen2.5-0.5b", (24, 896, 14, 2, 64, 4864), 151_936),
        qwen2("qwen2.5-1.5b", (28, 1536, 12, 2, 128, 8960), 151_936),
        qwen2("qwen2.5-3b", (36, 2048, 16, 2, 128, 11_008), 151_936),
        Shape { tied: false, ..qwen2("qwen2.5-7b", (28, 3584, 28, 4, 128, 18_944), 152_064) },
        Shape { tied: false, ..qwen2("qwen2.5-14b", (48, 5120, 40, 8, 128, 13_824), 152_064) },
        qwen3("qwen3-0.6b", (28, 1024, 16, 8, 128, 3072)),
        qwen3("qwen3-1.7b", (28, 2048, 16, 8, 128, 6144)),
        qwen3("qwen3-4b", (36, 2560, 32, 8, 128, 9728)),
        Shape { tied: false, ..qwen3("qwen3-8b", (36, 4096, 32, 8, 128, 12_288)) },
        smollm("smollm2-135m", (30, 576, 9, 3, 64, 1536)),
        smollm("smollm2-360m", (32, 960, 15, 5, 64, 2560)),
        smollm("smollm2-1.7b", (24, 2048, 32, 32, 64, 8192)),
        llama3("llama-3.2-1b", (16, 2048, 32, 8, 64, 8192), 32.0),
        llama3("llama-3.2-3b", (28, 3072, 24, 8, 128, 8192), 32.0),
        Shape { tied: false, ..llama3("llama-3.1-8b", (32, 4096, 32, 8, 128, 14_336), 8.0) },
        Shape {
            tied: false,
            norm_eps: 1e-5,
            ..shape("mistral-7b", "llama", "spm", (32, 4096, 32, 8, 128, 14_336), 32_768)
        },
        gemma3("gemma-3-270m", (18, 640, 4, 1, 256, 2048), 512),
        gemma3("gemma-3-1b", (26, 1152, 4, 1, 256, 6912), 512),
        Shape { rope_factor: 8.0, ..gemma3("gemma-3-4b", (34, 2560, 8, 4, 256, 10_240), 1024) },
        Shape {
            tied: false,
            window: 128,
            n_ctx: 131_072,
            rope_base: 150_000.0,
            norm_eps: 1e-5,
            n_experts: Some((32, 4)),
            ..shape("gpt-oss-20b", "gpt-oss", "gpt-4o", (24, 2880, 64, 8, 64, 2 * 2880), 201_088)
        },
        Shape {
            tied: false,
            n_ctx: 40_960,
            n_experts: Some((128, 8)),
            ..shape("qwen3-30b-a3b", "qwen3moe", "qwen2", (48, 2048, 32, 4, 128, 2 * 768), 151_936)
        },
        Shape {
            n_experts: Some((16, 4)),
            ..shape("qwen3moe-small", "qwen3moe", "qwen2", (12, 1024, 16, 4, 64, 2 * 512), 32_000)
        },
        Shape { n_vocab: 512, n_ctx: 512, ..qwen2("qwen2-tiny", (2, 64, 4, 2, 16, 128), 0) },
        Shape { n_vocab: 512, n_ctx: 512, ..qwen3("qwen3-tiny", (2, 64, 4, 2, 32, 128)) },
        Shape { n_vocab: 512, n_ctx: 512, rope_base: 1e4, ..llama3("llama-tiny", (2, 64, 4, 2, 16, 128), 8.0) },
        Shape { n_vocab: 512, n_ctx: 512, ..gemma3("gemma3-tiny", (7, 64, 4, 2, 32, 128), 16) },
    ]
    .into_iter()
    .chain(tiny())
    .collect()
}

/// The tiny models of the other architectures: at least one of each of their kinds of layers.
fn tiny() -> impl Iterator<Item = Shape> {
    let tiny = |name, arch, n_layers| Shape {
        n_ctx: 512,
        rope_base: 1e4,
        norm_eps: 1e-5,
        ..shape(name, arch, "qwen2", (n_layers, 64, 4, 2, 16, 128), 512)
    };
    [
        tiny("arcee-tiny", "arcee", 2),
        Shape { window: 16, ..tiny("cohere2-tiny", "cohere2", 4) },
        tiny("ernie4_5-tiny", "ernie4_5", 2),
        Shape { window: 16, ..tiny("exaone4-tiny", "exaone4", 4) },
        tiny("gemma-tiny", "gemma", 2),
        Shape { window: 16, ..tiny("gemma2-tiny", "gemma2", 2) },
        tiny("glm4-tiny", "glm4", 2),
        tiny("ernie4_5-moe-tiny", "ernie4_5-moe", 2),
        tiny("glm4moe-tiny", "glm4moe", 2),
        Shape { window: 16, ..tiny("gpt-oss-tiny", "gpt-oss", 2) },
        Shape { tied: false, ..tiny("gptneox-tiny", "gptneox", 2) },
        tiny("granitemoe-tiny", "granitemoe", 2),
        tiny("olmoe-tiny", "olmoe", 2),
        Shape { tied: false, ..tiny("qwen2moe-tiny", "qwen2moe", 2) },
        tiny("qwen3moe-tiny", "qwen3moe", 2),
        tiny("qwen2vl-tiny", "qwen2vl", 2),
        tiny("deepseek2-tiny", "deepseek2", 2),
        Shape { window: 16, ..tiny("gemma4-tiny", "gemma4", 4) },
        Shape { tied: false, ..tiny("qwen3vl-tiny", "qwen3vl", 2) },
        tiny("qwen3vlmoe-tiny", "qwen3vlmoe", 2),
        tiny("granite-tiny", "granite", 2),
        tiny("hunyuan-dense-tiny", "hunyuan-dense", 2),
        Shape { tied: false, ..tiny("internlm2-tiny", "internlm2", 2) },
        tiny("mistral3-tiny", "mistral3", 2),
        Shape { window: 16, ..tiny("olmo2-tiny", "olmo2", 4) },
        Shape { tied: false, ..tiny("phi2-tiny", "phi2", 2) },
        Shape { window: 48, ..tiny("phi3-tiny", "phi3", 2) },
        tiny("seed_oss-tiny", "seed_oss", 2),
        tiny("smollm3-tiny", "smollm3", 4),
        Shape { tied: false, ..tiny("stablelm-tiny", "stablelm", 2) },
        tiny("starcoder2-tiny", "starcoder2", 2),
        tiny("lfm2-tiny", "lfm2", 3),
        tiny("lfm2moe-tiny", "lfm2moe", 3),
        tiny("qwen35-tiny", "qwen35", 4),
        Shape { tied: false, ..tiny("qwen35moe-tiny", "qwen35moe", 4) },
        tiny("qwen3next-tiny", "qwen3next", 4),
        tiny("granitehybrid-tiny", "granitehybrid", 3),
        Shape { tied: false, ..tiny("falcon-h1-tiny", "falcon-h1", 2) },
        Shape { tied: false, ..tiny("nemotron_h-tiny", "nemotron_h", 5) },
        Shape { tied: false, ..tiny("nemotron_h_moe-tiny", "nemotron_h_moe", 5) },
    ]
    .into_iter()
}

impl Shape {
    /// The shape of this name.
    pub fn named(name: &str) -> Option<Shape> {
        all().into_iter().find(|s| s.name == name)
    }

    /// The tensors, in the order of the file.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let mut list = Vec::new();
        let (d, head) = (self.n_embd, self.head_dim);
        let (h, g) = (self.n_heads * head, self.n_kv_heads * head);
        let has = Habits::of(self.arch);
        // With a gate as many rows again.
        let q = if has.gated_attention { 2 * h } else { h };
        let matrix = |list: &mut Vec<TensorSpec>, name: String, rows: usize, cols: usize, scale: f32| {
            let kind = Kind::Matrix { std: scale / (cols as f32).sqrt(), n: 1 };
            list.push(TensorSpec { name, rows, cols, kind });
        };
        let vector = |list: &mut Vec<TensorSpec>, name: String, cols: usize, kind: Kind| {
            list.push(TensorSpec { name, rows: 1, cols, kind });
        };
        // Twice the usual width, so that the logits (standard deviation 2) are far from flat.
        matrix(&mut list, "token_embd.weight".into(), self.n_vocab, d, 2.0);
        for i in 0..self.n_layers {
            let name = |role: &str| format!("blk.{i}.{role}");
            let norm = |list: &mut Vec<TensorSpec>, role: &str, cols: usize| {
                vector(list, name(&format!("{role}.weight")), cols, Kind::Norm);
                if has.norm_bias {
                    vector(list, name(&format!("{role}.bias")), cols, Kind::Bias);
                }
            };
            if has.attn_norm {
                norm(&mut list, "attn_norm", d);
            }
            if self.is_recurrent(i) {
                self.recurrent_tensors(&mut list, i);
            }
            if !self.is_attentive(i) {
                if let Some(role) = has.ffn_norm {
                    norm(&mut list, role, d);
                }
                if self.has_ffn(i) {
                    self.ffn_tensors(&mut list, i);
                }
                continue;
            }
            // Fused rows are those of the parts, one after the other.
            let qkv: &[_] =
                if has.fused_qkv { &[("attn_qkv", h + 2 * g)] } else { &[("attn_q", q), ("attn_k", g), ("attn_v", g)] };
            if !self.own_attention(&mut list, i) {
                for &(role, rows) in qkv {
                    matrix(&mut list, name(&format!("{role}.weight")), rows, d, 1.0);
                }
                matrix(&mut list, name("attn_output.weight"), d, h, 1.0);
            }
            for &(role, rows) in qkv.iter().filter(|_| has.qkv_bias) {
                vector(&mut list, name(&format!("{role}.bias")), rows, Kind::Bias);
            }
            if has.o_bias {
                vector(&mut list, name("attn_output.bias"), d, Kind::Bias);
            }
            if let Some(by_head) = has.qk_norm {
                let (q, k) = if by_head { (head, head) } else { (h, g) };
                vector(&mut list, name("attn_q_norm.weight"), q, Kind::Norm);
                vector(&mut list, name("attn_k_norm.weight"), k, Kind::Norm);
            }
            if has.post_norms {
                vector(&mut list, name("post_attention_norm.weight"), d, Kind::Norm);
                vector(&mut list, name("post_ffw_norm.weight"), d, Kind::Norm);
            }
            if let Some(role) = has.ffn_norm {
                norm(&mut list, role, d);
            } else if self.arch == "falcon-h1" {
                // The only one whose name has no kind.
                vector(&mut list, name("ffn_norm"), d, Kind::Norm);
            }
            if has.sinks {
                vector(&mut list, name("attn_sinks.weight"), self.n_heads, Kind::Bias);
            }
            if self.has_ffn(i) {
                self.ffn_tensors(&mut list, i);
            }
            self.own_rest(&mut list, i);
        }
        self.own_model(&mut list);
        let output_norm = if self.arch.starts_with("lfm2") { "token_embd_norm.weight" } else { "output_norm.weight" };
        vector(&mut list, output_norm.into(), d, Kind::Norm);
        if has.norm_bias {
            vector(&mut list, "output_norm.bias".into(), d, Kind::Bias);
        }
        if !self.tied {
            matrix(&mut list, "output.weight".into(), self.n_vocab, d, 2.0);
        }
        if has.output_bias {
            vector(&mut list, "output.bias".into(), self.n_vocab, Kind::Bias);
        }
        if self.arch == "llama" && self.rope_factor != 1.0 {
            vector(&mut list, "rope_freqs.weight".into(), head / 2, Kind::RopeFreqs(self.llama3_factors()));
        }
        list
    }

    /// Llama 3's divisors of the frequencies, from its published rule (low factor 1, high factor 4, 8192 tokens):
    /// short waves are left alone, long ones divided by the factor, those between in proportion.
    fn llama3_factors(&self) -> Vec<f32> {
        let (low, high, context) = (1.0, 4.0, 8192.0f32.min(self.n_ctx as f32));
        (0..self.head_dim / 2)
            .map(|i| {
                let frequency = self.rope_base.powf(-2.0 * i as f32 / self.head_dim as f32);
                let turns = context * frequency / (2.0 * std::f32::consts::PI);
                let smooth = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                1.0 / ((1.0 - smooth) / self.rope_factor + smooth)
            })
            .collect()
    }

    /// Writes the metadata of the model; the tokenizer's is `vocab`'s.
    pub fn write_meta(&self, writer: &mut Writer, file_type: u32) {
        let key = |suffix: &str| format!("{}.{suffix}", self.arch);
        let size = |n: usize| Value::U32(n as u32);
        writer.meta("general.architecture", Value::String(self.arch));
        writer.meta("general.type", Value::String("model"));
        writer.meta("general.name", Value::String(&format!("random {}", self.name)));
        writer.meta("general.file_type", Value::U32(file_type));
        writer.meta(&key("block_count"), size(self.n_layers));
        writer.meta(&key("context_length"), size(self.n_ctx));
        writer.meta(&key("embedding_length"), size(self.n_embd));
        self.write_sizes(writer, "feed_forward_length", self.n_ff, &|layer| self.has_ffn(layer));
        writer.meta(&key("attention.head_count"), size(self.n_heads));
        if !self.write_own_heads(writer) {
            self.write_recurrent(writer);
            writer.meta(&key("attention.key_length"), size(self.head_dim));
            writer.meta(&key("attention.value_length"), size(self.head_dim));
        }
        let eps = if Habits::of(self.arch).layer_norm || self.arch == "nemotron_h" {
            "layer_norm_epsilon"
        } else {
            "layer_norm_rms_epsilon"
        };
        writer.meta(&key(&format!("attention.{eps}")), Value::F32(self.norm_eps));
        writer.meta(&key("rope.freq_base"), Value::F32(self.rope_base));
        if self.arch == "llama" {
            writer.meta(&key("rope.dimension_count"), size(self.head_dim));
        }
        if self.window != 0 {
            writer.meta(&key("attention.sliding_window"), Value::U32(self.window));
        }
        if self.arch == "gemma3" && self.rope_factor != 1.0 {
            writer.meta(&key("rope.scaling.type"), Value::String("linear"));
            writer.meta(&key("rope.scaling.factor"), Value::F32(self.rope_factor));
        }
        if let Some(experts) = self.experts() {
            self.write_experts(writer, experts);
        }
        self.write_own_meta(writer);
    }

    /// The keys that one architecture has.
    fn write_own_meta(&self, writer: &mut Writer) {
        let mut meta = |suffix: &str, value| {
            writer.meta(&format!("{}.{suffix}", self.arch), value);
        };
        match self.arch {
            "cohere2" => meta("logit_scale", Value::F32(0.25)),
            "gemma2" => {
                meta("attn_logit_softcapping", Value::F32(50.0));
                meta("final_logit_softcapping", Value::F32(30.0));
            }
            "glm4" | "glm4moe" | "phi2" | "gptneox" | "stablelm" => {
                meta("rope.dimension_count", Value::U32(self.head_dim as u32 / 2))
            }
            "granite" | "granitemoe" | "granitehybrid" => {
                meta("logit_scale", Value::F32(4.0));
                meta("residual_scale", Value::F32(0.25));
                meta("embedding_scale", Value::F32(12.0));
                meta("attention.scale", Value::F32(0.125));
            }
            "mistral3" | "arcee" | "olmo2" | "gpt-oss" => {
                meta("rope.scaling.type", Value::String("yarn"));
                meta("rope.scaling.factor", Value::F32(4.0));
                meta("rope.scaling.original_context_length", Value::U32(64));
            }
            _ => {}
        }
        match self.arch {
            "mistral3" => {
                meta("rope.scaling.yarn_log_multiplier", Value::F32(1.0));
                meta("attention.temperature_scale", Value::F32(0.1));
            }
            "gptneox" => meta("use_parallel_residual", Value::Bool(true)),
            _ => {}
        }
    }
}
