//! Memory of the device with numbers in it, matrices of every type, and what results are held against.

use std::cell::RefCell;
use std::sync::Arc;

use kigo::backend::cuda::kernels::abi::{FlashTile, Mat, RowPlace, Span, State};
use kigo::backend::cuda::kernels::launch::Queue;
use kigo::backend::cuda::kernels::packed::Packed;
use kigo::backend::cuda::{Address, Buffer, CudaDevice, Gpu, Stream};
use kigo::gguf::{TensorType, dequantize_row, quantize_row};

use crate::common::random;

/// Every type that a file may have.
pub const TYPES: [TensorType; TensorType::ALL.len()] = TensorType::ALL;

/// What goes to the device and comes back, byte by byte.
pub trait Plain: Sized {
    const BYTES: usize;
    fn write(&self, to: &mut Vec<u8>);
    fn read(from: &[u8]) -> Self;
}

macro_rules! plain {
    ($($type:ty),*) => {$(
        impl Plain for $type {
            const BYTES: usize = size_of::<$type>();
            fn write(&self, to: &mut Vec<u8>) {
                to.extend(self.to_le_bytes());
            }
            fn read(from: &[u8]) -> Self {
                Self::from_le_bytes(from.try_into().unwrap())
            }
        }
    )*};
}
plain!(u8, u32, i32, u64, f32, f64, half::f16);

/// Structs without gaps, field by field.
macro_rules! plain_struct {
    ($($name:ident { $($field:ident: $type:ty),* })*) => {$(
        impl Plain for $name {
            const BYTES: usize = size_of::<$name>();
            fn write(&self, to: &mut Vec<u8>) {
                assert_eq!(Self::BYTES, 0 $(+ size_of::<$type>())*);
                $(self.$field.write(to);)*
            }
            fn read(from: &[u8]) -> Self {
                let mut left = from;
                $(
                    let ($field, rest) = left.split_at(<$type>::BYTES);
                    left = rest;
                )*
                assert!(left.is_empty());
                $name { $($field: <$type>::read($field)),* }
            }
        }
    )*};
}
plain_struct! {
    State {
        pages: u64, logits: u64, token: i32, position: i32, produced: u32, top_k: u32,
        seed: u64, share: u64, least: u64, temperature: f32, inverse: f32, is_long: u32, table_stride: u32,
        kept: u64, keeps: u64
    }
    FlashTile { pages: u64, row0: u32, n_tokens: u32, start: u32, tile: u32 }
    RowPlace { pages: u64, position: u32, is_long: u32 }
    Span { kept: u64, keeps: u64, row0: u32, n_rows: u32 }
}

/// A matrix on the device, and its values.
pub struct Matrix {
    pub mat: Mat,
    pub values: Vec<f64>,
}

impl Matrix {
    pub fn row(&self, row: usize) -> &[f64] {
        let cols = self.mat.cols as usize;
        &self.values[row * cols..(row + 1) * cols]
    }

    /// Its product with a vector.
    pub fn times(&self, x: &[f64]) -> Vec<f64> {
        let dot = |row: &[f64]| row.iter().zip(x).map(|(w, x)| w * x).sum();
        (0..self.mat.rows as usize).map(|row| dot(self.row(row))).collect()
    }
}

/// A device, a stream, and the buffers that live as long as the bench.
pub struct Bench {
    pub gpu: Arc<Gpu>,
    pub stream: Stream,
    buffers: RefCell<Vec<Buffer>>,
}

impl Bench {
    pub fn new(device: &CudaDevice) -> Bench {
        let gpu = device.gpu().clone();
        let stream = Stream::new(&gpu).unwrap();
        Bench { gpu, stream, buffers: RefCell::default() }
    }

    pub fn queue(&self) -> Queue<'_> {
        Queue::new(&self.gpu, &self.stream)
    }

    /// Whether the device has the kernels of code of version 9.0.
    pub fn is_sm90(&self) -> bool {
        self.gpu.major >= 9
    }

    pub fn zeros(&self, bytes: usize) -> Address {
        let buffer = Buffer::zeroed(&self.gpu, bytes, &self.stream).unwrap();
        let at = buffer.at();
        self.buffers.borrow_mut().push(buffer);
        at
    }

    pub fn put<T: Plain>(&self, values: &[T]) -> Address {
        let mut bytes = Vec::new();
        values.iter().for_each(|v| v.write(&mut bytes));
        // What lies behind a vector up to whole blocks of 32 is zero.
        bytes.resize(bytes.len().next_multiple_of(128), 0);
        let buffer = Buffer::new(&self.gpu, bytes.len()).unwrap();
        buffer.write(&bytes, &self.stream).unwrap();
        let at = buffer.at();
        self.buffers.borrow_mut().push(buffer);
        at
    }

    /// `n` values from an address inside a buffer on.
    pub fn get<T: Plain>(&self, at: Address, n: usize) -> Vec<T> {
        let mut bytes = vec![0; n * T::BYTES];
        let buffers = self.buffers.borrow();
        let of =
            buffers.iter().find(|b| (b.at()..b.at() + b.bytes() as u64).contains(&at)).expect("an address of mine");
        of.read((at - of.at()) as usize, &mut bytes, &self.stream).unwrap();
        bytes.chunks_exact(T::BYTES).map(T::read).collect()
    }

    pub fn floats(&self, at: Address, n: usize) -> Vec<f32> {
        self.get(at, n)
    }

    /// The values of f16 with what their rounding has left.
    pub fn halves(&self, at: Address, lo: Address, n: usize) -> Vec<f64> {
        let hi: Vec<f64> = self.get::<half::f16>(at, n).into_iter().map(f64::from).collect();
        match lo {
            0 => hi,
            lo => hi.into_iter().zip(self.get::<half::f16>(lo, n)).map(|(a, b)| a + f64::from(b)).collect(),
        }
    }

    /// A random matrix, stored as `ty`; `tiled`: an F16 one in tiles.
    pub fn matrix(&self, ty: TensorType, rows: usize, cols: usize, tiled: bool) -> Matrix {
        let row_bytes = ty.row_bytes(cols);
        let (mut stored, mut values) = (vec![0u8; rows * row_bytes], vec![0f32; rows * cols]);
        for row in 0..rows {
            let wanted: Vec<f32> = numbers(row as u64 + 1000, cols).iter().map(|x| x / (cols as f32).sqrt()).collect();
            let bytes = &mut stored[row * row_bytes..(row + 1) * row_bytes];
            quantize_row(ty, &wanted, bytes).unwrap();
            dequantize_row(ty, bytes, &mut values[row * cols..(row + 1) * cols]).unwrap();
        }
        let packed = if tiled { Packed::F16Tiles } else { Packed::from(ty) };
        let stride = cols.next_multiple_of(if tiled { 32 } else { 8 });
        let planes = packed.plane_bytes(rows as u64, cols as u64);
        // As they are laid out for models: a word of the last row's may be half beyond it.
        let plane = |bytes: u64| if bytes == 0 { 0 } else { self.zeros(bytes.next_multiple_of(256) as usize) };
        let [a, b, c, s, d] = planes.map(plane);
        let scale = if ty == TensorType::Nvfp4 { 0.75 } else { 1.0 };
        values.iter_mut().for_each(|v| *v *= scale);
        let shape = Mat { rows: rows as u32, cols: cols as u32, stride: stride as u32, ..Mat::default() };
        let mat = Mat { a, b, c, s, d, ty: packed, scale, ..shape };
        // In two pieces, as a large file comes.
        let units = if packed.is_quantized() { cols / 32 } else { 1 };
        let first = rows / 2;
        let from = [self.put(&stored[..first * row_bytes]), self.put(&stored[first * row_bytes..])];
        for (from, at, n) in [(from[0], 0, first), (from[1], first, rows - first)] {
            self.queue().repack(&mat, from, (at * units) as u64, (n * units) as u64).unwrap();
        }
        self.stream.wait().unwrap();
        Matrix { mat, values: values.into_iter().map(f64::from).collect() }
    }

    /// `n` random numbers on the device, with as many zeros as make whole blocks of 32, and the numbers.
    pub fn vector(&self, seed: u64, n: usize) -> (Address, Vec<f64>) {
        let values = numbers(seed, n);
        (self.put(&values), values.into_iter().map(f64::from).collect())
    }

    /// The same of several rows, each padded.
    pub fn vectors(&self, seed: u64, rows: usize, n: usize) -> (Address, u32, Vec<Vec<f64>>) {
        let stride = n.next_multiple_of(32);
        let mut all = vec![0f32; rows * stride];
        let rows: Vec<Vec<f32>> = (0..rows).map(|row| numbers(seed + row as u64, n)).collect();
        for (to, from) in all.chunks_mut(stride).zip(&rows) {
            to[..n].copy_from_slice(from);
        }
        let wide = rows.into_iter().map(|row| row.into_iter().map(f64::from).collect());
        (self.put(&all), stride as u32, wide.collect())
    }
}

/// Random numbers of mean 0 and deviation 1.
pub fn numbers(seed: u64, n: usize) -> Vec<f32> {
    let mut out = vec![0.0; n];
    random::normal(random::mix(seed), 0, &mut out);
    out
}

/// The sum of the squares of the error, divided by that of the truth, is at most `bound`.
#[track_caller]
pub fn near(what: &str, got: &[f32], truth: &[f64], bound: f64) {
    let got: Vec<f64> = got.iter().map(|x| f64::from(*x)).collect();
    close(what, &got, truth, bound);
}

/// [`near`] of what is f64 already.
#[track_caller]
pub fn close(what: &str, got: &[f64], truth: &[f64], bound: f64) {
    assert_eq!(got.len(), truth.len(), "{what}");
    let error: f64 = got.iter().zip(truth).map(|(x, t)| (x - t) * (x - t)).sum();
    let all: f64 = truth.iter().map(|t| t * t).sum();
    assert!(error <= bound * all, "{what}: an NMSE of {:e}, not {bound:e}", error / all);
}

pub fn rms_norm(x: &[f64], eps: f64) -> Vec<f64> {
    let mean = x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64;
    let scale = 1.0 / (mean + eps).sqrt();
    x.iter().map(|v| v * scale).collect()
}

/// 1: silu, 2: gelu by its tanh formula, 3: by the error function, 4: relu squared, 5: the gate of gpt-oss.
pub fn activation(kind: u32, g: f64) -> f64 {
    match kind {
        1 => g / (1.0 + (-g).exp()),
        2 => 0.5 * g * (1.0 + (0.797_884_560_802_865_4 * (g + 0.044_715 * g * g * g)).tanh()),
        3 => 0.5 * g * (1.0 + erf(g / std::f64::consts::SQRT_2)),
        5 => g.min(7.0) / (1.0 + (-1.702 * g.min(7.0)).exp()),
        _ => g.max(0.0) * g.max(0.0),
    }
}

/// The error function, by its series: 2 / sqrt(pi) sum of (-1)^n x^(2 n + 1) / (n! (2 n + 1)).
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

/// Turns pairs of the first `n_rot` elements of a head; `turns`: a position's full turns of each pair.
pub fn rope(x: &mut [f64], n_rot: usize, halves: bool, turns: &[f64]) {
    for (i, turn) in turns.iter().enumerate().take(n_rot / 2) {
        let (a, b) = if halves { (i, i + n_rot / 2) } else { (2 * i, 2 * i + 1) };
        let (sin, cos) = (turn * std::f64::consts::TAU).sin_cos();
        (x[a], x[b]) = (x[a] * cos - x[b] * sin, x[a] * sin + x[b] * cos);
    }
}
