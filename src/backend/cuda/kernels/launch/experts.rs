//! What experts take: the choice among them, their slots in order, their products, and the sum of what they make. Their launchers, as C
//! sees them, too.

use std::ffi::c_int;
use std::ptr::null;

use super::norm::check_norm;
use super::{Queue, check_mat, ensure};
use crate::backend::cuda::driver::sys::Handle;
use crate::backend::cuda::driver::{Address, Gpu};
use crate::backend::cuda::kernels::abi::{EXPERT_SLOTS, ExpertProducts, MOST_EXPERTS, NORM_KEPT, Norm, Route};
use crate::backend::cuda::kernels::kinds::{Activation, Score};
use crate::backend::cuda::kernels::packed::{Family, Packed};
use crate::error::Result;

#[rustfmt::skip]
unsafe extern "C" {
    fn kgc_route(route: *const Route, pdl: c_int, stream: Handle) -> c_int;
    fn kgc_router(p: *const ExpertProducts, route: *const Route, norm: *const Norm, x: Address, pdl: c_int, stream: Handle) -> c_int;
    fn kgc_expert_tasks(ids: Address, order: Address, tasks: Address, n_slots: u32, n_experts: u32, at_once: u32, n_tasks: u32, pdl: c_int, stream: Handle) -> c_int;
    fn kgc_expert_sum(made: Address, weights: Address, gate: Address, y: Address, shared: c_int, n_rows: u32, n_used: u32, n: u32, stride: u32, y_stride: u32, pdl: c_int, stream: Handle) -> c_int;
    fn kgc_expert_products_float(p: *const ExpertProducts, pdl: c_int, stream: Handle) -> c_int;
    fn kgc_expert_products_q32(p: *const ExpertProducts, pdl: c_int, stream: Handle) -> c_int;
    fn kgc_expert_products_table(p: *const ExpertProducts, pdl: c_int, stream: Handle) -> c_int;
    fn kgc_expert_products_grid(p: *const ExpertProducts, pdl: c_int, stream: Handle) -> c_int;
    fn kgc_expert_products_ternary(p: *const ExpertProducts, pdl: c_int, stream: Handle) -> c_int;
    fn kgc_expert_products_k256(p: *const ExpertProducts, pdl: c_int, stream: Handle) -> c_int;
}

/// The logits of one row and the choice that follows from them. `before`: the norm that makes the row, which adds something to the stream, and
/// where it leaves that. On devices with clusters.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Router {
    pub products: ExpertProducts,
    pub route: Route,
    pub before: Option<(Norm, Address)>,
}

/// Slots sorted by expert: `order` \[`n_slots`\], and `tasks` \[`n_tasks`\] of at most `at_once` of them, two words each.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Tasks {
    pub ids: Address,
    pub order: Address,
    pub tasks: Address,
    pub n_slots: u32,
    pub n_experts: u32,
    pub at_once: u32,
    pub n_tasks: u32,
}

impl Tasks {
    /// Tasks that so many slots can have at most.
    pub fn most(n_slots: u32, n_experts: u32, at_once: u32) -> u32 {
        n_slots.min((n_slots / at_once).saturating_add(n_experts))
    }
}

/// y = the sum of what a row's experts have `made`, by their `weights`; where `shared`, after what y has, times the sigmoid of `gate` where
/// that is not 0.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Sum {
    pub made: Address,
    pub weights: Address,
    pub gate: Address,
    pub y: Address,
    pub shared: bool,
    pub n_rows: u32,
    pub n_used: u32,
    pub n: u32,
    pub stride: u32,
    pub y_stride: u32,
}

/// Shared memory that a block of [`Queue::expert_products`] has for the inputs of so many slots, of `n` elements each.
pub fn expert_shared(n: u32, quantized: bool, slots: u32) -> u64 {
    let padded = u64::from(n).next_multiple_of(32);
    u64::from(slots) * if quantized { padded / 32 * 80 } else { padded * 4 }
}

/// Whether a device has [`Queue::router`], and room for rows of `n` beside what the kernel has itself.
pub fn router_fits(gpu: &Gpu, n: u32) -> bool {
    const OWN: u64 = 24 << 10;
    gpu.major >= 9 && expert_shared(n, false, 1) + OWN <= gpu.shared_most as u64
}

fn check_route(p: &Route) -> Result<()> {
    let Route { n_rows, n, n_used, stride, score, n_groups, n_groups_used, scale, .. } = *p;
    ensure!("route", (1..=MOST_EXPERTS).contains(&n) && (1..=n).contains(&n_used), "{n_used} of {n} experts");
    ensure!("route", n_rows > 0 && stride >= n, "{n_rows} rows of {n}, {stride} apart");
    ensure!("route", score <= Score::SoftmaxOfChosen as u32 && scale > 0.0, "a score {score}, times {scale}");
    let groups = n_groups == 0 || (n.is_multiple_of(n_groups) && (1..=n_groups).contains(&n_groups_used));
    let enough = n_groups == 0 || n / n_groups * n_groups_used >= n_used;
    ensure!("route", groups && enough, "{n_used} of {n} experts, of {n_groups_used} of {n_groups} groups");
    ensure!("route", (p.by_expert == 0) == (p.scaled == 0), "scales at {:#x} for {:#x}", p.by_expert, p.scaled);
    ensure!("route", p.logits != 0 && p.ids != 0 && p.weights != 0, "to {:#x} and {:#x}", p.ids, p.weights);
    Ok(())
}

fn check_products(p: &ExpertProducts, shared_most: u64) -> Result<()> {
    const NAME: &str = "expert_products";
    let ExpertProducts { n_m, rows, n, share, n_slots, n_tasks, at_once, x_stride, y_stride, tile, .. } = *p;
    ensure!(NAME, (1..=2).contains(&n_m), "{n_m} matrices");
    let mats = &p.m[..n_m as usize];
    for (i, m) in mats.iter().enumerate() {
        check_mat(NAME, m)?;
        ensure!(NAME, m.ty == mats[0].ty && m.ty != Packed::F16Tiles, "matrices of {:?} and {:?}", mats[0].ty, m.ty);
        ensure!(
            NAME,
            m.cols == n && rows > 0 && m.rows.is_multiple_of(rows),
            "{} rows of {}, {rows} each",
            m.rows,
            m.cols
        );
        let experts = m.rows / rows;
        ensure!(NAME, p.ids == 0 || experts <= MOST_EXPERTS, "{experts} experts");
        let units = u64::from(m.rows) * u64::from(if m.ty.is_quantized() { n / 32 } else { m.stride / 8 });
        ensure!(NAME, units <= u64::from(u32::MAX), "{units} units of a matrix");
        let to = p.y[if p.activation != 0 { 0 } else { i }];
        ensure!(NAME, to != 0, "what a matrix of {rows} rows makes goes nowhere");
    }
    ensure!(NAME, share > 0 && n_slots > 0, "{n_slots} slots, {share} a row");
    ensure!(NAME, x_stride >= n && x_stride.is_multiple_of(4), "{n} columns, rows {x_stride} apart");
    ensure!(NAME, y_stride >= rows, "{rows} results, rows {y_stride} apart");
    ensure!(NAME, p.x != 0 && p.x.is_multiple_of(16), "rows at {:#x}", p.x);
    let sorted = p.tasks != 0;
    ensure!(NAME, p.activation <= Activation::ClampedSwiglu as u32, "an activation {}", p.activation);
    ensure!(NAME, p.activation == 0 || n_m == 2, "a gated unit of {n_m} matrices");
    if p.weights != 0 || (p.activation != 0 && !sorted) {
        return check_step(p, shared_most);
    }
    ensure!(NAME, tile > 0 && tile.is_multiple_of(16) && rows.div_ceil(tile) <= 65535, "{rows} rows, {tile} a block");
    ensure!(NAME, sorted == (p.order != 0) && (!sorted || n_tasks > 0), "{n_tasks} tasks at {:#x}", p.tasks);
    ensure!(NAME, matches!(at_once, 1 | 2 | 4 | 8), "{at_once} slots a block");
    let room = expert_shared(n, mats[0].ty.is_quantized(), if sorted || p.ids == 0 { at_once } else { 1 });
    ensure!(NAME, room + 1024 <= shared_most, "{room} bytes of shared memory of {shared_most}");
    Ok(())
}

/// The rest of the shape of what is done for one token, with what follows its products.
fn check_step(p: &ExpertProducts, shared_most: u64) -> Result<()> {
    const NAME: &str = "expert_products";
    let ExpertProducts { n_m, rows, n, share, n_slots, at_once, tile, activation, shared, .. } = *p;
    ensure!(NAME, p.ids != 0 && p.tasks == 0 && p.order == 0 && at_once == 1, "sorted slots of one token");
    ensure!(NAME, u64::from(n_slots) * u64::from(rows) < 1 << 30, "{n_slots} slots of {rows} rows");
    ensure!(NAME, shared != 0 || p.gate == 0, "a gate of nothing");
    let summed = p.weights != 0;
    let rows_of = if summed { share == 1 && n_m == 1 && activation == 0 } else { share == n_slots && n_m == 2 };
    ensure!(NAME, rows_of, "{n_slots} slots, {share} a row, of {n_m} matrices and activation {activation}");
    ensure!(NAME, tile > 0 && (!summed || tile.is_multiple_of(4)), "{rows} rows, {tile} a block");
    let (inputs, sums) = if summed { (n_slots, u64::from(tile) * u64::from(n_slots)) } else { (1, 0) };
    let room = expert_shared(n, p.m[0].ty.is_quantized(), inputs) + 4 * sums;
    ensure!(NAME, room + 1024 <= shared_most, "{room} bytes of shared memory of {shared_most}");
    Ok(())
}

impl Queue<'_> {
    /// See [`Router`].
    pub fn router(&self, router: &Router) -> Result<()> {
        let Router { products, route, before } = router;
        let fits = router_fits(self.gpu, products.n);
        ensure!("router", fits, "rows of {} with code of version {}.x", products.n, self.gpu.major);
        check_products(products, self.gpu.shared_most as u64)?;
        check_route(route)?;
        let ExpertProducts { n_m, rows, n_slots, activation, .. } = *products;
        ensure!("router", n_m == 1 && n_slots == 1 && route.n_rows == 1, "{n_slots} rows, {} routed", route.n_rows);
        ensure!("router", products.ids == 0 && products.tasks == 0 && activation == 0, "slots of experts");
        ensure!("router", products.weights == 0 && !products.m[0].ty.is_quantized(), "of {:?}", products.m[0].ty);
        let logits = route.logits == products.y[0] && route.n == rows;
        ensure!("router", logits, "{rows} logits of {} experts, to {:#x}", route.n, products.y[0]);
        if let Some((norm, x)) = before {
            check_norm(norm)?;
            let Norm { n_rows, dim, row, .. } = *norm;
            let alike = n_rows == 1 && dim == products.n && row == products.x && norm.out == 0;
            ensure!("router", alike, "{n_rows} normed rows of {dim}, at {row:#x}");
            ensure!("router", dim <= NORM_KEPT && dim.is_multiple_of(4), "a norm of {dim}");
            ensure!("router", *x != 0 && *x != norm.x && norm.delta[0] != 0, "a stream at {:#x}, to {x:#x}", norm.x);
        }
        let (norm, x) = before.as_ref().map_or((null(), 0), |(norm, x)| (&raw const *norm, *x));
        // SAFETY: the shapes were checked; the structs are read during the call.
        self.check(unsafe { kgc_router(products, route, norm, x, self.pdl(), self.raw()) })
    }

    /// The experts of each row and their weights, from a router's logits.
    pub fn route(&self, route: &Route) -> Result<()> {
        check_route(route)?;
        // SAFETY: the shapes were checked; the struct is read during the call.
        self.check(unsafe { kgc_route(route, self.pdl(), self.raw()) })
    }

    /// See [`Tasks`].
    pub fn expert_tasks(&self, tasks: Tasks) -> Result<()> {
        let Tasks { ids, order, tasks: to, n_slots, n_experts, at_once, n_tasks } = tasks;
        ensure!(
            "expert_tasks",
            (1..=MOST_EXPERTS).contains(&n_experts) && n_slots > 0,
            "{n_slots} slots of {n_experts} experts"
        );
        ensure!("expert_tasks", (1..=EXPERT_SLOTS).contains(&at_once), "{at_once} slots a task");
        let most = Tasks::most(n_slots, n_experts, at_once);
        ensure!("expert_tasks", n_tasks >= most, "{n_tasks} tasks of {most}");
        ensure!("expert_tasks", ids != 0 && order != 0 && to != 0, "from {ids:#x} to {order:#x} and {to:#x}");
        // SAFETY: as above.
        self.check(unsafe {
            kgc_expert_tasks(ids, order, to, n_slots, n_experts, at_once, n_tasks, self.pdl(), self.raw())
        })
    }

    /// The products of slots with their experts' matrices.
    pub fn expert_products(&self, products: &ExpertProducts) -> Result<()> {
        check_products(products, self.gpu.shared_most as u64)?;
        let launch = match products.m[0].ty.family() {
            Family::Float => kgc_expert_products_float,
            Family::Q32 => kgc_expert_products_q32,
            Family::K256 => kgc_expert_products_k256,
            Family::Table => kgc_expert_products_table,
            Family::Grid => kgc_expert_products_grid,
            Family::Ternary => kgc_expert_products_ternary,
        };
        // SAFETY: as above.
        self.check(unsafe { launch(products, self.pdl(), self.raw()) })
    }

    /// See [`Sum`].
    pub fn expert_sum(&self, sum: Sum) -> Result<()> {
        let Sum { made, weights, gate, y, shared, n_rows, n_used, n, stride, y_stride } = sum;
        ensure!("expert_sum", (1..=65535).contains(&n_rows) && n > 0 && n_used > 0, "{n_rows} rows of {n_used} of {n}");
        ensure!("expert_sum", stride >= n && y_stride >= n, "{n} columns, rows {stride} and {y_stride} apart");
        ensure!("expert_sum", made != 0 && weights != 0 && y != 0, "from {made:#x} to {y:#x}");
        ensure!("expert_sum", shared || gate == 0, "a gate of nothing");
        let shared = c_int::from(shared);
        // SAFETY: as above.
        self.check(unsafe {
            kgc_expert_sum(made, weights, gate, y, shared, n_rows, n_used, n, stride, y_stride, self.pdl(), self.raw())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cuda::kernels::abi::Mat;

    #[test]
    fn experts_that_cannot_be_are_refused_with_their_numbers() {
        let good =
            Route { logits: 16, ids: 16, weights: 16, n_rows: 1, n: 6, n_used: 2, stride: 6, ..Route::default() };
        let good = Route { scale: 1.0, n_groups: 3, n_groups_used: 1, ..good };
        check_route(&good).unwrap();
        for (route, says) in [
            (Route { n_used: 7, ..good }, "7 of 6 experts"),
            (Route { n: 1025, stride: 1025, ..good }, "2 of 1025 experts"),
            (Route { stride: 5, ..good }, "1 rows of 6, 5 apart"),
            (Route { score: 3, ..good }, "a score 3"),
            (Route { n_groups: 4, ..good }, "1 of 4 groups"),
            (Route { n_used: 3, ..good }, "3 of 6 experts, of 1 of 3 groups"),
        ] {
            let error = check_route(&route).unwrap_err().to_string();
            assert!(error.contains(says), "{error}: {says}");
        }
        let mat = Mat { a: 16, s: 16, ty: Packed::Q4_0, rows: 12, cols: 64, stride: 64, ..Mat::default() };
        let good =
            ExpertProducts { x: 16, m: [mat; 2], y: [16, 16], n_m: 2, rows: 4, n: 64, ..ExpertProducts::default() };
        let good = ExpertProducts { share: 1, n_slots: 3, at_once: 1, x_stride: 64, y_stride: 4, tile: 16, ..good };
        check_products(&good, 48 << 10).unwrap();
        for (products, says) in [
            (ExpertProducts { rows: 5, ..good }, "12 rows of 64, 5 each"),
            (ExpertProducts { m: [mat, Mat { ty: Packed::F16, ..mat }], ..good }, "matrices of Q4_0 and F16"),
            (ExpertProducts { y_stride: 3, ..good }, "4 results, rows 3 apart"),
            (ExpertProducts { x: 20, ..good }, "rows at 0x14"),
            (ExpertProducts { tile: 8, ..good }, "4 rows, 8 a block"),
            (ExpertProducts { at_once: 3, ..good }, "3 slots a block"),
            (ExpertProducts { tasks: 16, ..good }, "0 tasks at 0x10"),
        ] {
            let error = check_products(&products, 48 << 10).unwrap_err().to_string();
            assert!(error.contains(says), "{error}: {says}");
        }
        assert!(check_products(&good, 1100).unwrap_err().to_string().contains("160 bytes of shared memory of 1100"));
    }
}
