//! Files that are well formed and make no model that this library can run.

use kigo::gguf::{TensorType, Value};

use super::file::{Case, File, bad, no_such_architecture, tiny, unsupported, with, without};
use crate::common::tiny::Tiny;

/// All of them.
pub fn all() -> Vec<Case> {
    let q = |key: &str| format!("qwen2.{key}");
    let number = |name, key: &str, value, text: &str| bad(name, with("qwen2", &q(key), value), text);
    vec![
        bad(
            "no architecture",
            without("qwen2", "general.architecture"),
            "key \"general.architecture\" is missing; expected a string",
        ),
        unsupported(
            "architecture",
            with("qwen2", "general.architecture", Value::String("mamba")),
            &no_such_architecture("\"mamba\""),
        ),
        {
            let file = with("qwen2", "general.architecture", Value::U32(7));
            let text = format!(
                "key \"general.architecture\" at byte {}: metadata type 4 where type 8 was expected",
                file.key("general.architecture")
            );
            bad("architecture a number", file, text)
        },
        bad(
            "no layers key",
            without("qwen2", &q("block_count")),
            "key \"qwen2.block_count\" is missing; expected an unsigned integer",
        ),
        number("zero layers", "block_count", Value::U32(0), "key \"qwen2.block_count\" is 0; expected 1 to 26"),
        number(
            "2^32 layers",
            "block_count",
            Value::U32(u32::MAX),
            "key \"qwen2.block_count\" is 4294967295; expected 1 to 26",
        ),
        number(
            "negative layers",
            "block_count",
            Value::I32(-2),
            "key \"qwen2.block_count\" is -2; expected a number that is not negative",
        ),
        number(
            "a layer too many",
            "block_count",
            Value::U32(3),
            "tensor \"blk.2.attn_q.weight\" is missing; expected [64, 64]",
        ),
        unsupported(
            "a layer too few",
            with("qwen2", &q("block_count"), Value::U32(1)),
            "tensor \"blk.1.attn_norm.weight\" is there; expected only tensors that this architecture has a role for",
        ),
        {
            let file = with("qwen2", &q("embedding_length"), Value::F32(64.0));
            let text = format!(
                "key \"qwen2.embedding_length\" at byte {}: metadata type 6 where type 4 was expected",
                file.key(&q("embedding_length"))
            );
            bad("width a float", file, text)
        },
        number(
            "other width",
            "embedding_length",
            Value::U32(96),
            "tensor \"token_embd.weight\" shape is [64, 512]; expected [96, 512]",
        ),
        number(
            "huge width",
            "embedding_length",
            Value::U64(1 << 40),
            "key \"qwen2.embedding_length\" is 1099511627776; expected 1 to 1048576",
        ),
        number(
            "other feed-forward",
            "feed_forward_length",
            Value::U32(256),
            "tensor \"blk.0.ffn_gate.weight\" shape is [64, 128]; expected [64, 256]",
        ),
        number(
            "three heads",
            "attention.head_count",
            Value::U32(3),
            "layer 0 number of heads (attention.head_count) is 3; expected a multiple of 2, the number of key-value heads",
        ),
        number(
            "other heads",
            "attention.head_count",
            Value::U32(8),
            "tensor \"blk.0.attn_q.weight\" shape is [64, 64]; expected [64, 128]",
        ),
        number(
            "head of 12",
            "attention.key_length",
            Value::U32(12),
            "key \"qwen2.attention.value_length\" is 16; expected 12, the length of a key",
        ),
        {
            let both = [q("attention.key_length"), q("attention.value_length")];
            let tiny = Tiny { with: both.map(|key| (key, Value::U32(12))).into(), ..tiny() };
            bad(
                "heads of 12",
                File::of(&tiny),
                "layer 0 head size (attention.key_length) is 12; expected a multiple of 8, 8 to 512",
            )
        },
        bad(
            "odd rotation",
            with("llama", "llama.rope.dimension_count", Value::U32(7)),
            "key \"llama.rope.dimension_count\" is 7; expected even, 2 to 16",
        ),
        number(
            "no context",
            "context_length",
            Value::U32(0),
            "key \"qwen2.context_length\" is 0; expected 1 to 2147483648",
        ),
        number(
            "epsilon 0",
            "attention.layer_norm_rms_epsilon",
            Value::F32(0.0),
            "norm epsilon (attention.layer_norm_rms_epsilon) is 0; expected positive and finite",
        ),
        number(
            "epsilon NaN",
            "attention.layer_norm_rms_epsilon",
            Value::F32(f32::NAN),
            "norm epsilon (attention.layer_norm_rms_epsilon) is NaN; expected positive and finite",
        ),
        number(
            "rope base infinite",
            "rope.freq_base",
            Value::F32(f32::INFINITY),
            "key \"qwen2.rope.freq_base\" is inf; expected positive and finite",
        ),
        unsupported(
            "experts",
            with("qwen2", &q("expert_count"), Value::U32(8)),
            "key \"qwen2.expert_count\" is 8; expected 0, or no such key",
        ),
        unsupported(
            "rope scaling",
            with("llama", "llama.rope.scaling.type", Value::String("dynamic")),
            "key \"llama.rope.scaling.type\" is \"dynamic\"; expected none, linear or yarn",
        ),
        unsupported(
            "window",
            with("qwen2", &q("attention.sliding_window"), Value::U32(64)),
            "key \"qwen2.attention.sliding_window\" is 64; expected 0, or no such key",
        ),
        bad(
            "no global base",
            without("gemma3", "gemma3.rope.freq_base"),
            "key \"gemma3.rope.freq_base\" is missing; expected a float",
        ),
        {
            let mut file = File::new();
            file.rename("blk.1.attn_k.bias", "blk.1.attn_q.dias");
            bad("missing tensor", file, "tensor \"blk.1.attn_k.bias\" is missing; expected [32]")
        },
        {
            let mut file = File::of(&Tiny::new("qwen3", TensorType::F16));
            file.rename("blk.1.attn_q_norm.weight", "blk.1.attn_q_norm.wright");
            bad("missing q norm", file, "tensor \"blk.1.attn_q_norm.weight\" is missing; expected [32]")
        },
        {
            let mut file = File::new();
            let at = file.tensor("output_norm.weight") + 12;
            file.put(at, 8u32.to_le_bytes());
            bad("norm of Q8_0", file, "tensor \"output_norm.weight\" type is Q8_0; expected F32, F16 or BF16")
        },
        {
            let mut file = File::of(&Tiny::new("llama", TensorType::Q8_0));
            let at = file.tensor("rope_freqs.weight") as u64;
            let data = (at + 24).next_multiple_of(32) + file.u64_at(at as usize + 16);
            file.put(data as usize + 12, 0f32.to_le_bytes());
            bad("rope divisor 0", file, "tensor \"rope_freqs.weight\" element 3 is 0; expected positive and finite")
        },
        {
            let mut tiny = tiny();
            tiny.shape.n_vocab = 500;
            let mut file = File::new();
            let vocab = File::of(&tiny);
            let (from, to) = (vocab.key("general.architecture"), vocab.key("token_embd.weight") - 17 - 8);
            let table = file.key("token_embd.weight") - 17 - 8;
            let mut bytes = file.bytes[..from].to_vec();
            bytes.extend(&vocab.bytes[from..to]);
            bytes.extend(&file.bytes[table..file.data_at() as usize - 24]);
            bytes.resize(bytes.len().next_multiple_of(32) + 32, 0);
            bytes.extend(&file.bytes[file.data_at() as usize..]);
            file.bytes = bytes;
            bad(
                "vocabulary of 500",
                file,
                "tensor \"token_embd.weight\" rows is 512; expected 500, the length of tokenizer.ggml.tokens",
            )
        },
    ]
}
