//! Weights into planes and back, embeddings, norms, the gated unit.

use kigo::backend::cuda::kernels::abi::{Stage, State};
use kigo::backend::cuda::kernels::launch::Glu;

use super::bench::{Bench, TYPES, activation, close, near, rms_norm};

pub fn read(bench: &Bench) {
    let (from, out) = (bench.zeros(1 << 16), bench.put(&[7u32]));
    bench.queue().read(from, 1 << 16, out).unwrap();
    assert_eq!(bench.get::<u32>(out, 1), [7], "it reads only");
    let refused = bench.queue().read(from + 4, 64, out).unwrap_err().to_string();
    assert!(refused.contains("read: 64 bytes at"), "{refused}");
}

/// Every type's planes hold what the file's blocks hold.
pub fn weights(bench: &Bench) {
    for ty in TYPES {
        for (tiled, rows, cols) in [(false, 5, 512), (false, 3, 37), (true, 19, 72)] {
            if !cols_fit(ty, cols) || (tiled && ty != kigo::gguf::TensorType::F16) {
                continue;
            }
            let m = bench.matrix(ty, rows, cols, tiled);
            let stride = if m.mat.ty.is_quantized() { cols } else { m.mat.stride as usize };
            let n = (rows - 1) * stride;
            let (slab, lo) = (bench.zeros(n * 2), bench.zeros(n * 2));
            bench.queue().dequantize_f16(&m.mat, 1, rows as u32 - 1, slab, lo).unwrap();
            let (one, both) = (bench.halves(slab, 0, n), bench.halves(slab, lo, n));
            for row in 1..rows {
                let at = (row - 1) * stride;
                let what = format!("{} row {row} of {cols}", ty.name());
                close(&what, &one[at..at + cols], m.row(row), 2f64.powi(-22));
                close(&what, &both[at..at + cols], m.row(row), 2f64.powi(-40));
                assert!(both[at + cols..at + stride].iter().all(|x| *x == 0.0), "{what}: zeros behind it");
            }
            let beyond = bench.queue().dequantize_f16(&m.mat, 1, rows as u32, slab, lo).unwrap_err().to_string();
            assert!(beyond.contains(&format!("rows 1 and {rows} more of {rows}")), "{beyond}");
        }
    }
}

fn cols_fit(ty: kigo::gguf::TensorType, cols: usize) -> bool {
    cols.is_multiple_of(ty.block_len())
}

pub fn embed(bench: &Bench) {
    for ty in TYPES {
        for (tiled, cols) in [(false, 256), (false, 43), (true, 43)] {
            if !cols_fit(ty, cols) || (tiled && ty != kigo::gguf::TensorType::F16) {
                continue;
            }
            let m = bench.matrix(ty, 6, cols, tiled);
            let tokens = [4u32, 0, 5];
            let stride = cols.next_multiple_of(32);
            let x = [bench.zeros(3 * stride * 4), bench.zeros(3 * stride * 4)];
            let states = tokens.map(|token| State { token: token as i32, ..State::default() });
            let (states, list) = (bench.put(&states), bench.put(&tokens));
            bench.queue().embed(&m.mat, states, 3, 1.5, x[0], stride as u32).unwrap();
            bench.queue().embed_rows(&m.mat, list, 3, 1.5, x[1], stride as u32).unwrap();
            for x in x {
                let got = bench.floats(x, 3 * stride);
                for (row, token) in got.chunks(stride).zip(tokens) {
                    let truth: Vec<f64> = m.row(token as usize).iter().map(|v| 1.5 * v).collect();
                    near(ty.name(), &row[..cols], &truth, 1e-12);
                    assert!(row[cols..].iter().all(|v| *v == 0.0), "{}: nothing behind it", ty.name());
                }
            }
        }
    }
}

/// Plain sums and sums in parts, with and without a post norm.
pub fn batch_norm(bench: &Bench) {
    for (n, parts, post, threads) in [(96, 0, true, 64), (72, 0, false, 32), (160, 5, true, 96), (64, 16, false, 512)] {
        let n_seq = 3;
        let (x, stride, xs) = bench.vectors(1, n_seq, n);
        let (delta, _, ds) = bench.vectors(11, n_seq, n);
        let (part, _, ps) = bench.vectors(21, parts * n_seq, n);
        let ((post_w, pw), (norm_w, nw), (bias, bs)) = (bench.vector(31, n), bench.vector(32, n), bench.vector(33, n));
        let bytes = n_seq * stride as usize * 4;
        let (x_out, out) = (bench.zeros(bytes), bench.zeros(bytes));
        let st = Stage { x, delta, norm_w, x_out, eps: 1e-3, n: n as u32, n_seq: n_seq as u32, ..Stage::default() };
        let st = Stage { post_w: if post { post_w } else { 0 }, x_stride: stride, n_part: parts as u32, ..st };
        let st = if parts > 0 { Stage { part, part_bias: bias, ..st } } else { st };
        bench.queue().batch_norm(&st, out, threads).unwrap();
        let (seen_x, seen) = (bench.floats(x_out, bytes / 4), bench.floats(out, bytes / 4));
        for seq in 0..n_seq {
            let mut add = ds[seq].clone();
            if parts > 0 {
                add = (0..n).map(|i| (0..parts).map(|p| ps[p * n_seq + seq][i]).sum::<f64>() + bs[i]).collect();
            }
            if post {
                add = rms_norm(&add, 1e-3).iter().zip(&pw).map(|(a, w)| a * w).collect();
            }
            let v: Vec<f64> = xs[seq].iter().zip(&add).map(|(a, b)| a + b).collect();
            let h: Vec<f64> = rms_norm(&v, 1e-3).iter().zip(&nw).map(|(a, w)| a * w).collect();
            let at = seq * stride as usize;
            near("the stream", &seen_x[at..at + n], &v, 1e-12);
            near("its norm", &seen[at..at + n], &h, 1e-12);
        }
    }
}

pub fn glu(bench: &Bench) {
    for kind in [1, 2] {
        let ((gate, gs), (up, us)) = (bench.vector(1, 301), bench.vector(2, 301));
        let out = bench.zeros(302 * 4);
        bench.queue().glu(Glu { gate, up, out, n: 301, activation: kind }).unwrap();
        let truth: Vec<f64> = gs.iter().zip(&us).map(|(g, u)| activation(kind, *g) * u).collect();
        let got = bench.floats(out, 302);
        near("glu", &got[..301], &truth, 1e-12);
        assert_eq!(got[301], 0.0);
    }
    let refused = bench.queue().glu(Glu { gate: 16, up: 16, out: 16, n: 4, activation: 0 }).unwrap_err().to_string();
    assert!(refused.contains("glu: activation 0 of 4 elements"), "{refused}");
}
