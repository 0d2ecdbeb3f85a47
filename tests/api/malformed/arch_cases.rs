//! Keys of one architecture or one kind of rope that say what cannot be.

use kigo::gguf::{TensorType, Value};

use super::file::{Case, File, bad, no_such_architecture, unsupported, with};
use crate::common::tiny::Tiny;

/// A tiny model scaled by YaRN, with one key more.
fn yarn(key: &str, value: Value<'static>) -> File {
    let own = |key: &str| format!("qwen2.rope.scaling.{key}");
    let mut with = vec![
        (own("type"), Value::String("yarn")),
        (own("factor"), Value::F32(4.0)),
        (own("original_context_length"), Value::U32(128)),
    ];
    let key = if key == "freq_base" { "qwen2.rope.freq_base".to_owned() } else { own(key) };
    with.retain(|(k, _)| *k != key);
    with.push((key, value));
    File::of(&Tiny { with, ..Tiny::new("qwen2", TensorType::Q4_0) })
}

fn key(arch: &str, key: &str, value: &str, expected: &str) -> String {
    format!("key \"{arch}.{key}\" is {value}; expected {expected}")
}

const POSITIVE: &str = "positive and finite";

/// All of them.
pub fn all() -> impl Iterator<Item = Case> {
    factors().into_iter().chain(yarns()).chain(others())
}

fn factors() -> Vec<Case> {
    let mut cases = Vec::new();
    for (arch, suffix) in [
        ("granite", "logit_scale"),
        ("granite", "residual_scale"),
        ("cohere2", "logit_scale"),
        ("llama", "rope.scaling.attn_factor"),
        ("gemma3", "rope.freq_base_swa"),
    ] {
        for (value, text) in [(f32::NAN, "NaN"), (0.0, "0"), (-1.0, "-1"), (f32::INFINITY, "inf")] {
            let file = with(arch, &format!("{arch}.{suffix}"), Value::F32(value));
            cases.push(bad("a factor", file, key(arch, suffix, text, POSITIVE)));
        }
    }
    for (value, text) in [(f32::NAN, "NaN"), (-0.5, "-0.5"), (f32::INFINITY, "inf")] {
        let text = format!("layer 0 temperature (attention.temperature_scale) is {text}; expected finite, at least 0");
        let file = with("mistral3", "mistral3.attention.temperature_scale", Value::F32(value));
        cases.push(bad("temperature", file, text));
    }
    cases
}

fn yarns() -> Vec<Case> {
    let mut cases = Vec::new();
    for (suffix, value, text, expected) in [
        ("factor", f32::NAN, "NaN", "at least 1 and finite where YaRN scales by it"),
        ("factor", 0.5, "0.5", "at least 1 and finite where YaRN scales by it"),
        ("factor", f32::INFINITY, "inf", "at least 1 and finite where YaRN scales by it"),
        ("yarn_beta_fast", f32::NAN, "NaN", POSITIVE),
        ("yarn_beta_fast", 0.5, "0.5", "at least 1, that of the slow ones"),
        ("yarn_beta_slow", -1.0, "-1", POSITIVE),
        ("yarn_log_multiplier", -1.0, "-1", "at least 0 and finite"),
        ("yarn_log_multiplier", f32::INFINITY, "inf", "at least 0 and finite"),
    ] {
        let text = key("qwen2.rope.scaling", suffix, text, expected);
        cases.push(bad("yarn", yarn(suffix, Value::F32(value)), text));
    }
    let base = key("qwen2.rope", "freq_base", "1", "above 1 where YaRN scales it");
    cases.push(bad("yarn base", yarn("freq_base", Value::F32(1.0)), base));
    let context = key("qwen2.rope.scaling", "original_context_length", "0", "1 to 4294967295");
    cases.push(bad("yarn context", yarn("original_context_length", Value::U32(0)), context));
    let ext_factor = key("qwen2.rope.scaling", "yarn_ext_factor", "0.5", "1, or no such key");
    cases.push(unsupported("yarn ext", yarn("yarn_ext_factor", Value::F32(0.5)), &ext_factor));
    let attn_factor = key("qwen2.rope.scaling", "yarn_attn_factor", "1", "1.1386294, which follows from the factor");
    cases.push(unsupported("yarn attn", yarn("yarn_attn_factor", Value::F32(1.0)), &attn_factor));
    cases
}

fn others() -> Vec<Case> {
    let mut cases = Vec::new();
    for (arch, suffix, value, expected) in [
        ("llama", "logit_scale", Value::F32(2.0), "1, or no such key"),
        ("qwen3", "residual_scale", Value::F32(2.0), "1, or no such key"),
        ("llama", "attention.temperature_scale", Value::F32(2.0), "0, or no such key"),
        ("qwen2", "use_parallel_residual", Value::Bool(true), "0, or no such key"),
        ("gemma", "attention.sliding_window", Value::U32(2), "0, or no such key"),
        ("hunyuan-dense", "rope.scaling.alpha", Value::F32(2.0), "0, or no such key"),
        ("exaone4", "nextn_predict_layers", Value::U32(2), "0, or no such key"),
        ("cohere2", "rope.freq_base_swa", Value::F32(2.0), "10000, that of other layers"),
    ] {
        let file = with(arch, &format!("{arch}.{suffix}"), value);
        let found = if matches!(value, Value::Bool(_)) { "true" } else { "2" };
        cases.push(unsupported("a key of others", file, &key(arch, suffix, found, expected)));
    }
    let longrope = with("llama", "llama.rope.scaling.type", Value::String("longrope"));
    let text = key("llama", "rope.scaling.type", "\"longrope\"", "none, linear or yarn");
    cases.push(unsupported("longrope without factors", longrope, &text));
    let sections = with("glm4", "glm4.rope.dimension_sections", Value::U32(8));
    cases.push(unsupported("sections", sections, &key("glm4", "rope.dimension_sections", "there", "no such key")));
    let none = with("cohere2", "cohere2.attention.sliding_window", Value::U32(0));
    let text = key("cohere2", "attention.sliding_window", "missing or 0", "the window of three layers in four");
    cases.push(bad("no window", none, text));
    let llama4 = with("qwen2", "general.architecture", Value::String("llama4"));
    cases.extend(experts());
    cases.extend(states());
    let needs = "which needs windows in chunks, weights before experts and a norm of queries without weights";
    let text = no_such_architecture(&format!("\"llama4\", {needs}"));
    cases.push(unsupported("known to be missing", llama4, &text));
    cases
}

/// Keys of layers with a state.
fn states() -> Vec<Case> {
    let (mut cases, width) = (Vec::new(), "1 to 1048576");
    for (arch, suffix, value, expected) in [
        ("lfm2", "shortconv.l_cache", 0, width),
        ("qwen35", "ssm.state_size", 0, width),
        ("qwen3next", "ssm.conv_kernel", 1 << 21, width),
        ("qwen35", "ssm.inner_size", 65, "a multiple of 4, the number of value heads"),
        ("granitehybrid", "ssm.time_step_rank", 0, width),
        ("falcon-h1", "ssm.group_count", 0, width),
        ("nemotron_h", "ssm.inner_size", 97, "a multiple of 6, the number of heads"),
    ] {
        let file = with(arch, &format!("{arch}.{suffix}"), Value::U32(value));
        cases.push(bad("states", file, format!("key \"{arch}.{suffix}\" is {value}; expected {expected}")));
    }
    for (arch, suffix, value, text) in [
        ("lfm2", "shortconv.l_cache", 65, "length of the convolution (shortconv.l_cache) is 65; expected 2 to 64"),
        ("qwen35", "ssm.conv_kernel", 1, "length of the convolution (ssm.conv_kernel) is 1; expected 2 to 64"),
        ("qwen35", "ssm.state_size", 2048, "elements of a key head (ssm.state_size) is 2048; expected 1 to 1024"),
        (
            "qwen35",
            "ssm.group_count",
            3,
            "value heads (ssm.time_step_rank) is 4; expected a multiple of 3, the number of key heads",
        ),
        (
            "granitehybrid",
            "ssm.group_count",
            4,
            "heads with a state (ssm.time_step_rank) is 6; expected a multiple of 4, the number of groups",
        ),
        ("falcon-h1", "ssm.inner_size", 6 << 11, "elements of a head (ssm.inner_size) is 2048; expected 1 to 1024"),
        ("nemotron_h", "ssm.state_size", 1025, "rows of a head's state (ssm.state_size) is 1025; expected 1 to 1024"),
        ("nemotron_h_moe", "ssm.conv_kernel", 1, "length of the convolution (ssm.conv_kernel) is 1; expected 2 to 64"),
    ] {
        let file = with(arch, &format!("{arch}.{suffix}"), Value::U32(value));
        cases.push(bad("states", file, format!("layer 0 {text}")));
    }
    cases
}

/// Keys of experts.
fn experts() -> Vec<Case> {
    let key = |arch: &str, key: &str, value: &str, expected: &str| {
        format!("key \"{arch}.{key}\" is {value}; expected {expected}")
    };
    let layer = |what: &str, value: &str, expected: &str| format!("layer 1 {what} is {value}; expected {expected}");
    let mut cases = Vec::new();
    let (huge, width) = (u32::MAX.to_string(), "1 to 1048576");
    for (arch, suffix, value, expected) in [
        ("qwen3moe", "expert_count", 0, "1 to 1024"),
        ("qwen3moe", "expert_count", 1025, "1 to 1024"),
        ("olmoe", "expert_count", u32::MAX, "1 to 1024"),
        ("llama", "expert_count", 1025, "1 to 1024"),
        ("qwen3moe", "expert_used_count", 0, "1 to 7"),
        ("qwen3moe", "expert_used_count", 8, "1 to 7"),
        ("gpt-oss", "expert_used_count", u32::MAX, "1 to 5"),
        ("qwen3moe", "expert_feed_forward_length", 0, width),
        ("gpt-oss", "expert_feed_forward_length", u32::MAX, width),
        ("qwen2moe", "expert_shared_feed_forward_length", u32::MAX, width),
        ("ernie4_5-moe", "interleave_moe_layer_step", 0, width),
        ("glm4moe", "expert_group_used_count", 0, "1 to 3"),
        ("glm4moe", "expert_group_used_count", 4, "1 to 3"),
        ("glm4moe", "nextn_predict_layers", 2, "below 2, the number of layers"),
        ("glm4moe", "nextn_predict_layers", u32::MAX, "below 2, the number of layers"),
    ] {
        let text = if value == u32::MAX { huge.clone() } else { value.to_string() };
        let file = with(arch, &format!("{arch}.{suffix}"), Value::U32(value));
        cases.push(bad("experts", file, key(arch, suffix, &text, expected)));
    }
    for (value, text) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (-1.0, "-1")] {
        let file = with("glm4moe", "glm4moe.expert_weights_scale", Value::F32(value));
        let text = layer("scale of experts' weights (expert_weights_scale)", text, "positive and finite");
        cases.push(bad("scale of weights", file, text));
    }
    let groups = |suffix: &str, n: u32| with("glm4moe", &format!("glm4moe.{suffix}"), Value::U32(n));
    let text = layer("number of groups of experts (expert_group_count)", "4", "a divisor of 6 experts");
    cases.push(bad("groups", groups("expert_group_count", 4), text));
    let text = layer("number of groups of experts (expert_group_count)", "7", "1 to 6");
    cases.push(bad("groups", groups("expert_group_count", 7), text));
    let few = "enough for 3 experts; 2 are in those groups";
    let text = layer("number of groups used (expert_group_used_count)", "1", few);
    cases.push(bad("few groups", groups("expert_group_used_count", 1), text));
    let kinds = "1 (softmax), 2 (sigmoid) or 3 (softmax of the chosen)";
    let text = key("glm4moe", "expert_gating_func", "4", kinds);
    cases.push(unsupported("score", groups("expert_gating_func", 4), &text));
    let more = with("qwen3moe", "qwen3moe.expert_count", Value::U32(8));
    let text = "tensor \"blk.0.ffn_gate_exps.weight\" shape is [64, 64, 7]; expected [64, 64, 8]";
    cases.push(bad("more experts than tensors have", more, text));
    let wider = with("qwen2moe", "qwen2moe.expert_shared_feed_forward_length", Value::U32(64));
    let text = "tensor \"blk.0.ffn_gate_shexp.weight\" shape is [64, 128]; expected [64, 64]";
    cases.push(bad("another shared expert", wider, text));
    let none = with("gpt-oss", "gpt-oss.attention.sliding_window", Value::U32(0));
    let text = key("gpt-oss", "attention.sliding_window", "missing or 0", "the window of every other layer");
    cases.push(bad("no window", none, text));
    let dense = with("qwen3", "qwen3.expert_count", Value::U32(4));
    cases.push(unsupported("experts", dense, &key("qwen3", "expert_count", "4", "0, or no such key")));
    cases
}
