//! The working memory of a pass of prompts: vectors of many rows, a slab for weights in f16, what the host tells of the rows.

use std::sync::Arc;

use super::ffn::{self, Room};
use super::limits::{LEAST_ROWS, MOST_ROWS};
use super::op::{Gate, Op, Output, What};
use super::{per_layer, recurrent};
use crate::backend::cuda::driver::{Address, Buffer, Gpu};
use crate::backend::cuda::kernels::abi::Encoder;
use crate::backend::cuda::kernels::abi::{FlashTile, Mat, RowPlace, Span};
use crate::backend::cuda::kernels::kinds::Epilogue;
use crate::backend::cuda::kernels::launch;
use crate::backend::cuda::kernels::packed::Packed;
use crate::error::Result;
use crate::model::{Block, Config, Layer, Recurrent};

/// Whether a model's activations between products, and its quantized weights, are two halves, x and what rounding it to f16
/// leaves, each product taking both: two or three times the work, and the error of f16 is gone. Models so narrow have it to
/// spare: their prompts are short of work for the tensor cores, and they are the ones whose few weights hide no error. Experts are many
/// weights, and their products have one half.
pub fn two_halves(c: &Config) -> bool {
    c.n_embd <= 2048 && !ffn::there(c)
}

/// Whether all matrices are quantized: f16 and bf16 leave no second half that would be worth the time.
pub fn quantized(mats: &[Mat]) -> bool {
    mats.iter().all(|m| m.ty.is_quantized())
}

/// Bytes of a matrix in the slab.
pub fn slab_bytes(m: &Mat) -> u64 {
    if m.ty == Packed::F16 { 0 } else { u64::from(m.rows) * u64::from(m.stride) * 2 }
}

/// The matrices of each product.
fn products(body: &[Op]) -> impl Iterator<Item = Vec<Mat>> {
    body.iter().filter_map(product)
}

fn product(op: &Op) -> Option<Vec<Mat>> {
    match &op.what {
        What::Project(p) => Some(p.mats.clone()),
        What::Gate(g) => Some(g.mats().0),
        What::Embed { .. } | What::Norm(_) | What::QkNorm(_) | What::Attend(_) => None,
        What::Mix(_) | What::GateMix { .. } | What::ByLayer(_) | What::LayerGlu { .. } | What::ValueNorm { .. } => None,
        What::Beside => None,
        // Its matrices are read as they lie.
        What::Ffn(_) | What::Finish { .. } => None,
    }
}

/// Whether the products can take this model: they need rows of whole 16 bytes, and no f32.
pub fn can(c: &Config, body: &[Op]) -> bool {
    let of_layer = |l: &Layer| {
        let (a, mixer) = (l.attention(), l.recurrent.as_ref());
        let of_mixer = [mixer.map_or(0, Recurrent::in_width), mixer.map_or(0, Recurrent::out_width)];
        // Of gates two columns are one load.
        let gates = 4 * mixer.map_or(0, Recurrent::n_gates);
        [a.q_width(), a.kv_width(), l.common_ffn().map_or(0, |ffn| ffn.width), gates].into_iter().chain(of_mixer)
    };
    let mut widths = c.layers.iter().flat_map(of_layer).chain([c.n_embd]);
    // Those of betas and decays are small, and often f32.
    let is_large = |op: &&Op| !matches!(&op.what, What::Project(p) if matches!(p.output, Output::Gates));
    let mut large = body.iter().filter(is_large).filter_map(product).flatten();
    ffn::can(c, MOST_ROWS) && widths.all(|n| n % 8 == 0) && large.all(|m| m.ty != Packed::F32)
}

/// Bytes the working memory for `rows` tokens takes.
pub fn planned_bytes(c: &Config, body: &[Op], rows: usize) -> u64 {
    if !can(c, body) {
        return 0;
    }
    bytes_of(c, body, rows, two_halves(c))
}

fn bytes_of(c: &Config, body: &[Op], rows: usize, halves: bool) -> u64 {
    let own = sizes(c, body, rows, halves).iter().sum::<u64>() + tables(rows, n_classes(body)).iter().sum::<u64>();
    let rooms = Room::bytes(c, rows) + recurrent::Room::bytes(c, rows) + per_layer::Room::bytes(c, rows);
    own + normed_bytes(c, rows) + rooms
}

/// Bytes of normalized rows in f32, which feed-forward parts with launches of their own read.
fn normed_bytes(c: &Config, rows: usize) -> u64 {
    if ffn::there(c) { ((rows * c.n_embd * 4) as u64).next_multiple_of(256) } else { 0 }
}

/// How the product of a feed-forward part ends, if what stands behind it is its own doing.
pub fn ends_with(g: &Gate) -> Option<Epilogue> {
    g.gate.and(g.activation.epilogue())
}

/// Elements of a row of what a feed-forward part's products leave in f32, where something else stands between them.
fn between(body: &[Op]) -> usize {
    let of = |op: &Op| match &op.what {
        What::Gate(g) if ends_with(g).is_none() => g.mats().0.iter().map(|m| m.rows as usize).sum(),
        _ => 0,
    };
    body.iter().map(of).max().unwrap_or(0)
}

/// Bytes of each vector, in the order of [`PrefillWorkspace`]'s fields.
fn sizes(c: &Config, body: &[Op], rows: usize, halves: bool) -> [u64; 13] {
    let most = c.widths();
    let (d, h, f) = (c.n_embd, most.q, most.ffn.max(per_layer::width(c)));
    let mix = recurrent::most_out(c);
    let in_slab = |mats: Vec<Mat>| {
        let copies = if halves && quantized(&mats) { 2 } else { 1 };
        mats.iter().map(slab_bytes).sum::<u64>() * copies
    };
    let slab = products(body).map(in_slab).max().unwrap_or(0);
    let of = |n: usize| (rows * n) as u64;
    let left = |n: usize| if halves { of(n * 2) } else { 0 };
    let floats = [of(d * 4), of(d * 4), of(recurrent::most_in(c) * 4)];
    let [x, delta, qkv] = floats;
    let beside = |layer: &Layer| layer.recurrent.is_some() && layer.attention().is_there();
    let two = c.layers.iter().any(|layer| layer.block == Block::Parallel || beside(layer));
    let (second, wide) = (if two { delta } else { 0 }, of(between(body) * 4));
    let all =
        [x, delta, second, qkv, wide, of(d * 2), of(h * 2), of(mix * 2), of(f * 2), slab, left(d), left(mix), left(f)];
    all.map(|n| n.next_multiple_of(256))
}

/// Tiles of 64 rows that sequences of at least [`LEAST_ROWS`] can have in a pass, and so the most such sequences.
pub fn most_tiles(rows: usize) -> usize {
    rows.div_ceil(LEAST_ROWS)
}

/// Classes of layers, whose pages' parts lie apart.
fn n_classes(body: &[Op]) -> usize {
    let class = |op: &Op| if let What::Attend(attend) = &op.what { attend.cache_class as usize } else { 0 };
    body.iter().map(class).max().unwrap_or(0) + 1
}

/// Bytes of what the host tells of a pass: tokens; places and tiles of several sequences, for each class; their states.
fn tables(rows: usize, n_classes: usize) -> [u64; 4] {
    let [places, tiles] = of_class(rows).map(|bytes| n_classes as u64 * bytes);
    let [tokens, spans] = [rows * 4, most_tiles(rows) * size_of::<Span>()].map(|n| (n as u64).next_multiple_of(256));
    [tokens, places, tiles, spans]
}

/// Bytes of the places and of the tiles for one class.
fn of_class(rows: usize) -> [u64; 2] {
    let bytes = [rows * size_of::<RowPlace>(), most_tiles(rows) * size_of::<FlashTile>()];
    bytes.map(|n| (n as u64).next_multiple_of(256))
}

/// Addresses inside one allocation, for a number of rows.
pub struct PrefillWorkspace {
    /// Tokens it is for.
    pub rows: usize,
    buffer: Buffer,
    /// The driver's function that describes matrices to the tensor cores' loads, where the device has such a path.
    pub encode: Encoder,
    /// Whether there are the three `left`.
    pub halves: bool,
    /// [rows, D] f32, the residual stream
    pub x: Address,
    /// [rows, D] f32, what is to be added to it; the second for blocks that add two things
    pub delta: [Address; 2],
    /// [rows, H + 2 G] f32, or what a mixer with a state begins with
    pub qkv: Address,
    /// [rows, F or 2 F] f32: up, or gate and up, where something else than their product stands between them and down
    pub wide: Address,
    /// [rows, D] f16, normalized
    pub h: Address,
    /// [rows, H] f16
    pub q: Address,
    /// [rows, H] f16
    pub mix: Address,
    /// [rows, F] f16
    pub act: Address,
    /// The weights of a product in f16, and what that rounding leaves.
    pub slab: Address,
    /// What rounding leaves of `h`, `mix` and `act`.
    left: [Address; 3],
    /// [rows, D] f32, normalized, where a feed-forward part reads them; else null
    pub normed: Address,
    /// What feed-forward parts with launches of their own have.
    pub ffn: Room,
    /// What mixers with a state have, and gated attention.
    pub recurrent: recurrent::Room,
    /// What embeddings by layer have.
    pub per_layer: per_layer::Room,
    /// [most_tiles(rows)] Span, where there are states
    pub spans: Address,
    /// [rows] u32
    pub tokens: Address,
    /// Classes of layers.
    pub n_classes: usize,
    /// [n_classes, rows] RowPlace
    places: Address,
    /// [n_classes, most_tiles(rows)] FlashTile
    tiles: Address,
}

impl PrefillWorkspace {
    /// For `rows` tokens.
    pub fn new(gpu: &Arc<Gpu>, c: &Config, body: &[Op], rows: usize, halves: bool) -> Result<PrefillWorkspace> {
        let buffer = Buffer::new(gpu, bytes_of(c, body, rows, halves) as usize)?;
        let mut at = buffer.at();
        let mut take = |bytes: u64| {
            at += bytes;
            at - bytes
        };
        let [x, delta, second, qkv, wide, h, q, mix, act, slab, left @ ..] =
            sizes(c, body, rows, halves).map(&mut take);
        let [tokens, places, tiles, spans] = tables(rows, n_classes(body)).map(&mut take);
        let normed = take(normed_bytes(c, rows));
        let ffn = Room::at(take(Room::bytes(c, rows)), c, rows);
        let recurrent = recurrent::Room::at(take(recurrent::Room::bytes(c, rows)), c, rows);
        let per_layer = per_layer::Room::at(take(per_layer::Room::bytes(c, rows)), c, rows);
        let normed = if ffn::there(c) { normed } else { 0 };
        Ok(PrefillWorkspace {
            rows,
            buffer,
            encode: launch::gemm_encoder(),
            halves,
            x,
            delta: [delta, second],
            qkv,
            wide,
            h,
            q,
            mix,
            act,
            slab,
            left,
            normed,
            ffn,
            recurrent,
            per_layer,
            spans,
            tokens,
            n_classes: n_classes(body),
            places,
            tiles,
        })
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> u64 {
        self.buffer.bytes() as u64
    }

    /// The rows' places, with the tables of a class.
    pub fn places(&self, class: usize) -> Address {
        self.places + class as u64 * of_class(self.rows)[0]
    }

    /// The tiles, with the tables of a class.
    pub fn tiles(&self, class: usize) -> Address {
        self.tiles + class as u64 * of_class(self.rows)[1]
    }

    /// Where what rounding leaves of these is; null where there is none.
    pub fn left(&self, of: Address) -> Address {
        match [self.h, self.mix, self.act].iter().position(|at| *at == of) {
            Some(i) if self.halves => self.left[i],
            _ => 0,
        }
    }
}
