//! Tiny models by their description, whether or not an architecture says it: random weights for a `Config`.

use std::sync::Arc;

use kigo::backend::{Device, LoadOptions, LoadedModel};
use kigo::gguf::{Gguf, TensorType, Writer, quantize_row};
use kigo::model::{
    Activation, Attention, Block, Config, Dense, DenseWeights, ExpertsWeights, Ffn, FfnWeights, Latent, LatentWeights,
    Layer, LayerWeights, Mixer, Norm, PerLayerGate, PerLayerWeights, QkNorm, RopePairing, RopeTable, SideBySide,
    Tensor, Weights,
};

use super::random::fill_row;
use super::run::NoControl;
use super::shapes::{Kind, TensorSpec};

/// A description and the tensors that not every model has.
#[derive(Clone, Debug)]
pub struct Described {
    pub config: Config,
    /// Type of the matrices.
    pub ty: TensorType,
    /// Type of norms and biases.
    pub vector_ty: TensorType,
    pub attn_norm: bool,
    pub ffn_norm: bool,
    pub norm_bias: bool,
    pub qkv_bias: bool,
    pub o_bias: bool,
    /// Of experts those of the router and of each expert.
    pub ffn_bias: bool,
    pub post_norms: bool,
    pub output_bias: bool,
    /// Whether each head's matrix between queries and latents is transposed.
    pub transposed: bool,
    /// Tensors that have the numbers of those of another name.
    pub renamed: Vec<(&'static str, &'static str)>,
    /// What becomes of each element of tensors whose name ends so.
    pub changed: Vec<Changed>,
}

/// The end of a name, and a function of an element.
pub type Changed = (&'static str, fn(f32) -> f32);

impl Described {
    /// Two layers as those of llama, an output matrix of its own.
    pub fn plain(ty: TensorType) -> Described {
        let attention =
            Attention { n_heads: 4, n_kv_heads: 2, head_dim: 16, rope: Some(0), scale: 0.25, ..Attention::NONE };
        let dense = Dense { width: 96, activation: Activation::Silu, gated: true };
        let layer = Layer {
            mixer: Mixer::Attention(attention),
            recurrent: None,
            ffn: Ffn::Dense(dense),
            block: Block::Sequential,
            out_scale: 1.0,
        };
        let config = Config {
            architecture: "described".into(),
            n_embd: 64,
            n_vocab: 256,
            n_ctx_train: 512,
            norm: Norm::Rms,
            norm_eps: 1e-5,
            embedding_scale: 1.0,
            residual_scale: 1.0,
            logit_scale: 1.0,
            logit_softcap: None,
            ropes: vec![RopeTable::of_base(1e4, 16, RopePairing::Halves).expect("has memory")],
            long: None,
            per_layer: None,
            layers: vec![layer; 2],
        };
        Described {
            config,
            ty,
            vector_ty: TensorType::F32,
            attn_norm: true,
            ffn_norm: true,
            norm_bias: false,
            qkv_bias: false,
            o_bias: false,
            ffn_bias: false,
            post_norms: false,
            output_bias: false,
            transposed: false,
            renamed: Vec::new(),
            changed: Vec::new(),
        }
    }

    /// Changes each layer.
    pub fn layers(&mut self, change: impl FnMut(&mut Layer)) {
        self.config.layers.iter_mut().for_each(change);
    }

    fn specs(&self) -> Vec<TensorSpec> {
        let (c, mut list) = (&self.config, Vec::new());
        let d = c.n_embd;
        let mut add = |there: bool, name: String, rows: usize, cols: usize, kind: Kind| {
            if there {
                list.push(TensorSpec { name, rows, cols, kind });
            }
        };
        let matrix = |cols: usize| Kind::Matrix { std: 1.0 / (cols as f32).sqrt(), n: 1 };
        add(true, "token_embd.weight".into(), c.n_vocab, d, matrix(4));
        for (i, layer) in c.layers.iter().enumerate() {
            let a = layer.attention();
            let (h, g) = (a.q_width(), a.kv_width());
            let name = |role: &str| format!("blk.{i}.{role}");
            add(self.attn_norm, name("attn_norm.weight"), 1, d, Kind::Norm);
            add(self.attn_norm && self.norm_bias, name("attn_norm.bias"), 1, d, Kind::Bias);
            add(self.ffn_norm, name("ffn_norm.weight"), 1, d, Kind::Norm);
            add(self.ffn_norm && self.norm_bias, name("ffn_norm.bias"), 1, d, Kind::Bias);
            let own = a.kv_from.is_none();
            for (part, n, there) in [("q", h, true), ("k", g, own), ("v", g, own && !a.k_as_v)] {
                let there = there && a.latent.is_none();
                add(there, name(&format!("attn_{part}.weight")), n, d, matrix(d));
                add(there && self.qkv_bias, name(&format!("attn_{part}.bias")), 1, n, Kind::Bias);
            }
            for (part, n, there) in [("q", h, true), ("k", g, own)] {
                let n = if a.qk_norm == Some(QkNorm::Row) { n } else { a.head_dim };
                add(there && a.qk_norm.is_some(), name(&format!("attn_{part}_norm.weight")), 1, n, Kind::Norm);
            }
            if let Some(Latent { q_rank, rank, nope, v_dim }) = a.latent {
                let (rows, r) = (a.n_heads * (nope + a.head_dim - rank), q_rank.unwrap_or(d));
                add(q_rank.is_some(), name("attn_q_a.weight"), r, d, matrix(d));
                add(q_rank.is_some(), name("attn_q_a_norm.weight"), 1, r, Kind::Norm);
                add(true, name("attn_q.weight"), rows, r, matrix(r));
                add(true, name("attn_kv_a_mqa.weight"), a.head_dim, d, matrix(d));
                add(true, name("attn_kv_a_norm.weight"), 1, rank, Kind::Norm);
                let k_b = if self.transposed { [nope, rank] } else { [rank, nope] };
                add(true, name("attn_k_b.weight"), a.n_heads * k_b[0], k_b[1], matrix(nope));
                add(true, name("attn_v_b.weight"), a.n_heads * v_dim, rank, matrix(rank));
            }
            add(true, name("attn_output.weight"), d, a.mix_width(), matrix(a.mix_width()));
            add(self.o_bias, name("attn_output.bias"), 1, d, Kind::Bias);
            add(self.post_norms, name("post_attention_norm.weight"), 1, d, Kind::Norm);
            let mut dense = |kind: &str, dense: &Dense, n: usize, bias: bool| {
                let f = dense.width;
                for (part, there) in [("gate", dense.gated), ("up", true)] {
                    add(there, name(&format!("ffn_{part}{kind}.weight")), n * f, d, matrix(d));
                    add(there && bias, name(&format!("ffn_{part}{kind}.bias")), n, f, Kind::Bias);
                }
                add(true, name(&format!("ffn_down{kind}.weight")), n * d, f, matrix(f));
                add(bias, name(&format!("ffn_down{kind}.bias")), n, d, Kind::Bias);
            };
            match &layer.ffn {
                Ffn::Dense(ffn) => dense("", ffn, 1, self.ffn_bias),
                Ffn::Experts(experts) => {
                    dense("_exps", &experts.each, experts.n, self.ffn_bias);
                    if let Some(shared) = &experts.shared {
                        dense("_shexp", &shared.ffn, 1, false);
                        add(shared.gated, name("ffn_gate_inp_shexp.weight"), 1, d, Kind::Bias);
                    }
                    add(true, name("ffn_gate_inp.weight"), experts.n, d, matrix(d));
                    add(self.ffn_bias, name("ffn_gate_inp.bias"), 1, experts.n, Kind::Bias);
                    add(experts.route.select_bias, name("exp_probs_b.bias"), 1, experts.n, Kind::Bias);
                    for role in ["router_norm", "experts_norm", "experts_post_norm", "shared_post_norm"] {
                        add(experts.side_by_side, name(&format!("{role}.weight")), 1, d, Kind::Norm);
                    }
                }
                Ffn::None => {}
            }
            add(a.sinks, name("attn_sinks.weight"), 1, a.n_heads, Kind::Norm);
            add(a.gated, name("attn_gate.weight"), h, d, matrix(d));
            add(self.post_norms, name("post_ffw_norm.weight"), 1, d, Kind::Norm);
            let p = c.per_layer.map_or(0, |per_layer| per_layer.width);
            add(p > 0, name("inp_gate.weight"), p, d, matrix(d));
            add(p > 0, name("proj.weight"), d, p, matrix(p));
            add(p > 0, name("post_norm.weight"), 1, d, Kind::Norm);
        }
        if let Some(per_layer) = c.per_layer {
            let (p, all) = (per_layer.width, per_layer.width * c.n_layers());
            add(true, "per_layer_token_embd.weight".into(), c.n_vocab, all, matrix(p));
            add(true, "per_layer_model_proj.weight".into(), all, d, matrix(d));
            add(true, "per_layer_proj_norm.weight".into(), 1, p, Kind::Norm);
        }
        add(true, "output_norm.weight".into(), 1, d, Kind::Norm);
        add(self.norm_bias, "output_norm.bias".into(), 1, d, Kind::Bias);
        add(true, "output.weight".into(), c.n_vocab, d, matrix(d));
        add(self.output_bias, "output.bias".into(), 1, c.n_vocab, Kind::Bias);
        list
    }

    fn type_of(&self, spec: &TensorSpec) -> TensorType {
        if matches!(spec.kind, Kind::Matrix { .. }) { self.ty } else { self.vector_ty }
    }

    fn bytes(&self) -> Vec<u8> {
        let (specs, mut writer) = (self.specs(), Writer::new(3));
        for spec in &specs {
            writer.tensor(&spec.name, self.type_of(spec), &spec.dims());
        }
        writer.to_bytes(|i, out| {
            let spec = &specs[i];
            let change = self.changed.iter().find(|(name, _)| spec.name.ends_with(name)).map(|(_, change)| change);
            let name = self.renamed.iter().fold(spec.name.clone(), |name, (from, to)| name.replace(from, to));
            let (ty, mut row) = (self.type_of(spec), vec![0.0; spec.cols]);
            let numbers = TensorSpec { name, ..spec.clone() };
            for (r, out) in out.chunks_exact_mut(ty.row_bytes(spec.cols)).enumerate() {
                fill_row(&numbers, 1, r as u64, &mut row);
                row.iter_mut().for_each(|x| *x = change.map_or(*x, |change| change(*x)));
                quantize_row(ty, &row, out).expect("sizes agree");
            }
        })
    }

    /// What comes of the description and its tensors.
    pub fn with<R>(&self, f: impl FnOnce(&Config, &Weights<'_>) -> R) -> R {
        self.config.validate().expect("is valid");
        let bytes = self.bytes();
        let gguf = Gguf::from_bytes(&bytes).expect("opens");
        f(&self.config, &weights(&gguf, &self.config, self.transposed))
    }

    /// The model on a device.
    pub fn load(&self, device: &dyn Device) -> Arc<dyn LoadedModel> {
        self.with(|config, weights| {
            device.load(config, weights, &LoadOptions::default(), &mut NoControl).expect("loads")
        })
    }
}

/// The tensors by role, as they are there.
fn weights<'a>(gguf: &'a Gguf<'_>, config: &Config, transposed: bool) -> Weights<'a> {
    let optional = |name: &str| {
        gguf.tensor(name).map(|t| Tensor {
            name: t.name,
            ty: t.ty,
            rows: t.rows(),
            cols: t.cols(),
            scale: 1.0,
            data: t.data,
        })
    };
    let needed = |name: &str| optional(name).unwrap_or_else(|| panic!("{name} is missing"));
    let layer = |i: usize| {
        let needed = |role: &str| needed(&format!("blk.{i}.{role}.weight"));
        let weight = |role: &str| optional(&format!("blk.{i}.{role}.weight"));
        let bias = |role: &str| optional(&format!("blk.{i}.{role}.bias"));
        let dense = |kind: &str| DenseWeights {
            gate: weight(&format!("ffn_gate{kind}")),
            up: needed(&format!("ffn_up{kind}")),
            down: needed(&format!("ffn_down{kind}")),
            gate_bias: bias(&format!("ffn_gate{kind}")),
            up_bias: bias(&format!("ffn_up{kind}")),
            down_bias: bias(&format!("ffn_down{kind}")),
        };
        let ffn = match weight("ffn_gate_inp") {
            None => FfnWeights::Dense(dense("")),
            Some(router) => FfnWeights::Experts(ExpertsWeights {
                router,
                router_bias: bias("ffn_gate_inp"),
                select_bias: bias("exp_probs_b"),
                each: dense("_exps"),
                gate_scale: None,
                up_scale: None,
                down_scale: None,
                shared: weight("ffn_up_shexp").map(|_| dense("_shexp")),
                shared_gate: weight("ffn_gate_inp_shexp"),
                side_by_side: weight("router_norm").map(|router_norm| SideBySide {
                    router_norm,
                    experts_norm: needed("experts_norm"),
                    experts_post_norm: needed("experts_post_norm"),
                    shared_post_norm: needed("shared_post_norm"),
                }),
            }),
        };
        LayerWeights {
            attn_norm: weight("attn_norm"),
            attn_norm_bias: bias("attn_norm"),
            q: needed("attn_q"),
            k: weight("attn_k"),
            v: weight("attn_v"),
            latent: weight("attn_kv_a_mqa").map(|kv_a| LatentWeights {
                q_a: weight("attn_q_a"),
                q_a_norm: weight("attn_q_a_norm"),
                kv_a,
                kv_a_norm: needed("attn_kv_a_norm"),
                k_b: needed("attn_k_b"),
                transposed: transposed.then_some(config.layers[i].attention().n_heads),
                v_b: needed("attn_v_b"),
            }),
            q_bias: bias("attn_q"),
            k_bias: bias("attn_k"),
            v_bias: bias("attn_v"),
            q_norm: weight("attn_q_norm"),
            k_norm: weight("attn_k_norm"),
            sinks: weight("attn_sinks"),
            o: needed("attn_output"),
            o_bias: bias("attn_output"),
            q_gate: weight("attn_gate"),
            recurrent: None,
            post_attn_norm: weight("post_attention_norm"),
            ffn_norm: weight("ffn_norm"),
            ffn_norm_bias: bias("ffn_norm"),
            ffn,
            post_ffn_norm: weight("post_ffw_norm"),
            out_scale: None,
            per_layer: weight("inp_gate").map(|gate| PerLayerGate {
                gate,
                proj: needed("proj"),
                post_norm: needed("post_norm"),
            }),
        }
    };
    Weights {
        token_embd: needed("token_embd.weight"),
        per_layer: optional("per_layer_token_embd.weight").map(|embd| PerLayerWeights {
            embd,
            proj: needed("per_layer_model_proj.weight"),
            norm: needed("per_layer_proj_norm.weight"),
        }),
        layers: (0..config.n_layers()).map(layer).collect(),
        output_norm: needed("output_norm.weight"),
        output_norm_bias: optional("output_norm.bias"),
        output: optional("output.weight"),
        output_bias: optional("output.bias"),
        rope_freqs: None,
        long_rope_freqs: None,
        n_other_parts: 0,
    }
}
