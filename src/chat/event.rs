//! What comes out of an answer: events in order, each with a piece of text.

use std::ops::Range;

use crate::alloc::reserve;
use crate::error::Result;

/// What an event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A piece of thinking.
    Thinking,
    /// A piece of the answer.
    Answer,
    /// A call begins; the next of it are its parts, in the order in which the model writes them.
    CallBegun,
    /// The id that the model gave a call, whole.
    CallId,
    /// A call's name, whole.
    CallName,
    /// A piece of a call's arguments: all of them in a row are one JSON object, if the call ends well.
    CallArguments,
    /// A call ends.
    CallEnded,
    /// The budget of thinking is used up, and the thinking has not ended.
    BudgetUsed,
    /// The message has ended; nothing comes any more before the parser is finished.
    Ended,
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'e> {
    /// What it says.
    pub kind: EventKind,
    /// The call that it is about, from 0 in the order in which they begin; 0 for what is about none.
    pub call: u32,
    /// Its text, whole characters; empty for those without.
    pub text: &'e str,
    /// The call broke off, or its arguments are no JSON object; of `CallEnded`.
    pub malformed: bool,
}

struct Entry {
    kind: EventKind,
    call: u32,
    malformed: bool,
    text: Range<usize>,
}

/// The events of one call of the parser.
#[derive(Default)]
pub struct Events {
    entries: Vec<Entry>,
    text: Vec<u8>,
}

/// Room that is kept from one call to the next, in bytes of text.
const KEPT: usize = 64 << 10;

/// The text, which is of whole characters: nothing takes one apart.
fn whole(text: &[u8]) -> &str {
    match str::from_utf8(text) {
        Ok(text) => text,
        Err(error) => {
            debug_assert!(false, "an event's text is not UTF-8: {error}");
            text.get(..error.valid_up_to()).and_then(|text| str::from_utf8(text).ok()).unwrap_or_default()
        }
    }
}

impl Events {
    /// Its events, in order.
    pub fn iter(&self) -> impl Iterator<Item = Event<'_>> {
        self.entries.iter().map(|entry| Event {
            kind: entry.kind,
            call: entry.call,
            text: whole(self.text.get(entry.text.clone()).unwrap_or_default()),
            malformed: entry.malformed,
        })
    }

    /// Bytes of all their texts.
    pub fn text_bytes(&self) -> usize {
        self.text.len()
    }

    /// Forgets them, and makes room for what so many bytes can become.
    pub(super) fn begin(&mut self, n_bytes: usize) -> Result<()> {
        self.entries.clear();
        self.text.clear();
        let (n_events, n_text) = Events::most(n_bytes);
        // What a large push has taken is not kept.
        if self.text.capacity() > KEPT.max(n_text) {
            (self.text, self.entries) = (Vec::new(), Vec::new());
        }
        reserve(&mut self.text, n_text)?;
        reserve(&mut self.entries, n_events)
    }

    /// The most events, and bytes of their texts, that so many bytes become.
    pub(super) fn most(n_bytes: usize) -> (usize, usize) {
        // A control character is six bytes in JSON; no two bytes make more than an event.
        ((n_bytes / 2).saturating_add(16), n_bytes.saturating_mul(6).saturating_add(64))
    }

    /// Adds a piece of text to the event before it, if that is of the same kind, or as a new one.
    pub(super) fn add(&mut self, kind: EventKind, call: u32, text: &[u8]) {
        if text.is_empty() {
            return;
        }
        match self.entries.last_mut() {
            Some(last) if last.kind == kind && last.call == call => {
                self.text.extend_from_slice(text);
                last.text.end = self.text.len();
            }
            _ => self.say(kind, call, false, text),
        }
    }

    /// Adds an event that is one of its own, whatever stands before it.
    pub(super) fn say(&mut self, kind: EventKind, call: u32, malformed: bool, text: &[u8]) {
        let from = self.text.len();
        self.text.extend_from_slice(text);
        self.entries.push(Entry { kind, call, malformed, text: from..self.text.len() });
    }
}
