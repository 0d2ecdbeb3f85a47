//! Mixers with a state, and the gate of attention: what stands between their products, the same of one row, of a batch and of a prompt.

use super::experts::{Call, Shows};
use super::kind::Kind;
use super::limits::stride;
use crate::backend::cuda::driver::Address;
use crate::backend::cuda::kernels::abi::{Convolve, DELTA_HEAD, Delta, GateMix, Glu, Norm, SCAN_STATE, Scan, Spans};
use crate::backend::cuda::kernels::kinds::{Activation, NormKind};
use crate::backend::cuda::kernels::launch::Between;
use crate::model::{Config, DeltaNet, KeyHeads, Mamba2, Recurrent, ShortConv};

/// What a mixer does behind its first products.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    /// The description.
    pub mixer: Recurrent,
    /// [channels, len] f32
    pub conv: Address,
    /// [channels] f32, or 0
    pub conv_bias: Address,
    /// [heads] f32 each, of decays; or 0
    pub a: Address,
    /// See `a`.
    pub dt: Address,
    /// [heads] f32: what a Mamba2's heads pass on; or 0.
    pub d: Address,
    /// [v_dim] f32, of a Mamba2 [groups, width / groups], or 0
    pub norm: Address,
    /// Where the layer's part of a sequence's state begins, in elements.
    pub at: u64,
}

/// Whether the kernels have heads so wide.
pub fn can(mixer: &Recurrent) -> bool {
    match mixer {
        Recurrent::ShortConv(_) => true,
        Recurrent::DeltaNet(d) => d.k_dim.max(d.v_dim) <= DELTA_HEAD as usize,
        Recurrent::Mamba2(m) => m.d_state <= SCAN_STATE as usize,
    }
}

/// Elements of a row that a mixer's first products leave.
pub fn in_width(mixer: &Recurrent) -> usize {
    let gate = match mixer {
        Recurrent::ShortConv(_) => 0,
        Recurrent::DeltaNet(_) | Recurrent::Mamba2(_) => mixer.out_width(),
    };
    mixer.in_width() + gate
}

/// The most elements of a row that a mixer's first products leave.
pub fn most_in(c: &Config) -> usize {
    let of = |l: &crate::model::Layer| {
        let a = l.attention();
        (a.q_width() + 2 * a.kv_width()).max(l.recurrent.as_ref().map_or(0, in_width))
    };
    c.layers.iter().map(of).max().unwrap_or(0)
}

/// The most elements of a row that a mixer's last product reads.
pub fn most_out(c: &Config) -> usize {
    let w = c.widths();
    w.q.max(w.mix_out)
}

/// Working memory, for a number of rows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Room {
    conv: Address, // [rows, channels] f32
    o: Address,    // [rows, heads, v_dim] f32
    /// [rows, 2 heads] f32: what betas and decays are made of, or time steps.
    pub gates: Address,
    decays: Address, // [rows, heads] f32, beside time steps
    /// [rows, H] f32: the gate of attention.
    pub gate: Address,
}

fn sizes(c: &Config, rows: usize) -> [u64; 5] {
    let w = c.widths();
    [w.conv, w.mix_out, 2 * w.gates, w.gates, w.gated_q].map(|n| ((rows * stride(n) * 4) as u64).next_multiple_of(256))
}

impl Room {
    /// Bytes it takes; none where a model has neither.
    pub fn bytes(c: &Config, rows: usize) -> u64 {
        sizes(c, rows).iter().sum()
    }

    /// From this address on.
    pub fn at(mut at: Address, c: &Config, rows: usize) -> Room {
        let [conv, o, gates, decays, gate] = sizes(c, rows).map(|bytes| {
            at += bytes;
            at - bytes
        });
        Room { conv, o, gates, decays, gate }
    }
}

/// The rows that launches work on.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// Whose they are; where in a state the layer's part begins is added.
    pub of: Spans,
    /// What the first products have left.
    pub x: Address,
    /// Elements from one row of so many to the next.
    pub stride: fn(usize) -> u32,
    /// Where what the last product reads goes.
    pub to: To,
}

/// Where a result goes: f32, or f16 and what that rounding leaves (or null).
#[derive(Clone, Copy, Debug)]
pub enum To {
    /// f32.
    Row(Address),
    /// f16.
    Halves(Address, Address),
}

impl To {
    fn parts(self) -> [Address; 3] {
        match self {
            To::Row(row) => [row, 0, 0],
            To::Halves(out, lo) => [0, out, lo],
        }
    }
}

/// The launches of a mixer.
pub fn launches(config: &Config, op: &Mix, rows: Rows, room: &Room) -> Vec<Call> {
    match &op.mixer {
        Recurrent::ShortConv(conv) => vec![short_conv(op, conv, rows, room)],
        Recurrent::DeltaNet(net) => delta_net(config, op, net, rows, room).into(),
        Recurrent::Mamba2(net) => mamba2(config, op, net, rows, room),
    }
}

fn call(run: Between, shows: Shows) -> Call {
    Call { kind: Kind::Attend, run, shows }
}

/// `c * conv(b * x)`, which stand one behind the other in that order of the file: b, c, x.
fn short_conv(op: &Mix, c: &ShortConv, rows: Rows, room: &Room) -> Call {
    let (width, bytes) = (c.width as u32, 4 * c.width as u64);
    let [row, out, out_lo] = rows.to.parts();
    let (x_stride, y_stride) = ((rows.stride)(3 * c.width), (rows.stride)(c.width));
    let gate = rows.x + bytes;
    let run = Convolve {
        of: Spans { at: op.at, ..rows.of },
        x: rows.x + 2 * bytes,
        times: rows.x,
        gate,
        w: op.conv,
        y: room.conv,
        row,
        out,
        out_lo,
        channels: width,
        len: c.len as u32,
        x_stride,
        y_stride,
        out_stride: y_stride,
        ..Convolve::default()
    };
    let shows = vec![("gate", gate, x_stride as usize, c.width), ("conv", room.conv, y_stride as usize, c.width)];
    call(Between::Convolve(run), shows)
}

/// The convolution of a mixer with heads, of so many channels over so many tokens, and what its heads' gates are; it shows them, and the
/// gate of what the heads make, `width` elements behind the channels.
fn convolved(
    op: &Mix,
    [channels, width, heads, len]: [usize; 4],
    [x_stride, y_stride, gates_stride]: [u32; 3],
    decays: Address,
    rows: Rows,
    room: &Room,
) -> Call {
    let convolve = Convolve {
        of: Spans { at: op.at, ..rows.of },
        x: rows.x,
        w: op.conv,
        bias: op.conv_bias,
        y: room.conv,
        betas: room.gates,
        decays,
        a: op.a,
        dt: op.dt,
        channels: channels as u32,
        len: len as u32,
        x_stride,
        y_stride,
        n_gates: heads as u32,
        gates_stride,
        activation: Activation::Silu as u32,
        by_steps: u32::from(matches!(op.mixer, Recurrent::Mamba2(_))),
        ..Convolve::default()
    };
    let shows = vec![
        ("conv", room.conv, y_stride as usize, channels),
        ("gate", rows.x + 4 * channels as u64, x_stride as usize, width),
        ("beta", room.gates, gates_stride as usize, heads),
        ("decay", decays, gates_stride as usize, heads),
    ];
    call(Between::Convolve(convolve), shows)
}

fn delta_net(config: &Config, op: &Mix, d: &DeltaNet, rows: Rows, room: &Room) -> [Call; 2] {
    let (channels, values, heads) = (2 * d.k_width() + d.v_width(), d.v_width(), d.v_heads);
    let [x_stride, y_stride, gates_stride] = [channels + values, channels, 2 * heads].map(rows.stride);
    let [row, out, out_lo] = rows.to.parts();
    let z = rows.x + 4 * channels as u64;
    let decays = room.gates + 4 * heads as u64;
    let first = convolved(op, [channels, values, heads, d.len], [x_stride, y_stride, gates_stride], decays, rows, room);
    let delta = Delta {
        of: Spans { at: op.at + ((d.len - 1) * channels) as u64, ..rows.of },
        y: room.conv,
        betas: room.gates,
        decays,
        z,
        norm: op.norm,
        o: room.o,
        row,
        out,
        out_lo,
        k_heads: d.k_heads as u32,
        v_heads: heads as u32,
        k_dim: d.k_dim as u32,
        v_dim: d.v_dim as u32,
        y_stride,
        gates_stride,
        z_stride: x_stride,
        out_stride: (rows.stride)(values),
        tiled: u32::from(d.key_heads == KeyHeads::Tiled),
        eps: config.norm_eps,
    };
    [first, call(Between::Delta(delta), vec![("mix_state", room.o, values, values)])]
}

fn mamba2(config: &Config, op: &Mix, m: &Mamba2, rows: Rows, room: &Room) -> Vec<Call> {
    let (width, heads) = (m.width(), m.heads);
    let channels = width + 2 * m.group_width();
    let [x_stride, y_stride, gates_stride] = [channels + width, channels, heads].map(rows.stride);
    let z = rows.x + 4 * channels as u64;
    let first =
        convolved(op, [channels, width, heads, m.len], [x_stride, y_stride, gates_stride], room.decays, rows, room);
    let scan = Scan {
        of: Spans { at: op.at + ((m.len - 1) * channels) as u64, ..rows.of },
        y: room.conv,
        steps: room.gates,
        decays: room.decays,
        d: op.d,
        o: room.o,
        heads: heads as u32,
        head_dim: m.head_dim as u32,
        groups: m.groups as u32,
        d_state: m.d_state as u32,
        y_stride,
        gates_stride,
    };
    let mut calls = vec![first, call(Between::Scan(scan), vec![("mix_state", room.o, width, width)])];
    gate_groups(config, (op, m), rows, (z, x_stride), room.o, &mut calls);
    calls
}

/// The gate of what a Mamba2's heads have made, in `o`, and its norm by group.
fn gate_groups(
    config: &Config,
    (op, m): (&Mix, &Mamba2),
    rows: Rows,
    (gate, in_stride): (Address, u32),
    o: Address,
    calls: &mut Vec<Call>,
) {
    let (width, n_rows) = (m.width() as u32, rows.of.n_rows);
    let (out_stride, [row, out, out_lo]) = ((rows.stride)(m.width()), rows.to.parts());
    let activation = Activation::Silu as u32;
    let glu = Glu { gate, up: o, n_rows, n: width, in_stride, up_stride: width, activation, ..Glu::default() };
    if op.norm == 0 {
        let glu = Glu { row, out, out_lo, out_stride, ..glu };
        return calls.push(call(Between::Glu(glu), Vec::new()));
    }
    // Normalized as f32, in the place of what it is made of, or where it is to go.
    let (x, x_stride) = if row == 0 { (o, width) } else { (row, out_stride) };
    calls.push(call(Between::Glu(Glu { row: x, out_stride: x_stride, ..glu }), Vec::new()));
    let dim = width / m.groups as u32;
    let (heads, w_stride) = if m.groups > 1 { (m.groups as u32, dim) } else { (0, 0) };
    let norm = Norm { x, row: x, n_rows, x_stride, eps: config.norm_eps, ..Norm::default() };
    let by_group = Norm { w: op.norm, dim, heads, w_stride, kind: NormKind::Rms as u32, ..norm };
    calls.push(call(Between::Norm(by_group), Vec::new()));
    if row == 0 {
        let halves = Norm { row: 0, out, out_lo, out_stride, dim: width, kind: NormKind::None as u32, ..norm };
        calls.push(call(Between::Norm(halves), Vec::new()));
    }
}

/// What attention has mixed, `width` elements of a row, times its gate.
pub fn gate_mix(width: usize, n: u32, stride: fn(usize) -> u32, to: To, room: &Room) -> Between {
    let ([row, out, out_lo], stride) = (to.parts(), stride(width));
    Between::GateMix(GateMix {
        gate: room.gate,
        row,
        out,
        out_lo,
        n_rows: n,
        n: width as u32,
        gate_stride: stride,
        stride,
    })
}
