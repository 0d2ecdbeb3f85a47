//! The attention of a round: cuts it into units of work, and merges what spans were computed apart.

use super::attention::{self, ROWS, Row, SPAN, Shape, partial_len};
use super::forward::{CpuModel, Piece, Scratch};
use super::simd::LANES;
use super::threads::{Shares, Turn};
use crate::alloc::reserve;
use crate::error::Result;
use crate::model::Attention;

/// A sequence of at most so many new tokens shares the work of its attention among threads by spans of its cache.
const SPLIT_TOKENS: usize = 4;

/// Tokens whose attention one thread computes at a time in a prefill.
const TOKEN_BLOCK: usize = 16;

/// The heads of one KV head for tokens `first .. last` of a piece, over spans `from .. to`.
struct Unit {
    piece: usize,
    first: usize,
    last: usize,
    kv: usize,
    /// Which of its heads, all of a group but where it is cut.
    heads: (usize, usize),
    from: usize,
    to: usize,
    /// Where the partial results of the unit's first row and the piece's first span stand, if they are merged later.
    partial: Option<usize>,
}

/// One head of one row whose spans were computed apart.
struct Merge {
    row: usize,
    head: usize,
    n_spans: usize,
    partial: usize,
}

/// The spans that the first and the last token of a piece see, as a range.
fn spans(shape: &Shape, p: &Piece) -> (usize, usize) {
    (shape.first(p.start) / SPAN, (p.start + p.len() - 1) / SPAN + 1)
}

/// An attention's work, in units that depend on no other, and what is merged behind them.
#[derive(Default)]
struct Work {
    units: Vec<Unit>,
    merges: Vec<Merge>,
    /// Results of spans that are computed apart.
    n_partials: usize,
}

/// Cuts the attention of a round.
fn cut(shape: &Shape, a: &Attention, pieces: &[Piece]) -> Result<Work> {
    let group = a.n_heads / a.n_kv_heads;
    let Work { mut units, mut merges, mut n_partials } = Work::default();
    for (piece, p) in pieces.iter().enumerate() {
        let (from, to) = spans(shape, p);
        let n_spans = to - from;
        for kv in 0..a.n_kv_heads {
            // One key head is all that latents have, and a step would be one thread's.
            let cut = if shape.values_in_keys { ROWS } else { group };
            let cuts = (0..group).step_by(cut).map(|first| (first, (first + cut).min(group)));
            if p.len() > SPLIT_TOKENS || n_spans == 1 {
                for first in (0..p.len()).step_by(TOKEN_BLOCK) {
                    let last = (first + TOKEN_BLOCK).min(p.len());
                    reserve(&mut units, group.div_ceil(cut))?;
                    units.extend(cuts.clone().map(|heads| Unit {
                        piece,
                        first,
                        last,
                        kv,
                        heads,
                        from,
                        to,
                        partial: None,
                    }));
                }
                continue;
            }
            for token in 0..p.len() {
                for span in from..to {
                    let (first, last) = (token, token + 1);
                    reserve(&mut units, group.div_ceil(cut))?;
                    units.extend(cuts.clone().map(|heads| {
                        let partial = Some(n_partials + heads.0 * n_spans);
                        Unit { piece, first, last, kv, heads, from: span, to: span + 1, partial }
                    }));
                }
                for head in kv * group..(kv + 1) * group {
                    reserve(&mut merges, 1)?;
                    merges.push(Merge { row: p.row + token, head, n_spans, partial: n_partials });
                    n_partials += n_spans;
                }
            }
        }
    }
    Ok(Work { units, merges, n_partials })
}

impl CpuModel {
    pub(super) fn attend(
        &self,
        turn: &Turn<'_>,
        s: &mut Scratch,
        a: &Attention,
        index: usize,
        pieces: &[Piece],
    ) -> Result<()> {
        let heads = a.n_heads;
        let shape = Shape {
            head_dim: a.head_dim,
            value_dim: a.value_dim(),
            padded: a.value_dim().next_multiple_of(LANES),
            values_in_keys: a.latent.is_some(),
            scale: a.scale,
            softcap: a.softcap.unwrap_or(0.0),
            window: a.window.map_or(0, |w| w as usize),
        };
        let Work { units, merges, n_partials } = cut(&shape, a, pieces)?;
        let len = partial_len(shape.padded);
        let partials = Shares(s.partials.sized(n_partials * len)?.as_mut_ptr());
        let mix = Shares(s.mix.as_mut_ptr());
        let (q, pages, class) = (&s.q, &s.pages, self.layout.layer(index).class);
        turn.run(units.len(), &|u| {
            let unit = &units[u];
            let p = &pieces[unit.piece];
            let pages = &pages[p.pages_of(class)];
            // SAFETY: q, mix, pages and partial results have the shapes that `attention` states; a row's head, and a
            // partial result, is written by one unit.
            unsafe { self.attend_unit(shape, unit, p, index, heads, q, pages, partials, mix) };
        })?;
        let isa = self.isa;
        let sink = |head: usize| self.layers[index].sinks.as_ref().map(|sinks| sinks[head]);
        for m in merges {
            // SAFETY: the partial results of this row and head, complete since `run` returned.
            unsafe {
                let run = partials.at(m.partial * len);
                for span in 1..m.n_spans {
                    attention::absorb(isa, shape, run, partials.at((m.partial + span) * len));
                }
                attention::finish(isa, shape, run, sink(m.head), mix.at((m.row * heads + m.head) * shape.value_dim));
            }
        }
        Ok(())
    }

    /// # Safety
    /// See the only caller.
    #[allow(clippy::too_many_arguments)]
    unsafe fn attend_unit(
        &self,
        shape: Shape,
        unit: &Unit,
        p: &Piece,
        index: usize,
        heads: usize,
        q: &[f32],
        pages: &[super::cache::PageAddress],
        partials: Shares<f32>,
        mix: Shares<f32>,
    ) {
        let (isa, dim, len) = (self.isa, shape.head_dim, partial_len(shape.padded));
        let layout = self.layout.layer(index);
        let group = heads / layout.n_kv_heads;
        let (first_head, width) = (unit.kv * group + unit.heads.0, unit.heads.1 - unit.heads.0);
        let (keys_at, values_at) = layout.head(unit.kv);
        let (first_span, last_span) = spans(&shape, p);
        let n_rows = (unit.last - unit.first) * width;
        let mut running = [[0.0_f32; partial_len(512)]; ROWS];
        let mut partial = [[0.0_f32; partial_len(512)]; ROWS];
        for tile in (0..n_rows).step_by(ROWS) {
            let n = (n_rows - tile).min(ROWS);
            // Token and head of a row of the tile.
            let of = |r: usize| (unit.first + (tile + r) / width, first_head + (tile + r) % width);
            let row = |r: usize, partial: *mut f32| {
                let (token, head) = of(r);
                Row { q: q[((p.row + token) * heads + head) * dim..].as_ptr(), position: p.start + token, partial }
            };
            for span in unit.from..unit.to {
                let started = span > unit.from;
                let buffer = if started { &mut partial } else { &mut running };
                let rows: [Row; ROWS] = std::array::from_fn(|r| {
                    let r = r.min(n - 1);
                    // SAFETY: in bounds of what `attend` sized.
                    let apart = unit.partial.map(|at| unsafe {
                        partials.at((at + (tile + r) * (last_span - first_span) + span - first_span) * len)
                    });
                    row(r, apart.unwrap_or(buffer[r].as_mut_ptr()))
                });
                // SAFETY: the caller's promise.
                unsafe { attention::span(isa, shape, &rows[..n], span, pages, keys_at, values_at) };
                if started && unit.partial.is_none() {
                    for r in 0..n {
                        // SAFETY: both buffers hold a partial result.
                        unsafe { attention::absorb(isa, shape, running[r].as_mut_ptr(), partial[r].as_ptr()) };
                    }
                }
            }
            if unit.partial.is_some() {
                continue;
            }
            for (r, run) in running.iter().enumerate().take(n) {
                let (token, head) = of(r);
                let sink = self.layers[index].sinks.as_ref().map(|sinks| sinks[head]);
                // SAFETY: this row's head of `mix` is this unit's.
                unsafe {
                    attention::finish(
                        isa,
                        shape,
                        run.as_ptr(),
                        sink,
                        mix.at(((p.row + token) * heads + head) * shape.value_dim),
                    )
                };
            }
        }
    }
}
