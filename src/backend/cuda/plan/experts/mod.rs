//! Experts as launches: of one row, of those of a batch and of those of a prompt.
//!
//! One row takes three, where its types and the device let it: its experts are chosen where the router is multiplied, what gates and ups make
//! is made where they are multiplied, and so are the sums of downs. All sums have the same order, so that a batch gives the same bits.
//!
//! A row has a slot for each of its experts, in ascending order of their ids. Of several rows slots are sorted by expert on the device, so
//! that an expert's weights are read once for several slots, and go to tensor cores where these are many; no bit depends on that. The host learns
//! nothing of the choice.
//!
//! Prompts outside strict mode go through tensor cores, all but the choice: a prompt has [`LEAST_ROWS`](super::limits::LEAST_ROWS) rows, and
//! the kernels are not chosen by how many a pass has beyond that, since others' may be among them and bits would depend on those.

mod prompt;
mod room;
mod step;
mod tiles;

use super::kind::Kind;
use super::limits::stride;
use crate::backend::cuda::driver::{Address, Gpu};
use crate::backend::cuda::kernels::abi::{ExpertProducts, Glu, Mat, NORM_KEPT, Norm, Route};
use crate::backend::cuda::kernels::kinds::{Activation, NormKind, Score};
use crate::backend::cuda::kernels::launch::{self, Between, Router, Sum, Tasks};
use crate::backend::cuda::weights::layout;
use crate::model::{self, Config};

pub use prompt::prompt;
pub use room::Room;

/// Most slots of a pass: a kernel has a row of blocks for each.
pub const MOST_SLOTS: usize = 65535;

/// The experts of a layer; the one that all share, if there is one, has been there before.
#[derive(Clone, Debug)]
pub struct Experts {
    /// How many, of which width, how they are chosen.
    pub experts: model::Experts,
    /// Their matrices.
    pub weights: layout::Experts,
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
    /// The stream, whose rows lie as far apart as those of `x`.
    pub stream: Address,
    /// [n, D] f32: what the shared expert has made, if there is one, and then the sum.
    pub y: Address,
    /// Elements from one to the next.
    pub y_stride: u32,
    /// The norm that makes `x`, where the part begins with it ([`takes_norm`]), and where it leaves the stream.
    pub before: Option<(Norm, Address)>,
}

/// Whether the launches of a layer's experts begin with a norm of one row which adds something to the stream.
pub fn takes_norm(gpu: &Gpu, config: &Config, op: &Experts) -> bool {
    let kept = config.n_embd.is_multiple_of(4) && config.n_embd <= NORM_KEPT as usize;
    kept && op.weights.side_by_side.is_none()
        && routed_at_once(gpu, config.n_embd as u32, op)
        && op.weights.shared_gate.is_none()
}

/// Whether one row's experts are chosen by the launch that multiplies the router, which is the one that a norm can be given to.
fn routed_at_once(gpu: &Gpu, d: u32, op: &Experts) -> bool {
    launch::router_fits(gpu, d) && !op.weights.router.ty.is_quantized()
}

/// A launch, and what it leaves to be seen.
#[derive(Clone, Debug)]
pub struct Call {
    /// What it is counted as.
    pub kind: Kind,
    /// What is launched.
    pub run: Between,
    /// See [`Shows`].
    pub shows: Shows,
}

/// What a launch leaves to be seen: a name, where, elements from row to row, and of a row.
pub type Shows = Vec<(&'static str, Address, usize, usize)>;

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

/// Rows of a matrix, or of gate and up, for a block: enough blocks for the device, whole turns of a block's warps.
fn tile(gpu: &Gpu, rows: u32, blocks: u32) -> u32 {
    let most = u64::from(rows) * u64::from(blocks) / u64::from(8 * gpu.n_sm);
    (most as u32).clamp(16, 192).next_multiple_of(16)
}

/// The launches of a layer's experts.
pub fn launches(gpu: &Gpu, config: &Config, op: &Experts, rows: Rows, room: &Room) -> Vec<Call> {
    let mut making = Making::new(gpu, config, op, rows, room);
    making.choice();
    let slots = making.slots();
    making.gate_up(slots);
    if !making.summed(slots) {
        making.down(slots);
        making.sum();
    }
    making.finish()
}

/// The launches so far.
struct Making<'a> {
    gpu: &'a Gpu,
    op: &'a Experts,
    rows: Rows,
    room: &'a Room,
    d: u32,
    eps: f32,
    calls: Vec<Call>,
}

impl<'a> Making<'a> {
    fn new(gpu: &'a Gpu, config: &Config, op: &'a Experts, rows: Rows, room: &'a Room) -> Making<'a> {
        let (d, eps) = (config.n_embd as u32, config.norm_eps);
        Making { gpu, op, rows, room, d, eps, calls: Vec::with_capacity(14) }
    }

    fn push(&mut self, kind: Kind, run: Between, shows: Shows) {
        self.calls.push(Call { kind, run, shows });
    }

    /// The product of all rows with one matrix.
    fn of_all(&self, m: Mat, bias: Address, y: Address, y_stride: u32) -> ExpertProducts {
        let Rows { n, x, x_stride, .. } = self.rows;
        let most = if n == 1 { 1 } else { at_once(self.gpu, &[(self.d, m)]) };
        // Enough blocks for the device, rather than weights that are read once for many rows: a router's are few.
        let blocks = |at_once: u32| n.div_ceil(at_once) * m.rows.div_ceil(16);
        let enough = |at_once: &u32| *at_once <= most && blocks(*at_once) >= self.gpu.n_sm;
        let at_once = [8, 4, 2].into_iter().find(enough).unwrap_or(1);
        let tile = tile(self.gpu, m.rows, n.div_ceil(at_once));
        let products = ExpertProducts {
            x,
            m: [m, Mat::default()],
            bias: [bias, 0],
            y: [y, 0],
            n_m: 1,
            ..ExpertProducts::default()
        };
        let products = ExpertProducts { rows: m.rows, n: self.d, share: 1, n_slots: n, at_once, ..products };
        ExpertProducts { x_stride, y_stride, tile, ..products }
    }

    /// The router's logits, that of the shared expert's gate, and what is chosen.
    fn choice(&mut self) {
        let (w, room, n, k) = (&self.op.weights, self.room, self.op.experts.n, self.op.experts.n_used);
        // What a router reads that is not the dense part's.
        if let Some(side) = w.side_by_side {
            self.read_aside(side.router_norm, 1.0 / (self.d as f32).sqrt());
        }
        if let Some(m) = w.shared_gate {
            let gate = self.of_all(m, 0, room.shared, 1);
            self.push(Kind::Route, Between::Experts(gate), Vec::new());
        }
        let logits = ("moe_logits", room.logits, stride(n), n);
        let chosen = [("moe_ids", room.shown), ("moe_weights", room.weights)].map(|(name, from)| (name, from, k, k));
        let router = self.of_all(w.router, w.router_bias, room.logits, stride(n) as u32);
        let route = route(self.op, self.rows.n, stride(n) as u32, room);
        if self.rows.n == 1 && routed_at_once(self.gpu, self.d, self.op) {
            let router = Router { products: router, route, before: self.rows.before };
            self.push(Kind::Route, Between::Router(router), [&[logits][..], &chosen].concat());
        } else {
            self.push(Kind::Route, Between::Experts(router), vec![logits]);
            self.push(Kind::Route, Between::Route(route), chosen.into());
        }
        if let Some(side) = w.side_by_side {
            self.read_aside(side.experts_norm, 0.0);
        }
    }

    /// From here on the stream is read through this norm, times something unless that is 0.
    fn read_aside(&mut self, w: Address, h_scale: f32) {
        let Rows { n, stream, x_stride, .. } = self.rows;
        let norm = Norm { x: stream, row: self.room.aside, w, h_scale, n_rows: n, dim: self.d, ..Norm::default() };
        let norm = Norm { x_stride, kind: NormKind::Rms as u32, eps: self.eps, ..norm };
        self.push(Kind::Route, Between::Norm(norm), Vec::new());
        self.rows.x = self.room.aside;
    }

    /// Where the sum of what experts make goes, and whether it is added to what is there.
    fn made(&self) -> (Address, bool) {
        match self.op.weights.side_by_side {
            Some(_) => (self.room.beside, false),
            None => (self.rows.y, self.op.experts.shared.is_some()),
        }
    }

    /// The weights of what experts make.
    fn weights(&self) -> Address {
        if self.op.weights.down_scale != 0 { self.room.scaled } else { self.room.weights }
    }

    /// All launches. Beside a dense part what both have made is normalized, each by itself, and added.
    fn finish(mut self) -> Vec<Call> {
        if let Some(side) = self.op.weights.side_by_side {
            let Rows { n, y, y_stride, .. } = self.rows;
            let norm = Norm { x: y, n_rows: n, dim: self.d, x_stride: y_stride, eps: self.eps, ..Norm::default() };
            let shared = Norm { row: y, w: side.shared_post_norm, kind: NormKind::Rms as u32, ..norm };
            self.push(Kind::Experts, Between::Norm(shared), Vec::new());
            let (delta, post_w) = ([self.room.beside, 0], [side.experts_post_norm, 0]);
            let shows = self.shown_sum();
            self.push(Kind::Experts, Between::Norm(Norm { delta, post_w, scale: 1.0, ..norm }), shows);
        }
        self.calls
    }

    /// The slots, sorted where there are several rows.
    fn slots(&mut self) -> ExpertProducts {
        let (w, experts) = (&self.op.weights, &self.op.experts);
        let Room { ids, order, tasks, .. } = *self.room;
        let n_slots = self.rows.n * experts.n_used as u32;
        let slots = ExpertProducts { ids, n_slots, n_tasks: n_slots, at_once: 1, ..ExpertProducts::default() };
        if self.rows.n == 1 {
            return slots;
        }
        let first = w.gate.unwrap_or(w.up);
        let at_once = at_once(self.gpu, &[(self.d, first), (self.d, w.up), (experts.each.width as u32, w.down)]);
        let n_tasks = self.sort(n_slots, at_once);
        ExpertProducts { order, tasks, at_once, n_tasks, ..slots }
    }

    /// The slots by expert, in tasks of at most `at_once`; how many tasks there may be.
    fn sort(&mut self, n_slots: u32, at_once: u32) -> u32 {
        let Room { ids, order, tasks, .. } = *self.room;
        let n_experts = self.op.experts.n as u32;
        let n_tasks = Tasks::most(n_slots, n_experts, at_once);
        let sorted = Tasks { ids, order, tasks, n_slots, n_experts, at_once, n_tasks };
        self.push(Kind::Route, Between::Tasks(sorted), Vec::new());
        n_tasks
    }

    /// Gate and up in one launch where they are of one type; activation(gate) * up in the place of the gate.
    fn gate_up(&mut self, slots: ExpertProducts) {
        let (w, room, each) = (&self.op.weights, self.room, self.op.experts.each);
        let (f, y_stride) = (each.width as u32, stride(each.width) as u32);
        let Rows { x, x_stride, .. } = self.rows;
        let share = self.op.experts.n_used as u32;
        let products = ExpertProducts { x, rows: f, n: self.d, share, x_stride, y_stride, ..slots };
        let up = (w.up, w.up_bias, room.up);
        let gate = w.gate.map(|gate| (gate, w.gate_bias, room.gate));
        let together = gate.is_some_and(|gate| gate.0.ty == up.0.ty);
        if let Some(gate) = gate.filter(|_| together && (self.rows.n > 1 || self.alone(slots, 1))) {
            return self.gated(products, [gate, up]);
        }
        let launches = match gate {
            Some(gate) if together => vec![vec![gate, up]],
            Some(gate) => vec![vec![gate], vec![up]],
            None => vec![vec![up]],
        };
        for mats in launches {
            let mut products = ExpertProducts { n_m: mats.len() as u32, ..products };
            products.tile = tile(self.gpu, f, products.n_tasks * products.n_m);
            for (i, (m, bias, y)) in mats.into_iter().enumerate() {
                (products.m[i], products.bias[i], products.y[i]) = (m, bias, y);
            }
            self.products(products);
        }
        let (from, by) = if gate.is_some() { (room.gate, room.up) } else { (room.up, 0) };
        self.glu(from, by, slots.n_slots);
    }

    fn down(&mut self, slots: ExpertProducts) {
        let tile = tile(self.gpu, self.d, slots.n_tasks);
        let (y, y_stride) = ([self.room.made, 0], stride(self.d as usize) as u32);
        let products = ExpertProducts { y, y_stride, tile, ..self.downs(slots) };
        self.products(products);
    }

    /// The products with the matrices that come last.
    fn downs(&self, slots: ExpertProducts) -> ExpertProducts {
        let (w, room, each) = (&self.op.weights, self.room, self.op.experts.each);
        let x = if w.gate.is_some() { room.gate } else { room.up };
        let mats = ExpertProducts { m: [w.down, Mat::default()], bias: [w.down_bias, 0], n_m: 1, ..slots };
        let x_stride = stride(each.width) as u32;
        ExpertProducts { x, rows: self.d, n: each.width as u32, share: 1, x_stride, ..mats }
    }

    /// Where the logit is of what the shared expert is multiplied by; 0: it is not.
    fn shared_gate(&self) -> Address {
        if self.op.weights.shared_gate.is_some() { self.room.shared } else { 0 }
    }

    /// What the sum of experts shows, where nothing stands behind it.
    fn shown_if_last(&self) -> Shows {
        if self.op.weights.side_by_side.is_some() { Vec::new() } else { self.shown_sum() }
    }

    fn shown_sum(&self) -> Shows {
        let Rows { y, y_stride, .. } = self.rows;
        vec![("ffn_out", y, y_stride as usize, self.d as usize)]
    }

    /// activation(gate) * up, or activation(gate), in the place of the gate.
    fn glu(&mut self, gate: Address, up: Address, n_rows: u32) {
        let each = self.op.experts.each;
        let (n, stride) = (each.width as u32, stride(each.width) as u32);
        let glu = Glu { gate, up, row: gate, n_rows, n, in_stride: stride, out_stride: stride, ..Glu::default() };
        let activation = Activation::from(each.activation) as u32;
        self.push(Kind::Glu, Between::Glu(Glu { activation, ..glu }), Vec::new());
    }

    fn sum(&mut self) {
        let (experts, rows, (y, shared)) = (&self.op.experts, self.rows, self.made());
        let sum = Sum {
            made: self.room.made,
            weights: self.weights(),
            gate: self.shared_gate(),
            y,
            shared,
            n_rows: rows.n,
            n_used: experts.n_used as u32,
            n: self.d,
            stride: stride(self.d as usize) as u32,
            y_stride: rows.y_stride,
        };
        let shows = self.shown_if_last();
        self.push(Kind::Experts, Between::ExpertSum(sum), shows);
    }
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
        by_expert: op.weights.down_scale,
        scaled: if op.weights.down_scale != 0 { room.scaled } else { 0 },
    }
}
