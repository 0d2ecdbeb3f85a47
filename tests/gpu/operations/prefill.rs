//! What a prompt's pass launches.

use half::f16;
use kigo::backend::cuda::Address;
use kigo::backend::cuda::kernels::abi::{Encoder, Flash, FlashTile, Gemm, PAGE, PrefillRope, RowPlace};
use kigo::backend::cuda::kernels::kinds::Epilogue;
use kigo::backend::cuda::kernels::launch::gemm_encoder;

use super::attention::{
    BETA, Cache, INTERVAL, LAYER, MAGNITUDES, both_turns, inv_freq, temperature, turned, turned_by, turns,
};
use super::bench::{Bench, activation, close, near, numbers};

/// Random rows of f16 and what rounding to it has left, rows `stride` apart, and their sums.
fn two_halves(bench: &Bench, seed: u64, rows: usize, cols: usize, stride: usize) -> ([Address; 2], Vec<Vec<f64>>) {
    let (mut hi, mut lo) = (vec![f16::NAN; rows * stride], vec![f16::NAN; rows * stride]);
    let mut values = vec![Vec::new(); rows];
    for row in 0..rows {
        for (i, x) in numbers(seed + row as u64, cols).into_iter().enumerate() {
            let h = f16::from_f32(x);
            let l = f16::from_f32(x - h.to_f32());
            (hi[row * stride + i], lo[row * stride + i]) = (h, l);
            values[row].push(f64::from(h) + f64::from(l));
        }
    }
    ([bench.put(&hi), bench.put(&lo)], values)
}

const EPILOGUES: [Epilogue; 5] = [Epilogue::F32, Epilogue::Add, Epilogue::F16, Epilogue::Silu, Epilogue::Gelu];

/// Products of two halves each, through every end, by every tile, on both kinds of tensor cores.
pub fn gemm(bench: &Bench) {
    let encoder = gemm_encoder();
    assert!(encoder.exists() || !bench.is_sm90() || std::env::var("CUDA_FORCE_PTX_JIT").is_ok(), "no wgmma");
    for (m, n, k) in [(5, &[24, 6, 40][..], 72), (131, &[34], 64), (17, &[80, 80], 200)] {
        for epilogue in EPILOGUES {
            if !epilogue.is_gated() || (n.len() == 2 && n[0] == n[1]) {
                product(bench, encoder, m, n, k, epilogue);
            }
        }
    }
}

fn product(bench: &Bench, encoder: Encoder, m: usize, n: &[usize], k: usize, epilogue: Epilogue) {
    let (x_stride, w_stride) = (k + 8, k + 16);
    let (x, xs) = two_halves(bench, 100, m, k, x_stride);
    let mut g = Gemm { x: x[0], x_lo: x[1], m: m as u32, k: k as u32, n_w: n.len() as u32, ..Gemm::default() };
    let mut sums = vec![Vec::new(); m];
    for (i, rows) in n.iter().enumerate() {
        let (w, ws) = two_halves(bench, 1000 * (i as u64 + 1), *rows, k, w_stride);
        let (bias, bs) = bench.vector(50 + i as u64, *rows);
        (g.w[i], g.w_lo[i], g.n[i], g.bias[i]) = (w[0], w[1], *rows as u32, bias);
        for (sums, x) in sums.iter_mut().zip(&xs) {
            let dot = |w: &Vec<f64>| w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
            sums.extend(ws.iter().zip(&bs).map(|(w, b)| dot(w) + b));
        }
    }
    let columns = if epilogue.is_gated() { n[0] } else { n.iter().sum() };
    let stride = columns + 2;
    let old = numbers(9, m * stride);
    let mut truth = Vec::new();
    for (row, sums) in sums.iter().enumerate() {
        truth.extend((0..columns).map(|c| match epilogue {
            Epilogue::Silu => activation(1, sums[c]) * sums[n[0] + c],
            Epilogue::Gelu => activation(2, sums[c]) * sums[n[0] + c],
            Epilogue::Add => sums[c] + f64::from(old[row * stride + c]),
            _ => sums[c],
        }));
    }
    (g.x_stride, g.w_stride, g.y_stride) = (x_stride as u32, w_stride as u32, stride as u32);
    (g.epilogue, g.n_sms) = (epilogue as u32, bench.gpu.n_sm);
    let mma = (Encoder::default(), &[0, 64, 128][..]);
    let ways = [mma, (encoder, &[0, 32, 64, 128, 192, 224, 256])];
    for (encode, tiles) in ways.into_iter().take(if encoder.exists() { 2 } else { 1 }) {
        let mut first: Option<Vec<u64>> = None;
        for tile in tiles {
            let (y, y_lo) = (bench.put(&old), bench.zeros(m * stride * 2));
            bench.queue().gemm(&Gemm { encode, tile: *tile, y, y_lo, ..g }).unwrap();
            let what = format!("{m} by {n:?} by {k}, {epilogue:?}, tile {tile}, wgmma: {}", encode.exists());
            let half = epilogue.is_gated() || epilogue == Epilogue::F16;
            let got: Vec<f64> = match half {
                true => bench.halves(y, y_lo, m * stride),
                false => bench.floats(y, m * stride).into_iter().map(f64::from).collect(),
            };
            let inside: Vec<f64> = got.chunks(stride).flat_map(|row| row[..columns].to_vec()).collect();
            close(&what, &inside, &truth, 1e-10);
            if !half {
                let beyond = |(row, old): (&[f64], &[f32])| row[columns] == f64::from(old[columns]);
                assert!(got.chunks(stride).zip(old.chunks(stride)).all(beyond), "{what}: only its columns");
            }
            let bits: Vec<u64> = inside.iter().map(|x| x.to_bits()).collect();
            assert!(*first.get_or_insert_with(|| bits.clone()) == bits, "{what}: the bits of another tile");
        }
    }
}

/// The cache's strides in elements: keys' and values' first, from head to head, from position to position.
fn strides(cache: &Cache) -> [u64; 4] {
    let head = PAGE as u64 * cache.head_dim as u64;
    let keys = (2 * LAYER * cache.n_kv) as u64 * head;
    [keys, keys + cache.n_kv as u64 * head, head, cache.head_dim as u64]
}

/// Whole heads of sizes with a kernel of their own, and parts of others; of one sequence and of rows that say whose they are.
#[allow(clippy::too_many_arguments)]
fn rope_rows(bench: &Bench, head_dim: usize, n_rot: usize, halves: bool, norms: bool, placed: bool, last: bool) {
    let (n_kv, n_heads, n, start) = (2, 3, 5, 61);
    let width = (n_heads + 2 * n_kv) * head_dim;
    let (qkv, qkv_stride, rows) = bench.vectors(1, n, width);
    let ((q_norm, qn), (k_norm, kn)) = (bench.vector(2, head_dim), bench.vector(3, head_dim));
    let cache = Cache::new(bench, n_kv, head_dim, 0, start + n, 0);
    let [k_offset, v_offset, head_stride, token_stride] = strides(&cache);
    let (pages, freqs) = (bench.put(&cache.pages), inv_freq(n_rot));
    let q = bench.zeros(n * n_heads * head_dim * 2);
    let (tap_q, tap_k) = (bench.zeros(n * n_heads * head_dim * 4), bench.zeros(n * n_kv * head_dim * 4));
    let turns_at = both_turns(bench, &freqs);
    let p = PrefillRope { qkv, turns: turns_at, q, tap_q, tap_k, k_offset, v_offset, ..PrefillRope::default() };
    let p = PrefillRope { head_stride, token_stride, n_tokens: n as u32, n_heads: n_heads as u32, qkv_stride, ..p };
    let p =
        PrefillRope { n_kv: n_kv as u32, head_dim: head_dim as u32, n_rot: n_rot as u32, magnitude: MAGNITUDES, ..p };
    let mut p = PrefillRope { pairing: halves.into(), q_stride: (n_heads * head_dim) as u32, eps: 1e-3, ..p };
    if last {
        (p.norm_last, p.beta, p.interval) = (1, BETA, INTERVAL);
    }
    if norms {
        (p.q_norm, p.k_norm) = (q_norm, k_norm);
    }
    let is_long = |i: usize| if placed { i % 2 == 1 } else { norms };
    if placed {
        let place = |i: usize| RowPlace { pages, position: (start + i) as u32, is_long: is_long(i).into() };
        p.rows = bench.put(&(0..n).map(place).collect::<Vec<_>>());
    } else {
        (p.pages, p.start, p.is_long) = (pages, start as u32, is_long(0).into());
    }
    bench.queue().prefill_rope(&p).unwrap();
    let got = bench.halves(q, 0, n * n_heads * head_dim);
    let seen = [bench.floats(tap_q, n * n_heads * head_dim), bench.floats(tap_k, n * n_kv * head_dim)];
    for (i, row) in rows.iter().enumerate() {
        let turns = turns(&freqs, start + i);
        let head_of = |head: usize, norm: &[f64]| {
            let x = row[head * head_dim..][..head_dim].to_vec();
            let norm = if norms { norm } else { &[] };
            let mut x = turned(x, norm, last, |x| turned_by(x, n_rot, halves, &turns, is_long(i)));
            if last && head < n_heads {
                x.iter_mut().for_each(|x| *x *= temperature(start + i));
            }
            x
        };
        let what = format!("row {i}, heads of {head_dim}, {n_rot} turned");
        for head in 0..n_heads {
            let (x, at) = (head_of(head, &qn), (i * n_heads + head) * head_dim);
            close(&what, &got[at..][..head_dim], &x, 2f64.powi(-22));
            near(&what, &seen[0][at..][..head_dim], &x, 1e-11);
        }
        for head in 0..n_kv {
            let x = head_of(n_heads + head, &kn);
            close(&what, &cache.row(bench, 0, head, start + i), &x, 2f64.powi(-22));
            near(&what, &seen[1][(i * n_kv + head) * head_dim..][..head_dim], &x, 1e-11);
            let v = &row[(n_heads + n_kv + head) * head_dim..][..head_dim];
            close(&what, &cache.row(bench, 1, head, start + i), v, 2f64.powi(-22));
        }
    }
}

pub fn rope_heads(bench: &Bench) {
    for (i, (head_dim, n_rot)) in
        [(64, 64), (128, 128), (256, 256), (64, 32), (80, 80), (136, 64), (320, 64)].into_iter().enumerate()
    {
        for halves in [false, true] {
            rope_rows(bench, head_dim, n_rot, halves, i % 2 == 0, halves, false);
        }
    }
    for (head_dim, n_rot, norms) in [(64, 64, true), (80, 32, true), (128, 0, false), (136, 0, true), (512, 64, true)] {
        rope_rows(bench, head_dim, n_rot, n_rot == 32, norms, norms, true);
    }
}

/// Attention of a prompt: whole and cut, with window and soft cap, of one sequence and of two.
pub fn flash(bench: &Bench) {
    let wgmma: &[u32] = if gemm_encoder().exists() { &[0, 1] } else { &[0] };
    for wgmma in wgmma {
        for (head_dim, n, start, window, softcap, apart) in [
            (64, 70, 0, 0, 0.0, false),
            (64, 30, 100, 40, 0.0, true),
            (72, 20, 63, 0, 4.0, false),
            (128, 66, 10, 0, 0.0, false),
            (256, 9, 70, 64, 2.0, true),
            (512, 5, 65, 0, 0.0, false),
            (64, 40, 200, 30, 0.0, false),
            (128, 70, 150, 20, 0.0, true),
        ] {
            for sinks in [false, true] {
                flash_one(bench, *wgmma, head_dim, n, start, window, softcap, apart, sinks);
            }
        }
    }
}

#[allow(clippy::too_many_arguments)]
fn flash_one(
    bench: &Bench,
    wgmma: u32,
    head_dim: usize,
    n: usize,
    start: usize,
    window: usize,
    softcap: f64,
    apart: bool,
    sinks: bool,
) {
    let (n_kv, n_heads, scale) = (1, 2, 1.0 / (head_dim as f64).sqrt());
    // Two sequences with as many rows, or one.
    let parts = if apart { 2 } else { 1 };
    let caches: Vec<Cache> =
        (0..parts).map(|i| Cache::new(bench, n_kv, head_dim, start + n, start + n, 5000 * i)).collect();
    let rows = parts as usize * n;
    let width = n_heads * head_dim;
    let (q, qs) = two_halves(bench, 7, rows, width, width);
    let (out, out_lo) = (bench.zeros(rows * width * 2), bench.zeros(rows * width * 2));
    let [k_offset, v_offset, head_stride, token_stride] = strides(&caches[0]);
    let p = Flash { q: q[0], out, out_lo, k_offset, v_offset, head_stride, token_stride, wgmma, ..Flash::default() };
    let p =
        Flash { n_heads: n_heads as u32, n_kv: n_kv as u32, head_dim: head_dim as u32, q_stride: width as u32, ..p };
    let p = Flash { out_stride: width as u32, window: window as u32, n_sms: bench.gpu.n_sm, scale: scale as f32, ..p };
    let mut p = Flash { softcap: softcap as f32, n_tokens: rows as u32, ..p };
    // No page is there that only positions in front of the first row's window are on.
    let gone = if window > 0 { (start + 1).saturating_sub(window) / PAGE as usize } else { 0 };
    let there = |i: usize, page: Address| if i < gone { 0 } else { page };
    let table = |cache: &Cache| {
        bench.put(&cache.pages.iter().enumerate().map(|(i, page)| there(i, *page)).collect::<Vec<Address>>())
    };
    let tables: Vec<Address> = caches.iter().map(table).collect();
    if apart {
        let tile = |i: usize| FlashTile {
            pages: tables[i % 2],
            row0: (i % 2 * n) as u32,
            n_tokens: n as u32,
            start: start as u32,
            tile: 64 * (i / 2) as u32,
        };
        let tiles: Vec<FlashTile> = (0..2 * n.div_ceil(64)).rev().map(tile).collect();
        (p.tiles, p.n_tiles) = (bench.put(&tiles), tiles.len() as u32);
    } else {
        (p.pages, p.start) = (tables[0], start as u32);
    }
    let sink_of = numbers(8, n_heads);
    if sinks {
        p.sinks = bench.put(&sink_of);
    }
    bench.queue().flash_prefill(&p).unwrap();
    let got = bench.halves(out, out_lo, rows * width);
    // The kernel sees the upper halves of q alone.
    let seen = bench.halves(q[0], 0, rows * width);
    assert_eq!(seen.len(), qs.len() * width);
    for row in 0..rows {
        for head in 0..n_heads {
            let q: Vec<f64> = seen[row * width + head * head_dim..][..head_dim].iter().map(|x| x * scale).collect();
            let truth = caches[row / n].attend(
                &q,
                0,
                start + row % n,
                window,
                softcap,
                sinks.then(|| f64::from(sink_of[head])),
            );
            let what = format!("row {row} of {n} from {start}, heads of {head_dim}, wgmma {wgmma}");
            close(&what, &got[row * width + head * head_dim..][..head_dim], &truth, 1e-6);
        }
    }
}
