//! Models with Mamba2: what their files describe, what a session of them takes, and what is refused.

use crate::common::bound::{config, refused, refused_with};
use crate::common::described::Described;
use crate::common::run::cpu;
use crate::common::tiny::Tiny;
use kigo::engine::{Engine, LoadOptions, LogSink, Mixers};
use kigo::gguf::{TensorType, Value};
use kigo::model::{Activation, Attention, Block, Config, Ffn, Mamba2, Mixer, Recurrent, Score};

const ARCHS: [&str; 4] = ["granitehybrid", "falcon-h1", "nemotron_h", "nemotron_h_moe"];

#[test]
fn layers_are_what_the_file_says() {
    let parts = |c: &Config| {
        let of_layer = |l: &kigo::model::Layer| (l.attention().is_there(), l.recurrent.is_some(), l.has_ffn());
        c.layers.iter().map(of_layer).collect::<Vec<_>>()
    };
    let of = |arch: &str| parts(&config(arch, &[]));
    let (mamba, attention, ffn) = ((false, true, false), (true, false, false), (false, false, true));
    for arch in ["nemotron_h", "nemotron_h_moe"] {
        assert_eq!(of(arch), [mamba, ffn, attention, ffn, mamba]);
    }
    assert_eq!(of("granitehybrid"), [(false, true, true), (true, false, true), (false, true, true)]);
    assert_eq!(of("falcon-h1"), [(true, true, true); 2]);
    for arch in ARCHS {
        let c = config(arch, &[]);
        let net = c.layers[0].recurrent.expect("has a state");
        let norm = arch != "falcon-h1";
        let expected = Mamba2 { heads: 6, head_dim: 16, groups: 2, d_state: 24, len: 3, norm };
        assert_eq!(net, Recurrent::Mamba2(expected), "{arch}");
        assert_eq!((net.conv(), net.state_len()), ((96 + 96, 3), 2 * 192 + 96 * 24));
        let turned = c.layers.iter().any(|l| l.attention().rope.is_some());
        assert_eq!(turned, arch == "falcon-h1", "{arch}");
    }
    let dense = *config("nemotron_h", &[]).layers[1].dense().expect("is dense");
    assert_eq!((dense.activation, dense.gated, dense.width), (Activation::Relu2, false, 128));
    let c = config("nemotron_h_moe", &[]);
    let experts = c.layers[1].experts().expect("has experts");
    let shared = experts.shared.expect("has one").ffn;
    assert_eq!((experts.each.activation, experts.each.gated), (Activation::Relu2, false));
    assert_eq!((shared.activation, shared.gated, shared.width), (Activation::Relu2, false, 128));
    assert!(experts.route.score == Score::Sigmoid && experts.route.select_bias && experts.route.renorm);
    let turned = config("granitehybrid", &[("rope.scaling.finetuned", Value::Bool(true))]);
    assert_eq!(turned.layers[1].attention().rope, Some(0));
    // As converters write them: a rope's size by another head than the model's, and what they write for all experts.
    for arch in ["nemotron_h", "nemotron_h_moe"] {
        let keys = [
            ("context_length", Value::U32(1 << 20)),
            ("rope.dimension_count", Value::U32(12)),
            ("rope.scaling.finetuned", Value::Bool(false)),
            ("expert_group_count", Value::U32(1)),
            ("expert_group_used_count", Value::U32(1)),
        ];
        assert_eq!(config(arch, &keys).layers, config(arch, &[]).layers);
    }
    let both =
        [("attention.layer_norm_epsilon", Value::F32(0.5)), ("attention.layer_norm_rms_epsilon", Value::F32(0.25))];
    assert_eq!((config("nemotron_h", &both[..1]).norm_eps, config("nemotron_h", &both).norm_eps), (0.5, 0.25));
}

#[test]
fn plans_and_facts_count_the_state() {
    let engine = Engine::with_device(cpu(2), 2, None, LogSink::silent());
    let path = std::env::temp_dir().join(format!("kigo-mamba-{}.gguf", std::process::id()));
    // Of a layer with a Mamba2: two columns of what is convolved, and six heads of 24 by 16.
    let of_layer = 4 * (2 * 192 + 6 * 24 * 16);
    for (arch, n_states, n_caches) in
        [("granitehybrid", 2, 1), ("falcon-h1", 2, 2), ("nemotron_h", 2, 1), ("nemotron_h_moe", 2, 1)]
    {
        Tiny::new(arch, TensorType::Q8_0).write(&path);
        let plan = engine.plan_file_for(&path, Some(100), &LoadOptions::default()).expect("is planned");
        // Keys and values of two heads of 16.
        let cache = n_caches * 128 * 2 * 2 * 16 * 2;
        assert_eq!((plan.state_bytes, plan.checkpoint_bytes), (n_states * of_layer, n_states * of_layer), "{arch}");
        assert_eq!(plan.cache_bytes, cache, "{arch}");
        let model = engine.load_file(&path, &mut |_, _| Ok(())).expect("loads");
        assert_eq!(model.facts().state_bytes, n_states * of_layer, "{arch}");
        for i in 0..model.facts().n_layers {
            let facts = model.layer_facts(i).expect("is a layer");
            let mixers = match (arch, i % 4) {
                ("falcon-h1", _) => Mixers { attention: true, mamba2: true, ..Mixers::default() },
                ("granitehybrid", 1) | ("nemotron_h" | "nemotron_h_moe", 2) => {
                    Mixers { attention: true, ..Mixers::default() }
                }
                ("nemotron_h" | "nemotron_h_moe", 1 | 3) => Mixers::default(),
                _ => Mixers { mamba2: true, ..Mixers::default() },
            };
            assert_eq!(facts.mixers, mixers, "{arch} layer {i}");
            assert_eq!(facts.state_bytes, if mixers.mamba2 { of_layer } else { 0 }, "{arch} layer {i}");
            assert_eq!(facts.kv_bytes_per_token > 0, mixers.attention, "{arch} layer {i}");
        }
    }
    std::fs::remove_file(path).expect("is there");
}

#[test]
fn what_does_not_fit_is_refused() {
    for arch in ARCHS {
        let inner = refused_with(arch, "ssm.inner_size", Value::U32(102));
        assert!(inner.contains("ssm_in.weight") && inner.contains("[64, 306]"), "{inner}");
        let state = refused_with(arch, "ssm.state_size", Value::U32(25));
        assert!(state.contains("ssm_in.weight") && state.contains("[64, 298]"), "{state}");
        let missing = |name: &'static str| {
            let text = refused(arch, |f| f.tensors.retain(|t| t.name != name));
            assert!(text.contains(name) && text.contains("missing"), "{arch}: {text}");
        };
        for name in ["ssm_in.weight", "ssm_conv1d.weight", "ssm_dt.bias", "ssm_a", "ssm_d", "ssm_out.weight"] {
            missing(format!("blk.0.{name}").leak());
        }
        if arch != "falcon-h1" {
            missing("blk.0.ssm_norm.weight");
        }
    }
    // In one layer alone: it has no role in the others, or is missing there.
    let norm = refused("falcon-h1", |f| f.tensor("blk.0.ssm_out.weight").name = "blk.0.ssm_norm.weight".into());
    assert!(norm.contains("ssm_out.weight\" is missing"), "{norm}");
    let latent = refused_with("nemotron_h_moe", "moe_latent_size", Value::U32(32));
    assert!(latent.contains("moe_latent_size\" is 32; expected no such key"), "{latent}");
    let drafts =
        config("nemotron_h_moe", &[("nextn_predict_layers", Value::U32(1)), ("moe_latent_size", Value::U32(0))]);
    assert_eq!(drafts.n_layers(), 4);
    let gate = refused("nemotron_h", |f| f.tensor("blk.1.ffn_up.weight").name = "blk.1.ffn_gate.weight".into());
    assert!(gate.contains("ffn_up.weight\" is missing"), "{gate}");
}

#[test]
fn a_layer_is_something_and_two_parts_side_by_side_are_two() {
    let refused = |change: &dyn Fn(&mut kigo::model::Layer)| {
        let mut described = Described::plain(TensorType::F32);
        described.layers(|layer| change(layer));
        described.config.validate().expect_err("is refused").to_string()
    };
    let nothing = refused(&|l| (l.mixer, l.ffn) = (Mixer::Attention(Attention::NONE), Ffn::None));
    assert!(nothing.contains("layer 0 number of heads (attention.head_count) is 0; expected at least 1"), "{nothing}");
    let one = refused(&|l| (l.block, l.ffn) = (Block::Parallel, Ffn::None));
    assert!(one.contains("layer 0 parts side by side is 1; expected 2"), "{one}");
}
