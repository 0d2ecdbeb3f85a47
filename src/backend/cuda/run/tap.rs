//! Brings activations to whoever watches a pass: those that are wanted, and nothing else.

use crate::alloc;
use crate::backend::cuda::driver::{Address, Stream};
use crate::backend::cuda::plan::show::{Rows, Show};
use crate::backend::{TapEvent, TapObserver};
use crate::error::Result;

/// Reads activations of some rows of a sequence.
pub struct TapReader<'a, 'b> {
    /// Where the launches are that leave them.
    pub stream: &'a Stream,
    /// Index of the sequence in the batch.
    pub sequence: usize,
    /// Position of the first row.
    pub position: usize,
    /// How many there are.
    pub rows: usize,
    /// Whoever watches.
    pub tap: Option<&'a mut (dyn TapObserver + 'b)>,
}

impl TapReader<'_, '_> {
    fn wants(&self, name: &str, layer: i32) -> bool {
        self.tap.as_ref().is_some_and(|tap| tap.wants(name, layer))
    }

    /// Shows `cols` f32 of each row; rows lie `stride` elements apart.
    pub fn floats(&mut self, name: &'static str, layer: i32, from: Address, cols: usize, stride: usize) -> Result<()> {
        if !self.wants(name, layer) {
            return Ok(());
        }
        let mut all = alloc::zeros((self.rows - 1) * stride + cols)?;
        // SAFETY: each call names a buffer of so many rows of this stride.
        unsafe { self.stream.download(from, &mut all)? };
        // Rows move together, each to where the one before it ends.
        for row in 1..self.rows {
            all.copy_within(row * stride..row * stride + cols, row * cols);
        }
        let data = all.get(..self.rows * cols).unwrap_or_default();
        self.tell(name, layer, cols, data);
        Ok(())
    }

    /// Shows rows of f16 and what their rounding has left, where that is not null.
    fn halves(&mut self, name: &'static str, layer: i32, from: [Address; 2], cols: usize) -> Result<()> {
        if !self.wants(name, layer) {
            return Ok(());
        }
        let mut data = alloc::zeros(self.rows * cols)?;
        let mut halves = Vec::new();
        alloc::reserve_exact(&mut halves, data.len())?;
        halves.resize(data.len(), half::f16::ZERO);
        for from in from.into_iter().filter(|a| *a != 0) {
            // SAFETY: as above.
            unsafe { self.stream.download(from, &mut halves)? };
            data.iter_mut().zip(&halves).for_each(|(a, h)| *a += h.to_f32());
        }
        self.tell(name, layer, cols, &data);
        Ok(())
    }

    /// What a launch of a prompt has left.
    pub fn show(&mut self, show: &Show) -> Result<()> {
        match show.rows {
            Rows::Floats { from, stride } => self.floats(show.name, show.layer, from, show.cols, stride),
            Rows::Halves(from) => self.halves(show.name, show.layer, from, show.cols),
        }
    }

    fn tell(&mut self, name: &'static str, layer: i32, cols: usize, data: &[f32]) {
        let (sequence, position, rows) = (self.sequence, self.position, self.rows);
        if let Some(tap) = &mut self.tap {
            tap.show(&TapEvent { name, layer, sequence, position, rows, cols, data });
        }
    }
}
