//! Attention of a step over pages, and the pages that it and a prompt's share.

use half::f16;
use kigo::backend::cuda::Address;
use kigo::backend::cuda::kernels::abi::{Attend, PAGE, State};

use super::bench::{Bench, close, near, numbers, rms_norm, rope};

/// Keys and values of a sequence in pages of one of two layers.
pub struct Cache {
    pub n_kv: usize,
    pub head_dim: usize,
    pub pages: Vec<Address>,
    /// [position][head][element]
    pub keys: Vec<Vec<Vec<f64>>>,
    pub values: Vec<Vec<Vec<f64>>>,
}

/// The layer whose keys and values these are.
pub const LAYER: usize = 1;

impl Cache {
    /// `n` random positions, and pages for `room` of them.
    pub fn new(bench: &Bench, n_kv: usize, head_dim: usize, n: usize, room: usize, seed: u64) -> Cache {
        let halves = |at: usize, which: u64| -> Vec<Vec<f64>> {
            let all = numbers(seed + 2 * at as u64 + which, n_kv * head_dim);
            let round = |head: &[f32]| head.iter().map(|x| f64::from(f16::from_f32(*x))).collect();
            all.chunks(head_dim).map(round).collect()
        };
        let keys: Vec<_> = (0..n).map(|at| halves(at, 0)).collect();
        let values: Vec<_> = (0..n).map(|at| halves(at, 1)).collect();
        let mut cache = Cache { n_kv, head_dim, pages: Vec::new(), keys, values };
        for page in 0..room.div_ceil(PAGE as usize) {
            // What nobody has written yet must not be read.
            let mut stored = vec![f16::NAN; 4 * n_kv * PAGE as usize * head_dim];
            for at in page * PAGE as usize..n.min((page + 1) * PAGE as usize) {
                for head in 0..n_kv {
                    for e in 0..head_dim {
                        stored[cache.place(0, head, at, e)] = f16::from_f64(cache.keys[at][head][e]);
                        stored[cache.place(1, head, at, e)] = f16::from_f64(cache.values[at][head][e]);
                    }
                }
            }
            let at = bench.put(&stored);
            cache.pages.push(at);
        }
        cache
    }

    /// The element's index in its page; `which`: 0 for keys, 1 for values.
    fn place(&self, which: usize, head: usize, position: usize, e: usize) -> usize {
        let page = PAGE as usize;
        (((2 * LAYER + which) * self.n_kv + head) * page + position % page) * self.head_dim + e
    }

    /// A row of it, as the device has it.
    pub fn row(&self, bench: &Bench, which: usize, head: usize, position: usize) -> Vec<f64> {
        let page = self.pages[position / PAGE as usize];
        let at = page + 2 * self.place(which, head, position, 0) as u64;
        bench.get::<f16>(at, self.head_dim).into_iter().map(f64::from).collect()
    }

    /// softmax(softcap(q k)) v of a head at a position, over the positions that its window leaves, and a sink.
    pub fn attend(
        &self,
        q: &[f64],
        head: usize,
        position: usize,
        window: usize,
        softcap: f64,
        sink: Option<f64>,
    ) -> Vec<f64> {
        let first = if window == 0 { 0 } else { (position + 1).saturating_sub(window) };
        let score = |at: usize| {
            let s: f64 = q.iter().zip(&self.keys[at][head]).map(|(q, k)| q * k).sum();
            if softcap == 0.0 { s } else { softcap * (s / softcap).tanh() }
        };
        let scores: Vec<f64> = (first..=position).map(score).collect();
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
        let of_sink = sink.map_or(0.0, |sink| (sink - top).exp());
        let (mut out, all) = (vec![0.0; q.len()], weights.iter().sum::<f64>() + of_sink);
        for (at, w) in (first..=position).zip(weights) {
            out.iter_mut().zip(&self.values[at][head]).for_each(|(o, v)| *o += w * v / all);
        }
        out
    }
}

/// Of the second of two ropes, whose frequencies are half the first one's.
pub const MAGNITUDES: [f32; 2] = [1.0, 1.25];

/// Both ropes' frequencies on the device; where nothing turns, none.
pub fn both_turns(bench: &Bench, inv_freq: &[f64]) -> [u64; 2] {
    if inv_freq.is_empty() {
        return [0; 2];
    }
    [1.0, 0.5].map(|by| bench.put(&inv_freq.iter().map(|f| f * by).collect::<Vec<_>>()))
}

/// Turns a head as one of these does; `turns`: the first one's at the position.
pub fn turned_by(x: &mut [f64], n_rot: usize, halves: bool, turns: &[f64], is_long: bool) {
    let by = if is_long { 0.5 } else { 1.0 };
    rope(x, n_rot, halves, &turns.iter().map(|turn| turn * by).collect::<Vec<_>>());
    x[..n_rot].iter_mut().for_each(|x| *x *= f64::from(MAGNITUDES[usize::from(is_long)]));
}

/// Full turns of each pair at a position.
pub fn turns(inv_freq: &[f64], position: usize) -> Vec<f64> {
    inv_freq.iter().map(|f| f * position as f64).collect()
}

pub fn inv_freq(n_rot: usize) -> Vec<f64> {
    let of = |i: usize| 10_000f64.powf(-2.0 * i as f64 / n_rot as f64) / std::f64::consts::TAU;
    (0..n_rot / 2).map(of).collect()
}

/// What queries are multiplied by.
pub const BETA: f32 = 0.3;
/// See [`BETA`].
pub const INTERVAL: u32 = 16;

/// 1 + BETA ln(1 + floor(position / INTERVAL)).
pub fn temperature(position: usize) -> f64 {
    1.0 + f64::from(BETA) * (1.0 + (position / INTERVAL as usize) as f64).ln()
}

/// A head turned, with its norm before or, where `last`, behind that; an empty `norm`: none.
pub fn turned(mut x: Vec<f64>, norm: &[f64], last: bool, turn: impl Fn(&mut [f64])) -> Vec<f64> {
    let normed = |x: Vec<f64>| match norm {
        [] => x,
        norm => rms_norm(&x, 1e-3).iter().zip(norm).map(|(x, w)| x * w).collect(),
    };
    if !last {
        x = normed(x);
    }
    turn(&mut x);
    if last { normed(x) } else { x }
}

struct Case {
    head_dim: usize,
    n_rot: usize,
    halves: bool,
    window: usize,
    softcap: f64,
    /// Of heads, before the rope; or behind it, with a temperature of the queries.
    norms: bool,
    last: bool,
    /// Of each sequence.
    positions: &'static [usize],
}

#[rustfmt::skip]
const CASES: &[Case] = &[
    Case { head_dim: 64, n_rot: 64, halves: true, window: 0, softcap: 0.0, norms: false, last: false, positions: &[0] },
    Case { head_dim: 64, n_rot: 32, halves: false, window: 70, softcap: 5.0, norms: true, last: false, positions: &[300] },
    Case { head_dim: 80, n_rot: 80, halves: true, window: 0, softcap: 0.0, norms: true, last: false, positions: &[65, 3, 270] },
    Case { head_dim: 128, n_rot: 128, halves: false, window: 0, softcap: 0.0, norms: false, last: false, positions: &[130] },
    Case { head_dim: 136, n_rot: 64, halves: true, window: 50, softcap: 3.0, norms: true, last: false, positions: &[150] },
    Case { head_dim: 256, n_rot: 256, halves: true, window: 0, softcap: 0.0, norms: false, last: false, positions: &[140, 20] },
    Case { head_dim: 72, n_rot: 24, halves: true, window: 0, softcap: 0.0, norms: true, last: true, positions: &[40] },
    Case { head_dim: 64, n_rot: 0, halves: false, window: 9, softcap: 0.0, norms: true, last: true, positions: &[70, 5] },
    Case { head_dim: 144, n_rot: 16, halves: false, window: 0, softcap: 0.0, norms: true, last: true, positions: &[33] },
    Case { head_dim: 512, n_rot: 128, halves: true, window: 0, softcap: 0.0, norms: true, last: false, positions: &[66] },
];

pub fn decode(bench: &Bench) {
    for case in CASES {
        for rep in [1, 8] {
            one(bench, case, rep, false);
            one(bench, case, rep, true);
        }
    }
}

fn one(bench: &Bench, case: &Case, rep: u32, sinks: bool) {
    let (n_kv, n_heads, hd, scale) = (2, 6, case.head_dim, 1.0 / (case.head_dim as f64).sqrt());
    let n_seq = case.positions.len();
    let width = (n_heads + 2 * n_kv) * hd;
    let (qkv, qkv_stride, rows) = bench.vectors(5, n_seq, width);
    let ((q_norm, qn), (k_norm, kn)) = (bench.vector(6, hd), bench.vector(7, hd));
    let inv_freq = inv_freq(case.n_rot);
    let caches: Vec<Cache> =
        case.positions.iter().map(|p| Cache::new(bench, n_kv, hd, *p, p + 1, 1000 * *p as u64)).collect();
    // Every other sequence, from the first or the second on.
    let is_long = |seq: usize| (seq + usize::from(rep == 8)) % 2 == 1;
    let state = |(seq, (p, cache)): (usize, (&usize, &Cache))| {
        // The second of two tables. No page is there that only positions in front of the window are on.
        let n = cache.pages.len() + seq;
        let mut table = vec![0; n];
        table.extend(&cache.pages);
        let gone = if case.window > 0 { (p + 1).saturating_sub(case.window) / PAGE as usize } else { 0 };
        table[n..n + gone].fill(0);
        let (pages, table_stride) = (bench.put(&table), n as u32);
        State { pages, table_stride, position: *p as i32, is_long: is_long(seq).into(), ..State::default() }
    };
    let states: Vec<State> = case.positions.iter().zip(&caches).enumerate().map(state).collect();
    let chunk = if hd <= 128 { 256 } else { 128 };
    let chunks = case.positions.iter().max().unwrap() / chunk + 1;
    let (out, tap_q, tap_k) =
        (bench.zeros(n_seq * n_heads * hd * 4), bench.zeros(n_heads * hd * 4), bench.zeros(n_kv * hd * 4));
    let attend =
        Attend { qkv, turns: both_turns(bench, &inv_freq), state: bench.put(&states), out, ..Attend::default() };
    let attend = Attend {
        part: bench.zeros(n_seq * n_heads * chunks * (hd + 2) * 4),
        layer_at: (2 * LAYER * n_kv * hd) as u64 * u64::from(PAGE),
        cache_class: 1,
        ..attend
    };
    let attend = Attend { counters: bench.zeros(n_seq * n_heads * 4), n_heads: n_heads as u32, ..attend };
    let attend = Attend { n_kv: n_kv as u32, head_dim: hd as u32, n_rot: case.n_rot as u32, eps: 1e-3, ..attend };
    let attend =
        Attend { pairing: u32::from(case.halves), window: case.window as u32, magnitude: MAGNITUDES, ..attend };
    let attend = Attend { chunk: chunk as u32, max_chunks: chunks as u32, scale: scale as f32, ..attend };
    let attend = Attend { softcap: case.softcap as f32, long_from: u32::MAX, long_chunk: chunk as u32, ..attend };
    let mut attend = Attend { qkv_stride, out_stride: (n_heads * hd) as u32, ..attend };
    if case.norms {
        (attend.q_norm, attend.k_norm) = (q_norm, k_norm);
    }
    if case.last {
        (attend.norm_last, attend.beta, attend.interval) = (1, BETA, INTERVAL);
    }
    let sink_of = numbers(8, n_heads);
    if sinks {
        attend.sinks = bench.put(&sink_of);
    }
    if n_seq == 1 {
        (attend.tap_q, attend.tap_k) = (tap_q, tap_k);
    } else {
        attend.n_seq = n_seq as u32;
    }
    bench.queue().decode_attention(&attend, chunks as u32, rep).unwrap();
    let got = bench.floats(out, n_seq * n_heads * hd);
    // The same by another layer, which finds the new rows in the cache and has none of its own.
    let stride = qkv_stride as usize;
    let mut queries = bench.floats(qkv, n_seq * stride);
    queries.chunks_mut(stride).for_each(|row| row[n_heads * hd..].fill(f32::NAN));
    let of_another = Attend { qkv: bench.put(&queries), is_kept: 1, tap_k: 0, ..attend };
    bench.queue().decode_attention(&of_another, chunks as u32, rep).unwrap();
    let bits = |all: Vec<f32>| all.into_iter().map(f32::to_bits).collect::<Vec<u32>>();
    assert_eq!(bits(bench.floats(out, got.len())), bits(got.clone()), "keys and values of another layer");
    for (seq, (mut cache, position)) in caches.into_iter().zip(case.positions).enumerate() {
        let turns = turns(&inv_freq, *position);
        let head_of = |i: usize, norm: &[f64]| {
            let x = rows[seq][i * hd..(i + 1) * hd].to_vec();
            let norm = if case.norms { norm } else { &[] };
            let mut x = turned(x, norm, case.last, |x| turned_by(x, case.n_rot, case.halves, &turns, is_long(seq)));
            if case.last && i < n_heads {
                x.iter_mut().for_each(|x| *x *= temperature(*position));
            }
            x
        };
        let what = format!("heads of {hd} at {position}, {rep} a block, sinks {sinks}");
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for kv in 0..n_kv {
            let k = head_of(n_heads + kv, &kn);
            let v = rows[seq][(n_heads + n_kv + kv) * hd..][..hd].to_vec();
            let written = [cache.row(bench, 0, kv, *position), cache.row(bench, 1, kv, *position)];
            close(&what, &written[0], &k, 2f64.powi(-22));
            close(&what, &written[1], &v, 2f64.powi(-22));
            if n_seq == 1 {
                near(&what, &bench.floats(tap_k + (kv * hd * 4) as u64, hd), &k, 1e-11);
            }
            let [k, v] = written;
            keys.push(k);
            values.push(v);
        }
        cache.keys.push(keys);
        cache.values.push(values);
        for head in 0..n_heads {
            let mut q = head_of(head, &qn);
            if n_seq == 1 {
                near(&what, &bench.floats(tap_q + (head * hd * 4) as u64, hd), &q, 1e-11);
            }
            q.iter_mut().for_each(|x| *x *= scale);
            let sink = sinks.then(|| f64::from(sink_of[head]));
            let truth = cache.attend(&q, head / (n_heads / n_kv), *position, case.window, case.softcap, sink);
            let at = (seq * n_heads + head) * hd;
            near(&format!("{what}, head {head}"), &got[at..at + hd], &truth, 1e-10);
        }
    }
}
