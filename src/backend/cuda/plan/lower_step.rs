//! A step of one token as a list of launches: what runs, on what, with which geometry.
//!
//! An operation is one launch, with what follows its sums and, where that is a plain one, the norm before it; what a half layer adds to
//! the stream is added by the next launch that reads it. The list depends on the model and the device alone.

use super::experts::Call;
use super::geometry::{By, Shape, Tuning};
use super::limits::ATTEND_CHUNK;
use super::op::{Gate, Input, Kind, Norm, Op, Output, What};
use super::stage::{Placed, Stages};
use super::workspace::Workspace;
use crate::backend::cuda::driver::{Address, Gpu};
use crate::backend::cuda::kernels::abi::{self, Attend, Mat, Stage};
use crate::backend::cuda::kernels::launch::Between;
use crate::model::Config;

/// One launch.
#[derive(Clone, Debug)]
pub struct Launch {
    /// What it is.
    pub kind: Kind,
    /// How to run it.
    pub run: Run,
    /// What may be shown when it has run; empty where nobody can watch.
    pub shows: Vec<Show>,
}

/// An activation that a launch has left somewhere.
#[derive(Clone, Copy, Debug)]
pub struct Show {
    /// One of `TAP_NAMES`.
    pub name: &'static str,
    /// The layer, or -1.
    pub layer: i32,
    /// Where it is; 0: the logits of the sequence.
    pub from: Address,
    /// Elements.
    pub cols: usize,
}

/// A launch's arguments.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, missing_docs)] // there is one list of a hundred or two
pub enum Run {
    Embed { mat: Mat, scale: f32, x: Address },
    Stage { stage: Stage, by: By, shape: Shape },
    Attend(Attend),
    Between(Between),
}

/// What a list is made for.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// The device.
    pub gpu: &'a Gpu,
    /// The model.
    pub config: &'a Config,
    /// Choices for measurements.
    pub tuning: &'a Tuning,
    /// The buffers.
    pub work: &'a Workspace,
}

/// The launches of these operations, for one token; `watched`: each leaves what it can show.
pub fn lower(target: Target<'_>, ops: &[Op], watched: bool) -> Vec<Launch> {
    let Target { gpu, config, tuning, work } = target;
    let (mut stages, mut launches) = (Stages::new(gpu, config, tuning, work, 1), Vec::with_capacity(ops.len()));
    // A norm that the next launch does, and what it shows.
    let (mut before, mut shown_before) = (None, Vec::new());
    for (i, op) in ops.iter().enumerate() {
        let mut push = |kind, run, shows: Vec<Show>| {
            launches.push(Launch { kind, run, shows: if watched { shows } else { Vec::new() } });
        };
        let show = |name, from, cols| Show { name, layer: op.layer, from, cols };
        match &op.what {
            What::Embed { table, scale } => {
                let run = Run::Embed { mat: *table, scale: *scale, x: work.x[0] };
                push(Kind::Embed, run, vec![show("embed", work.x[0], config.n_embd)]);
            }
            What::Norm(n) => {
                if let Some(Op { what: What::Ffn(next), .. }) = ops.get(i + 1) {
                    before = stages.norm_before(n, next);
                }
                let norm = before.map_or_else(|| stages.norm(n), |(norm, _)| Some(norm));
                let shows = norm_shows(n, norm, stages.stream(), |name, from| show(name, from, config.n_embd));
                match norm {
                    _ if before.is_some() => shown_before = shows,
                    Some(norm) => push(n.kind, Run::Between(Between::Norm(norm)), shows),
                    // The stream as the launch before has left it.
                    None => launches.last_mut().into_iter().filter(|_| watched).for_each(|l| l.shows.extend(&shows)),
                }
            }
            What::ByLayer(by_layer) => {
                let (x, _) = stages.embeddings(by_layer);
                push(Kind::Embed, Run::Embed { mat: by_layer.table, scale: by_layer.scale, x }, Vec::new());
                calls(stages.between(&op.what), &mut push, &show);
            }
            What::Project(p) => {
                let placed = watching(stages.project(p), watched, work);
                let mut shows = input_shows(p.input, op.layer, &placed.stage);
                shows.extend(match p.output {
                    Output::Qkv | Output::Shared | Output::Gates | Output::ByLayer | Output::LayerGate => None,
                    Output::Aside => None,
                    Output::MixGate => Some(show("gate", work.recurrent.gate, p.mats[0].rows as usize)),
                    Output::Stream { half, .. } => half.tap().map(|tap| show(tap, stages.added(half), config.n_embd)),
                    Output::Logits { .. } => Some(show("logits", 0, config.n_vocab)),
                });
                push(placed.kind, stage(placed), shows);
            }
            What::Attend(a) => {
                let widths = (a.attention.q_width(), a.attention.kv_width());
                let (attend, rows) = attending(stages.attend(a), widths, watched, work);
                // What another layer has made that one has shown.
                let own = |name: &str| a.attention.kv_from.is_none() || matches!(name, "q_rope" | "attn_mix");
                let rows = rows.into_iter().filter(|(name, ..)| own(name));
                push(
                    Kind::Attend,
                    Run::Attend(attend),
                    rows.map(|(name, from, cols)| show(name, from, cols)).collect(),
                );
            }
            What::Gate(g) => {
                for (kind, run, shows) in gate(&mut stages, g, op.layer, (watched, work)) {
                    push(kind, run, shows);
                }
            }
            What::Ffn(part) => {
                for call in stages.ffn(part, before.take()) {
                    let shows = call.shows.iter().map(|(name, from, _, cols)| show(name, *from, *cols));
                    let shows = shown_before.drain(..).chain(shows).collect();
                    push(call.kind, Run::Between(call.run), shows);
                }
            }
            What::Finish { layer, sum_scale } => {
                if let Some(norm) = stages.sum(*sum_scale) {
                    let resid = Show { name: "resid", layer: *layer, from: norm.x, cols: config.n_embd };
                    push(Kind::Logits, Run::Between(Between::Norm(norm)), vec![resid]);
                }
            }
            what => calls(stages.between(what), &mut push, &show),
        }
    }
    launches
}

/// The products in front of a gate, and it, with what they show.
fn gate(
    stages: &mut Stages<'_>,
    g: &Gate,
    layer: i32,
    (watched, work): (bool, &Workspace),
) -> Vec<(Kind, Run, Vec<Show>)> {
    let (placed, glu) = stages.gate(g);
    let placed = watching(placed, watched, work);
    let shows = input_shows(g.input, layer, &placed.stage);
    let act = Show { name: "ffn_act", layer, from: work.act, cols: g.up.rows as usize };
    let act = if g.shown { vec![act] } else { Vec::new() };
    match glu {
        None => vec![(placed.kind, stage(placed), [shows, act].concat())],
        Some(glu) => {
            vec![(placed.kind, stage(placed), shows), (Kind::Glu, Run::Between(Between::Glu(glu)), act)]
        }
    }
}

/// Launches between products, with what they show.
fn calls(
    calls: Vec<Call>,
    push: &mut dyn FnMut(Kind, Run, Vec<Show>),
    show: &dyn Fn(&'static str, Address, usize) -> Show,
) {
    for call in calls {
        let shows = call.shows.iter().map(|(name, from, _, cols)| show(name, *from, *cols)).collect();
        push(call.kind, Run::Between(call.run), shows);
    }
}

/// What a norm shows, if it is launched: the stream that it ends a layer with, and its rows, which are at `x` and `row`.
fn norm_shows(
    op: &Norm,
    norm: Option<abi::Norm>,
    (x, row): (Address, Address),
    show: impl Fn(&'static str, Address) -> Show,
) -> Vec<Show> {
    let ended = op.ends.filter(|_| norm.is_some_and(|norm| norm.delta[0] != 0));
    let resid = ended.map(|layer| Show { layer, ..show("resid", x) });
    resid.into_iter().chain(op.taps.iter().map(|tap| show(tap, row))).collect()
}

/// Attention that leaves its queries and keys, `[h]` and `[g]`, for watchers, and what it shows.
fn attending(
    attend: Attend,
    (h, g): (usize, usize),
    watched: bool,
    work: &Workspace,
) -> (Attend, [(&'static str, Address, usize); 4]) {
    let [first, second, _] = work.tap;
    let mut attend = Attend { chunk: ATTEND_CHUNK, ..attend };
    if watched {
        (attend.tap_q, attend.tap_k) = (first, second);
    }
    let v = work.qkv + 4 * (h + g) as u64;
    (attend, [("q_rope", first, h), ("k_rope", second, g), ("v", v, g), ("attn_mix", work.mix, h)])
}

/// A stage that leaves its normalized input for watchers.
fn watching(mut placed: Placed, watched: bool, work: &Workspace) -> Placed {
    if watched && placed.stage.norm_w != 0 {
        placed.stage.tap = work.tap[0];
    }
    placed
}

fn stage(placed: Placed) -> Run {
    Run::Stage { stage: placed.stage, by: placed.by, shape: placed.shape }
}

/// The stream behind a layer, if this stage sums it, and the normalized input.
fn input_shows(input: Input, layer: i32, stage: &Stage) -> Vec<Show> {
    let Input::Normed { tap, ends, .. } = input else { return Vec::new() };
    let cols = stage.n as usize;
    let resid = ends.filter(|_| stage.x_out != 0).map(|layer| Show { name: "resid", layer, from: stage.x_out, cols });
    resid.into_iter().chain([Show { name: tap, layer, from: stage.tap, cols }]).collect()
}
