//! Mixers that keep a state of fixed size in the place of keys and values.
//!
//! ```text
//! conv(m)_t = sum over j < len of w_j * m_(t - len + 1 + j)       # by channel, what is before the first token being 0
//!
//! short_conv(h):
//!     b, c, x = Win h                                             # width each
//!     Wout (c * conv(b * x))
//!
//! delta_net(h):
//!     m, z = Wqkv h, Wgate h
//!     q, k, v = silu(conv(m))                                     # k_heads, k_heads and v_heads heads
//!     q, k = q / sqrt(sum(q^2) + eps) / sqrt(k_dim), k / sqrt(sum(k^2) + eps)      # by head
//!     beta, decay = sigmoid(Wbeta h), exp(a * softplus(Walpha h + dt))             # by value head
//!     S = decay * S;  S += k (beta * (v - S^T k))^T;  o = S^T q   # by value head, with the key head of `KeyHeads`
//!     Wout (rms_norm(o; norm) * silu(z))                          # by value head
//!
//! mamba2(h):
//!     z, m, t = Win h                                             # heads of head_dim, channels, one a head
//!     x, B, C = silu(conv(m) + bias)                              # heads of head_dim, groups and groups of d_state
//!     dt = softplus(t + dt_bias);  decay = exp(a * dt)            # by head
//!     S = decay * S + B (dt * x)^T;  y = S^T C + d * x            # by head, with the B and C of its group
//!     y = silu(z) * y;  y = rms_norm(y; norm)                     # the norm by group, where there is one
//!     Wout y
//! ```
//!
//! The state of a sequence, f32: of each of these layers the last `len - 1` columns of what its convolution reads, the oldest
//! first, of a DeltaNet `S` of each value head, `[k_dim, v_dim]`, of a Mamba2 that of each head, `[d_state, head_dim]`. A pass
//! computes it token by token, in prompts as in steps.

use super::range::{check, in_range};
use crate::error::Result;

/// A short convolution between two gates (LFM2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShortConv {
    /// Channels.
    pub width: usize,
    /// Tokens that an output depends on, at least 2.
    pub len: usize,
}

/// Which key head a value head goes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyHeads {
    /// Value head `h` with key head `h / (v_heads / k_heads)`.
    Grouped,
    /// Value head `h` with key head `h % k_heads`: the order into which converters bring the heads of Qwen3.5.
    Tiled,
}

/// A gated delta rule (Qwen3-Next, Qwen3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeltaNet {
    /// Heads of queries, and of keys.
    pub k_heads: usize,
    /// Heads of values; a multiple of `k_heads`.
    pub v_heads: usize,
    /// Elements of a head of queries or keys.
    pub k_dim: usize,
    /// Elements of a head of values.
    pub v_dim: usize,
    /// Tokens that an output of the convolution depends on, at least 2.
    pub len: usize,
    /// See [`KeyHeads`].
    pub key_heads: KeyHeads,
}

impl DeltaNet {
    /// Elements of a token's queries, or of its keys.
    pub fn k_width(&self) -> usize {
        self.k_heads * self.k_dim
    }

    /// Elements of its values, and of what the heads make.
    pub fn v_width(&self) -> usize {
        self.v_heads * self.v_dim
    }

    /// The key head that goes with a value head.
    pub fn key_head(&self, v_head: usize) -> usize {
        match self.key_heads {
            KeyHeads::Grouped => v_head / (self.v_heads / self.k_heads),
            KeyHeads::Tiled => v_head % self.k_heads,
        }
    }

    /// What multiplies the state before a token: `a` of its head, and the head's `Walpha h + dt`.
    pub fn decay(a: f32, x: f64) -> f64 {
        (f64::from(a) * softplus(x)).exp()
    }
}

/// A state space model with a scalar decay a head (Granite 4, Nemotron-H, Falcon-H1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mamba2 {
    /// Heads.
    pub heads: usize,
    /// Elements of one.
    pub head_dim: usize,
    /// Groups of heads side by side that read and write their states alike; divides `heads`.
    pub groups: usize,
    /// Rows of a head's state.
    pub d_state: usize,
    /// Tokens that an output of the convolution depends on, at least 2.
    pub len: usize,
    /// Whether what the heads make is normalized by group; the tensor exists where it is.
    pub norm: bool,
}

impl Mamba2 {
    /// Elements of what the heads make.
    pub fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Elements of what writes into the states of all groups, or of what reads them.
    pub fn group_width(&self) -> usize {
        self.groups * self.d_state
    }

    /// The group of a head.
    pub fn group(&self, head: usize) -> usize {
        head / (self.heads / self.groups)
    }

    /// How much a head's state takes of a token and what multiplies it before that, of the head's `a` and its `t + dt_bias`.
    pub fn step(a: f32, x: f64) -> (f64, f64) {
        let dt = softplus(x);
        (dt, (f64::from(a) * dt).exp())
    }
}

/// `ln(1 + e^x)`.
fn softplus(x: f64) -> f64 {
    // e^-40 is less than half a unit in the last place of 40.
    if x > 40.0 { x } else { x.exp().ln_1p() }
}

/// A mixer with a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recurrent {
    /// See [`ShortConv`].
    ShortConv(ShortConv),
    /// See [`DeltaNet`].
    DeltaNet(DeltaNet),
    /// See [`Mamba2`].
    Mamba2(Mamba2),
}

impl Recurrent {
    /// Channels of the convolution, and how many tokens its output depends on.
    pub fn conv(&self) -> (usize, usize) {
        match self {
            Recurrent::ShortConv(c) => (c.width, c.len),
            Recurrent::DeltaNet(d) => (2 * d.k_width() + d.v_width(), d.len),
            Recurrent::Mamba2(m) => (m.width() + 2 * m.group_width(), m.len),
        }
    }

    /// Elements of the convolution's part of the state, with which the layer's begins.
    pub fn conv_len(&self) -> usize {
        let (channels, len) = self.conv();
        channels * len.saturating_sub(1)
    }

    /// Elements of the layer's state.
    pub fn state_len(&self) -> usize {
        self.conv_len()
            + match self {
                Recurrent::ShortConv(_) => 0,
                Recurrent::DeltaNet(d) => d.v_width() * d.k_dim,
                Recurrent::Mamba2(m) => m.width() * m.d_state,
            }
    }

    /// Elements that the first matrix, or what reads beside it, makes of a token.
    pub fn in_width(&self) -> usize {
        match self {
            Recurrent::ShortConv(c) => 3 * c.width,
            Recurrent::DeltaNet(_) | Recurrent::Mamba2(_) => self.conv().0,
        }
    }

    /// Elements that the last matrix reads.
    pub fn out_width(&self) -> usize {
        match self {
            Recurrent::ShortConv(c) => c.width,
            Recurrent::DeltaNet(d) => d.v_width(),
            Recurrent::Mamba2(m) => m.width(),
        }
    }

    /// Heads that have a gate each; 0 where there are none.
    pub fn n_gates(&self) -> usize {
        match self {
            Recurrent::ShortConv(_) => 0,
            Recurrent::DeltaNet(d) => d.v_heads,
            Recurrent::Mamba2(m) => m.heads,
        }
    }

    pub(super) fn validate(&self, layer: &str) -> Result<()> {
        let (name, len) = match self {
            Recurrent::ShortConv(c) => {
                in_range(&format!("{layer} channels of the convolution"), c.width, 1 << 20)?;
                (format!("{layer} length of the convolution (shortconv.l_cache)"), c.len)
            }
            Recurrent::DeltaNet(d) => {
                in_range(&format!("{layer} key heads (ssm.group_count)"), d.k_heads, 1 << 12)?;
                in_range(&format!("{layer} value heads (ssm.time_step_rank)"), d.v_heads, 1 << 12)?;
                in_range(&format!("{layer} elements of a key head (ssm.state_size)"), d.k_dim, 1 << 10)?;
                in_range(&format!("{layer} elements of a value head (ssm.inner_size)"), d.v_dim, 1 << 10)?;
                let name = format!("{layer} value heads (ssm.time_step_rank)");
                check(d.v_heads.is_multiple_of(d.k_heads), &name, &d.v_heads, &|| {
                    format!("a multiple of {}, the number of key heads", d.k_heads)
                })?;
                (format!("{layer} length of the convolution (ssm.conv_kernel)"), d.len)
            }
            Recurrent::Mamba2(m) => {
                let heads = format!("{layer} heads with a state (ssm.time_step_rank)");
                in_range(&heads, m.heads, 1 << 12)?;
                in_range(&format!("{layer} groups of heads (ssm.group_count)"), m.groups, 1 << 12)?;
                in_range(&format!("{layer} elements of a head (ssm.inner_size)"), m.head_dim, 1 << 10)?;
                in_range(&format!("{layer} rows of a head's state (ssm.state_size)"), m.d_state, 1 << 10)?;
                check(m.heads.is_multiple_of(m.groups), &heads, &m.heads, &|| {
                    format!("a multiple of {}, the number of groups", m.groups)
                })?;
                (format!("{layer} length of the convolution (ssm.conv_kernel)"), m.len)
            }
        };
        check((2..=MAX_CONV).contains(&len), &name, &len, &|| format!("2 to {MAX_CONV}"))
    }
}

/// The most tokens that a convolution sees.
pub const MAX_CONV: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const NET: DeltaNet =
        DeltaNet { k_heads: 2, v_heads: 6, k_dim: 8, v_dim: 16, len: 4, key_heads: KeyHeads::Grouped };
    const MAMBA: Mamba2 = Mamba2 { heads: 6, head_dim: 10, groups: 2, d_state: 5, len: 4, norm: true };

    #[test]
    fn value_heads_find_their_key_heads() {
        let heads = |net: DeltaNet| (0..net.v_heads).map(|h| net.key_head(h)).collect::<Vec<_>>();
        assert_eq!(heads(NET), [0, 0, 0, 1, 1, 1]);
        assert_eq!(heads(DeltaNet { key_heads: KeyHeads::Tiled, ..NET }), [0, 1, 0, 1, 0, 1]);
    }

    #[test]
    fn states_have_their_sizes_and_wrong_ones_are_refused() {
        let net = Recurrent::DeltaNet(NET);
        assert_eq!((net.conv(), net.conv_len()), ((32 + 96, 4), 3 * 128));
        assert_eq!(net.state_len(), 3 * 128 + 6 * 8 * 16);
        assert_eq!(Recurrent::ShortConv(ShortConv { width: 10, len: 3 }).state_len(), 20);
        net.validate("layer 0").unwrap();
        for (wrong, text) in [
            (DeltaNet { v_heads: 5, ..NET }, "a multiple of 2"),
            (DeltaNet { len: 1, ..NET }, "2 to 64"),
            (DeltaNet { k_dim: 0, ..NET }, "ssm.state_size"),
        ] {
            let refused = Recurrent::DeltaNet(wrong).validate("layer 0").unwrap_err().to_string();
            assert!(refused.contains(text), "{refused}");
        }
        assert!(Recurrent::ShortConv(ShortConv { width: 10, len: 65 }).validate("layer 0").is_err());
        let mamba = Recurrent::Mamba2(MAMBA);
        assert_eq!((mamba.conv(), mamba.conv_len()), ((60 + 20, 4), 3 * 80));
        assert_eq!((mamba.state_len(), mamba.in_width(), mamba.out_width()), (3 * 80 + 60 * 5, 80, 60));
        assert_eq!((0..6).map(|head| MAMBA.group(head)).collect::<Vec<_>>(), [0, 0, 0, 1, 1, 1]);
        mamba.validate("layer 0").unwrap();
        for (wrong, text) in [
            (Mamba2 { heads: 0, ..MAMBA }, "ssm.time_step_rank"),
            (Mamba2 { groups: 0, ..MAMBA }, "ssm.group_count"),
            (Mamba2 { groups: 4, ..MAMBA }, "a multiple of 4"),
            (Mamba2 { head_dim: 1025, ..MAMBA }, "ssm.inner_size"),
            (Mamba2 { d_state: 0, ..MAMBA }, "ssm.state_size"),
            (Mamba2 { len: 1, ..MAMBA }, "2 to 64"),
        ] {
            let refused = Recurrent::Mamba2(wrong).validate("layer 0").unwrap_err().to_string();
            assert!(refused.contains(text), "{refused}");
        }
    }

    #[test]
    fn a_decay_is_the_exponential_of_a_softplus_everywhere() {
        for (a, x) in [(-1.5_f32, 0.3_f64), (-0.01, -50.0), (-2.0, 39.9), (-0.5, 41.0)] {
            let plain = (f64::from(a) * (1.0 + x.exp()).ln()).exp();
            assert!((DeltaNet::decay(a, x) - plain).abs() <= 1e-12, "{a} {x}");
            let (dt, decay) = Mamba2::step(a, x);
            assert!((dt - (1.0 + x.exp()).ln()).abs() <= 1e-12 && decay == DeltaNet::decay(a, x), "{a} {x}");
        }
    }
}
