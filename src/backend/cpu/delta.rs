//! The kernels of mixers with a state. A lane is a channel of a convolution, or a column of a head's state: nothing is added across
//! lanes but in the norm of a head, so that the sums have one order, whatever is computed beside them.

use super::simd::{LANES, Simd, dispatch};
use super::vector::{load_n, store_n};

/// A convolution over the tokens of a piece.
#[derive(Clone, Copy)]
pub struct Conv {
    /// Channels, and how many tokens an output depends on.
    pub channels: usize,
    pub len: usize,
    /// `[len, channels]`.
    pub weights: *const f32,
    /// The columns in front of the first token, `[len - 1, channels]`; null: zeros.
    pub columns: *const f32,
    /// What is convolved: `n` tokens, `stride` elements apart.
    pub x: *const f32,
    pub stride: usize,
    pub n: usize,
}

impl Conv {
    /// Where the column of a token stands, counted from the oldest that is kept; `None`: it is zeros.
    unsafe fn column(&self, at: usize) -> Option<*const f32> {
        let kept = self.len - 1;
        // SAFETY: inside of the kept columns, or of the tokens.
        unsafe {
            match at.checked_sub(kept) {
                Some(token) => Some(self.x.add(token * self.stride)),
                None if self.columns.is_null() => None,
                None => Some(self.columns.add(at * self.channels)),
            }
        }
    }

    /// Keeps the last columns of these channels in `to`, which may be where the old ones are.
    ///
    /// # Safety
    /// The pointers hold what they say, and nobody else uses these channels of `to`.
    pub unsafe fn keep(&self, to: *mut f32, channels: std::ops::Range<usize>) {
        for i in 0..self.len - 1 {
            // SAFETY: the caller's promise. What is read stands behind what has been written.
            unsafe {
                let to = to.add(i * self.channels + channels.start);
                match self.column(self.n + i) {
                    Some(from) => std::ptr::copy(from.add(channels.start), to, channels.len()),
                    None => to.write_bytes(0, channels.len()),
                }
            }
        }
    }
}

dispatch! {
    /// The convolution of channels `first .. last`, `[n, channels]`.
    pub fn convolve(conv: Conv, first: usize, last: usize, out: *mut f32) = convolve_channels
}

#[inline(always)]
unsafe fn convolve_channels<S: Simd>(conv: Conv, first: usize, last: usize, out: *mut f32) {
    // SAFETY: the pointers hold what `Conv` says, `out` as many tokens.
    unsafe {
        for t in 0..conv.n {
            for c in (first..last).step_by(LANES) {
                let mut sum = S::splat(0.0);
                for j in 0..conv.len {
                    if let Some(x) = conv.column(t + j) {
                        let w = load_n::<S>(conv.weights.add(j * conv.channels + c), last - c, 0.0);
                        sum = S::fma(w, load_n::<S>(x.add(c), last - c, 0.0), sum);
                    }
                }
                store_n::<S>(out.add(t * conv.channels + c), last - c, sum);
            }
        }
    }
}

dispatch! {
    /// `x = x / (sqrt(sum(x^2) + eps) * divisor)`.
    pub fn l2_norm(x: *mut f32, n: usize, eps: f32, divisor: f32) = l2_norm_row
}

#[inline(always)]
unsafe fn l2_norm_row<S: Simd>(x: *mut f32, n: usize, eps: f32, divisor: f32) {
    // SAFETY: x holds n elements.
    unsafe {
        let mut squares = S::splat(0.0);
        for i in (0..n).step_by(LANES) {
            let v = load_n::<S>(x.add(i), n - i, 0.0);
            squares = S::fma(v, v, squares);
        }
        let scale = S::splat(1.0 / ((S::sum(squares) + eps).sqrt() * divisor));
        for i in (0..n).step_by(LANES) {
            store_n::<S>(x.add(i), n - i, S::mul(load_n::<S>(x.add(i), n - i, 0.0), scale));
        }
    }
}

/// A head of a DeltaNet over the tokens of a piece.
#[derive(Clone, Copy)]
pub struct Head {
    pub k_dim: usize,
    pub v_dim: usize,
    /// The state in front of the first token, `[k_dim, v_dim]`; null: zeros.
    pub from: *const f32,
    /// Becomes that behind the last; may be `from`.
    pub to: *mut f32,
    /// Queries, keys and values of the first token, those of the others `stride` elements apart.
    pub q: *const f32,
    pub k: *const f32,
    pub v: *const f32,
    pub stride: usize,
    /// Those of the first token; those of the others stand `gates` elements apart.
    pub beta: *const f32,
    pub decay: *const f32,
    pub gates: usize,
    /// What is read of the state, `out_stride` elements apart.
    pub out: *mut f32,
    pub out_stride: usize,
    pub n: usize,
}

dispatch! {
    /// All tokens of the piece, one after the other.
    pub fn delta_rule(head: Head) = delta_rule_head
}

#[inline(always)]
unsafe fn delta_rule_head<S: Simd>(head: Head) {
    let mut at = 0;
    // SAFETY: as `columns`.
    unsafe {
        while at + 4 * LANES <= head.v_dim {
            columns::<S, 4>(head, at);
            at += 4 * LANES;
        }
        while at < head.v_dim {
            columns::<S, 1>(head, at);
            at += LANES;
        }
    }
}

/// All tokens through 16 `V` columns of the state, which stay in the processor's cache.
#[inline(always)]
unsafe fn columns<S: Simd, const V: usize>(h: Head, at: usize) {
    // SAFETY: the pointers hold what `Head` says; the columns are nobody else's.
    unsafe {
        let left = |v: usize| h.v_dim - at - v * LANES;
        for t in 0..h.n {
            let from = if t > 0 { h.to.cast_const() } else { h.from };
            let (q, k, v) = (h.q.add(t * h.stride), h.k.add(t * h.stride), h.v.add(t * h.stride + at));
            let (beta, decay) = (S::splat(*h.beta.add(t * h.gates)), S::splat(*h.decay.add(t * h.gates)));
            let decayed = |i: usize, v: usize| {
                let x = if from.is_null() {
                    S::splat(0.0)
                } else {
                    load_n::<S>(from.add(i * h.v_dim + at + v * LANES), left(v), 0.0)
                };
                S::mul(x, decay)
            };
            let mut delta = [S::splat(0.0); V];
            for i in 0..h.k_dim {
                let k = S::splat(*k.add(i));
                for (v, delta) in delta.iter_mut().enumerate() {
                    *delta = S::fma(k, decayed(i, v), *delta);
                }
            }
            for (lane, delta) in delta.iter_mut().enumerate() {
                let v = load_n::<S>(v.add(lane * LANES), left(lane), 0.0);
                *delta = S::mul(beta, S::sub(v, *delta));
            }
            let mut out = [S::splat(0.0); V];
            for i in 0..h.k_dim {
                let (q, k) = (S::splat(*q.add(i)), S::splat(*k.add(i)));
                for v in 0..V {
                    let x = S::fma(k, delta[v], decayed(i, v));
                    store_n::<S>(h.to.add(i * h.v_dim + at + v * LANES), left(v), x);
                    out[v] = S::fma(q, x, out[v]);
                }
            }
            for (v, out) in out.into_iter().enumerate() {
                store_n::<S>(h.out.add(t * h.out_stride + at + v * LANES), left(v), out);
            }
        }
    }
}

/// A head of a Mamba2 over the tokens of a piece.
#[derive(Clone, Copy)]
pub struct Scan {
    pub d_state: usize,
    pub head_dim: usize,
    /// The state in front of the first token, `[d_state, head_dim]`; null: zeros.
    pub from: *const f32,
    /// Becomes that behind the last; may be `from`.
    pub to: *mut f32,
    /// The head's part of the first token, and what writes it into the state and reads that; those of the others stand `stride`
    /// elements apart.
    pub x: *const f32,
    pub b: *const f32,
    pub c: *const f32,
    pub stride: usize,
    /// Those of the first token; those of the others stand `heads` elements apart.
    pub dt: *const f32,
    pub decay: *const f32,
    pub heads: usize,
    pub d: f32,
    /// What is read of the state, `out_stride` elements apart.
    pub out: *mut f32,
    pub out_stride: usize,
    pub n: usize,
}

dispatch! {
    /// All tokens of the piece, one after the other.
    pub fn scan(head: Scan) = scan_head
}

/// Tokens that the rows of a head's state go through before the next rows do: what these read and make stays in the processor's cache.
const TOKENS: usize = 32;

#[inline(always)]
unsafe fn scan_head<S: Simd>(head: Scan) {
    // SAFETY: as `scan_rows`.
    unsafe {
        for first in (0..head.n).step_by(TOKENS) {
            let tokens = (first, head.n.min(first + TOKENS));
            let mut at = 0;
            while at + 4 * LANES <= head.head_dim {
                scan_columns::<S, 4>(head, tokens, at);
                at += 4 * LANES;
            }
            while at < head.head_dim {
                scan_columns::<S, 1>(head, tokens, at);
                at += LANES;
            }
        }
    }
}

/// Some tokens through 16 `V` columns of the state, row after row in ascending order.
#[inline(always)]
unsafe fn scan_columns<S: Simd, const V: usize>(head: Scan, tokens: (usize, usize), at: usize) {
    let mut row = 0;
    // SAFETY: as `scan_rows`.
    unsafe {
        while row + 4 <= head.d_state {
            scan_rows::<S, V, 4>(head, tokens, at, row);
            row += 4;
        }
        while row < head.d_state {
            scan_rows::<S, V, 1>(head, tokens, at, row);
            row += 1;
        }
    }
}

/// Some tokens through `R` rows of these columns, which stay in registers; what the rows before have made of each is in `out`.
#[inline(always)]
unsafe fn scan_rows<S: Simd, const V: usize, const R: usize>(
    h: Scan,
    (first, last): (usize, usize),
    at: usize,
    row: usize,
) {
    // SAFETY: the pointers hold what `Scan` says; the columns are nobody else's.
    unsafe {
        let left = |v: usize| h.head_dim - at - v * LANES;
        let place = |r: usize, v: usize| (row + r) * h.head_dim + at + v * LANES;
        let from = if first > 0 { h.to.cast_const() } else { h.from };
        let mut state = [[S::splat(0.0); V]; R];
        for (r, state) in state.iter_mut().enumerate().filter(|_| !from.is_null()) {
            for (v, state) in state.iter_mut().enumerate() {
                *state = load_n::<S>(from.add(place(r, v)), left(v), 0.0);
            }
        }
        for t in first..last {
            let (x, b, c) = (h.x.add(t * h.stride + at), h.b.add(t * h.stride + row), h.c.add(t * h.stride + row));
            let (dt, decay) = (S::splat(*h.dt.add(t * h.heads)), S::splat(*h.decay.add(t * h.heads)));
            let made = h.out.add(t * h.out_stride + at);
            for v in 0..V {
                let passes = load_n::<S>(x.add(v * LANES), left(v), 0.0);
                let taken = S::mul(dt, passes);
                let mut out = match row {
                    0 => S::splat(0.0),
                    _ => load_n::<S>(made.add(v * LANES).cast_const(), left(v), 0.0),
                };
                for r in 0..R {
                    state[r][v] = S::fma(S::splat(*b.add(r)), taken, S::mul(state[r][v], decay));
                    out = S::fma(S::splat(*c.add(r)), state[r][v], out);
                }
                if row + R == h.d_state {
                    out = S::fma(S::splat(h.d), passes, out);
                }
                store_n::<S>(made.add(v * LANES), left(v), out);
            }
        }
        for (r, state) in state.into_iter().enumerate() {
            for (v, state) in state.into_iter().enumerate() {
                store_n::<S>(h.to.add(place(r, v)), left(v), state);
            }
        }
    }
}
