//! A step launch by launch, the activations that are wanted shown between them. The launches and so the bits are those of a
//! graph.

use crate::backend::cuda::driver::Address;
use crate::backend::cuda::driver::{Gpu, Stream};
use crate::backend::cuda::kernels::abi::PrefillNorm;
use crate::backend::cuda::kernels::launch as ffi;
use crate::backend::cuda::plan::program::{Cut, Kind, Op, Run};
use crate::backend::cuda::plan::workspace::Workspace;
use crate::backend::{TapEvent, TapObserver};
use crate::error::Result;
use crate::model::Config;

/// Where a step stands.
pub struct Place {
    /// Index of the sequence in the batch.
    pub sequence: usize,
    /// Position of the token.
    pub position: usize,
    /// Where logits go, when they are wanted.
    pub logits: Option<Address>,
}

/// Runs the launches one by one.
#[allow(clippy::too_many_arguments)]
pub fn run(
    gpu: &Gpu,
    config: &Config,
    ops: &[Op],
    work: &Workspace,
    stream: &Stream,
    cut: Cut,
    place: Place,
    tap: &mut dyn TapObserver,
) -> Result<()> {
    let mut host = Vec::new();
    let mut show = |name: &'static str, layer: i32, from: Address, cols: usize| -> Result<()> {
        if !tap.wants(name, layer) {
            return Ok(());
        }
        host.clear();
        host.resize(cols, 0f32);
        // SAFETY: each call below names a vector of the workspace or the slot and its length.
        unsafe { stream.download(from, &mut host)? };
        tap.show(&TapEvent {
            name,
            layer,
            sequence: place.sequence,
            position: place.position,
            rows: 1,
            cols,
            data: &host,
        });
        Ok(())
    };
    let most = config.widths();
    let (d, h, g) = (config.n_embd, most.q, most.kv);
    for op in ops.iter().filter(|o| o.kind != Kind::Logits || place.logits.is_some()) {
        let mut op = op.clone();
        let [first, second, _] = work.tap;
        let mut residual = None;
        match &mut op.run {
            Run::Stage { stage, .. } if stage.norm_w != 0 => {
                stage.tap = first;
                residual = (stage.x_out != 0).then_some(stage.x_out);
            }
            Run::Attend(attend) => {
                attend.tap_q = first;
                attend.tap_k = second;
            }
            _ => {}
        }
        op.launch(gpu, work, cut, false, stream)?;
        let layer = op.layer;
        match op.kind {
            Kind::Embed => show("embed", -1, work.x[0], d)?,
            Kind::Qkv => {
                if let Some(x) = residual {
                    show("resid", layer - 1, x, d)?;
                }
                show("attn_norm", layer, first, d)?;
            }
            Kind::Attend => {
                show("q_rope", layer, first, h)?;
                show("k_rope", layer, second, g)?;
                show("v", layer, work.qkv + 4 * (h + g) as u64, g)?;
                show("attn_mix", layer, work.mix, h)?;
            }
            Kind::Output => show("attn_out", layer, work.attn_out, d)?,
            Kind::GateUp => {
                show("ffn_norm", layer, first, d)?;
                show("ffn_act", layer, work.act, most.ffn)?;
            }
            Kind::Up => show("ffn_norm", layer, first, d)?,
            Kind::Glu => show("ffn_act", layer, work.act, most.ffn)?,
            Kind::Down => show("ffn_out", layer, work.ffn_out, d)?,
            Kind::Logits => {
                if let Some(x) = residual {
                    show("resid", config.n_layers() as i32 - 1, x, d)?;
                }
                show("final_norm", -1, first, d)?;
                if let Some(logits) = place.logits {
                    show("logits", -1, logits, config.n_vocab)?;
                }
            }
        }
    }
    // Without the last stage nothing has added the last layer's half; for the eye alone.
    let last = ops.iter().find(|o| o.kind == Kind::Logits);
    if let (None, Some(Op { run: Run::Stage { stage, .. }, .. })) = (place.logits, last) {
        let x = work.tap[1];
        let norm = PrefillNorm {
            x,
            delta: stage.delta,
            post_w: stage.post_w,
            w: stage.norm_w,
            n_tokens: 1,
            dim: d as u32,
            out_stride: d as u32,
            eps: config.norm_eps,
            ..PrefillNorm::default()
        };
        // SAFETY: all are vectors of n_embd in the workspace and the weights.
        unsafe {
            stream.copy(x, stage.x, d * 4)?;
            gpu.check(ffi::kgc_prefill_norm(&norm, stream.raw()))?;
        }
        show("resid", config.n_layers() as i32 - 1, x, d)?;
    }
    Ok(())
}
