//! From files to descriptions: the real models.

use std::path::PathBuf;

use kigo::gguf::Gguf;
use kigo::model::{Activation, ModelInfo, RopePairing, bind};

/// A model that `make test` fetches, or `None` with a line that says so.
fn fetched(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models").join(name);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: models/{name} not there");
    None
}

#[test]
fn smollm2_is_a_llama_with_adjacent_pairs() {
    let Some(path) = fetched("SmolLM2-135M-Instruct-Q4_1.gguf") else { return };
    let gguf = Gguf::open(&path).expect("opens");
    let (config, weights) = bind(&gguf).expect("binds");
    assert_eq!((config.n_layers, config.n_embd, config.n_vocab, config.n_ff), (30, 576, 49152, 1536));
    assert_eq!((config.n_heads, config.n_kv_heads, config.head_dim, config.n_rot), (9, 3, 64, 64));
    assert_eq!((config.rope_pairing, config.activation), (RopePairing::Adjacent, Activation::Silu));
    assert_eq!((config.layers[0].rope_base, config.layers[0].window), (100_000.0, None));
    assert_eq!(config.attn_scale, 0.125);
    assert!(weights.output.is_none() && weights.rope_freqs.is_none() && weights.layers[0].q_bias.is_none());
    assert_eq!(weights.iter().count(), gguf.n_tensors());
    let info = ModelInfo::of(&gguf);
    assert_eq!((info.architecture.as_str(), info.quantization.as_str()), ("llama", "Q4_1"));
    assert_eq!((info.n_params, info.file_bytes), (134_515_008, 98_362_432));
}

#[test]
fn qwen2_has_biases() {
    let Some(path) = fetched("Qwen2.5-Coder-0.5B-Instruct-Q4_K_M.gguf") else { return };
    let gguf = Gguf::open(&path).expect("opens");
    let (config, weights) = bind(&gguf).expect("binds");
    assert_eq!((config.n_layers, config.n_embd, config.n_vocab, config.n_ff), (24, 896, 151_936, 4864));
    assert_eq!((config.n_heads, config.n_kv_heads, config.head_dim), (14, 2, 64));
    assert_eq!((config.rope_pairing, config.layers[23].rope_base), (RopePairing::Halves, 1e6));
    assert!(weights.layers.iter().all(|l| l.q_bias.is_some() && l.k_bias.is_some() && l.v_bias.is_some()));
    assert!(weights.output.is_some());
    assert_eq!(ModelInfo::of(&gguf).quantization, "Q4_K_M");
}

#[test]
fn gemma3_has_five_windowed_layers_to_a_global_one() {
    let Some(path) = fetched("gemma-3-270m-Q4_K_M.gguf") else { return };
    let gguf = Gguf::open(&path).expect("opens");
    let (config, weights) = bind(&gguf).expect("binds");
    assert_eq!((config.n_layers, config.n_embd, config.n_vocab, config.n_ff), (18, 640, 262_144, 2048));
    assert_eq!((config.n_heads, config.n_kv_heads, config.head_dim), (4, 1, 256));
    assert_eq!((config.activation, config.embedding_scale), (Activation::GeluTanh, 640f32.sqrt()));
    assert_eq!(config.attn_scale, 1.0 / 16.0);
    for (i, layer) in config.layers.iter().enumerate() {
        let expected = if i % 6 == 5 { (None, 1e6) } else { (Some(512), 1e4) };
        assert_eq!((layer.window, layer.rope_base), expected, "layer {i}");
    }
    assert!(weights.layers.iter().all(|l| l.q_norm.is_some() && l.post_attn_norm.is_some()));
}

mod common;
use common::tiny::{ARCHS, Tiny};
use kigo::gguf::TensorType;

#[test]
fn a_tiny_model_of_each_architecture_and_type_binds() {
    for arch in ARCHS {
        for ty in TensorType::ALL {
            let tiny = Tiny::new(arch, ty);
            let bytes = tiny.bytes();
            let gguf = Gguf::from_bytes(&bytes).expect("opens");
            let (config, weights) = bind(&gguf).expect("binds");
            assert_eq!((config.architecture.as_str(), config.n_vocab), (arch, 512));
            assert_eq!(weights.layers[0].gate.ty, ty, "the defaults fit every type");
            assert_eq!(weights.iter().count(), gguf.n_tensors());
        }
    }
}
