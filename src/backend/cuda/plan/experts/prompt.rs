//! Experts of prompts, on tensor cores.

use super::{Call, Experts, Making, Room, Rows, launches};
use crate::backend::cuda::driver::{Address, Gpu};
use crate::backend::cuda::kernels::abi::{EXPERT_SLOTS, ExpertGemm, Mat};
use crate::backend::cuda::kernels::kinds::Activation;
use crate::backend::cuda::kernels::launch::{Between, FragmentRows, fragment_stride};
use crate::backend::cuda::kernels::packed::Packed;
use crate::backend::cuda::plan::kind::Kind;
use crate::backend::cuda::plan::limits::stride;
use crate::model::Config;

/// Whether tensor cores take these experts, whose weights are f16 to them: f32 is not to be rounded, as in dense products.
fn tensor_cores_take(op: &Experts) -> bool {
    let w = &op.weights;
    w.gate.iter().chain([&w.up, &w.down]).all(|mat| mat.ty != Packed::F32)
}

/// The launches of a layer's experts in a pass of prompts outside strict mode; whether the device has wgmma.
pub fn prompt(gpu: &Gpu, config: &Config, op: &Experts, rows: Rows, room: &Room, wgmma: bool) -> Vec<Call> {
    if !tensor_cores_take(op) {
        return launches(gpu, config, op, rows, room);
    }
    let mut making = Making::new(gpu, config, op, rows, room);
    making.choice();
    making.on_tensor_cores(wgmma);
    making.sum();
    making.finish()
}

impl Making<'_> {
    /// The slots in tasks, what goes through the experts in halves, and their products.
    fn on_tensor_cores(&mut self, wgmma: bool) {
        let (w, room, each, k) = (&self.op.weights, self.room, self.op.experts.each, self.op.experts.n_used as u32);
        let Rows { n: n_rows, x, x_stride, .. } = self.rows;
        let n_slots = n_rows * k;
        let n_tasks = self.sort(n_slots, EXPERT_SLOTS);
        let Room { order, tasks, .. } = *room;
        let (d, f) = (self.d, each.width as u32);
        let [of_d, of_f] = [self.d as usize, each.width].map(|n| fragment_stride(n) as u32);
        let halves = FragmentRows { x, y: room.x, n_rows, n: d, x_stride, y_stride: of_d };
        self.push(Kind::Experts, Between::ExpertRows(halves), Vec::new());

        let every = ExpertGemm { order, tasks, n_tasks, n_m: 1, wgmma: u32::from(wgmma), ..ExpertGemm::default() };
        let read = ExpertGemm { x: room.x, rows: f, k: d, share: k, x_stride: of_d, ..every };
        let activation = Activation::from(each.activation) as u32;
        let made = match w.gate {
            Some(gate) if gate.ty == w.up.ty => {
                let (m, bias) = ([gate, w.up], [w.gate_bias, w.up_bias]);
                let gated = ExpertGemm { m, bias, n_m: 2, y: room.gate, y_stride: of_f, activation, ..read };
                self.push(Kind::Experts, Between::ExpertGemm(gated), Vec::new());
                room.gate
            }
            _ => self.gate_up_apart(read, n_slots),
        };
        let (m, bias, y_stride) = ([w.down, Mat::default()], [w.down_bias, 0], stride(d as usize) as u32);
        let down = ExpertGemm { x: made, m, bias, y: room.made, rows: d, k: f, by_slot: 1, ..every };
        self.push(Kind::Experts, Between::ExpertGemm(ExpertGemm { x_stride: of_f, y_stride, ..down }), Vec::new());
    }

    /// Gate and up of two types, or up alone, and what stands behind them in f32; where that lies in halves.
    fn gate_up_apart(&mut self, read: ExpertGemm, n_slots: u32) -> Address {
        let (w, room, each) = (&self.op.weights, self.room, self.op.experts.each);
        let (f, y_stride) = (each.width as u32, stride(each.width) as u32);
        let up = (w.up, w.up_bias, room.up);
        for (m, bias, y) in w.gate.map(|gate| (gate, w.gate_bias, room.gate)).into_iter().chain([up]) {
            let gemm = ExpertGemm { m: [m, Mat::default()], bias: [bias, 0], y, y_stride, ..read };
            self.push(Kind::Experts, Between::ExpertGemm(gemm), Vec::new());
        }
        // Halves go to where the other is, which is not read any more.
        let (from, by, to) = if w.gate.is_some() { (room.gate, room.up, room.up) } else { (room.up, 0, room.gate) };
        self.glu(from, by, n_slots);
        let y = fragment_stride(each.width) as u32;
        let halves = FragmentRows { x: from, y: to, n_rows: n_slots, n: f, x_stride: y_stride, y_stride: y };
        self.push(Kind::Experts, Between::ExpertRows(halves), Vec::new());
        to
    }
}
