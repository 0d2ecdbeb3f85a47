//! Messages inside of an answer: their heads, and calls that are messages.

use super::{Kind, Machine, State};
use crate::chat::call::{Call, Context, Step};
use crate::chat::event::Events;
use crate::chat::mark::{Begins, Found, find};
use crate::chat::syntax::Channels;
use crate::chat::tools::is_of_name;

/// A head without the mark that it may begin with, where names stand right behind that.
fn without_mark<'h>(plan: &Channels, head: &'h str) -> &'h str {
    let mut marks = plan.open.iter().filter(|_| plan.head.is_empty());
    marks.find_map(|mark| head.strip_prefix(mark)).unwrap_or(head)
}

/// Bytes of a message's head.
const MAX_HEAD: usize = 256;

impl Machine {
    /// Whether what is kept is a head that its own mark begins.
    pub(super) fn is_head(&self) -> bool {
        let opens = self.program.channels.iter().flat_map(|channels| &channels.open);
        opens.into_iter().any(|mark| mark.begins(&self.kept) == Begins::Whole)
    }

    /// A message's head, up to what begins the message.
    pub(super) fn head(&mut self, events: &mut Events, last: bool) -> bool {
        let program = self.program.clone();
        let Some(channels) = &program.channels else { return false };
        let found = find(&self.held, &[&channels.message], last);
        let (at, whole) = match found {
            Found::Whole { at, .. } => (at, true),
            Found::Partly(at) => (at, false),
            Found::None => (self.held.len(), false),
        };
        self.keep(at);
        let head: Vec<u8> = self.kept.iter().map(|b| b.byte).collect();
        let head = String::from_utf8_lossy(&head).into_owned();
        if head.len() > MAX_HEAD || head.contains('\n') || !self.is_plausible(&channels.plan, &head, whole) {
            self.unkeep(events);
            return true;
        }
        if !whole {
            return false;
        }
        self.held.drain(..channels.message.len());
        self.kept.clear();
        let plan = &channels.plan;
        let name = plan.call.and_then(|to| without_mark(plan, &head).split_once(to)).map(|(_, rest)| {
            let name = rest.split(|c: char| c == '<' || c.is_whitespace()).next().unwrap_or_default();
            name.strip_prefix("functions.").unwrap_or(name)
        });
        let name = name.filter(|name| !name.is_empty() && *name != plan.answer);
        if name.is_none() && !plan.thinking.is_empty() && head.contains(plan.thinking) {
            self.go(State::Text(Kind::Message));
        } else if let Some(name) = name {
            let tools = &self.tools;
            let mut context = Context { program: &program, tools, events, n_calls: &mut self.n_calls };
            self.state = State::NamedCall(Box::new(Call::named(name, &mut context)));
        } else {
            self.go(State::Text(Kind::Answer));
            self.skips_space = false;
        }
        true
    }

    /// Whether what has come of a head, or the whole of it, may be one.
    fn is_plausible(&self, plan: &Channels, head: &str, whole: bool) -> bool {
        if plan.head.is_empty() {
            let name = without_mark(plan, head);
            let is_known = || name == plan.answer || self.tools.has(name) || self.tools.is_empty() && !name.is_empty();
            return name.bytes().all(is_of_name) && (!whole || is_known());
        }
        let begun = head.trim_start();
        plan.head.iter().any(|start| begun.starts_with(start) || start.starts_with(begun))
    }

    /// A message that is a call's arguments.
    pub(super) fn named_call(&mut self, events: &mut Events) -> bool {
        let program = self.program.clone();
        let State::NamedCall(call) = &mut self.state else { return false };
        let mut context = Context { program: &program, tools: &self.tools, events, n_calls: &mut self.n_calls };
        let step = call.read_named(&self.held, &mut context);
        let (Step::Go(n) | Step::More(n) | Step::End(n) | Step::Bad(n)) = step;
        self.held.drain(..n.min(self.held.len()));
        match step {
            Step::More(_) => return false,
            Step::Go(_) => {}
            Step::End(_) => self.end_call(false, events),
            Step::Bad(_) => self.end_call(true, events),
        }
        true
    }
}
