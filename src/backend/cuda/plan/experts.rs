//! Experts as launches: the same of one row, of those of a batch and of those of a prompt.
//!
//! A row has a slot for each of its experts, in ascending order of their ids. Of several rows slots are sorted by expert on the device, so
//! that an expert's weights are read once for several slots; no bit depends on that. The host learns nothing of the choice.

use super::op::{Experts, Kind};
use super::workspace::stride;
use crate::backend::cuda::driver::{Address, Gpu};
use crate::backend::cuda::kernels::abi::{ExpertProducts, Glu, Mat, Route};
use crate::backend::cuda::kernels::kinds::{Activation, Score};
use crate::backend::cuda::kernels::launch::{self, Between, Sum, Tasks};
use crate::model::Config;

/// Most slots of a pass: a kernel has a row of blocks for each.
pub const MOST_SLOTS: usize = 65535;

/// Working memory of experts, for a number of rows.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct Room {
    pub logits: Address,  // [rows, N] f32
    pub ids: Address,     // [rows, K] u32
    pub shown: Address,   // [rows, K] f32
    pub weights: Address, // [rows, K] f32
    pub order: Address,   // [rows K] u32
    pub tasks: Address,   // [rows K] two words each
    pub gate: Address,    // [rows K, F] f32
    pub up: Address,      // [rows K, F] f32
    pub made: Address,    // [rows K, D] f32
    pub shared: Address,  // [rows] f32: logits of what the shared expert is multiplied by
}

/// Bytes of each part of a room.
fn sizes(c: &Config, rows: usize) -> [u64; 10] {
    let most = c.widths();
    if most.n_experts == 0 {
        return [0; 10];
    }
    let slots = rows * most.n_used;
    let wide = slots * stride(most.expert);
    let words = [
        rows * stride(most.n_experts),
        slots,
        slots,
        slots,
        slots,
        2 * slots,
        wide,
        wide,
        slots * stride(c.n_embd),
        rows,
    ];
    words.map(|n| (4 * n as u64).next_multiple_of(256))
}

impl Room {
    /// Bytes it takes; none where a model has no experts.
    pub fn bytes(c: &Config, rows: usize) -> u64 {
        sizes(c, rows).iter().sum()
    }

    /// From this address on.
    pub fn at(mut at: Address, c: &Config, rows: usize) -> Room {
        let [logits, ids, shown, weights, order, tasks, gate, up, made, shared] = sizes(c, rows).map(|bytes| {
            at += bytes;
            at - bytes
        });
        Room { logits, ids, shown, weights, order, tasks, gate, up, made, shared }
    }
}

/// The rows that experts are for.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// How many.
    pub n: u32,
    /// [n, D] f32: what is read.
    pub x: Address,
    /// Elements from one to the next.
    pub x_stride: u32,
    /// [n, D] f32: what the shared expert has made, if there is one, and then the sum.
    pub y: Address,
    /// Elements from one to the next.
    pub y_stride: u32,
}

/// A launch, and what it leaves to be seen: a name, where, elements from row to row, and of a row.
#[derive(Clone, Debug)]
pub struct Call {
    /// What it is counted as.
    pub kind: Kind,
    /// What is launched.
    pub run: Between,
    /// See above.
    pub shows: Vec<(&'static str, Address, usize, usize)>,
}

/// Slots that a block has room for: 8, 4 or 1.
fn at_once(gpu: &Gpu, products: &[(u32, Mat)]) -> u32 {
    let fits = |slots: &u32| {
        products.iter().all(|(n, mat)| {
            let room = launch::expert_shared(*n, mat.ty.is_quantized(), *slots);
            room + 1024 <= gpu.shared_most as u64
        })
    };
    [8, 4].into_iter().find(fits).unwrap_or(1)
}

/// Rows of a matrix for a block: enough blocks for the device, whole turns of a block's warps.
fn tile(gpu: &Gpu, rows: u32, blocks: u32) -> u32 {
    let most = u64::from(rows) * u64::from(blocks) / u64::from(8 * gpu.n_sm);
    (most as u32).clamp(16, 256).next_multiple_of(16)
}

/// The launches of a layer's experts.
pub fn launches(gpu: &Gpu, config: &Config, op: &Experts, rows: Rows, room: &Room) -> Vec<Call> {
    let (experts, w) = (&op.experts, &op.weights);
    let (d, n, k, f) = (config.n_embd as u32, experts.n as u32, experts.n_used as u32, experts.each.width as u32);
    let mut calls = Vec::with_capacity(10);
    let mut push = |kind, run, shows| calls.push(Call { kind, run, shows });
    let n_slots = rows.n * k;
    // Of all rows with one matrix.
    let of_all = |m: Mat, bias: Address, y: Address, y_stride: u32| {
        let at_once = if rows.n == 1 { 1 } else { at_once(gpu, &[(d, m)]) };
        let products = ExpertProducts {
            x: rows.x,
            m: [m, Mat::default()],
            bias: [bias, 0],
            y: [y, 0],
            n_m: 1,
            ..ExpertProducts::default()
        };
        let tile = tile(gpu, m.rows, rows.n.div_ceil(at_once));
        let (x_stride, n_slots) = (rows.x_stride, rows.n);
        ExpertProducts { rows: m.rows, n: d, share: 1, n_slots, at_once, x_stride, y_stride, tile, ..products }
    };
    let l_stride = stride(experts.n);
    let router = of_all(w.router, w.router_bias, room.logits, l_stride as u32);
    push(Kind::Route, Between::Experts(router), vec![("moe_logits", room.logits, l_stride, experts.n)]);
    let mut gate = 0;
    if let Some(m) = w.shared_gate {
        gate = room.shared;
        push(Kind::Route, Between::Experts(of_all(m, 0, gate, 1)), Vec::new());
    }
    let shows = [("moe_ids", room.shown), ("moe_weights", room.weights)];
    let shows = shows.map(|(name, from)| (name, from, k as usize, k as usize)).into();
    push(Kind::Route, Between::Route(route(op, rows.n, l_stride as u32, room)), shows);
    let first = w.gate.unwrap_or(w.up);
    let mut slots =
        ExpertProducts { ids: room.ids, n_slots, at_once: 1, n_tasks: n_slots, ..ExpertProducts::default() };
    if rows.n > 1 {
        slots.at_once = at_once(gpu, &[(d, first), (d, w.up), (f, w.down)]);
        (slots.order, slots.tasks) = (room.order, room.tasks);
        slots.n_tasks = Tasks::most(n_slots, n, slots.at_once);
        let Room { ids, order, tasks, .. } = *room;
        let sorted = Tasks { ids, order, tasks, n_slots, n_experts: n, at_once: slots.at_once, n_tasks: slots.n_tasks };
        push(Kind::Route, Between::Tasks(sorted), Vec::new());
    }
    let f_stride = stride(f as usize) as u32;
    let wide =
        ExpertProducts { x: rows.x, rows: f, n: d, share: k, x_stride: rows.x_stride, y_stride: f_stride, ..slots };
    let wide = |mats: &[(Mat, Address, Address)]| {
        let mut products = ExpertProducts { n_m: mats.len() as u32, ..wide };
        products.tile = tile(gpu, f, products.n_tasks * products.n_m);
        for (i, (m, bias, y)) in mats.iter().enumerate() {
            (products.m[i], products.bias[i], products.y[i]) = (*m, *bias, *y);
        }
        Between::Experts(products)
    };
    let up = (w.up, w.up_bias, room.up);
    match w.gate.map(|gate| (gate, w.gate_bias, room.gate)) {
        Some(gate) if gate.0.ty == up.0.ty => push(Kind::Experts, wide(&[gate, up]), Vec::new()),
        Some(gate) => [gate, up].iter().for_each(|part| push(Kind::Experts, wide(&[*part]), Vec::new())),
        None => push(Kind::Experts, wide(&[up]), Vec::new()),
    }
    let (from, by) = if w.gate.is_some() { (room.gate, room.up) } else { (room.up, 0) };
    let glu = Glu { gate: from, up: by, row: from, n_rows: n_slots, n: f, in_stride: f_stride, ..Glu::default() };
    let activation = Activation::from(experts.each.activation) as u32;
    push(Kind::Glu, Between::Glu(Glu { out_stride: f_stride, activation, ..glu }), Vec::new());
    let d_stride = stride(config.n_embd) as u32;
    let down = ExpertProducts { x: from, rows: d, n: f, share: 1, x_stride: f_stride, y_stride: d_stride, ..slots };
    let down =
        ExpertProducts { m: [w.down, Mat::default()], bias: [w.down_bias, 0], y: [room.made, 0], n_m: 1, ..down };
    let tile = tile(gpu, d, slots.n_tasks);
    push(Kind::Experts, Between::Experts(ExpertProducts { tile, ..down }), Vec::new());
    let sum = Sum {
        made: room.made,
        weights: room.weights,
        gate,
        y: rows.y,
        shared: experts.shared.is_some(),
        n_rows: rows.n,
        n_used: k,
        n: d,
        stride: d_stride,
        y_stride: rows.y_stride,
    };
    push(Kind::Experts, Between::ExpertSum(sum), vec![("ffn_out", rows.y, rows.y_stride as usize, config.n_embd)]);
    calls
}

fn route(op: &Experts, n_rows: u32, stride: u32, room: &Room) -> Route {
    let (experts, how) = (&op.experts, &op.experts.route);
    Route {
        logits: room.logits,
        select_bias: op.weights.select_bias,
        ids: room.ids,
        weights: room.weights,
        shown: room.shown,
        n_rows,
        n: experts.n as u32,
        n_used: experts.n_used as u32,
        stride,
        score: Score::from(how.score) as u32,
        n_groups: how.groups.map_or(0, |groups| groups.n as u32),
        n_groups_used: how.groups.map_or(0, |groups| groups.n_used as u32),
        renorm: u32::from(how.renorm),
        scale: how.scale,
    }
}
