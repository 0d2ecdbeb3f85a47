//! Gemma 4, and attention over latents: what their files describe, what a session of them takes, and that it has the same bits
//! whatever way it comes to its tokens.

use std::sync::Arc;

use crate::common::bound::{config, refused, refused_with};
use crate::common::rewritten::Rewritten;
use crate::common::run::cpu;
use crate::common::tiny::Tiny;
use kigo::backend::Device;
use kigo::backend::reference::ReferenceDevice;
use kigo::engine::{Append, Engine, LogSink, Model, Session, SessionOptions, append_batch};
use kigo::gguf::{TensorType, Value};
use kigo::model::{Activation, Latent, Score};

#[test]
fn gemma4_has_two_kinds_of_layers_and_shares_keys_and_values() {
    let c = config("gemma4", &[]);
    let of = |f: fn(&kigo::model::Attention) -> usize| c.layers.iter().map(|l| f(l.attention())).collect::<Vec<_>>();
    assert_eq!(of(|a| a.head_dim), [8, 16, 8, 16]);
    assert_eq!(of(|a| a.n_kv_heads), [2, 1, 2, 1]);
    assert_eq!(of(|a| a.window.unwrap_or(0) as usize), [16, 0, 16, 0]);
    assert_eq!(of(|a| a.kv_from.map_or(9, |from| from)), [9, 9, 0, 1]);
    assert_eq!(of(|a| a.rope.unwrap_or(9)), [1, 0, 1, 0]);
    assert_eq!(of(|a| usize::from(a.k_as_v)), [0, 1, 0, 0]);
    assert!(c.layers.iter().all(|l| l.attention().v_norm && l.attention().scale == 1.0 && l.out_scale != 1.0));
    // Three quarters of a full layer's head are not turned; the other rope has no divisors.
    assert_eq!((c.ropes[0].n_rot(), c.ropes[1].n_rot(), &c.ropes[1].divisors), (16, 8, &None));
    let divisors = c.ropes[0].divisors.as_ref().expect("has some");
    assert_eq!(divisors.iter().filter(|d| **d == 1e30).count(), 6);
    assert_eq!((c.per_layer.expect("has embeddings by layer").width, c.logit_softcap), (32, Some(30.0)));
    let experts = c.layers[3].experts().expect("has experts");
    assert!(experts.side_by_side && experts.route.renorm && experts.route.score == Score::Softmax);
    assert_eq!((experts.each.activation, experts.shared.expect("is beside").ffn.width), (Activation::GeluTanh, 128));
}

#[test]
fn latents_have_the_scale_that_the_rope_says() {
    let plain = config("deepseek2", &[]);
    let a = plain.layers[1].attention();
    assert_eq!(a.latent, Some(Latent { q_rank: Some(32), rank: 32, nope: 16, v_dim: 24 }));
    assert_eq!((a.n_kv_heads, a.head_dim, a.turned_at(), a.mix_width()), (1, 40, 32, 96));
    assert!((a.scale - 1.0 / 24_f32.sqrt()).abs() < 1e-7);
    // The key is a tenth of the multiplier: with it turned parts keep their size, and all scores grow.
    let yarn = |multiplier: Option<f32>| {
        let mut keys = vec![
            ("rope.scaling.type", Value::String("yarn")),
            ("rope.scaling.factor", Value::F32(40.0)),
            ("rope.scaling.original_context_length", Value::U32(64)),
        ];
        keys.extend(multiplier.map(|m| ("rope.scaling.yarn_log_multiplier", Value::F32(m))));
        let c = config("deepseek2", &keys);
        (c.ropes[0].magnitude, c.layers[1].attention().scale / a.scale)
    };
    let grown = |multiplier: f32| 1.0 + 0.1 * multiplier * 40_f32.ln();
    let close = |found: (f32, f32), expected: (f32, f32)| {
        assert!((found.0 - expected.0).abs() < 1e-5 && (found.1 - expected.1).abs() < 1e-5, "{found:?} {expected:?}");
    };
    close(yarn(Some(0.0707)), (1.0, grown(0.707).powi(2)));
    close(yarn(Some(0.1)), (1.0, grown(1.0).powi(2)));
    close(yarn(None), (grown(1.0), 1.0));
}

#[test]
fn what_does_not_fit_is_refused() {
    let gemma = |key: &str, value| refused_with("gemma4", key, value);
    assert!(gemma("attention.shared_kv_layers", Value::U32(4)).contains("below 4, the number of layers"));
    // Layer 1 would have none like it before it.
    assert!(gemma("attention.shared_kv_layers", Value::U32(3)).contains("finds one like it"));
    assert!(gemma("attention.value_length_swa", Value::U32(16)).contains("8, the length of a key"));
    assert!(gemma("rope.dimension_count_swa", Value::U32(9)).contains("even, 2 to 8"));
    assert!(gemma("embedding_length_per_layer_input", Value::U32(12)).contains("a multiple of 8"));
    let without = |name: &'static str| move |f: &mut Rewritten| f.tensors.retain(|t| t.name != name);
    for name in ["blk.0.attn_v.weight", "blk.1.attn_k.weight", "rope_freqs.weight", "blk.3.post_ffw_norm_2.weight"] {
        assert!(refused("gemma4", without(name)).contains("missing"), "{name}");
    }
    let scale =
        refused("gemma4", |f| f.tensor("blk.2.layer_output_scale.weight").data = f32::NAN.to_le_bytes().to_vec());
    assert!(scale.contains("layer_output_scale") && scale.contains("finite"), "{scale}");
    let deepseek = |key: &str, value| refused_with("deepseek2", key, value);
    assert!(deepseek("attention.key_length", Value::U32(48)).contains("40, as latents of 32 have it"));
    assert!(deepseek("attention.value_length", Value::U32(40)).contains("32, as latents of 32 have it"));
    assert!(deepseek("attention.key_length_mla", Value::U32(8)).contains("above 8, those that are turned"));
    assert!(deepseek("attention.kv_lora_rank", Value::U32(0)).contains("1 to 1048576"));
    assert!(deepseek("attention.q_lora_rank", Value::U32(64)).contains("shape is [64, 32]"));
    let softmax = deepseek("expert_gating_func", Value::U32(1));
    assert!(softmax.contains("expert_group_count") && softmax.contains("softmax"), "{softmax}");
    for name in ["blk.0.attn_v_b.weight", "blk.1.attn_k_b.weight", "blk.0.attn_kv_a_norm.weight"] {
        assert!(refused("deepseek2", without(name)).contains("missing"), "{name}");
    }
}

fn devices() -> [Arc<dyn Device>; 2] {
    [cpu(2), Arc::new(ReferenceDevice::PLAIN)]
}

fn load(device: &Arc<dyn Device>, file: &[u8]) -> Model {
    let engine = Engine::with_device(Arc::clone(device), 2, None, LogSink::silent());
    engine.load_memory(file, &mut |_, _| Ok(())).expect("loads")
}

/// A tiny model's file, of a context of several pages.
fn file(arch: &str) -> Vec<u8> {
    Tiny::new(arch, TensorType::Q8_0).bytes()
}

#[test]
fn a_session_takes_what_its_layers_keep() {
    // Bytes of a token in each layer, an element of two bytes, a head of values as 16 elements at least; and of floats.
    for (arch, halves, floats) in [
        ("gemma4", [2 * 2 * (8 + 16), 2 * (16 + 16), 0, 0].as_slice(), [2 * 4 * 2 * 8, 2 * 4 * 16, 0, 0].as_slice()),
        ("deepseek2", &[2 * 40; 2], &[4 * 40; 2]),
    ] {
        for (device, of_layers) in devices().iter().zip([halves, floats]) {
            let model = load(device, &file(arch));
            let all: usize = of_layers.iter().sum();
            assert_eq!(model.facts().kv_bytes_per_token, all as u64, "{arch}");
            let facts: Vec<_> = (0..of_layers.len()).map(|i| model.layer_facts(i).expect("is a layer")).collect();
            for (i, (facts, bytes)) in facts.iter().zip(of_layers).enumerate() {
                assert_eq!(*bytes == 0, facts.kv_bytes_per_token == 0, "{arch} layer {i}");
                assert_eq!(facts.kv_layer, if arch == "gemma4" { i % 2 } else { i }, "{arch} layer {i}");
            }
            let heads = (facts[1].n_kv_heads, facts[1].k_head_dim, facts[1].v_head_dim, facts[1].n_rot);
            assert_eq!(heads, if arch == "gemma4" { (1, 16, 16, 16) } else { (1, 40, 32, 8) });
            // A page is no more than that, whoever counts.
            let session = Session::new(&model, SessionOptions::default()).expect("is made");
            session.prefill(&[1]).expect("runs");
            assert_eq!(model.cache_facts().used_bytes, 64 * all as u64, "{arch}");
            let (tokens, blob) = (tokens(65), saved(&session));
            session.prefill(&tokens[1..]).expect("runs");
            let grown = saved(&session).len() - blob.len();
            assert!((64 * all..64 * all + 1024).contains(&grown) || arch == "gemma4", "{arch}: {grown} of {all}");
        }
    }
}

fn tokens(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| (i * i * 31 + i * 7 + 3) % 499).collect()
}

fn session(model: &Model) -> Session {
    Session::new(model, SessionOptions { reuse_prefix: false, ..SessionOptions::default() }).expect("is made")
}

fn bits(session: &Session) -> Vec<u32> {
    let mut logits = vec![0.0_f32; session.n_vocab()];
    session.logits(&mut logits).expect("has some");
    logits.iter().map(|l| l.to_bits()).collect()
}

fn saved(session: &Session) -> Vec<u8> {
    let mut blob = vec![0; session.saved_bytes().expect("can be saved")];
    let n = session.save(&mut blob).expect("saves");
    blob.truncate(n);
    blob
}

#[test]
fn a_session_has_the_same_bits_whatever_its_way() {
    let n = 200;
    let all = tokens(n);
    for arch in ["gemma4", "deepseek2"] {
        for device in devices() {
            let model = load(&device, &file(arch));
            let alone = |tokens: &[u32]| {
                let session = session(&model);
                session.prefill(tokens).expect("runs");
                bits(&session)
            };
            let (at_end, at_100) = (alone(&all), alone(&all[..100]));
            let steps = session(&model);
            all.iter().for_each(|token| steps.prefill(&[*token]).expect("runs"));
            assert_eq!(bits(&steps), at_end, "{arch}: one by one");
            // Back behind every window and on another way, and back again.
            for back in [150, 100, 65, 64, 63, 1] {
                steps.truncate(back).expect("truncates");
                steps.prefill(&tokens(90)[..30]).expect("runs");
                steps.truncate(back).expect("truncates");
                steps.prefill(&all[back..]).expect("runs");
                assert_eq!(bits(&steps), at_end, "{arch}: back to {back}");
            }
            let root = session(&model);
            root.prefill(&all[..100]).expect("runs");
            let (other, fork) = (root.fork().expect("forks"), root.fork().expect("forks"));
            other.prefill(&[7, 8, 9]).expect("runs");
            fork.prefill(&all[100..]).expect("runs");
            assert_eq!((bits(&root), bits(&fork)), (at_100.clone(), at_end.clone()), "{arch}: forked");
            assert_eq!(bits(&other), alone(&[&all[..100], &[7, 8, 9]].concat()), "{arch}: forked");
            // Saved and restored, in another model of the file too.
            let blob = saved(&root);
            for of in [&model, &load(&device, &file(arch))] {
                let restored = Session::restore(of, &blob).expect("restores");
                assert_eq!(saved(&restored), blob, "{arch}: what is restored is what was saved");
                restored.prefill(&all[100..]).expect("runs");
                assert_eq!(bits(&restored), at_end, "{arch}: restored");
            }
            let (first, second) = (session(&model), session(&model));
            second.prefill(&all[..70]).expect("runs");
            let parts = [(&first, &all[..100]), (&second, &all[70..]), (&root, &all[100..])];
            append_batch(&parts.map(|(session, tokens)| Append { session, tokens }))
                .into_iter()
                .for_each(|done| done.expect("runs"));
            assert_eq!((bits(&first), bits(&second), bits(&root)), (at_100, at_end.clone(), at_end), "{arch}: batched");
        }
    }
}

#[test]
fn keys_and_values_that_a_layer_does_not_read_are_left_out() {
    let mut with = Rewritten::of(&Tiny::new("gemma4", TensorType::Q8_0));
    let of_first = |f: &Rewritten, role: &str| f.tensors.iter().find(|t| t.name == format!("blk.0.{role}")).cloned();
    for role in ["attn_k.weight", "attn_v.weight", "attn_k_norm.weight"] {
        let mut unread = of_first(&with, role).expect("is there");
        unread.name = format!("blk.2.{role}");
        with.tensors.push(unread);
    }
    let device = cpu(1);
    let [plain, with] = [file("gemma4"), with.bytes()].map(|file| {
        let model = load(&device, &file);
        let session = session(&model);
        session.prefill(&tokens(40)).expect("runs");
        (bits(&session), model.facts().weights_bytes)
    });
    assert_eq!(plain, with);
}
