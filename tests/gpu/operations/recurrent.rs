//! Mixers with a state against their formulas: of steps, whose rows are sequences, and of prompts, whose rows are parts of some; and the gate
//! of attention.

use half::f16;
use kigo::backend::cuda::Address;
use kigo::backend::cuda::kernels::abi::{Convolve, Delta, GateMix, Scan, Span, Spans, State};

use super::bench::{Bench, activation, close, near, numbers, rms_norm};

/// Rows of sequences with their states, of `len` f32 each, the first of them not there; all the values of a state.
struct Owners {
    of: Spans,
    /// First row and rows.
    each: Vec<(usize, usize)>,
    kept: Vec<Vec<f64>>,
    keeps: Vec<Address>,
    len: usize,
}

/// Elements of a state in front of what a launch has of it.
const AT: usize = 5;

fn owners(bench: &Bench, lens: &[usize], len: usize, in_place: bool) -> Owners {
    let (mut each, mut kept, mut keeps, mut spans, mut states) = (vec![], vec![], vec![], vec![], vec![]);
    let mut row0 = 0;
    for (i, n) in lens.iter().enumerate() {
        let values = numbers(90 + i as u64, AT + len);
        let is_there = i > 0;
        let from = if is_there { bench.put(&values) } else { 0 };
        let to = if in_place && is_there { from } else { bench.put(&vec![f32::NAN; AT + len]) };
        spans.push(Span { kept: from, keeps: to, row0: row0 as u32, n_rows: *n as u32 });
        states.push(State { kept: from, keeps: to, ..State::default() });
        let known = values[AT..].iter().map(|x| if is_there { f64::from(*x) } else { 0.0 });
        each.push((row0, *n));
        kept.push(known.collect());
        keeps.push(to);
        row0 += n;
    }
    let steps = lens.iter().all(|n| *n == 1);
    let (state, spans) = if steps { (bench.put(&states), 0) } else { (0, bench.put(&spans)) };
    let of = Spans { state, spans, n: lens.len() as u32, n_rows: row0 as u32, at: AT as u64 };
    Owners { of, each, kept, keeps, len }
}

impl Owners {
    /// What a sequence has kept since.
    fn keeps(&self, bench: &Bench, i: usize) -> Vec<f32> {
        bench.floats(self.keeps[i], AT + self.len).split_off(AT)
    }
}

/// Steps, in place and not, and a prompt of several sequences, some shorter than what a convolution sees.
const LENS: [(&[usize], bool); 4] = [(&[1, 1, 1], true), (&[1, 1], false), (&[9, 1, 20, 2], false), (&[37], false)];

pub fn convolve(bench: &Bench) {
    for (lens, in_place) in LENS {
        for (channels, len, kind) in [(130, 3, Kind::Gated), (40, 4, Kind::Delta), (300, 2, Kind::Mamba2)] {
            convolve_one(bench, &owners(bench, lens, (len - 1) * channels, in_place), channels, len, kind);
        }
    }
    let of = Spans { state: 16, n: 1, n_rows: 1, ..Spans::default() };
    let one = Convolve { of, x: 16, w: 16, y: 16, channels: 4, len: 1, ..Convolve::default() };
    let refused = bench.queue().convolve(&one).unwrap_err().to_string();
    assert!(refused.contains("convolve: 4 channels over 1 tokens"), "{refused}");
}

/// What stands around a convolution: two gates, its result to f32 or f16; betas and decays of heads; time steps of heads, and a bias.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Gated,
    Delta,
    Mamba2,
}

fn convolve_one(bench: &Bench, owners: &Owners, channels: usize, len: usize, kind: Kind) {
    let is_gated = kind == Kind::Gated;
    let biases = numbers(6, channels);
    let bias_of = |c: usize| if kind == Kind::Mamba2 { f64::from(biases[c]) } else { 0.0 };
    let (rows, x_stride, heads) = (owners.of.n_rows as usize, 3 * channels + 1, 5);
    let xs = numbers(1, rows * x_stride);
    let ws = numbers(2, channels * len);
    let (x, w) = (bench.put(&xs), bench.put(&ws));
    let (y_stride, out_stride) = (channels + 3, channels + 2);
    let (y, row) = (bench.zeros(rows * y_stride * 4), bench.zeros(rows * out_stride * 4));
    let (out, lo) = (bench.zeros(rows * out_stride * 2), bench.zeros(rows * out_stride * 2));
    let (gs, a, dt) = (numbers(3, rows * 2 * heads), numbers(4, heads), numbers(5, heads));
    let a: Vec<f32> = a.iter().map(|a| -a.abs()).collect();
    let gates = bench.put(&gs);
    let sizes = Convolve { channels: channels as u32, len: len as u32, ..Convolve::default() };
    let sizes = Convolve { x_stride: x_stride as u32, y_stride: y_stride as u32, ..sizes };
    let (of, beyond) = (owners.of, 4 * channels as u64);
    let call = if is_gated {
        let to_f32 = of.state != 0;
        let [row, out, lo] = if to_f32 { [row, 0, 0] } else { [0, out, lo] };
        let (times, gate) = (x, x + beyond);
        Convolve {
            of,
            x: x + 2 * beyond,
            times,
            gate,
            w,
            y,
            row,
            out,
            out_lo: lo,
            out_stride: out_stride as u32,
            ..sizes
        }
    } else {
        let (a, dt) = (bench.put(&a), bench.put(&dt));
        Convolve {
            of,
            x,
            w,
            y,
            betas: gates,
            decays: gates + 4 * heads as u64,
            bias: if kind == Kind::Mamba2 { bench.put(&biases) } else { 0 },
            by_steps: u32::from(kind == Kind::Mamba2),
            a,
            dt,
            n_gates: heads as u32,
            gates_stride: 2 * heads as u32,
            activation: 1,
            ..sizes
        }
    };
    bench.queue().convolve(&call).unwrap();
    let seen = bench.floats(y, rows * y_stride);
    let made = if call.row != 0 {
        bench.floats(row, rows * out_stride).into_iter().map(f64::from).collect()
    } else {
        bench.halves(out, lo, rows * out_stride)
    };
    for (i, (row0, n)) in owners.each.iter().enumerate() {
        let at = |row: usize, c: usize| f64::from(xs[(row0 + row) * x_stride + c]);
        let read = |row: usize, c: usize| if is_gated { at(row, c) * at(row, 2 * channels + c) } else { at(row, c) };
        // By the column, counted from the oldest that was kept.
        let column = |j: usize, c: usize| match j.checked_sub(len - 1) {
            Some(row) => read(row, c),
            None => owners.kept[i][j * channels + c],
        };
        let what = format!("{channels} channels over {len}, sequence {i} of {n} rows");
        for row in 0..*n {
            let sum =
                |c: usize| bias_of(c) + (0..len).map(|j| f64::from(ws[c * len + j]) * column(row + j, c)).sum::<f64>();
            let truth: Vec<f64> =
                (0..channels).map(|c| if is_gated { sum(c) } else { activation(1, sum(c)) }).collect();
            near(&what, &seen[(row0 + row) * y_stride..][..channels], &truth, 1e-11);
            if is_gated {
                let truth: Vec<f64> = truth.iter().enumerate().map(|(c, y)| y * at(row, channels + c)).collect();
                close(&what, &made[(row0 + row) * out_stride..][..channels], &truth, 1e-11);
            }
        }
        let kept: Vec<f64> =
            (0..len - 1).flat_map(|j| (0..channels).map(move |c| (j, c))).map(|(j, c)| column(n + j, c)).collect();
        near(&what, &owners.keeps(bench, i), &kept, 1e-12);
    }
    if !is_gated {
        let softplus = |x: f64| x.exp().ln_1p();
        let of = |row: &[f32]| -> Vec<f64> {
            let given = if kind == Kind::Mamba2 { &row[..heads] } else { &row[heads..] };
            let steps =
                given.iter().zip(&dt).map(|(x, dt)| softplus(f64::from(*x) + f64::from(*dt))).collect::<Vec<_>>();
            let decays = steps.iter().zip(&a).map(|(step, a)| (f64::from(*a) * step).exp()).collect::<Vec<_>>();
            let betas = row[..heads].iter().map(|b| 1.0 / (1.0 + f64::from(-b).exp())).collect();
            [if kind == Kind::Mamba2 { steps } else { betas }, decays].concat()
        };
        let truth: Vec<f64> = gs.chunks(2 * heads).flat_map(of).collect();
        near("betas and decays", &bench.floats(gates, gs.len()), &truth, 1e-12);
    }
}

/// `[k_heads, v_heads, k_dim, v_dim]`
type Heads = [usize; 4];

pub fn delta(bench: &Bench) {
    for (lens, in_place) in LENS {
        for (heads, is_tiled) in [([2, 4, 128, 128], true), ([1, 3, 36, 20], false), ([3, 3, 5, 70], false)] {
            let [_, v_heads, k_dim, v_dim] = heads;
            delta_one(bench, &owners(bench, lens, v_heads * k_dim * v_dim, in_place), heads, is_tiled);
        }
    }
    let of = Spans { state: 16, n: 1, n_rows: 1, ..Spans::default() };
    let one = Delta { of, k_heads: 2, v_heads: 3, k_dim: 4, v_dim: 4, ..Delta::default() };
    let refused = bench.queue().delta(&one).unwrap_err().to_string();
    assert!(refused.contains("delta: 3 heads of values with 2 of keys"), "{refused}");
}

fn delta_one(bench: &Bench, owners: &Owners, heads: Heads, is_tiled: bool) {
    let [k_heads, v_heads, k_dim, v_dim] = heads;
    let (rows, keys, values, eps) = (owners.of.n_rows as usize, k_heads * k_dim, v_heads * v_dim, 1e-6_f32);
    let (y_stride, z_stride, out_stride) = (2 * keys + values + 1, values + 2, values + 3);
    let ys = numbers(1, rows * y_stride);
    let zs = numbers(2, rows * z_stride);
    let gs: Vec<f32> = numbers(3, rows * 2 * v_heads).iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect();
    let norm = numbers(4, v_dim);
    let (o, row) = (bench.zeros(rows * values * 4), bench.zeros(rows * out_stride * 4));
    let (out, lo) = (bench.put(&vec![f16::NAN; rows * out_stride]), bench.zeros(rows * out_stride * 2));
    let of = owners.of;
    let [to_row, out, lo] = if of.state != 0 { [row, 0, 0] } else { [0, out, lo] };
    let sizes = Delta { k_heads: k_heads as u32, v_heads: v_heads as u32, k_dim: k_dim as u32, ..Delta::default() };
    let sizes = Delta { v_dim: v_dim as u32, y_stride: y_stride as u32, z_stride: z_stride as u32, ..sizes };
    let sizes = Delta { gates_stride: 2 * v_heads as u32, out_stride: out_stride as u32, eps, ..sizes };
    let (y, z, gates, w) = (bench.put(&ys), bench.put(&zs), bench.put(&gs), bench.put(&norm));
    let (betas, decays) = (gates, gates + 4 * v_heads as u64);
    let call = Delta {
        of,
        y,
        betas,
        decays,
        z,
        norm: w,
        o,
        row: to_row,
        out,
        out_lo: lo,
        tiled: u32::from(is_tiled),
        ..sizes
    };
    bench.queue().delta(&call).unwrap();
    let seen = bench.floats(o, rows * values);
    let made = if to_row != 0 {
        bench.floats(row, rows * out_stride).into_iter().map(f64::from).collect()
    } else {
        bench.halves(out, lo, rows * out_stride)
    };
    let eps = f64::from(eps);
    for (i, (row0, n)) in owners.each.iter().enumerate() {
        let mut states = owners.kept[i].clone();
        for (head, s) in states.chunks_mut(k_dim * v_dim).enumerate() {
            let key_head = if is_tiled { head % k_heads } else { head / (v_heads / k_heads) };
            for at in *row0..row0 + n {
                let what = format!("{heads:?}, sequence {i}, row {at}, head {head}");
                let part = |from: usize, n: usize| ys[at * y_stride + from..][..n].iter().map(|x| f64::from(*x));
                let unit = |x: Vec<f64>, by: f64| {
                    let size = (x.iter().map(|x| x * x).sum::<f64>() + eps).sqrt() * by;
                    x.into_iter().map(|x| x / size).collect::<Vec<_>>()
                };
                let q = unit(part(key_head * k_dim, k_dim).collect(), (k_dim as f64).sqrt());
                let k = unit(part(keys + key_head * k_dim, k_dim).collect(), 1.0);
                let v: Vec<f64> = part(2 * keys + head * v_dim, v_dim).collect();
                let [beta, decay] = [0, v_heads].map(|of| f64::from(gs[at * 2 * v_heads + of + head]));
                s.iter_mut().for_each(|s| *s *= decay);
                let read = |s: &[f64], by: &[f64]| {
                    (0..v_dim).map(|c| (0..k_dim).map(|r| s[r * v_dim + c] * by[r]).sum()).collect::<Vec<f64>>()
                };
                let change: Vec<f64> = read(s, &k).iter().zip(&v).map(|(r, v)| beta * (v - r)).collect();
                for (r, k) in k.iter().enumerate() {
                    s[r * v_dim..][..v_dim].iter_mut().zip(&change).for_each(|(s, d)| *s += k * d);
                }
                let truth = read(s, &q);
                near(&what, &seen[at * values + head * v_dim..][..v_dim], &truth, 1e-10);
                let gated: Vec<f64> = rms_norm(&truth, eps)
                    .iter()
                    .enumerate()
                    .map(|(c, x)| {
                        x * f64::from(norm[c]) * activation(1, f64::from(zs[at * z_stride + head * v_dim + c]))
                    })
                    .collect();
                close(&what, &made[at * out_stride + head * v_dim..][..v_dim], &gated, 1e-10);
            }
        }
        near(&format!("{heads:?}, the state of sequence {i}"), &owners.keeps(bench, i), &states, 1e-10);
    }
    if to_row == 0 {
        assert!(made[values..out_stride].iter().all(|x| x.is_nan()), "nothing behind a row");
    }
}

pub fn gate_mix(bench: &Bench) {
    for (rows, n) in [(1, 300), (4, 37)] {
        let (gate_stride, stride) = (n + 3, n + 1);
        let (gs, xs) = (numbers(1, rows * gate_stride), numbers(2, rows * stride));
        let hi: Vec<f16> = xs.iter().map(|x| f16::from_f32(*x)).collect();
        let lo: Vec<f16> = xs.iter().zip(&hi).map(|(x, hi)| f16::from_f32(x - hi.to_f32())).collect();
        let (row, out, out_lo) = (bench.put(&xs), bench.put(&hi), bench.put(&lo));
        let call = GateMix { gate: bench.put(&gs), row, n_rows: rows as u32, n: n as u32, ..GateMix::default() };
        let call = GateMix { gate_stride: gate_stride as u32, stride: stride as u32, ..call };
        bench.queue().gate_mix(&call).unwrap();
        bench.queue().gate_mix(&GateMix { row: 0, out, out_lo, ..call }).unwrap();
        let (seen, halves) = (bench.floats(row, rows * stride), bench.halves(out, out_lo, rows * stride));
        for r in 0..rows {
            let of = |i: usize| f64::from(xs[r * stride + i]) / (1.0 + f64::from(-gs[r * gate_stride + i]).exp());
            let truth: Vec<f64> = (0..n).map(of).collect();
            near("a gate of f32", &seen[r * stride..][..n], &truth, 1e-12);
            close("a gate of halves", &halves[r * stride..][..n], &truth, 1e-11);
            assert_eq!(seen[r * stride + n], xs[r * stride + n], "only its columns");
        }
    }
    let refused = bench.queue().gate_mix(&GateMix { n_rows: 1, ..GateMix::default() }).unwrap_err().to_string();
    assert!(refused.contains("gate_mix: 1 rows of 0"), "{refused}");
}

pub fn scan(bench: &Bench) {
    for (lens, in_place) in LENS {
        for [heads, head_dim, groups, d_state] in [[4, 64, 2, 128], [3, 20, 1, 36], [6, 5, 3, 250]] {
            let owners = owners(bench, lens, heads * d_state * head_dim, in_place);
            scan_one(bench, &owners, [heads, head_dim, groups, d_state]);
        }
    }
    let of = Spans { state: 16, n: 1, n_rows: 1, ..Spans::default() };
    let refused = bench.queue().scan(&Scan { of, heads: 4, groups: 3, ..Scan::default() }).unwrap_err().to_string();
    assert!(refused.contains("scan: 4 heads in 3 groups"), "{refused}");
}

fn scan_one(bench: &Bench, owners: &Owners, sizes: [usize; 4]) {
    let [heads, head_dim, groups, d_state] = sizes;
    let (rows, width, of_groups) = (owners.of.n_rows as usize, heads * head_dim, groups * d_state);
    let (y_stride, gates_stride) = (width + 2 * of_groups + 1, heads + 2);
    let ys = numbers(1, rows * y_stride);
    let gate = |seed: u64| numbers(seed, rows * gates_stride).iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect();
    let (steps, decays, ds): (Vec<f32>, Vec<f32>, Vec<f32>) = (gate(2), gate(3), numbers(4, heads));
    let o = bench.zeros(rows * width * 4);
    let call =
        Scan { of: owners.of, y: bench.put(&ys), steps: bench.put(&steps), d: bench.put(&ds), o, ..Scan::default() };
    let call = Scan { decays: bench.put(&decays), heads: heads as u32, head_dim: head_dim as u32, ..call };
    let call = Scan { groups: groups as u32, d_state: d_state as u32, y_stride: y_stride as u32, ..call };
    bench.queue().scan(&Scan { gates_stride: gates_stride as u32, ..call }).unwrap();
    let mut all = vec![0.0; rows * width];
    for (i, (row0, n)) in owners.each.iter().enumerate() {
        let mut states = owners.kept[i].clone();
        for (head, s) in states.chunks_mut(d_state * head_dim).enumerate() {
            let group = head / (heads / groups) * d_state;
            for at in *row0..row0 + n {
                let part = |from: usize, n: usize| ys[at * y_stride + from..][..n].iter().map(|x| f64::from(*x));
                let x: Vec<f64> = part(head * head_dim, head_dim).collect();
                let b: Vec<f64> = part(width + group, d_state).collect();
                let c: Vec<f64> = part(width + of_groups + group, d_state).collect();
                let [step, decay] = [&steps, &decays].map(|all| f64::from(all[at * gates_stride + head]));
                let mut truth: Vec<f64> = x.iter().map(|x| f64::from(ds[head]) * x).collect();
                for (r, s) in s.chunks_mut(head_dim).enumerate() {
                    for ((s, x), y) in s.iter_mut().zip(&x).zip(&mut truth) {
                        *s = decay * *s + b[r] * step * x;
                        *y += c[r] * *s;
                    }
                }
                all[at * width + head * head_dim..][..head_dim].copy_from_slice(&truth);
            }
        }
        near(&format!("{sizes:?}, the state of sequence {i}"), &owners.keeps(bench, i), &states, 1e-10);
    }
    // Of one head a sum may be next to nothing of its terms.
    near(&format!("{sizes:?}"), &bench.floats(o, rows * width), &all, 1e-11);
}
