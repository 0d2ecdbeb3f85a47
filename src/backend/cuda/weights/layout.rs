//! Where each tensor lies in the one allocation that holds a model's weights.
//!
//! Invariant: the layout is a function of the description and the tensors' types and shapes alone, so that the plan made
//! before a load is what the load takes.

use std::f64::consts::TAU;

use half::{bf16, f16};

pub use super::roles::{PerLayer, PerLayerGate, Recurrent, SideBySide};
use crate::backend::cuda::driver::Address;
use crate::backend::cuda::kernels::abi::Mat;
use crate::backend::cuda::kernels::packed::Packed;
use crate::error::Result;
use crate::gguf::{Data, TensorType};
use crate::model::{self, Config, ExpertsWeights, RecurrentWeights, RopeTable, Tensor, Weights};

/// One layer; an address of 0: the tensor does not exist.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct Layer {
    pub attn_norm: Address, // [D] f32, as are all vectors; zero filled to a multiple of 32
    pub attn_norm_bias: Address,
    pub q: Mat, // [H, D]
    pub k: Mat, // [G, D]
    pub v: Mat, // [G, D]
    pub q_bias: Address,
    pub k_bias: Address,
    pub v_bias: Address,
    pub q_norm: Address,
    pub k_norm: Address,
    pub sinks: Address,      // [n_heads]
    pub o: Mat,              // [D, H]
    pub q_gate: Option<Mat>, // [H, D]
    pub recurrent: Option<Recurrent>,
    pub per_layer: Option<PerLayerGate>,
    pub o_bias: Address,
    pub post_attn_norm: Address,
    pub ffn_norm: Address,
    pub ffn_norm_bias: Address,
    pub gate: Option<Mat>, // [F, D]
    pub up: Mat,           // [F, D]
    pub down: Mat,         // [D, F]
    pub gate_bias: Address,
    pub up_bias: Address,
    pub down_bias: Address,
    pub post_ffn_norm: Address,
    pub experts: Option<Experts>, // with them gate, up and down are those of the expert that all share
    pub turns: [Address; 2], // [n_rot / 2] f64 each: turns of a pair per position, of sessions not long and long; 0: nothing turns
}

/// The experts of a layer, the matrices of all of them one behind the other.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct Experts {
    pub router: Mat, // [N, D]
    pub router_bias: Address,
    pub select_bias: Address,     // [N]
    pub gate: Option<Mat>,        // [N F, D]
    pub up: Mat,                  // [N F, D]
    pub down: Mat,                // [N D, F]
    pub gate_bias: Address,       // [N F]
    pub up_bias: Address,         // [N F]
    pub down_bias: Address,       // [N D]
    pub shared_gate: Option<Mat>, // [1, D]
    pub down_scale: Address,      // [N], of what an expert makes, where its kernels have none
    pub side_by_side: Option<SideBySide>,
}

/// A model's weights on the device.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct DeviceWeights {
    pub token_embd: Mat,
    pub layers: Vec<Layer>,
    pub per_layer: Option<PerLayer>,
    pub output_norm: Address,
    pub output_norm_bias: Address,
    pub output: Mat,
    pub output_bias: Address,
}

/// Bytes of the file (or made by the host) and where they go.
pub struct Job<'a> {
    /// The matrix, or `None` for a plain copy.
    pub mat: Option<Mat>,
    /// Where a plain copy goes.
    pub to: Address,
    /// The type of the bytes.
    pub ty: TensorType,
    /// The bytes as the file stores them.
    pub data: Bytes<'a>,
}

/// What a job copies.
pub enum Bytes<'a> {
    /// A tensor of the file.
    Stored(Data<'a>),
    /// Elements of 16 bits of the file, to be made f32; whether they are BF16.
    Halves(Data<'a>, bool),
    /// Made by the host.
    Made(Vec<u8>),
}

impl Bytes<'_> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Bytes::Stored(data) => data.len(),
            Bytes::Halves(data, _) => 2 * data.len(),
            Bytes::Made(data) => data.len(),
        }
    }

    /// Fills `out` with those from `at` on, whole elements; at most [`Self::len`] in all. Fails with `Io` where the file is at fault.
    pub fn read(&self, at: usize, out: &mut [u8]) -> Result<()> {
        match self {
            Bytes::Stored(data) => data.read(at, out)?,
            Bytes::Halves(data, bf16) => {
                // Into its second half first, whose elements are read before something takes their place.
                let half = out.len() / 2;
                data.read(at / 2, &mut out[half..])?;
                for i in 0..half / 2 {
                    let bits = u16::from_le_bytes([out[half + 2 * i], out[half + 2 * i + 1]]);
                    let x = if *bf16 { bf16::from_bits(bits).to_f32() } else { f16::from_bits(bits).to_f32() };
                    out[4 * i..4 * i + 4].copy_from_slice(&x.to_le_bytes());
                }
            }
            Bytes::Made(data) => out.copy_from_slice(&data[at..at + out.len()]),
        }
        Ok(())
    }
}

/// A layout at a base address.
pub struct Laid<'a> {
    /// Addresses by role.
    pub weights: DeviceWeights,
    /// What is to be copied.
    pub jobs: Vec<Job<'a>>,
    /// Bytes in all.
    pub bytes: u64,
}

struct Layer0<'a> {
    next: u64,
    jobs: Vec<Job<'a>>,
}

impl<'a> Layer0<'a> {
    fn take(&mut self, bytes: u64) -> Address {
        let at = self.next;
        self.next += bytes.next_multiple_of(256);
        at
    }

    /// The matrices of one stage: in tiles where all are F16.
    fn mats<const N: usize>(&mut self, tensors: [&Tensor<'a>; N]) -> [Mat; N] {
        let tiled = tensors.iter().all(|t| t.ty == TensorType::F16);
        tensors.map(|t| if tiled { self.tiles(t) } else { self.mat(t) })
    }

    fn tiles(&mut self, t: &Tensor<'a>) -> Mat {
        let (rows, stride) = (t.rows.next_multiple_of(16), t.cols.next_multiple_of(32));
        let [bytes, ..] = Packed::F16Tiles.plane_bytes(rows as u64, stride as u64);
        let a = self.take(bytes);
        let (rows, cols, stride) = (t.rows as u32, t.cols as u32, stride as u32);
        let mat = Mat { a, ty: Packed::F16Tiles, rows, cols, stride, ..Mat::default() };
        self.jobs.push(Job { mat: Some(mat), to: 0, ty: t.ty, data: Bytes::Stored(t.data) });
        mat
    }

    fn mat(&mut self, t: &Tensor<'a>) -> Mat {
        let ty = Packed::from(t.ty);
        let planes = ty.plane_bytes(t.rows as u64, t.cols as u64).map(|n| if n == 0 { 0 } else { self.take(n) });
        let [a, b, c, s, d] = planes;
        let stride = t.cols.next_multiple_of(8) as u32;
        let mat = Mat { a, b, c, s, d, ty, rows: t.rows as u32, cols: t.cols as u32, stride, scale: t.scale, each: 0 };
        self.jobs.push(Job { mat: Some(mat), to: 0, ty: t.ty, data: Bytes::Stored(t.data) });
        mat
    }

    /// The matrices of experts, and what each of them is multiplied with.
    fn stack(&mut self, t: &Tensor<'a>, scale: &Option<Tensor<'a>>) -> Mat {
        let mut mat = self.mat(t);
        // Of other types with scales no model is loaded.
        if let Some(scale) = scale
            && t.ty == TensorType::Nvfp4
        {
            (mat.d, mat.each) = (self.vector(scale), (t.rows * t.cols / 32 / scale.cols) as u32);
        }
        mat
    }

    fn vector(&mut self, t: &Tensor<'a>) -> Address {
        let data = match t.ty {
            TensorType::F16 | TensorType::Bf16 => Bytes::Halves(t.data, t.ty == TensorType::Bf16),
            _ => Bytes::Stored(t.data),
        };
        let to = self.take((data.len() as u64).next_multiple_of(128));
        self.jobs.push(Job { mat: None, to, ty: TensorType::F32, data });
        to
    }

    fn optional(&mut self, t: &Option<Tensor<'a>>) -> Address {
        t.as_ref().map_or(0, |t| self.vector(t))
    }

    fn experts(&mut self, w: &ExpertsWeights<'a>) -> Experts {
        Experts {
            router: self.mat(&w.router),
            router_bias: self.optional(&w.router_bias),
            select_bias: self.optional(&w.select_bias),
            gate: w.each.gate.as_ref().map(|t| self.stack(t, &w.gate_scale)),
            up: self.stack(&w.each.up, &w.up_scale),
            down: self.stack(&w.each.down, &w.down_scale),
            gate_bias: self.optional(&w.each.gate_bias),
            up_bias: self.optional(&w.each.up_bias),
            down_bias: self.optional(&w.each.down_bias),
            shared_gate: w.shared_gate.as_ref().map(|t| self.mat(t)),
            down_scale: match &w.down_scale {
                Some(scale) if w.each.down.ty != TensorType::Nvfp4 => self.vector(scale),
                _ => 0,
            },
            side_by_side: w.side_by_side.as_ref().map(|w| SideBySide {
                router_norm: self.vector(&w.router_norm),
                experts_norm: self.vector(&w.experts_norm),
                experts_post_norm: self.vector(&w.experts_post_norm),
                shared_post_norm: self.vector(&w.shared_post_norm),
            }),
        }
    }

    fn recurrent(&mut self, w: &RecurrentWeights<'a>) -> Recurrent {
        let (input, gate) = match &w.gate {
            Some(gate) => {
                let [input, gate] = self.mats([&w.input, gate]);
                (input, Some(gate))
            }
            None => (self.mats([&w.input])[0], None),
        };
        Recurrent {
            input,
            gate,
            gates: match (&w.beta, &w.alpha) {
                (Some(beta), Some(alpha)) => self.mats([beta, alpha]).into(),
                (Some(steps), None) => self.mats([steps]).into(),
                (None, _) => Vec::new(),
            },
            conv: self.vector(&w.conv),
            conv_bias: self.optional(&w.conv_bias),
            a: self.optional(&w.a),
            dt: self.optional(&w.dt),
            d: self.optional(&w.d),
            norm: self.optional(&w.norm),
            output: self.mats([&w.output])[0],
        }
    }

    fn per_layer(&mut self, w: &model::PerLayerGate<'a>) -> PerLayerGate {
        let ([gate], [proj]) = (self.mats([&w.gate]), self.mats([&w.proj]));
        PerLayerGate { gate, proj, post_norm: self.vector(&w.post_norm) }
    }

    /// A rotary table.
    fn turns(&mut self, rope: &RopeTable) -> Address {
        let mut data = Vec::with_capacity(rope.inv_freq.len() * 8);
        for (i, inv_freq) in rope.inv_freq.iter().enumerate() {
            let turn = f64::from(rope.position_scale) * inv_freq / f64::from(rope.divisor(i)) / TAU;
            data.extend_from_slice(&turn.to_le_bytes());
        }
        let to = self.take(data.len().max(8) as u64);
        self.jobs.push(Job { mat: None, to, ty: TensorType::F32, data: Bytes::Made(data) });
        to
    }
}

/// Lays the model out from `base` on.
pub fn lay<'a>(base: Address, config: &Config, weights: &Weights<'a>) -> Laid<'a> {
    let mut at = Layer0 { next: base, jobs: Vec::new() };
    let mut turns = |ropes: &[RopeTable]| ropes.iter().map(|rope| at.turns(rope)).collect::<Vec<_>>();
    let short = turns(&config.ropes);
    let long = config.long.as_ref().map_or_else(|| short.clone(), |long| turns(&long.ropes));
    // Tied to the output, it is a stage's matrix.
    let [token_embd] = match weights.output {
        None => at.mats([&weights.token_embd]),
        Some(_) => [at.mat(&weights.token_embd)],
    };
    let mut layers = Vec::with_capacity(weights.layers.len());
    for (w, c) in weights.layers.iter().zip(&config.layers) {
        let [q, k, v] = match (&w.k, &w.v) {
            (Some(k), Some(v)) if w.q.rows > 0 => at.mats([&w.q, k, v]),
            // What makes the keys makes the values, too.
            (Some(k), None) => {
                let [q, k] = at.mats([&w.q, k]);
                [q, k, k]
            }
            (None, None) if w.q.rows > 0 => [at.mats([&w.q])[0], Mat::default(), Mat::default()],
            // One without attention.
            _ => [Mat::default(); 3],
        };
        let o = if w.o.rows > 0 { at.mats([&w.o])[0] } else { Mat::default() };
        let q_gate = w.q_gate.as_ref().map(|gate| at.mats([gate])[0]);
        let recurrent = w.recurrent.as_ref().map(|w| at.recurrent(w));
        let per_layer = w.per_layer.as_ref().map(|w| at.per_layer(w));
        let ffn = w.ffn.common();
        let (gate, up) = match ffn.map(|w| (&w.gate, &w.up)) {
            Some((Some(gate), up)) => {
                let [gate, up] = at.mats([gate, up]);
                (Some(gate), up)
            }
            Some((None, up)) => (None, at.mats([up])[0]),
            None => (None, Mat::default()),
        };
        let down = ffn.map_or_else(Mat::default, |w| at.mats([&w.down])[0]);
        let experts = w.ffn.experts().map(|experts| at.experts(experts));
        layers.push(Layer {
            attn_norm: at.optional(&w.attn_norm),
            attn_norm_bias: at.optional(&w.attn_norm_bias),
            q,
            k,
            v,
            q_bias: at.optional(&w.q_bias),
            k_bias: at.optional(&w.k_bias),
            v_bias: at.optional(&w.v_bias),
            q_norm: at.optional(&w.q_norm),
            k_norm: at.optional(&w.k_norm),
            sinks: at.optional(&w.sinks),
            o,
            q_gate,
            recurrent,
            per_layer,
            o_bias: at.optional(&w.o_bias),
            post_attn_norm: at.optional(&w.post_attn_norm),
            ffn_norm: at.optional(&w.ffn_norm),
            ffn_norm_bias: at.optional(&w.ffn_norm_bias),
            gate,
            up,
            down,
            gate_bias: ffn.map_or(0, |w| at.optional(&w.gate_bias)),
            up_bias: ffn.map_or(0, |w| at.optional(&w.up_bias)),
            down_bias: ffn.map_or(0, |w| at.optional(&w.down_bias)),
            post_ffn_norm: at.optional(&w.post_ffn_norm),
            experts,
            turns: c.attention().rope.map_or([0; 2], |rope| [short[rope], long[rope]]),
        });
    }
    let output_norm = at.vector(&weights.output_norm);
    let output_norm_bias = at.optional(&weights.output_norm_bias);
    let output = weights.output.as_ref().map_or(token_embd, |t| at.mats([t])[0]);
    let output_bias = at.optional(&weights.output_bias);
    let per_layer = weights.per_layer.as_ref().map(|w| {
        let [proj] = at.mats([&w.proj]);
        PerLayer { embd: at.mat(&w.embd), proj, norm: at.vector(&w.norm) }
    });
    let weights = DeviceWeights { token_embd, layers, per_layer, output_norm, output_norm_bias, output, output_bias };
    Laid { weights, jobs: at.jobs, bytes: at.next - base }
}
