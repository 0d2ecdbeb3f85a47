//! Reads an answer by its program: where thinking, answers, heads and calls begin and end.
//!
//! Invariant: what is held is at most a mark, the white space in front of one, a head or what stands in front of a call's
//! name; whatever comes in, each byte is looked at a bounded number of times.

mod calls;
mod head;

use std::sync::Arc;

use super::call::Call;
use super::event::{EventKind, Events};
use super::mark::{Byte, Found, Mark, find, is_space};
use super::program::Program;
use super::tools::Tools;
use crate::alloc::reserve;
use crate::error::Result;

/// Bytes that are looked at together.
pub(super) const SLICE: usize = 1024;
/// White space in front of a mark that is taken away with it.
const MAX_SPACE: usize = 64;

/// What the text at a place is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Answer,
    /// Thinking that this pair of marks is around.
    Thinking(usize),
    /// A message of thinking.
    Message,
}

#[derive(Debug)]
enum State {
    Text(Kind),
    Call(Box<Call>),
    /// The message of a call, which is its arguments.
    NamedCall(Box<Call>),
    /// Behind a call.
    Between,
    Head,
    Ended,
}

/// What a mark in a text does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Think(usize),
    EndThinking,
    Call,
    Head,
    /// Nothing: it is left out.
    Drop,
    /// The same, where nothing stands in front of it.
    DropEnd,
    EndMessage,
}

/// An answer, as far as it has been read.
pub(super) struct Machine {
    program: Arc<Program>,
    tools: Arc<Tools>,
    state: State,
    /// What is not yet decided.
    held: Vec<Byte>,
    /// What has been read of a call that may be none, or of a head, and how much of it is text in any case if it is none.
    kept: Vec<Byte>,
    n_lead: usize,
    /// Nothing but white space has come of the answer since it began, since thinking, or since a call.
    fresh: bool,
    /// White space that comes next is nobody's.
    skips_space: bool,
    /// A mark that ends calls may still come.
    stray_close: bool,
    n_calls: u32,
    /// Times that thinking has ended.
    pub n_thoughts: u64,
}

impl Machine {
    /// `thinking`: the answer begins inside of thinking, between this pair of marks; `is_continued`: some of it stands in the
    /// prompt.
    pub fn new(program: Arc<Program>, tools: Arc<Tools>, thinking: Option<usize>, is_continued: bool) -> Machine {
        let state = match thinking {
            Some(pair) => State::Text(Kind::Thinking(pair)),
            None if program.channels.is_some() && !is_continued => State::Head,
            None => State::Text(Kind::Answer),
        };
        Machine {
            program,
            tools,
            state,
            held: Vec::new(),
            kept: Vec::new(),
            n_lead: 0,
            fresh: !is_continued,
            skips_space: thinking.is_some(),
            stray_close: false,
            n_calls: 0,
            n_thoughts: 0,
        }
    }

    /// Whether what comes next is thinking.
    pub fn is_thinking(&self) -> bool {
        matches!(self.state, State::Text(Kind::Thinking(_) | Kind::Message))
    }

    /// Whether the message has ended.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Bytes that are not yet decided.
    pub fn n_held(&self) -> usize {
        self.held.len() + self.kept.len()
    }

    /// Makes room for so many bytes, as far as they are looked at together.
    pub fn reserve(&mut self, n: usize) -> Result<()> {
        reserve(&mut self.held, n.min(SLICE))
    }

    /// Takes text.
    pub fn push(&mut self, mut text: impl Iterator<Item = Byte>, events: &mut Events) {
        // In slices: what is held is moved when something is taken from its front.
        while !self.has_ended() {
            let before = self.held.len();
            self.held.extend(text.by_ref().take(SLICE));
            if self.held.len() == before {
                return;
            }
            while self.advance(events, false) {}
        }
    }

    /// The message has ended: what is held is told as what it is.
    pub fn finish(&mut self, events: &mut Events) {
        while self.advance(events, true) {}
        // Each round ends a call or a head, or makes text of its first byte.
        loop {
            match &self.state {
                State::Call(call) | State::NamedCall(call) if call.index.is_some() => {
                    let malformed = !call.is_whole;
                    // The beginning of a mark.
                    self.held.clear();
                    self.end_call(malformed, events);
                }
                State::Head if self.is_head() => break,
                State::Call(_) | State::Head if !self.kept.is_empty() || !self.held.is_empty() => {
                    self.unkeep(events);
                }
                _ => break,
            }
            while self.advance(events, true) {}
        }
        self.state = State::Ended;
    }

    /// Decides what comes next of what is held; whether there may be more to decide.
    fn advance(&mut self, events: &mut Events, last: bool) -> bool {
        match self.state {
            State::Ended => {
                self.held.clear();
                false
            }
            State::Text(kind) => self.text(kind, events, last),
            State::Call(_) => self.call(events),
            State::NamedCall(_) => self.named_call(events),
            State::Between => self.between(last),
            State::Head => self.head(events, last),
        }
    }

    /// The marks that count in a text, and what each does.
    fn watched(&self, kind: Kind) -> (Vec<&Mark>, Vec<Action>) {
        let program = &*self.program;
        let mut all: Vec<(&Mark, Action)> = Vec::new();
        match kind {
            Kind::Thinking(pair) => all.extend(program.thinking.get(pair).map(|(_, end)| (end, Action::EndThinking))),
            Kind::Message => {}
            Kind::Answer => {
                for (n, (open, close)) in program.thinking.iter().enumerate() {
                    all.push((open, Action::Think(n)));
                    if self.fresh {
                        // Of thinking that was begun and is empty, in front of the answer.
                        all.push((close, Action::DropEnd));
                    }
                }
                all.extend(program.around.iter().map(|mark| (mark, Action::Drop)));
                if let Some(calls) = &program.calls {
                    all.extend(calls.open.iter().map(|mark| (mark, Action::Call)));
                    all.extend(calls.close.iter().filter(|_| self.stray_close).map(|mark| (mark, Action::Drop)));
                }
            }
        }
        if let (Some(channels), true) = (&program.channels, !matches!(kind, Kind::Thinking(_))) {
            all.extend(channels.open.iter().map(|mark| (mark, Action::Head)));
            all.extend(channels.ends.iter().map(|mark| (mark, Action::EndMessage)));
        }
        all.into_iter().unzip()
    }

    fn text(&mut self, kind: Kind, events: &mut Events, last: bool) -> bool {
        if self.skips_space {
            let n = self.held.iter().take_while(|b| b.is_space()).count();
            self.held.drain(..n);
            if self.held.is_empty() {
                return false;
            }
        }
        if self.is_bare(kind) {
            let space = self.held.iter().take_while(|b| b.is_space()).count();
            self.tell(kind, space.saturating_sub(MAX_SPACE), events);
            self.begin_call(0, 0, true);
            return true;
        }
        let (marks, actions) = self.watched(kind);
        let found = find(&self.held, &marks, last);
        let (at, whole) = match found {
            Found::Whole { at, mark } => {
                (at, actions.get(mark).copied().zip(marks.get(mark).map(|m| (m.len(), m.is_control()))))
            }
            Found::Partly(at) => (at, None),
            Found::None => (self.held.len(), None),
        };
        // White space in front of a mark may be the mark's.
        let before = self.held.get(..at).unwrap_or_default();
        let space = before.iter().rev().take(MAX_SPACE).take_while(|b| b.is_space()).count();
        if let Some((action, (len, control))) = whole {
            let eligible = self.fresh && before.iter().all(|b| !b.is_text() || is_space(b.byte));
            let counts = match action {
                // Where it is a token it is no text that a model writes about.
                Action::Think(_) => eligible || control && self.held.get(at).is_some_and(|b| !b.is_text()),
                Action::DropEnd => eligible,
                _ => true,
            };
            if counts {
                self.act(action, kind, (at, space, len), events);
                return true;
            }
            self.tell(kind, at + 1, events);
            return true;
        }
        let n = if last && at == self.held.len() { at } else { at - space };
        self.tell(kind, n, events);
        false
    }

    /// Whether the answer begins with what is a call without a mark.
    fn is_bare(&self, kind: Kind) -> bool {
        let bare = self.program.calls.as_ref().is_some_and(|calls| calls.bare);
        let first = || self.held.iter().find(|b| !b.is_space());
        bare && kind == Kind::Answer && self.fresh && first().is_some_and(|b| b.is_text() && b.byte == b'{')
    }

    /// Does what a mark says, which `len` bytes at a place are, with so much white space in front of it.
    fn act(&mut self, action: Action, kind: Kind, (at, space, len): (usize, usize, usize), events: &mut Events) {
        let behind = at + len;
        match action {
            Action::Call => {
                self.tell(kind, at - space, events);
                self.begin_call(space, space + len, false);
            }
            Action::Drop | Action::DropEnd => {
                self.tell(kind, at, events);
                self.held.drain(..len);
                self.skips_space |= self.fresh;
            }
            Action::Think(pair) => {
                self.tell(kind, at - space, events);
                self.held.drain(..behind - (at - space));
                self.go(State::Text(Kind::Thinking(pair)));
            }
            Action::EndThinking | Action::EndMessage => {
                self.n_thoughts += u64::from(kind != Kind::Answer);
                let space = if action == Action::EndThinking { space } else { 0 };
                self.tell(kind, at - space, events);
                self.held.drain(..behind - (at - space));
                self.go(State::Text(Kind::Answer));
            }
            Action::Head => {
                self.tell(kind, at, events);
                self.n_lead = 1;
                self.state = State::Head;
            }
        }
    }

    /// What comes next is another part, in front of which white space is nobody's.
    fn go(&mut self, state: State) {
        self.state = state;
        self.fresh = true;
        self.skips_space = true;
    }

    /// Gives the first bytes out as text of a kind.
    fn tell(&mut self, kind: Kind, n: usize, events: &mut Events) {
        let n = n.min(self.held.len());
        let text: Vec<u8> = self.held.drain(..n).filter(|b| b.is_text()).map(|b| b.byte).collect();
        if text.is_empty() {
            return;
        }
        self.skips_space = false;
        if kind == Kind::Answer {
            self.fresh &= text.iter().all(|&byte| is_space(byte));
            events.add(EventKind::Answer, 0, &text);
        } else {
            events.add(EventKind::Thinking, 0, &text);
        }
    }

    /// What was kept is no call and no head: it is text, the first of it in any case.
    fn unkeep(&mut self, events: &mut Events) {
        self.kept.append(&mut self.held);
        std::mem::swap(&mut self.kept, &mut self.held);
        let n = self.n_lead.max(1);
        self.state = State::Text(Kind::Answer);
        self.tell(Kind::Answer, n, events);
    }

    fn keep(&mut self, n: usize) {
        let n = n.min(self.held.len());
        self.kept.extend(self.held.drain(..n));
    }
}
