//! Counts what a rendering takes: steps, work, memory made, and time.
//!
//! Steps, work and memory are counted ahead of what takes them and never given back, so the same template and messages
//! are refused at the same place everywhere; the clock is for machines on which as much work takes longer.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::fault::{Done, Fault};

/// What an element of a list or map takes, in bytes.
const ELEMENT: usize = 64;
/// What a step counts as work, in bytes.
const STEP: usize = 8;

/// The most that a rendering may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Expressions and statements.
    pub steps: u64,
    /// Bytes handled.
    pub work: usize,
    /// Bytes of values and text made.
    pub made: usize,
    pub time: Duration,
}

impl Limits {
    /// For a conversation of so many bytes and messages.
    pub fn of(bytes: usize, n_messages: usize) -> Limits {
        let (work, made) = (n_messages.saturating_mul(16 << 10), n_messages.saturating_mul(2 << 10));
        let steps = (n_messages as u64).saturating_mul(10_000).saturating_add(500_000);
        Limits {
            steps: steps.min(10_000_000),
            work: bytes.saturating_mul(100).saturating_add(16 << 20).saturating_add(work),
            made: bytes.saturating_mul(16).saturating_add(40 << 20).saturating_add(made),
            time: Duration::from_millis(1000),
        }
    }

    /// Memory that a rendering may take with these, in bytes: beside what is counted, its stack and what grows by doubling.
    pub fn memory(&self) -> usize {
        self.made.saturating_add(23 << 20)
    }
}

/// What a rendering has taken.
pub(crate) struct Meter {
    limits: Limits,
    begin: Instant,
    steps: Cell<u64>,
    work: Cell<usize>,
    made: Cell<usize>,
    /// Charges since the clock was last read.
    charges: Cell<u32>,
}

/// A refusal of what takes too much.
pub(super) fn costly<T>(reason: impl Into<String>) -> Done<T> {
    Err(Fault::Costly(reason.into()))
}

impl Meter {
    /// One that has counted nothing.
    pub fn new(limits: Limits) -> Meter {
        let zero = || Cell::new(0);
        Meter { limits, begin: Instant::now(), steps: Cell::new(0), work: zero(), made: zero(), charges: Cell::new(0) }
    }

    /// Counts an expression or a statement.
    pub fn step(&self) -> Done<()> {
        self.steps.set(self.steps.get() + 1);
        if self.steps.get() > self.limits.steps {
            return costly(format!("it takes more than {} instructions", self.limits.steps));
        }
        self.charge(STEP)
    }

    /// Charges bytes that are looked at.
    pub fn charge(&self, bytes: usize) -> Done<()> {
        self.work.set(self.work.get().saturating_add(bytes));
        if self.work.get() > self.limits.work {
            return costly(format!("it handles more than {} bytes", self.limits.work));
        }
        self.charges.set(self.charges.get() + 1);
        if self.charges.get() >= 64 {
            self.charges.set(0);
            let taken = self.begin.elapsed();
            if taken > self.limits.time {
                let (taken, most) = (taken.as_millis(), self.limits.time.as_millis());
                return costly(format!("it takes more than {taken} ms; the most is {most}"));
            }
        }
        Ok(())
    }

    /// Charges bytes that are made.
    pub fn make(&self, bytes: usize) -> Done<()> {
        self.made.set(self.made.get().saturating_add(bytes));
        if self.made.get() > self.limits.made {
            return costly(format!("it makes more than {} bytes", self.limits.made));
        }
        self.charge(bytes)
    }

    /// Charges elements that are made.
    pub fn make_elements(&self, n: usize) -> Done<()> {
        self.make(n.saturating_mul(ELEMENT))
    }
}

/// A text that is charged as it grows.
pub(super) struct Text<'m> {
    pub out: String,
    meter: &'m Meter,
}

impl<'m> Text<'m> {
    pub fn new(meter: &'m Meter) -> Text<'m> {
        Text { out: String::new(), meter }
    }

    /// Adds to it.
    pub fn push(&mut self, text: &str) -> Done<()> {
        // It doubles as it grows, and both halves are there meanwhile.
        self.meter.make(text.len().saturating_mul(3))?;
        self.out.push_str(text);
        Ok(())
    }

    /// Adds a character.
    pub fn push_char(&mut self, c: char) -> Done<()> {
        self.push(c.encode_utf8(&mut [0; 4]))
    }
}
