//! A pass of prompts: what its launches are made for.

use super::prefill_workspace::PrefillWorkspace;
use super::tables::Tables;
use crate::backend::cuda::driver::{Address, Gpu};
use crate::model::Config;

/// A pass.
#[derive(Clone, Copy)]
pub struct Pass<'a> {
    /// The device.
    pub gpu: &'a Gpu,
    /// The model.
    pub config: &'a Config,
    /// The buffers.
    pub work: &'a PrefillWorkspace,
    /// Rows.
    pub m: usize,
    /// Page tables and start of the only sequence, and whether it is long.
    pub one: (Tables, usize, bool),
    /// How many tiles several sequences have; the tables hold them and the sequences' places. 0: there is one sequence.
    pub n_tiles: usize,
    /// Sequences, of which the workspace's spans tell where there are states.
    pub n_spans: usize,
    /// Two buffers of m rows of the widest vector, where somebody watches.
    pub taps: Option<[Address; 2]>,
}
