//! Counts what a rendering takes: work, memory made, and time.
//!
//! Work and memory are counted ahead of what takes them and never given back, so the same template and messages are
//! refused at the same place everywhere; the clock is for machines on which as much work takes longer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

/// Levels of lists and maps in one another. More could not be walked on the stack that there is.
pub(super) const MAX_DEPTH: usize = 64;
/// Elements of one structure, at all levels together.
const MAX_NODES: usize = 1 << 18;
/// What a look at an element counts, in bytes.
const NODE: usize = 8;
/// What an element takes, in bytes.
const NODE_BYTES: usize = 64;
/// The longest text of a number.
const NUMBER: usize = 340;

/// The most that a rendering may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
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
        Limits {
            work: bytes.saturating_mul(100).saturating_add(16 << 20).saturating_add(work),
            made: bytes.saturating_mul(16).saturating_add(40 << 20).saturating_add(made),
            time: Duration::from_millis(1000),
        }
    }

    /// Memory that the engine may take with these, in bytes: beside what is counted, what it needs for itself.
    pub fn memory(&self) -> usize {
        self.made.saturating_add(23 << 20)
    }
}

/// What a rendering has taken.
pub(super) struct Meter {
    limits: Limits,
    begin: Instant,
    work: AtomicUsize,
    made: AtomicUsize,
    macros: AtomicUsize,
    /// Charges since the clock was last read.
    charges: AtomicUsize,
}

/// A refusal of what takes too much.
pub(super) fn refused(reason: String) -> Error {
    Error::new(ErrorKind::OutOfFuel, reason)
}

/// Whether a value is one of Jinja's variables with attributes, the only values that can change.
pub(super) fn is_namespace(value: &Value) -> bool {
    value.as_object().is_some_and(|object| object.type_name().ends_with("Namespace"))
}

/// A value's elements, where it is a list.
pub(super) fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
}

fn add(to: &AtomicUsize, n: usize) -> usize {
    // One thread renders; the atomics are for closures that have to be shared.
    let sum = to.load(Ordering::Relaxed).saturating_add(n);
    to.store(sum, Ordering::Relaxed);
    sum
}

impl Meter {
    pub fn new(limits: Limits) -> Arc<Meter> {
        Arc::new(Meter {
            limits,
            begin: Instant::now(),
            work: AtomicUsize::new(0),
            made: AtomicUsize::new(0),
            macros: AtomicUsize::new(0),
            charges: AtomicUsize::new(0),
        })
    }

    /// Charges bytes that are looked at.
    pub fn charge(&self, bytes: usize) -> Result<(), Error> {
        if add(&self.work, bytes) > self.limits.work {
            return Err(refused(format!("it handles more than {} bytes", self.limits.work)));
        }
        if add(&self.charges, 1) >= 64 {
            self.charges.store(0, Ordering::Relaxed);
            let taken = self.begin.elapsed();
            if taken > self.limits.time {
                let (taken, most) = (taken.as_millis(), self.limits.time.as_millis());
                return Err(refused(format!("it takes more than {taken} ms; the most is {most}")));
            }
        }
        Ok(())
    }

    /// Charges bytes that are made.
    pub fn make(&self, bytes: usize) -> Result<(), Error> {
        if add(&self.made, bytes) > self.limits.made {
            return Err(refused(format!("it makes more than {} bytes", self.limits.made)));
        }
        self.charge(bytes)
    }

    /// Charges elements that are made.
    pub fn make_elements(&self, n: usize) -> Result<(), Error> {
        self.make(n.saturating_mul(NODE_BYTES))
    }

    /// Charges a macro that comes to be: the engine copies its list of those before it.
    pub fn add_macro(&self) -> Result<(), Error> {
        let before = add(&self.macros, 1);
        self.make(1024)?;
        self.charge(before.saturating_mul(NODE))
    }

    /// Charges a look at a value and at all that is in it; what it came to.
    pub fn look(&self, value: &Value) -> Result<Size, Error> {
        let mut size = Size::default();
        self.walk(value, 0, &mut size)?;
        Ok(size)
    }

    fn walk(&self, value: &Value, depth: usize, size: &mut Size) -> Result<(), Error> {
        size.nodes += 1;
        if depth > MAX_DEPTH || size.nodes > MAX_NODES {
            let (found, most) = if depth > MAX_DEPTH { ("levels", MAX_DEPTH) } else { ("elements", MAX_NODES) };
            return Err(refused(format!("it builds a structure of more than {most} {found}")));
        }
        if depth > 0 && is_namespace(value) {
            // What is set in it later could make a chain of any length, or a ring.
            return Err(refused("it puts a namespace into a structure".to_owned()));
        }
        let bytes = match value.as_str() {
            Some(text) => text.len(),
            None if value.is_number() => NUMBER,
            None => 0,
        };
        size.bytes = size.bytes.saturating_add(bytes);
        self.charge(if value.as_str().is_some() { NODE + bytes } else { NODE })?;
        let is_map = value.kind() == ValueKind::Map;
        if !is_map && !is_list(value) {
            return Ok(());
        }
        for item in value.try_iter()? {
            self.walk(&item, depth + 1, size)?;
            if is_map {
                self.walk(&value.get_item(&item)?, depth + 1, size)?;
            }
        }
        Ok(())
    }

    /// A value that is new, or that shares its strings with older ones: one that would be computed element by element
    /// is computed now.
    pub fn result(&self, value: Value, strings_are_new: bool) -> Result<Value, Error> {
        if let Some(text) = value.as_str() {
            self.make(text.len())?;
            return Ok(value);
        }
        let value = if value.kind() == ValueKind::Iterable {
            let mut items = Vec::new();
            for item in value.try_iter()? {
                self.make_elements(1)?;
                items.push(item);
            }
            Value::from(items)
        } else {
            value
        };
        let size = self.look(&value)?;
        if size.nodes > 1 {
            self.make(size.nodes.saturating_mul(NODE_BYTES))?;
            self.make(if strings_are_new { size.bytes } else { 0 })?;
        }
        Ok(value)
    }
}

/// What a look has found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Size {
    pub nodes: usize,
    /// The size of strings and of numbers' texts.
    pub bytes: usize,
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
    pub fn push(&mut self, text: &str) -> Result<(), Error> {
        // It doubles as it grows, and both halves are there meanwhile.
        self.meter.make(text.len().saturating_mul(3))?;
        self.out.push_str(text);
        Ok(())
    }
}
