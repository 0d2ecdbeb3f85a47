//! From files to descriptions: the real models, and tiny ones with keys of their own.

use std::collections::BTreeSet;
use std::path::PathBuf;

use kigo::gguf::{Gguf, TensorType, Value, ValueType, Writer};
use kigo::model::{
    Activation, Attention, Config, Dense, FfnWeights, LayerWeights, ModelInfo, RopePairing, RopeTable, bind,
};

use crate::common::described::Described;
use crate::common::tiny::{ARCHS, Tiny};

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
    let (attention, dense, rope) = parts(&config);
    assert_eq!((config.n_layers(), config.n_embd, config.n_vocab, dense.width), (30, 576, 49152, 1536));
    assert_eq!((attention.n_heads, attention.n_kv_heads, attention.head_dim, rope.n_rot()), (9, 3, 64, 64));
    assert_eq!((rope.pairing, dense.activation), (RopePairing::Adjacent, Activation::Silu));
    assert_eq!((base(&rope), attention.window), (100_000.0, None));
    assert_eq!(attention.scale, 0.125);
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
    let (attention, dense, rope) = parts(&config);
    assert_eq!((config.n_layers(), config.n_embd, config.n_vocab, dense.width), (24, 896, 151_936, 4864));
    assert_eq!((attention.n_heads, attention.n_kv_heads, attention.head_dim), (14, 2, 64));
    assert_eq!((rope.pairing, base(&rope)), (RopePairing::Halves, 1e6));
    assert!(weights.layers.iter().all(|l| l.q_bias.is_some() && l.k_bias.is_some() && l.v_bias.is_some()));
    assert!(weights.output.is_some());
    assert_eq!(ModelInfo::of(&gguf).quantization, "Q4_K_M");
}

#[test]
fn gemma3_has_five_windowed_layers_to_a_global_one() {
    let Some(path) = fetched("gemma-3-270m-Q4_K_M.gguf") else { return };
    let gguf = Gguf::open(&path).expect("opens");
    let (config, weights) = bind(&gguf).expect("binds");
    let (attention, dense, _) = parts(&config);
    assert_eq!((config.n_layers(), config.n_embd, config.n_vocab, dense.width), (18, 640, 262_144, 2048));
    assert_eq!((attention.n_heads, attention.n_kv_heads, attention.head_dim), (4, 1, 256));
    assert_eq!((dense.activation, config.embedding_scale), (Activation::GeluTanh, 640f32.sqrt()));
    assert_eq!(attention.scale, 1.0 / 16.0);
    for (i, layer) in config.layers.iter().enumerate() {
        let expected = if i % 6 == 5 { (None, 1e6) } else { (Some(512), 1e4) };
        let attention = layer.attention();
        assert_eq!((attention.window, base(rope(&config, attention))), expected, "layer {i}");
    }
    assert!(weights.layers.iter().all(|l| l.q_norm.is_some() && l.post_attn_norm.is_some()));
}

/// No layer holds it to a head, and a pass would make its angles all the same: 1 GiB of them.
#[test]
fn a_rope_that_no_layer_has_is_bounded() {
    let mut config = Described::plain(TensorType::F32).config;
    config.ropes.push(RopeTable::of_base(1e4, 1 << 20, RopePairing::Halves).unwrap());
    let error = config.validate().unwrap_err().to_string();
    assert!(error.contains("rope 1 (rope.dimension_count) is 1048576; expected 1 to 8192"), "{error}");
}

#[test]
fn a_tiny_model_of_each_architecture_and_type_binds() {
    for arch in ARCHS {
        for ty in TensorType::ALL {
            let tiny = Tiny::new(arch, ty);
            let bytes = tiny.bytes();
            let gguf = Gguf::from_bytes(&bytes).expect("opens");
            let (config, weights) = bind(&gguf).expect("binds");
            assert_eq!((config.architecture.as_str(), config.n_vocab), (arch, 512));
            let up = |w: &LayerWeights<'_>| match &w.ffn {
                FfnWeights::Dense(w) => w.up.ty,
                FfnWeights::Experts(w) => w.each.up.ty,
                FfnWeights::None => ty,
            };
            assert!(weights.layers.iter().all(|w| up(w) == ty), "the defaults fit every type");
            // Fused rows are parts of one tensor each.
            let used: BTreeSet<&str> = weights.iter().map(|t| t.name).collect();
            assert_eq!(used, gguf.tensors().map(|t| t.name).collect());
        }
    }
}

/// The first layer's attention and feed-forward part, and its rope.
fn parts(config: &Config) -> (Attention, Dense, RopeTable) {
    let layer = &config.layers[0];
    (*layer.attention(), *layer.dense().expect("is dense"), rope(config, layer.attention()).clone())
}

fn rope<'a>(config: &'a Config, attention: &Attention) -> &'a RopeTable {
    config.rope_of(attention).expect("has a rope")
}

/// The base whose frequencies these are, rounded as files have it.
fn base(rope: &RopeTable) -> f32 {
    rope.inv_freq[1].powf(-(rope.n_rot() as f64) / 2.0) as f32
}

/// The description of a tiny model with other keys.
fn config_with(arch: &str, keys: &[(&str, Value<'static>)]) -> Config {
    let with = keys.iter().map(|&(key, value)| (format!("{arch}.{key}"), value)).collect();
    let bytes = Tiny { with, ..Tiny::new(arch, TensorType::F16) }.bytes();
    let gguf = Gguf::from_bytes(&bytes).expect("opens");
    bind(&gguf).expect("binds").0
}

#[test]
fn linear_rope_scaling_is_one_over_its_factor() {
    let scale = |keys: &[(&str, Value<'static>)]| config_with("qwen2", keys).ropes[0].position_scale;
    assert_eq!(scale(&[]), 1.0);
    assert_eq!(scale(&[("rope.scaling.factor", Value::F32(4.0))]), 0.25);
    assert_eq!(scale(&[("rope.scaling.type", Value::String("linear")), ("rope.scaling.factor", Value::F32(2.0))]), 0.5);
    assert_eq!(scale(&[("rope.scale_linear", Value::F32(8.0))]), 0.125);
    assert_eq!(scale(&[("rope.scaling.type", Value::String("none")), ("rope.scaling.factor", Value::F32(2.0))]), 1.0);
}

#[test]
fn gemma3_scales_only_global_layers_and_takes_either_kind_of_pattern() {
    let linear = [("rope.scaling.factor", Value::F32(8.0)), ("rope.freq_base_swa", Value::F32(5000.0))];
    let config = config_with("gemma3", &linear);
    let layers = |config: &Config| -> Vec<(Option<u32>, f32, f32)> {
        let of = |a: &Attention| (a.window, base(rope(config, a)), rope(config, a).position_scale);
        config.layers.iter().map(|l| of(l.attention())).collect()
    };
    let (local, global) = ((Some(16), 5000.0, 1.0), (None, 1e6, 0.125));
    assert_eq!(layers(&config), [local, local, local, local, local, global, local]);

    let period = config_with("gemma3", &[linear[0], linear[1], ("attention.sliding_window_pattern", Value::U32(3))]);
    assert_eq!(layers(&period), [local, local, global, local, local, global, local]);

    // A pattern of bools, which `Tiny` cannot carry: through a file of the pattern alone.
    let mut writer = Writer::new(3);
    let flags = [false, true, true, false, true, true, true].map(Value::Bool);
    writer.array("flags", ValueType::Bool, flags);
    let bytes: &'static [u8] = writer.to_bytes(|_, _| {}).leak();
    let flags: &'static Gguf<'static> = Box::leak(Box::new(Gguf::from_bytes(bytes).expect("opens")));
    let pattern = ("attention.sliding_window_pattern", flags.meta("flags").expect("there"));
    let bools = config_with("gemma3", &[linear[0], linear[1], pattern]);
    assert_eq!(layers(&bools), [global, local, local, global, local, local, local]);

    let none = config_with("gemma3", &[("attention.sliding_window", Value::U32(0))]);
    assert!(none.layers.iter().all(|l| l.attention().window.is_none() && base(rope(&none, l.attention())) == 1e6));
}

#[test]
fn gemma3_of_62_layers_scales_by_the_width_over_the_heads() {
    let mut tiny = Tiny::new("gemma3", TensorType::Q4_0);
    tiny.shape.n_layers = 62;
    let bytes = tiny.bytes();
    let gguf = Gguf::from_bytes(&bytes).expect("opens");
    assert_eq!(bind(&gguf).expect("binds").0.layers[61].attention().scale, 0.25, "1 / sqrt(64 / 4), not 1 / sqrt(32)");
    assert_eq!(config_with("gemma3", &[]).layers[0].attention().scale, 1.0 / 32f32.sqrt());
}

#[test]
fn a_window_of_llama_is_on_every_layer() {
    let config = config_with("llama", &[("attention.sliding_window", Value::U32(4096))]);
    assert!(config.layers.iter().all(|l| l.attention().window == Some(4096)));
}

#[test]
fn llama_takes_its_rope_divisors_and_its_output_matrix() {
    let mut tiny = Tiny::new("llama", TensorType::Q8_0);
    tiny.shape.tied = false;
    let bytes = tiny.bytes();
    let gguf = Gguf::from_bytes(&bytes).expect("opens");
    let (config, weights) = bind(&gguf).expect("binds");
    assert_eq!(weights.rope_freqs.map(|t| (t.rows, t.cols)), Some((1, config.ropes[0].n_rot() / 2)));
    assert_eq!(config.ropes[0].divisors, weights.divisors().expect("finite"));
    assert_eq!(weights.head().name, "output.weight");
}

/// Arrays that `Tiny` cannot carry by itself: from a file of theirs alone.
fn arrays(of: &[(&str, &[u32])]) -> &'static Gguf<'static> {
    let mut writer = Writer::new(3);
    for (name, numbers) in of {
        writer.array(name, ValueType::U32, numbers.iter().map(|&n| Value::U32(n)));
    }
    let bytes: &'static [u8] = writer.to_bytes(|_, _| {}).leak();
    Box::leak(Box::new(Gguf::from_bytes(bytes).expect("opens")))
}

#[test]
fn counts_may_differ_by_layer() {
    let arrays = arrays(&[("same", &[2, 2]), ("other", &[2, 4]), ("short", &[2]), ("zero", &[2, 0])]);
    let key = "attention.head_count_kv";
    let with = |name: &str| {
        let with = vec![(format!("llama.{key}"), arrays.meta(name).expect("there"))];
        let bytes = Tiny { with, ..Tiny::new("llama", TensorType::F16) }.bytes();
        bind(&Gguf::from_bytes(&bytes).expect("opens")).map(|(config, _)| config)
    };
    let same = with("same").expect("binds");
    assert!(same.layers.iter().all(|l| l.attention().n_kv_heads == 2));
    for (name, text) in [
        // The tensors are those of two heads.
        ("other", "tensor \"blk.1.attn_k.weight\" shape is [64, 32]; expected [64, 64]"),
        (
            "short",
            "key \"llama.attention.head_count_kv\" is an array of 1, 1 of them integers; expected 2 integers, one a layer",
        ),
        ("zero", "key \"llama.attention.head_count_kv\" is 0; expected 1 to 1048576"),
    ] {
        assert_eq!(with(name).expect_err("is refused").to_string(), text);
    }
}

#[test]
fn yarn_multiplies_by_what_follows_from_its_factor_and_the_file() {
    let own = [
        ("rope.scaling.type", Value::String("yarn")),
        ("rope.scaling.factor", Value::F32(4.0)),
        ("rope.scaling.original_context_length", Value::U32(64)),
    ];
    let with = |keys: &[(&str, Value<'static>)]| {
        let config = config_with("qwen3", &[&own[..], keys].concat());
        let rope = rope(&config, config.layers[0].attention()).clone();
        assert_eq!(rope.position_scale, 1.0);
        rope
    };
    let plain = with(&[]);
    // 0.1 ln 4 + 1
    assert!((plain.magnitude - 1.138_629_4).abs() < 1e-6, "{}", plain.magnitude);
    assert_eq!(
        with(&[("rope.scaling.yarn_attn_factor", Value::F32(1.138_63))]),
        plain,
        "as the configuration rounds it"
    );
    assert_eq!(with(&[("rope.scaling.attn_factor", Value::F32(2.0))]).magnitude, 2.0 * plain.magnitude);
    assert_eq!(with(&[("rope.scaling.yarn_log_multiplier", Value::F32(1.0))]).magnitude, 1.0);
    // The first pair turns ten times in the original context, which slow and fast borders decide on; the last never.
    let unscaled = rope(&config_with("qwen3", &[]), config_with("qwen3", &[]).layers[0].attention()).inv_freq.clone();
    let shares = |rope: &RopeTable| -> Vec<f64> { rope.inv_freq.iter().zip(&unscaled).map(|(a, b)| a / b).collect() };
    let all_fast = shares(&with(&[("rope.scaling.yarn_beta_fast", Value::F32(1.0))]));
    assert!(all_fast[0] == 1.0 && *all_fast.last().expect("pairs") == 0.25, "{all_fast:?}");
    assert!(shares(&plain)[1] < 1.0 && shares(&plain)[1] > 0.25, "between the borders: {:?}", shares(&plain));
}

#[test]
fn long_rope_has_factors_for_the_original_context_and_for_longer_ones() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity/phi3-longrope-f16.gguf");
    let gguf = Gguf::open(&path).expect("opens");
    let (config, weights) = bind(&gguf).expect("binds");
    assert_eq!((config.n_ctx_train, config.is_long(128), config.is_long(129)), (256, false, true));
    let divisors = |is_long| config.ropes_of(is_long)[0].divisors.as_deref();
    assert_eq!(divisors(false), Some(&[1.0, 1.1, 1.2, 1.4, 1.7, 2.1][..]));
    assert_eq!(divisors(true), Some(&[1.0, 2.0, 5.0, 11.0, 20.0, 40.0][..]));
    assert_eq!(weights.rope_freqs.map(|t| t.name), Some("rope_factors_short.weight"));
    // sqrt(1 + ln 2 / ln 128)
    assert!((config.ropes[0].magnitude - 1.069_045).abs() < 1e-6, "{}", config.ropes[0].magnitude);
}

#[test]
fn architectures_say_which_layers_differ() {
    let has_rope = |arch: &str, keys: &[(&str, Value<'static>)]| -> Vec<bool> {
        config_with(arch, keys).layers.iter().map(|l| l.attention().rope.is_some()).collect()
    };
    assert_eq!(has_rope("smollm3", &[]), [true, true, true, false]);
    assert_eq!(has_rope("cohere2", &[]), [true, true, true, false]);
    assert_eq!(has_rope("exaone4", &[]), [true, true, true, false]);
    assert_eq!(has_rope("exaone4", &[("attention.sliding_window", Value::U32(0))]), [true; 4]);
    assert_eq!(has_rope("granite", &[]), [true; 2]);
    assert_eq!(has_rope("granite", &[("rope.scaling.finetuned", Value::Bool(false))]), [false; 2]);
    let olmo3 = config_with("olmo2", &[]);
    let scaled = |layer: usize| rope(&olmo3, olmo3.layers[layer].attention()).magnitude != 1.0;
    assert_eq!([0, 1, 2, 3].map(scaled), [false, false, false, true]);
    let windows = |config: &Config| config.layers.iter().map(|l| l.attention().window).collect::<Vec<_>>();
    assert_eq!(windows(&config_with("gemma2", &[])), [Some(16), None]);
    assert_eq!(windows(&config_with("phi3", &[])), [Some(48); 2]);
}

#[test]
fn gemma2_of_46_layers_scales_by_the_width_over_the_heads() {
    let mut tiny = Tiny::new("gemma2", TensorType::Q4_0);
    (tiny.shape.n_layers, tiny.shape.head_dim) = (46, 32);
    let bytes = tiny.bytes();
    let gguf = Gguf::from_bytes(&bytes).expect("opens");
    assert_eq!(bind(&gguf).expect("binds").0.layers[45].attention().scale, 0.25, "1 / sqrt(64 / 4), not 1 / sqrt(32)");
}

#[test]
fn info_names_the_main_type_where_the_file_does_not() {
    let bytes = Tiny { without: vec!["general.file_type".into()], ..Tiny::new("qwen3", TensorType::Q5_1) }.bytes();
    let info = ModelInfo::of(&Gguf::from_bytes(&bytes).expect("opens"));
    assert_eq!((info.quantization.as_str(), info.name.as_str()), ("Q5_1", "random qwen3-tiny"));
    assert_eq!(info.file_bytes, bytes.len() as u64);
}
