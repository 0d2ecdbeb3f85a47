//! The choice of tokens on the device.

use super::{Queue, ensure, ffi};
use crate::backend::cuda::driver::Address;
use crate::backend::cuda::kernels::abi::State;
use crate::error::Result;

/// Most logits that [`Queue::sample`] takes on the device that is current.
pub fn sample_most() -> u32 {
    // SAFETY: asks about the device that is current.
    unsafe { ffi::kgc_sample_most() }
}

impl Queue<'_> {
    /// The state of a step as the host sets it.
    pub fn set_state(&self, state: Address, value: &State) -> Result<()> {
        ensure!("set_state", state != 0, "a state at {state:#x}");
        // SAFETY: the value is copied during the call.
        self.check(unsafe { ffi::kgc_set_state(state, value, self.raw()) })
    }

    /// Logits without those that have no bit in `allowed`.
    pub fn mask(&self, logits: Address, allowed: Address, out: Address, n: u32) -> Result<()> {
        ensure!("mask", n > 0 && ![logits, allowed, out].contains(&0), "{n} logits at {logits:#x}, to {out:#x}");
        // SAFETY: the shape was checked.
        self.check(unsafe { ffi::kgc_mask(logits, allowed, out, n, self.raw()) })
    }

    /// The largest of `n` logits of each sequence; `best` and `counter` are zero between launches, `ring` is the host's.
    pub fn argmax(
        &self,
        state: Address,
        n_seq: u32,
        n: u32,
        best: Address,
        counter: Address,
        ring: Address,
    ) -> Result<()> {
        ensure!("argmax", n_seq > 0 && n > 0, "{n} logits of {n_seq} sequences");
        ensure!("argmax", ![state, best, counter, ring].contains(&0), "a state at {state:#x}, a ring at {ring:#x}");
        // SAFETY: as above.
        self.check(unsafe { ffi::kgc_argmax(state, n_seq, n, best, counter, ring, self.raw()) })
    }

    /// A draw from `n` logits of each sequence as its state says.
    pub fn sample(&self, state: Address, n_seq: u32, n: u32, ring: Address) -> Result<()> {
        ensure!("sample", self.gpu.major >= 9, "code of version {}.x", self.gpu.major);
        let most = sample_most();
        ensure!("sample", n_seq > 0 && n > 0 && n <= most, "{n} logits of {n_seq} sequences, at most {most}");
        ensure!("sample", state != 0 && ring != 0, "a state at {state:#x}, a ring at {ring:#x}");
        // SAFETY: as above.
        self.check(unsafe { ffi::kgc_sample(state, n_seq, n, ring, self.raw()) })
    }
}
