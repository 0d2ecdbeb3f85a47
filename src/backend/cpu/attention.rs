//! Attention over the paged cache, for one KV head and a few of its query rows at a time.
//!
//! A page of one layer and KV head holds `PAGE_TOKENS` keys as `[4 blocks, head_dim, 16 keys]`, so that a lane is a
//! key, and as many values as `[64 keys, head_dim]`, so that a lane is an element; all f16. Where values are parts of keys
//! (latents) there are keys alone. Positions are cut into
//! *spans* of [`SPAN`], aligned to position 0. Inside a span pages are taken in order with a running maximum (Milakov
//! and Gimelshein 2018; Dao et al. 2022), then spans are merged in order: a row's sum depends on its position and the
//! cache, not on how many rows or threads there are.

#![allow(clippy::needless_range_loop)] // an index runs through several register arrays at once

use super::cache::PageAddress;
use super::simd::{LANES, Simd, dispatch};
use super::vector::softcap_lanes;
use crate::backend::PAGE_TOKENS;

/// Positions that one partial result covers.
pub const SPAN: usize = 512;

/// Query rows that share the loading of keys and values.
pub const ROWS: usize = 4;

const BLOCKS: usize = PAGE_TOKENS / LANES;

/// What the rows of one call have in common.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Elements of a head.
    pub head_dim: usize,
    /// Elements of a head of values.
    pub value_dim: usize,
    /// `value_dim` rounded up to 16: the stored length of a value, and that of its sum.
    pub padded: usize,
    /// Whether values are no more than the first elements of keys, which are stored once.
    pub values_in_keys: bool,
    /// Multiplies the scores.
    pub scale: f32,
    /// Soft cap of the scores; 0: none.
    pub softcap: f32,
    /// Positions a row sees, itself included; 0: all.
    pub window: usize,
}

/// One row: a query head of one token.
#[derive(Clone, Copy)]
pub struct Row {
    /// `[head_dim]`.
    pub q: *const f32,
    /// Position of the token.
    pub position: usize,
    /// `[padded]` weighted values, not yet divided, then the maximum and the sum of the weights.
    pub partial: *mut f32,
}

/// Elements of a partial result.
pub const fn partial_len(padded: usize) -> usize {
    padded + 2
}

impl Shape {
    /// First position a row at `position` sees.
    pub fn first(&self, position: usize) -> usize {
        if self.window == 0 { 0 } else { (position + 1).saturating_sub(self.window) }
    }
}

dispatch! {
    /// Partial results of up to [`ROWS`] rows over the positions of one span that each of them sees.
    /// `pages` are the pages of positions 0, 64, ...; keys and values stand at these elements of each.
    pub fn span(shape: Shape, rows: &[Row], span: usize, pages: &[PageAddress], keys_at: usize, values_at: usize) = span_rows
}

#[inline(always)]
unsafe fn span_rows<S: Simd>(
    shape: Shape,
    rows: &[Row],
    span: usize,
    pages: &[PageAddress],
    keys_at: usize,
    values_at: usize,
) {
    // SAFETY: the caller's rows and pages have the shapes that `Row` and the module state.
    unsafe {
        match rows.len() {
            4 => span_tile::<S, 4>(shape, rows, span, pages, keys_at, values_at),
            3 => span_tile::<S, 3>(shape, rows, span, pages, keys_at, values_at),
            2 => span_tile::<S, 2>(shape, rows, span, pages, keys_at, values_at),
            1 => span_tile::<S, 1>(shape, rows, span, pages, keys_at, values_at),
            _ => {}
        }
    }
}

#[inline(always)]
unsafe fn span_tile<S: Simd, const R: usize>(
    shape: Shape,
    rows: &[Row],
    span: usize,
    pages: &[PageAddress],
    keys_at: usize,
    values_at: usize,
) {
    // SAFETY: as `span_rows`.
    unsafe {
        let mut most = [f32::NEG_INFINITY; R];
        let mut sum = [0.0_f32; R];
        for row in rows.iter().take(R) {
            std::slice::from_raw_parts_mut(row.partial, shape.padded).fill(0.0);
        }
        let seen_from = (0..R).map(|r| shape.first(rows[r].position)).min().unwrap_or(0).max(span * SPAN);
        let seen_to = (0..R).map(|r| rows[r].position + 1).max().unwrap_or(0).min((span + 1) * SPAN);
        for page in seen_from / PAGE_TOKENS..seen_to.div_ceil(PAGE_TOKENS) {
            let (keys, values) = (pages[page].0.add(keys_at), pages[page].0.add(values_at));
            let base = page * PAGE_TOKENS;
            // The next page is far away in memory and not seen coming by the processor.
            let next = if (page + 1) * PAGE_TOKENS < seen_to { pages[page + 1].0 } else { pages[page].0 };
            let (next_keys, next_values) = (next.add(keys_at), next.add(values_at));
            let mut scores = [[S::splat(0.0); BLOCKS]; R];
            for d in 0..shape.head_dim {
                S::prefetch(next_keys.add(d * PAGE_TOKENS));
                S::prefetch(next_keys.add(d * PAGE_TOKENS + 32));
                S::prefetch(next_values.add(d * PAGE_TOKENS));
                S::prefetch(next_values.add(d * PAGE_TOKENS + 32));
                for b in 0..BLOCKS {
                    let k = S::load_f16(keys.add((b * shape.head_dim + d) * LANES));
                    for r in 0..R {
                        scores[r][b] = S::fma(k, S::splat(*rows[r].q.add(d)), scores[r][b]);
                    }
                }
            }
            let mut weights = [[0.0_f32; PAGE_TOKENS]; R];
            let mut seen = [(0, 0); R];
            for r in 0..R {
                let from = shape.first(rows[r].position).max(base) - base;
                let to = (rows[r].position + 1).min(base + PAGE_TOKENS).saturating_sub(base);
                if from >= to {
                    continue;
                }
                seen[r] = (from, to);
                let mut top = S::splat(f32::NEG_INFINITY);
                for b in 0..BLOCKS {
                    let mut s = S::mul(scores[r][b], S::splat(shape.scale));
                    if shape.softcap != 0.0 {
                        s = softcap_lanes::<S>(s, shape.softcap);
                    }
                    let first = from.saturating_sub(b * LANES).min(LANES);
                    let last = to.saturating_sub(b * LANES).min(LANES);
                    s = S::keep(s, first, last, f32::NEG_INFINITY);
                    scores[r][b] = s;
                    top = S::max(s, top);
                }
                let new = most[r].max(S::largest(top));
                let shrink = scalar_exp::<S>(most[r] - new);
                let mut total = S::splat(0.0);
                for b in 0..BLOCKS {
                    let w = S::exp(S::sub(scores[r][b], S::splat(new)));
                    S::store(weights[r].as_mut_ptr().add(b * LANES), w);
                    total = S::add(total, w);
                }
                sum[r] = sum[r].mul_add(shrink, S::sum(total));
                if new > most[r] && shrink != 1.0 {
                    for i in (0..shape.padded).step_by(LANES) {
                        let p = rows[r].partial.add(i);
                        S::store(p, S::mul(S::load(p), S::splat(shrink)));
                    }
                }
                most[r] = new;
            }
            let from = (0..R).filter(|&r| seen[r].1 > 0).map(|r| seen[r].0).min().unwrap_or(0);
            let to = (0..R).map(|r| seen[r].1).max().unwrap_or(0);
            if shape.values_in_keys {
                weigh_keys::<S, R>(shape, rows, keys, &weights, from, to);
                continue;
            }
            let mut d = 0;
            while d + 4 * LANES <= shape.padded {
                weigh::<S, R, 4>(shape, rows, values, d, &weights, from, to);
                d += 4 * LANES;
            }
            while d < shape.padded {
                weigh::<S, R, 1>(shape, rows, values, d, &weights, from, to);
                d += LANES;
            }
        }
        for r in 0..R {
            *rows[r].partial.add(shape.padded) = most[r];
            *rows[r].partial.add(shape.padded + 1) = sum[r];
        }
    }
}

/// Adds the weighted values of one page to elements `d .. d + 16 V` of the partial results. Weights of positions that
/// a row does not see are zero, which adds nothing: cached values are finite.
#[inline(always)]
unsafe fn weigh<S: Simd, const R: usize, const V: usize>(
    shape: Shape,
    rows: &[Row],
    values: *const u16,
    d: usize,
    weights: &[[f32; PAGE_TOKENS]; R],
    from: usize,
    to: usize,
) {
    // SAFETY: as `span_rows`.
    unsafe {
        let mut acc = [[S::splat(0.0); V]; R];
        for r in 0..R {
            for v in 0..V {
                acc[r][v] = S::load(rows[r].partial.add(d + v * LANES));
            }
        }
        for key in from..to {
            let mut value = [S::splat(0.0); V];
            for v in 0..V {
                value[v] = S::load_f16(values.add(key * shape.padded + d + v * LANES));
            }
            for r in 0..R {
                let w = S::splat(weights[r][key]);
                for v in 0..V {
                    acc[r][v] = S::fma(value[v], w, acc[r][v]);
                }
            }
        }
        for r in 0..R {
            for v in 0..V {
                S::store(rows[r].partial.add(d + v * LANES), acc[r][v]);
            }
        }
    }
}

/// [`weigh`] where values are parts of keys, of which a lane is a position: for each element a sum over the lanes.
#[inline(always)]
unsafe fn weigh_keys<S: Simd, const R: usize>(
    shape: Shape,
    rows: &[Row],
    keys: *const u16,
    weights: &[[f32; PAGE_TOKENS]; R],
    from: usize,
    to: usize,
) {
    // SAFETY: as `span_rows`.
    unsafe {
        for d in 0..shape.value_dim {
            let mut acc = [S::splat(0.0); R];
            for b in from / LANES..to.div_ceil(LANES) {
                let (first, last) = (from.saturating_sub(b * LANES), (to - b * LANES).min(LANES));
                // What nobody sees may be anything, and no number times zero is none.
                let value = S::keep(S::load_f16(keys.add((b * shape.head_dim + d) * LANES)), first, last, 0.0);
                for r in 0..R {
                    acc[r] = S::fma(value, S::load(weights[r].as_ptr().add(b * LANES)), acc[r]);
                }
            }
            for r in 0..R {
                *rows[r].partial.add(d) += S::sum(acc[r]);
            }
        }
    }
}

#[inline(always)]
unsafe fn scalar_exp<S: Simd>(x: f32) -> f32 {
    // SAFETY: as the caller's.
    unsafe { S::to_array(S::exp(S::splat(x)))[0] }
}

dispatch! {
    /// Merges the partial result of the next span into the running one.
    pub fn absorb(shape: Shape, run: *mut f32, part: *const f32) = absorb_span
}

#[inline(always)]
unsafe fn absorb_span<S: Simd>(shape: Shape, run: *mut f32, part: *const f32) {
    // SAFETY: both hold `partial_len` elements.
    unsafe {
        let (m, l) = (run.add(shape.padded), run.add(shape.padded + 1));
        let (pm, pl) = (*part.add(shape.padded), *part.add(shape.padded + 1));
        let new = if pm > *m { pm } else { *m };
        let (a, b) = (scalar_exp::<S>(*m - new), scalar_exp::<S>(pm - new));
        *m = new;
        *l = pl.mul_add(b, *l * a);
        for d in (0..shape.padded).step_by(LANES) {
            let old = S::mul(S::load(run.add(d)), S::splat(a));
            S::store(run.add(d), S::fma(S::load(part.add(d)), S::splat(b), old));
        }
    }
}

dispatch! {
    /// Divides a complete result by the sum of its weights, and that of a sink where there is one, into `out` (`[value_dim]`).
    pub fn finish(shape: Shape, run: *const f32, sink: Option<f32>, out: *mut f32) = finish_row
}

#[inline(always)]
unsafe fn finish_row<S: Simd>(shape: Shape, run: *const f32, sink: Option<f32>, out: *mut f32) {
    // SAFETY: `run` holds `partial_len` elements, `out` value_dim.
    unsafe {
        let (most, sum) = (*run.add(shape.padded), *run.add(shape.padded + 1));
        let (scale, total) = match sink {
            None => (1.0, sum),
            Some(sink) => {
                let new = if sink > most { sink } else { most };
                let shrink = scalar_exp::<S>(most - new);
                (shrink, sum.mul_add(shrink, scalar_exp::<S>(sink - new)))
            }
        };
        let inverse = S::splat(scale / total);
        for d in (0..shape.padded).step_by(LANES) {
            let v = S::to_array(S::mul(S::load(run.add(d)), inverse));
            std::ptr::copy_nonoverlapping(v.as_ptr(), out.add(d), (shape.value_dim - d).min(LANES));
        }
    }
}

dispatch! {
    /// f32 to f16, to nearest; what is beyond f16's range becomes its largest value, so that the cache stays finite.
    pub fn to_f16(x: *const f32, y: *mut u16, n: usize) = to_f16_row
}

#[inline(always)]
unsafe fn to_f16_row<S: Simd>(x: *const f32, y: *mut u16, n: usize) {
    const MOST: f32 = 65504.0;
    // SAFETY: x and y hold n elements.
    unsafe {
        for i in (0..n).step_by(LANES) {
            let m = (n - i).min(LANES);
            let mut v = [0.0_f32; LANES];
            std::ptr::copy_nonoverlapping(x.add(i), v.as_mut_ptr(), m);
            let low = S::max(S::load(v.as_ptr()), S::splat(-MOST));
            let minus = S::max(S::sub(S::splat(0.0), low), S::splat(-MOST));
            let mut h = [0_u16; LANES];
            S::store_f16(h.as_mut_ptr(), S::sub(S::splat(0.0), minus));
            std::ptr::copy_nonoverlapping(h.as_ptr(), y.add(i), m);
        }
    }
}
