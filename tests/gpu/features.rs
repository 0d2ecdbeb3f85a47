//! What the description can say, feature by feature: against the reference stage by stage, and of several sequences to the bit.
//!
//! A model of each case is a tiny one whose description and tensors are changed; vectors and matrices that it has not got are made.
//! Without a device the test prints `skipped: no CUDA device` and passes, unless KIGO_REQUIRE_CUDA=1.

use std::sync::atomic::AtomicBool;

use kigo::backend::cuda::{CudaDevice, Tuning};
use kigo::backend::{Chunk, LoadOptions, LoadedModel, PAGE_TOKENS, RunControl, Slot, Want};
use kigo::gguf::{Gguf, TensorType, Writer, quantize_row};
use kigo::model::{Activation, Block, Config, Norm, QkNorm, Temperature, Tensor, Weights, bind};

use super::forward::compare;
use crate::common::gpu::{NoControl, device, few, tokens};
use crate::common::random;
use crate::common::tiny::Tiny;

/// Tensors that a file has not got, in a file of their own.
struct Made<'a>(&'a Gguf<'a>);

impl<'a> Made<'a> {
    fn get(&self, name: &str) -> Option<Tensor<'a>> {
        let info = self.0.tensor(name).unwrap_or_else(|| panic!("no tensor {name}"));
        let (cols, rows) = (info.dims[0] as usize, info.dims.get(1).map_or(1, |n| *n as usize));
        Some(Tensor { name: info.name, ty: info.ty, rows, cols, data: info.data })
    }

    /// A norm's weights, or a bias: of so many elements.
    fn norm(&self, n: usize) -> Option<Tensor<'a>> {
        self.get(&format!("norm.{n}"))
    }
    fn bias(&self, n: usize) -> Option<Tensor<'a>> {
        self.get(&format!("bias.{n}"))
    }
}

/// Norms and biases of these widths, of type `ty`; matrices of `(rows, cols)`.
fn made(ty: TensorType, widths: &[usize], matrices: &[(usize, usize)]) -> Vec<u8> {
    let mut widths = widths.to_vec();
    widths.sort_unstable();
    widths.dedup();
    let mut specs: Vec<(String, TensorType, usize, usize)> = Vec::new();
    for n in widths {
        specs.push((format!("norm.{n}"), ty, 1, n));
        specs.push((format!("bias.{n}"), ty, 1, n));
    }
    specs.extend(matrices.iter().map(|(rows, cols)| (format!("matrix.{rows}.{cols}"), TensorType::F16, *rows, *cols)));
    let mut writer = Writer::new(3);
    for (name, ty, rows, cols) in &specs {
        writer.tensor(name, *ty, &[*cols as u64, *rows as u64][..if *rows == 1 { 1 } else { 2 }]);
    }
    writer.to_bytes(|i, out| {
        let (name, ty, _, cols) = &specs[i];
        let mut row = vec![0.0; *cols];
        for (r, out) in out.chunks_mut(ty.row_bytes(*cols)).enumerate() {
            random::normal(random::key(7, name), (r * cols) as u64, &mut row);
            let (mean, std) = match name.split('.').next() {
                Some("norm") => (1.0, 0.2),
                Some("bias") => (0.1, 0.3),
                _ => (0.0, 1.0 / (*cols as f32).sqrt()),
            };
            row.iter_mut().for_each(|x| *x = mean + std * *x);
            quantize_row(*ty, &row, out).unwrap();
        }
    })
}

/// What a case changes.
type Change = for<'a> fn(&mut Config, &mut Weights<'a>, &Made<'a>);

fn layer_norms<'a>(c: &mut Config, w: &mut Weights<'a>, made: &Made<'a>) {
    let d = c.n_embd;
    c.norm = Norm::Layer;
    w.output_norm_bias = made.bias(d);
    for l in &mut w.layers {
        (l.attn_norm_bias, l.ffn_norm_bias) = (made.bias(d), made.bias(d));
    }
}

/// One norm for both halves.
fn parallel<'a>(c: &mut Config, w: &mut Weights<'a>, _: &Made<'a>) {
    c.norm = Norm::Layer;
    c.layers.iter_mut().for_each(|l| l.block = Block::Parallel);
    w.layers.iter_mut().for_each(|l| l.ffn_norm = None);
}

/// A norm for each, and one behind each.
fn parallel_of_two<'a>(c: &mut Config, w: &mut Weights<'a>, made: &Made<'a>) {
    c.layers[0].block = Block::Parallel;
    c.residual_scale = 0.5;
    w.layers[0].post_attn_norm = made.norm(c.n_embd);
}

/// Norms behind the halves alone, and of all queries and all keys.
fn norms_behind<'a>(c: &mut Config, w: &mut Weights<'a>, made: &Made<'a>) {
    for (l, w) in c.layers.iter_mut().zip(&mut w.layers) {
        let a = l.attention_mut();
        a.qk_norm = Some(QkNorm::Row);
        (w.q_norm, w.k_norm) = (made.norm(a.q_width()), made.norm(a.kv_width()));
        (w.attn_norm, w.ffn_norm) = (None, None);
        (w.post_attn_norm, w.post_ffn_norm) = (made.norm(c.n_embd), made.norm(c.n_embd));
    }
}

fn ungated<'a>(c: &mut Config, w: &mut Weights<'a>, made: &Made<'a>) {
    for (i, (l, w)) in c.layers.iter_mut().zip(&mut w.layers).enumerate() {
        let dense = l.dense_mut();
        dense.gated = false;
        dense.activation = [Activation::Gelu, Activation::Relu2, Activation::Silu, Activation::GeluTanh][i % 4];
        w.gate = None;
        if i == 0 {
            (w.up_bias, w.down_bias) = (made.bias(dense.width), made.bias(c.n_embd));
        }
    }
}

fn biases<'a>(c: &mut Config, w: &mut Weights<'a>, made: &Made<'a>) {
    w.output_bias = made.bias(c.n_vocab);
    for (l, w) in c.layers.iter_mut().zip(&mut w.layers) {
        let a = *l.attention();
        (w.q_bias, w.k_bias) = (made.bias(a.q_width()), made.bias(a.kv_width()));
        (w.v_bias, w.o_bias) = (made.bias(a.kv_width()), made.bias(c.n_embd));
        let dense = l.dense();
        (w.gate_bias, w.up_bias, w.down_bias) = (made.bias(dense.width), made.bias(dense.width), made.bias(c.n_embd));
    }
    c.layers[1].dense_mut().activation = Activation::Gelu;
}

fn scales<'a>(c: &mut Config, w: &mut Weights<'a>, made: &Made<'a>) {
    (c.embedding_scale, c.residual_scale, c.logit_scale) = (3.0, 0.25, 0.125);
    c.logit_softcap = Some(2.0);
    w.layers[1].post_ffn_norm = made.norm(c.n_embd);
}

fn heads<'a>(c: &mut Config, _: &mut Weights<'a>, _: &Made<'a>) {
    for l in &mut c.layers {
        l.attention_mut().qk_norm = Some(QkNorm::HeadAfterRope);
    }
    let a = c.layers[1].attention_mut();
    (a.rope, a.temperature) = (None, Some(Temperature { beta: 0.4, interval: 4 }));
}

/// More heads of another size in the second layer, and a wider part.
fn layers_apart<'a>(c: &mut Config, w: &mut Weights<'a>, made: &Made<'a>) {
    let (a, d) = (c.layers[1].attention_mut(), c.n_embd);
    (a.n_heads, a.n_kv_heads, a.head_dim, a.rope, a.qk_norm) = (3, 1, 160, None, None);
    let (h, g) = (a.q_width(), a.kv_width());
    c.layers[1].dense_mut().width = 96;
    let matrix = |rows: usize, cols: usize| made.get(&format!("matrix.{rows}.{cols}")).unwrap();
    let l = &mut w.layers[1];
    (l.q, l.k, l.v, l.o) = (matrix(h, d), matrix(g, d), matrix(g, d), matrix(d, h));
    (l.q_norm, l.k_norm) = (None, None);
    (l.gate, l.up, l.down) = (Some(matrix(96, d)), matrix(96, d), matrix(d, 96));
}

const CASES: &[(&str, &[TensorType], Change)] = &[
    ("layer norms with biases", &[TensorType::Q8_0, TensorType::F16, TensorType::Q4_K], layer_norms),
    ("parallel halves", &[TensorType::F16, TensorType::Q4_0], parallel),
    ("parallel halves with a norm each", &[TensorType::Q5_1, TensorType::F16], parallel_of_two),
    ("norms behind halves, of rows", &[TensorType::F16, TensorType::Q8_0, TensorType::Bf16], norms_behind),
    ("parts without a gate", &[TensorType::Q8_0, TensorType::F16, TensorType::Q6_K], ungated),
    ("biases", &[TensorType::F16, TensorType::Q4_0], biases),
    ("scales", &[TensorType::Q8_0, TensorType::F16], scales),
    ("norms behind the rope, a temperature", &[TensorType::Q4_0, TensorType::F32], heads),
    ("layers apart", &[TensorType::F16], layers_apart),
];

#[test]
fn every_feature_matches_the_reference_and_itself_in_company() {
    let Some(device) = device() else { return };
    for (i, (name, types, change)) in CASES.iter().enumerate() {
        for ty in types.iter().take(if few() { 2 } else { types.len() }) {
            let bytes = Tiny::new("qwen3", *ty).bytes();
            let gguf = Gguf::from_bytes(&bytes).unwrap();
            let (mut config, mut weights) = bind(&gguf).unwrap();
            let (a, d) = (*config.layers[0].attention(), config.n_embd);
            let (h, g, f) = (a.q_width(), a.kv_width(), config.layers[0].dense().width);
            let wide = [(480, d), (160, d), (d, 480), (96, d), (d, 96)];
            let vectors = [TensorType::F32, TensorType::F16, TensorType::Bf16][i % 3];
            let bytes = made(vectors, &[d, h, g, f, config.n_vocab], &wide);
            let gguf = Gguf::from_bytes(&bytes).unwrap();
            change(&mut config, &mut weights, &Made(&gguf));
            let name = format!("{name}, {}", ty.name());
            compare(&name, &device, &config, &weights, 20);
            in_company(&name, &device, &config, &weights);
        }
    }
}

/// Six sequences of three tokens, side by side and each alone, by the device's kernels and by those of older ones.
fn in_company(name: &str, device: &CudaDevice, config: &Config, weights: &Weights<'_>) {
    let model = device.load_model(config, weights, &LoadOptions::default(), &mut NoControl).unwrap();
    model.reserve_pages(6).unwrap();
    let tokens = tokens(18, config.n_vocab);
    for use_wide in [true, false] {
        model.tune(Tuning { prefill: false, use_wide, ..Tuning::default() });
        let mut slots: Vec<Box<dyn Slot>> = (0..6).map(|_| model.create_slot().unwrap()).collect();
        let pages: Vec<u32> = (0..6).collect();
        let mut run = |which: &[usize]| -> Vec<Vec<u32>> {
            let chunks = slots.iter_mut().enumerate().filter(|(i, _)| which.contains(i));
            let mut chunks: Vec<Chunk<'_>> = chunks
                .map(|(i, slot)| Chunk {
                    tokens: &tokens[3 * i..3 * i + 3],
                    start: 0,
                    pages: &pages[i..=i],
                    slot: &mut **slot,
                    want: Want::Last,
                })
                .collect();
            model.forward(&mut chunks, &mut RunControl { cancel: &AtomicBool::new(false), tap: None }).unwrap();
            drop(chunks);
            let mut logits = vec![f32::NAN; config.n_vocab];
            let mut bits = |i: &usize| {
                model.logits(&mut *slots[*i], &mut logits).unwrap();
                logits.iter().map(|l| l.to_bits()).collect()
            };
            which.iter().map(&mut bits).collect()
        };
        let alone: Vec<Vec<u32>> = (0..6).map(|i| run(&[i]).remove(0)).collect();
        let scratch = model.plan().scratch_bytes;
        for which in [&[0, 1, 2, 3, 4, 5][..], &[1, 3]] {
            for (i, bits) in which.iter().zip(run(which)) {
                assert!(bits == alone[*i], "{name}: sequence {i} has other bits among {which:?}, wide {use_wide}");
            }
        }
        assert!(model.plan().scratch_bytes > scratch, "{name}: no step was shared");
    }
    assert!(3 < PAGE_TOKENS);
}
