//! Many tokens through the tensor cores, layer by layer: of one sequence, or of several that share the pass. A row's bits are the
//! same in any company: products and norms know rows only, attention goes by the sequence's own tiles.
//!
//! Weights that are not f16 are expanded into a slab before each product; activations between products are f16, sums, the
//! residual stream and the inputs of norms f32. A pass takes up to [`MOST_ROWS`] tokens; the host stays at most
//! [`LAYERS_AHEAD`] layers ahead of the device, which bounds how late a cancel is seen.
//!
//! Products need rows of whole 16 bytes: a model without them, or of f32 matrices, takes its prompts token by token.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::backend::cuda::driver::Address;
use crate::backend::cuda::driver::{Buffer, Event, Gpu, Stream};
use crate::backend::cuda::kernels::abi::{Flash, FlashTile, Gemm, Mat, PrefillNorm, PrefillRope, RowPlace};
use crate::backend::cuda::kernels::launch as ffi;
use crate::backend::cuda::kernels::packed::Packed;
use crate::backend::cuda::weights::layout::{DeviceWeights, Layer};
use crate::backend::{PAGE_TOKENS, RunControl, TapEvent, TapObserver};
use crate::error::{Error, Result};
use crate::model::{self, Activation, Config, RopePairing};

/// Most tokens of one pass.
pub const MOST_ROWS: usize = 2048;
/// Fewer tokens than this go one by one.
pub const LEAST_ROWS: usize = 8;
/// Layers that may be queued before the host waits.
const LAYERS_AHEAD: usize = 4;

const F32: u32 = 0;
const ADD: u32 = 1;
const SILU: u32 = 3;
const GELU: u32 = 4;

/// Sizes of everything, in bytes for `rows` tokens.
struct Sizes {
    parts: [u64; 11],
}

/// The matrices of each product of a layer.
fn products(l: &Layer) -> [Vec<Mat>; 4] {
    [vec![l.q, l.k, l.v], vec![l.o], vec![l.gate, l.up], vec![l.down]]
}

/// Whether a model's activations between products, and its quantized weights, are two halves, x and what rounding it to f16
/// leaves, each product taking both: two or three times the work, and the error of f16 is gone. Models so narrow have it to
/// spare: their prompts are short of work for the tensor cores, and they are the ones whose few weights hide no error.
pub fn two_halves(c: &Config) -> bool {
    c.n_embd <= 2048
}

fn sizes(c: &Config, weights: &DeviceWeights, rows: usize, halves: bool) -> Sizes {
    let most = c.widths();
    let (d, h, g, f) = (c.n_embd, most.q, most.kv, most.ffn);
    let slab = weights
        .layers
        .iter()
        .flat_map(products)
        .map(|mats| mats.iter().map(slab_bytes).sum::<u64>() * if halves && quantized(&mats) { 2 } else { 1 })
        .max()
        .unwrap_or(0);
    let of = |n: usize| (rows * n) as u64;
    // x, delta, qkv f32; h, q, mix, act f16; the slab; what is left of h, mix, act. Tokens are behind these.
    let left = |n: usize| if halves { of(n * 2) } else { 0 };
    let parts = [of(d * 4), of(d * 4), of((h + 2 * g) * 4), of(d * 2), of(h * 2), of(h * 2), of(f * 2), slab];
    let left = [left(d), left(h), left(f)];
    let mut all = [0; 11];
    all.iter_mut().zip(parts.into_iter().chain(left)).for_each(|(to, n)| *to = n.next_multiple_of(256));
    Sizes { parts: all }
}

/// Of f16 and bf16 no half is left that would be worth the time.
fn quantized(mats: &[Mat]) -> bool {
    mats.iter().all(|m| m.ty.is_quantized())
}

fn slab_bytes(m: &Mat) -> u64 {
    if m.ty == Packed::F16 { 0 } else { u64::from(m.rows) * u64::from(m.stride) * 2 }
}

/// Whether the products can take this model.
pub fn can(c: &Config, weights: &DeviceWeights) -> bool {
    let of_layer = |l: &model::Layer| [l.attention().q_width(), l.attention().kv_width(), l.dense().width];
    let mut widths = c.layers.iter().flat_map(of_layer).chain([c.n_embd]);
    widths.all(|n| n % 8 == 0) && weights.layers.iter().flat_map(products).flatten().all(|m| m.ty != Packed::F32)
}

/// Bytes the working memory for `rows` tokens takes.
pub fn planned_bytes(c: &Config, weights: &DeviceWeights, rows: usize) -> u64 {
    if !can(c, weights) {
        return 0;
    }
    bytes_of(c, weights, rows, two_halves(c))
}

fn bytes_of(c: &Config, weights: &DeviceWeights, rows: usize, halves: bool) -> u64 {
    sizes(c, weights, rows, halves).parts.iter().sum::<u64>() + tables(rows).iter().sum::<u64>()
}

/// Tiles of 64 rows that sequences of at least [`LEAST_ROWS`] can have in a pass.
fn most_tiles(rows: usize) -> usize {
    rows.div_ceil(LEAST_ROWS)
}

/// Bytes of what the host tells of a pass: tokens; places and tiles of several sequences.
fn tables(rows: usize) -> [u64; 3] {
    let bytes = [rows * 4, rows * size_of::<RowPlace>(), most_tiles(rows) * size_of::<FlashTile>()];
    bytes.map(|n| (n as u64).next_multiple_of(256))
}

/// Working memory for a number of tokens.
pub struct Rows {
    rows: usize,
    buffer: Buffer,
    encode: usize,
    parts: [Address; 11],
    halves: bool,
    tokens: Address,
    places: Address, // [rows] RowPlace
    tiles: Address,  // [most_tiles(rows)] FlashTile
}

/// Consecutive tokens of one sequence in a pass.
pub struct Part<'a> {
    /// Addresses of the sequence's pages, on the device.
    pub pages: Address,
    /// Index of the sequence in the batch.
    pub sequence: usize,
    /// Position of the first token.
    pub start: usize,
    /// At least one; [`LEAST_ROWS`] where there are several parts.
    pub tokens: &'a [u32],
}

/// Where a pass stands.
pub struct Pass<'a> {
    pub gpu: &'a Arc<Gpu>,
    pub config: &'a Config,
    pub weights: &'a DeviceWeights,
    pub stream: &'a Stream,
}

impl Rows {
    /// For `rows` tokens.
    pub fn new(gpu: &Arc<Gpu>, c: &Config, weights: &DeviceWeights, rows: usize, halves: bool) -> Result<Rows> {
        let sizes = sizes(c, weights, rows, halves);
        let buffer = Buffer::new(gpu, bytes_of(c, weights, rows, halves) as usize)?;
        let mut at = buffer.at();
        let parts = sizes.parts.map(|n| {
            let here = at;
            at += n;
            here
        });
        let mut encode: *mut std::ffi::c_void = std::ptr::null_mut();
        // SAFETY: writes one pointer: the driver's function, or null where the device has no such path.
        if unsafe { ffi::kgc_gemm_encoder(&mut encode) } != 0 {
            encode = std::ptr::null_mut();
        }
        let [tokens, places, _] = tables(rows);
        let (places, tiles) = (at + tokens, at + tokens + places);
        Ok(Rows { rows, buffer, encode: encode as usize, parts, halves, tokens: at, places, tiles })
    }

    /// Tokens it is for.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> u64 {
        self.buffer.bytes() as u64
    }

    /// Where what rounding leaves of these is; null where there is none.
    fn left(&self, of: Address) -> Address {
        let [_, _, _, h, _, mix, act, _, left @ ..] = self.parts;
        match [h, mix, act].iter().position(|at| *at == of) {
            Some(i) if self.halves => left[i],
            _ => 0,
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn gemm(
        &self,
        p: &Pass<'_>,
        m: usize,
        x: Address,
        mats: &[Mat],
        bias: [Address; 3],
        y: Address,
        epilogue: u32,
    ) -> Result<()> {
        let (mut w, mut w_lo, mut n) = ([0; 3], [0; 3], [0; 3]);
        let two = self.halves && quantized(mats);
        let mut slab = self.parts[7];
        for (i, mat) in mats.iter().enumerate() {
            n[i] = mat.rows;
            w[i] = mat.a;
            if mat.ty != Packed::F16 {
                w[i] = slab;
                slab += slab_bytes(mat);
                if two {
                    w_lo[i] = slab;
                    slab += slab_bytes(mat);
                }
                // SAFETY: the slab holds every matrix of a product, and what is left of it, one behind the other.
                p.gpu.check(unsafe { ffi::kgc_expand(mat, 0, mat.rows, w[i], w_lo[i], p.stream.raw()) })?;
            }
        }
        let out: u32 = if epilogue >= SILU { n[0] } else { n.iter().sum() };
        let gemm = Gemm {
            x,
            x_lo: self.left(x),
            w,
            w_lo,
            bias,
            y,
            y_lo: self.left(y),
            encode: self.encode as u64,
            m: m as u32,
            k: mats[0].cols,
            n,
            n_w: mats.len() as u32,
            x_stride: mats[0].cols,
            w_stride: mats[0].stride,
            y_stride: out,
            epilogue,
            n_sms: p.gpu.n_sm,
            tile: 0,
            pdl: 0,
            alpha: 1.0,
            out_scale: 1.0,
        };
        // SAFETY: x, y and the slab are of these shapes by `sizes`, the weights by the layout.
        p.gpu.check(unsafe { ffi::kgc_gemm(&gemm, p.stream.raw()) })
    }

    fn norm(&self, p: &Pass<'_>, m: usize, add: Option<Address>, w: Address, tap: Address) -> Result<()> {
        let [x, delta, _, h, ..] = self.parts;
        let d = p.config.n_embd as u32;
        let norm = PrefillNorm {
            x,
            delta: if add.is_some() { delta } else { 0 },
            post_w: add.unwrap_or(0),
            w,
            out: h,
            out_lo: self.left(h),
            tap,
            n_tokens: m as u32,
            dim: d,
            out_stride: d,
            pdl: 0,
            eps: p.config.norm_eps,
        };
        // SAFETY: x, delta, h and the tap have m rows of n_embd.
        p.gpu.check(unsafe { ffi::kgc_prefill_norm(&norm, p.stream.raw()) })
    }

    /// What a half layer adds: straight into the stream, or, where a post norm or an eye waits for it, into `delta`; x + (s + b)
    /// has the same bits either way. Returns the post norm of what is still to be added.
    #[allow(clippy::too_many_arguments)]
    fn add(
        &self,
        p: &Pass<'_>,
        m: usize,
        from: Address,
        mat: Mat,
        bias: Address,
        post: Address,
        tapped: bool,
    ) -> Result<Option<Address>> {
        let [x, delta, ..] = self.parts;
        let apart = tapped || post != 0;
        self.gemm(p, m, from, &[mat], [bias, 0, 0], if apart { delta } else { x }, if apart { F32 } else { ADD })?;
        Ok(apart.then_some(post))
    }

    /// `one`: pages and start of the only sequence; `n_tiles`: of several, whose places and tiles are in the tables.
    fn attention(
        &self,
        p: &Pass<'_>,
        m: usize,
        one: (Address, usize),
        n_tiles: usize,
        i: usize,
        taps: [Address; 2],
    ) -> Result<()> {
        let (pages, start) = one;
        let (places, tiles) = if n_tiles > 0 { (self.places, self.tiles) } else { (0, 0) };
        let (l, a) = (&p.weights.layers[i], p.config.layers[i].attention());
        let turned = p.config.rope_of(a);
        let [_, _, qkv, _, q, mix, ..] = self.parts;
        let (hw, g) = (a.q_width(), a.kv_width());
        let tile = (PAGE_TOKENS * a.head_dim) as u64;
        let k_offset = (2 * i * a.n_kv_heads) as u64 * tile;
        let rope = PrefillRope {
            qkv,
            bias: 0,
            q_norm: l.q_norm,
            k_norm: l.k_norm,
            turns: l.turns,
            q,
            pages,
            tap_q: taps[0],
            tap_k: taps[1],
            k_offset,
            v_offset: k_offset + a.n_kv_heads as u64 * tile,
            head_stride: tile,
            token_stride: a.head_dim as u64,
            n_tokens: m as u32,
            start: start as u32,
            n_heads: a.n_heads as u32,
            n_kv: a.n_kv_heads as u32,
            head_dim: a.head_dim as u32,
            n_rot: turned.n_rot() as u32,
            halves: u32::from(turned.pairing == RopePairing::Halves),
            qkv_stride: (hw + 2 * g) as u32,
            q_stride: hw as u32,
            pdl: 0,
            eps: p.config.norm_eps,
            magnitude: turned.magnitude,
            rows: places,
        };
        let flash = Flash {
            q,
            out: mix,
            out_lo: self.left(mix),
            pages,
            k_offset,
            v_offset: rope.v_offset,
            head_stride: tile,
            token_stride: a.head_dim as u64,
            n_tokens: m as u32,
            start: start as u32,
            n_heads: a.n_heads as u32,
            n_kv: a.n_kv_heads as u32,
            head_dim: a.head_dim as u32,
            q_stride: hw as u32,
            out_stride: hw as u32,
            window: a.window.unwrap_or(0),
            out_f32: 0,
            pdl: 0,
            wgmma: u32::from(self.encode != 0),
            n_sms: p.gpu.n_sm,
            scale: a.scale,
            softcap: a.softcap.unwrap_or(0.0),
            tiles,
            n_tiles: n_tiles as u32,
        };
        // SAFETY: the buffers have m rows of these widths; the pages cover the positions, checked by the caller.
        unsafe {
            p.gpu.check(ffi::kgc_prefill_rope(&rope, p.stream.raw()))?;
            p.gpu.check(ffi::kgc_flash_prefill(&flash, p.stream.raw()))
        }
    }

    /// Tells the device of several sequences; how many tiles they have.
    fn tell_parts(&self, p: &Pass<'_>, parts: &[Part<'_>]) -> Result<usize> {
        let (mut places, mut tiles) = (Vec::new(), Vec::new());
        for part in parts {
            let Part { pages, start, tokens, .. } = *part;
            let (row0, n_tokens) = (places.len() as u32, tokens.len() as u32);
            places.extend((start..start + tokens.len()).map(|i| RowPlace { pages, position: i as u32, unused: 0 }));
            let tile = |i: usize| FlashTile { pages, row0, n_tokens, start: start as u32, tile: 64 * i as u32 };
            tiles.extend((0..tokens.len().div_ceil(64)).map(tile));
        }
        // Longest rows start first.
        tiles.sort_by_key(|t| std::cmp::Reverse(t.start + t.tile));
        if tiles.len() > most_tiles(self.rows) {
            return Err(Error::Internal { message: format!("{} tiles in a pass of {} rows", tiles.len(), self.rows) });
        }
        // SAFETY: there is room for a place of each row and for so many tiles; the host's are staged before this returns.
        unsafe {
            p.stream.upload(self.places, places.as_ptr().cast(), size_of_val(&places[..]))?;
            p.stream.upload(self.tiles, tiles.as_ptr().cast(), size_of_val(&tiles[..]))?;
        }
        Ok(tiles.len())
    }

    /// Puts the parts, one behind the other, through all layers; their keys and values are in the cache afterwards. Returns the
    /// address of the first token's residual stream, [m, n_embd] f32. A tap sees one part only.
    pub fn run(&self, p: &Pass<'_>, parts: &[Part<'_>], run: &mut RunControl<'_>) -> Result<Address> {
        let tokens: Vec<u32> = parts.iter().flat_map(|part| part.tokens).copied().collect();
        let (c, m) = (p.config, tokens.len());
        let [x, delta, qkv, h, _, mix, act, ..] = self.parts;
        let most = c.widths();
        let (d, hw, g) = (c.n_embd, most.q, most.kv);
        if m > self.rows || m == 0 || (parts.len() > 1 && run.tap.is_some()) {
            return Err(Error::Internal { message: format!("{m} tokens in a pass of {}", self.rows) });
        }
        // SAFETY: there is room for `rows` tokens; the host's are staged before this returns; x has `rows` rows.
        unsafe {
            p.stream.upload(self.tokens, tokens.as_ptr().cast(), m * 4)?;
            let embd = &p.weights.token_embd;
            p.gpu.check(ffi::kgc_embed_rows(
                embd,
                self.tokens,
                m as u32,
                c.embedding_scale,
                x,
                d as u32,
                p.stream.raw(),
            ))?;
        }
        let tapped = run.tap.is_some();
        let n_tiles = if parts.len() > 1 { self.tell_parts(p, parts)? } else { 0 };
        let Part { pages, sequence, start, .. } = parts[0];
        let widest = d.max(hw);
        let tap_buffer = if tapped { Some(Buffer::new(p.gpu, m * widest * 8)?) } else { None };
        let (tap_a, tap_b) = tap_buffer.as_ref().map_or((0, 0), |b| (b.at(), b.at() + (m * widest * 4) as u64));
        let mut eye = Eye { stream: p.stream, sequence, position: start, rows: m, tap: run.tap.as_deref_mut() };
        eye.show("embed", -1, x, d, d)?;
        let marks = (0..LAYERS_AHEAD).map(|_| Event::new(p.gpu, false)).collect::<Result<Vec<_>>>()?;
        let mut pending: Option<Address> = None;
        for (i, l) in p.weights.layers.iter().enumerate() {
            if run.cancel.load(Ordering::Acquire) {
                return Err(Error::Cancelled);
            }
            if i >= LAYERS_AHEAD {
                marks[i % LAYERS_AHEAD].wait()?;
            }
            let layer = i as i32;
            self.norm(p, m, pending, l.attn_norm, tap_a)?;
            if i > 0 {
                eye.show("resid", layer - 1, x, d, d)?;
            }
            eye.show("attn_norm", layer, tap_a, d, d)?;
            self.gemm(p, m, h, &[l.q, l.k, l.v], [l.q_bias, l.k_bias, l.v_bias], qkv, F32)?;
            self.attention(p, m, (pages, start), n_tiles, i, [tap_a, tap_b])?;
            eye.show("q_rope", layer, tap_a, hw, hw)?;
            eye.show("k_rope", layer, tap_b, g, g)?;
            eye.show("v", layer, qkv + 4 * (hw + g) as u64, g, hw + 2 * g)?;
            eye.show_halves("attn_mix", layer, [mix, self.left(mix)], hw)?;
            pending = self.add(p, m, mix, l.o, l.o_bias, l.post_attn_norm, tapped)?;
            eye.show("attn_out", layer, delta, d, d)?;
            self.norm(p, m, pending, l.ffn_norm, tap_a)?;
            eye.show("ffn_norm", layer, tap_a, d, d)?;
            let gate = if c.layers[i].dense().activation == Activation::Silu { SILU } else { GELU };
            self.gemm(p, m, h, &[l.gate, l.up], [0; 3], act, gate)?;
            eye.show_halves("ffn_act", layer, [act, self.left(act)], most.ffn)?;
            pending = self.add(p, m, act, l.down, 0, l.post_ffn_norm, tapped)?;
            eye.show("ffn_out", layer, delta, d, d)?;
            marks[i % LAYERS_AHEAD].record(p.stream)?;
        }
        if pending.is_some() {
            // For the stream alone; h is not read.
            self.norm(p, m, pending, p.weights.output_norm, 0)?;
        }
        eye.show("resid", c.n_layers() as i32 - 1, x, d, d)?;
        // The tap's buffer goes back only when nothing uses it any more.
        if tapped {
            p.stream.wait()?;
        }
        Ok(x)
    }
}

/// Whoever listens.
struct Eye<'a, 'b> {
    stream: &'a Stream,
    sequence: usize,
    position: usize,
    rows: usize,
    tap: Option<&'a mut (dyn TapObserver + 'b)>,
}

impl Eye<'_, '_> {
    fn wants(&self, name: &str, layer: i32) -> bool {
        self.tap.as_ref().is_some_and(|tap| tap.wants(name, layer))
    }

    /// Shows `cols` of each row; rows lie `stride` elements apart.
    fn show(&mut self, name: &'static str, layer: i32, from: Address, cols: usize, stride: usize) -> Result<()> {
        if !self.wants(name, layer) {
            return Ok(());
        }
        let mut all = vec![0f32; (self.rows - 1) * stride + cols];
        // SAFETY: each call names a buffer of so many rows of this stride.
        unsafe { self.stream.download(from, &mut all)? };
        let data: Vec<f32> =
            if cols == stride { all } else { all.chunks(stride).flat_map(|r| &r[..cols]).copied().collect() };
        self.tell(name, layer, cols, &data);
        Ok(())
    }

    /// Shows rows of f16 and what their rounding has left, where that is not null.
    fn show_halves(&mut self, name: &'static str, layer: i32, from: [Address; 2], cols: usize) -> Result<()> {
        if !self.wants(name, layer) {
            return Ok(());
        }
        let mut data = vec![0f32; self.rows * cols];
        let mut halves = vec![half::f16::ZERO; data.len()];
        for from in from.into_iter().filter(|a| *a != 0) {
            // SAFETY: as above.
            unsafe { self.stream.download(from, &mut halves)? };
            data.iter_mut().zip(&halves).for_each(|(a, h)| *a += h.to_f32());
        }
        self.tell(name, layer, cols, &data);
        Ok(())
    }

    fn tell(&mut self, name: &'static str, layer: i32, cols: usize, data: &[f32]) {
        let Some(tap) = self.tap.as_mut() else { return };
        tap.show(&TapEvent {
            name,
            layer,
            sequence: self.sequence,
            position: self.position,
            rows: self.rows,
            cols,
            data,
        });
    }
}
