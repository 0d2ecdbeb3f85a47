//! Calls: where they begin, end and follow each other.

use super::{Kind, Machine, State};
use crate::chat::call::{Call, Context, Step};
use crate::chat::event::{EventKind, Events};
use crate::chat::mark::{Begins, Mark};
use crate::chat::program::Op;

/// Bytes of a call that may still be none.
const MAX_KEPT: usize = 1024;

impl Machine {
    /// A call may begin behind the next `n` bytes. If it is none, they are text again, of which the first `space` bytes, white
    /// space, and the byte behind them are the answer's in any case.
    pub(super) fn begin_call(&mut self, space: usize, n: usize, bare: bool) {
        self.kept.clear();
        self.keep(n);
        self.n_lead = space + 1;
        self.state = State::Call(Box::new(Call::new(bare)));
    }

    /// Reads a call; whether there may be more to decide.
    pub(super) fn call(&mut self, events: &mut Events) -> bool {
        let program = self.program.clone();
        let (State::Call(call), Some(calls)) = (&mut self.state, &program.calls) else { return false };
        let mut context = Context { program: &program, tools: &self.tools, events, n_calls: &mut self.n_calls };
        // As long as it may be none it is read no further than it may be kept, whatever has come.
        let most = if call.index.is_some() { self.held.len() } else { MAX_KEPT.saturating_sub(self.kept.len()) };
        let step = call.read(self.held.get(..most).unwrap_or(&self.held), calls, &mut context);
        let begun = call.index.is_some();
        let (Step::Go(n) | Step::More(n) | Step::End(n) | Step::Bad(n)) = step;
        if begun {
            self.kept.clear();
            self.held.drain(..n.min(self.held.len()));
        } else {
            self.keep(n);
        }
        match step {
            Step::Bad(_) if begun => self.end_call(true, events),
            Step::Bad(_) => self.unkeep(events),
            Step::End(_) => {
                self.end_call(false, events);
                self.state = State::Between;
            }
            Step::Go(_) => {}
            Step::More(_) if !begun && self.kept.len() + self.held.len() > MAX_KEPT => self.unkeep(events),
            Step::More(_) => return false,
        }
        true
    }

    /// The call that is read has ended, and an answer may follow.
    pub(super) fn end_call(&mut self, malformed: bool, events: &mut Events) {
        if let State::Call(call) | State::NamedCall(call) = &self.state
            && let Some(index) = call.index
        {
            events.say(EventKind::CallEnded, index, malformed, b"");
        }
        self.kept.clear();
        self.stray_close = true;
        self.go(State::Text(Kind::Answer));
    }

    /// Behind a call: what ends them all, or another one.
    pub(super) fn between(&mut self, last: bool) -> bool {
        let program = self.program.clone();
        let Some(calls) = &program.calls else { return false };
        let separators: &[u8] = if calls.listed { b",;]" } else { b"" };
        let n = self.held.iter().take_while(|b| b.is_space() || b.is_text() && separators.contains(&b.byte)).count();
        self.held.drain(..n);
        let Some(first) = self.held.first().copied() else { return false };
        let close = calls.close.as_ref().map(|mark| mark.begins(&self.held));
        let item = match calls.ops.first() {
            Some(Op::Mark(mark)) => mark.begins(&self.held),
            Some(Op::Object(_)) if first.is_text() && matches!(first.byte, b'{' | b'[') => Begins::Whole,
            Some(Op::Field(..)) if calls.listed && first.is_text() && first.byte.is_ascii_alphabetic() => Begins::Whole,
            _ => Begins::Otherwise,
        };
        match (close, item) {
            (Some(Begins::Whole), _) => {
                let len = calls.close.as_ref().map_or(0, Mark::len);
                self.held.drain(..len);
                self.stray_close = false;
                self.go(State::Text(Kind::Answer));
            }
            (_, Begins::Whole) => self.begin_call(0, 0, calls.bare && calls.close.is_none()),
            (Some(Begins::Partly), _) | (_, Begins::Partly) if !last => return false,
            _ => {
                self.stray_close = calls.close.is_some();
                self.go(State::Text(Kind::Answer));
            }
        }
        true
    }
}
