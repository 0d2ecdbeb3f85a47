//! Attention of a pass of prompts: norms, rope and the cache's new rows, then attention over the cache that has them.

use super::op::Attend;
use super::pass::Pass;
use crate::backend::PAGE_TOKENS;
use crate::backend::cuda::kernels::abi::{Flash, PrefillRope};

/// The two launches of a layer's.
pub fn launches(pass: &Pass<'_>, op: &Attend) -> (PrefillRope, Flash) {
    let Pass { gpu, config, work, m, one: (tables, start, is_long), n_tiles, taps, .. } = *pass;
    let class = op.cache_class as usize;
    let (places, tiles) = if n_tiles > 0 { (work.places(class), work.tiles(class)) } else { (0, 0) };
    let (pages, a) = (tables.of(class), &op.attention);
    let tile = (PAGE_TOKENS * a.head_dim) as u64;
    let k_offset = op.layer_at;
    let v_offset = k_offset + a.n_kv_heads as u64 * tile;
    let [tap_q, tap_k] = taps.unwrap_or_default();
    let rope = PrefillRope {
        qkv: work.qkv,
        q_norm: op.q_norm,
        k_norm: op.k_norm,
        turns: op.turns,
        q: work.q,
        pages,
        tap_q,
        tap_k,
        k_offset,
        v_offset,
        head_stride: tile,
        token_stride: a.head_dim as u64,
        n_tokens: m as u32,
        start: start as u32,
        n_heads: a.n_heads as u32,
        n_kv: if a.kv_from.is_none() { a.n_kv_heads as u32 } else { 0 },
        head_dim: a.head_dim as u32,
        n_rot: op.n_rot as u32,
        pairing: op.pairing as u32,
        norm_last: u32::from(op.norm_last),
        beta: a.temperature.map_or(0.0, |t| t.beta),
        interval: a.temperature.map_or(0, |t| t.interval),
        qkv_stride: (a.q_width() + a.kept()) as u32,
        q_stride: a.q_width() as u32,
        eps: config.norm_eps,
        magnitude: op.magnitude,
        rows: places,
        is_long: u32::from(is_long),
        unused: 0,
    };
    let flash = Flash {
        q: work.q,
        out: work.mix,
        out_lo: work.left(work.mix),
        sinks: op.sinks,
        pages,
        k_offset,
        v_offset,
        head_stride: tile,
        token_stride: a.head_dim as u64,
        n_tokens: m as u32,
        start: start as u32,
        n_heads: a.n_heads as u32,
        n_kv: a.n_kv_heads as u32,
        head_dim: a.head_dim as u32,
        q_stride: a.q_width() as u32,
        out_stride: a.q_width() as u32,
        window: a.window.unwrap_or(0),
        wgmma: u32::from(work.encode.exists()),
        n_sms: gpu.n_sm,
        scale: a.scale,
        softcap: a.softcap.unwrap_or(0.0),
        tiles,
        n_tiles: n_tiles as u32,
    };
    (rope, flash)
}
