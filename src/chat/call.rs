//! One call, read step by step.
//!
//! What a call's end may still complete is held by who reads it, and lost with a call that breaks off.
//!
//! Invariant: what has been read of a call that has no number yet is kept by who reads it, and becomes text again if it turns
//! out to be no call.

mod field;

use super::event::{EventKind, Events};
use super::json::{self, Scanner};
use super::literal::{self, Converter};
use super::mark::{Begins, Byte};
use super::nested::Nested;
use super::object::{Object, Turn};
use super::program::{CallProgram, Op, Program};
use super::tools::Tools;
use super::value::{Value, Wanted};

/// What a call has done with the text before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// This many bytes are read, and what comes next is to be looked at.
    Go(usize),
    /// This many bytes are read, and more have to come.
    More(usize),
    /// The call has ended with these bytes.
    End(usize),
    /// These bytes are read, and what comes next cannot stand there.
    Bad(usize),
}

/// What events are made of.
pub(super) struct Context<'c> {
    pub program: &'c Program,
    pub tools: &'c Tools,
    pub events: &'c mut Events,
    pub n_calls: &'c mut u32,
}

#[derive(Debug)]
enum Inner {
    None,
    Field(Vec<u8>),
    Json(Box<Scanner>),
    Object(Box<Object>),
    Value(Box<Value>),
    Pairs(Box<Converter>),
    Nested(Box<Nested>),
}

/// A call, as far as it has been read.
#[derive(Debug)]
pub(super) struct Call {
    at: usize,
    inner: Inner,
    /// Its number; none: it may still be no call.
    pub index: Option<u32>,
    name: Vec<u8>,
    id: Option<Vec<u8>>,
    /// Whether the id has been told.
    has_id: bool,
    key: Vec<u8>,
    /// The type that an argument's tag says.
    wanted: Option<Wanted>,
    /// Whether the value stands in XML's quotes.
    is_cdata: bool,
    /// Whether an argument, and the brace in front of them all, have been written.
    has_arguments: bool,
    /// Whether the arguments are whole: what is missing is only marks.
    pub is_whole: bool,
    /// An object that nothing marks as a call.
    bare: bool,
}

impl Call {
    pub fn new(bare: bool) -> Call {
        Call {
            at: 0,
            inner: Inner::None,
            index: None,
            name: Vec::new(),
            id: None,
            has_id: false,
            key: Vec::new(),
            wanted: None,
            is_cdata: false,
            has_arguments: false,
            is_whole: false,
            bare,
        }
    }

    /// A call of which the name is known and the arguments follow as JSON.
    pub fn named(name: &str, context: &mut Context<'_>) -> Call {
        let mut call = Call::new(false);
        call.name = name.as_bytes().to_vec();
        call.begin(context);
        call.inner = Inner::Json(Box::new(Scanner::of_object()));
        call
    }

    /// Reads the arguments of [`Self::named`].
    pub fn read_named(&mut self, text: &[Byte], context: &mut Context<'_>) -> Step {
        match self.json(text, context) {
            Step::Go(n) => Step::End(n),
            step => step,
        }
    }

    /// Reads what it can of the text.
    pub fn read(&mut self, text: &[Byte], program: &CallProgram, context: &mut Context<'_>) -> Step {
        let Some(op) = program.ops.get(self.at) else { return Step::End(0) };
        let at_start = self.at == 0 && matches!(self.inner, Inner::None);
        let separators: &[u8] = if at_start && program.listed { b"[," } else { b"" };
        let spaces = text.iter().take_while(|b| b.is_space() || b.is_text() && separators.contains(&b.byte)).count();
        let rest = text.get(spaces..).unwrap_or_default();
        match op {
            Op::Mark(mark) => match mark.begins(rest) {
                Begins::Whole => self.go(spaces + mark.len()),
                Begins::Partly => Step::More(spaces),
                Begins::Otherwise => Step::Bad(spaces),
            },
            Op::Argument(mark, otherwise) => match mark.begins(rest) {
                Begins::Partly => Step::More(spaces),
                Begins::Whole => self.go(spaces),
                Begins::Otherwise => {
                    self.at = *otherwise;
                    Step::Go(spaces)
                }
            },
            Op::Jump(to) => {
                self.at = *to;
                Step::Go(0)
            }
            Op::Field(field, ends) => self.field(*field, ends, text, if at_start { spaces } else { 0 }, context),
            Op::Value { lines, ends, cdata } => self.value((*lines, ends, cdata), text, context),
            Op::Json => {
                if let Inner::None = self.inner {
                    self.inner = Inner::Json(Box::new(Scanner::of_object()));
                }
                self.json(text, context)
            }
            Op::Object(keys) => {
                if let Inner::None = self.inner {
                    if rest.is_empty() {
                        return Step::More(spaces);
                    }
                    self.inner = Inner::Object(Box::new(Object::new(*keys)));
                    return Step::Go(spaces);
                }
                self.object(text, context)
            }
            Op::Pairs(notation) => {
                if let Inner::None = self.inner {
                    let mut out = Vec::new();
                    let converter = Converter::of_arguments(*notation, &context.program.quote, &mut out);
                    self.inner = Inner::Pairs(Box::new(converter));
                    self.arguments(&out, context);
                }
                self.pairs(text, context)
            }
            Op::Nested(mark, tag) => {
                if let Inner::None = self.inner {
                    self.inner = Inner::Nested(Box::new(Nested::new(mark, tag)));
                }
                self.nested(text, context)
            }
            Op::Close => {
                self.arguments(if self.has_arguments { b"}" } else { b"{}" }, context);
                self.is_whole = true;
                self.go(0)
            }
        }
    }

    /// Goes on with the next step, behind these bytes.
    fn go(&mut self, n: usize) -> Step {
        self.at += 1;
        self.inner = Inner::None;
        Step::Go(n)
    }

    /// The call is one.
    fn begin(&mut self, context: &mut Context<'_>) {
        let index = *context.n_calls;
        *context.n_calls = index.saturating_add(1);
        self.index = Some(index);
        context.events.say(EventKind::CallBegun, index, false, b"");
        if let Some(id) = self.id.take() {
            context.events.say(EventKind::CallId, index, false, &id);
            self.has_id = true;
        }
        if !self.name.is_empty() {
            context.events.say(EventKind::CallName, index, false, &self.name);
        }
    }

    fn arguments(&mut self, text: &[u8], context: &mut Context<'_>) {
        if let Some(index) = self.index {
            self.has_arguments |= !text.is_empty();
            context.events.add(EventKind::CallArguments, index, text);
        }
    }

    fn json(&mut self, text: &[Byte], context: &mut Context<'_>) -> Step {
        let Inner::Json(scanner) = &mut self.inner else { return Step::Bad(0) };
        let (mut out, mut n, mut step) = (Vec::new(), 0, json::Step::More);
        for byte in text {
            step = if byte.is_text() { scanner.push(byte.byte) } else { json::Step::Bad };
            if step == json::Step::Bad {
                break;
            }
            n += 1;
            // The white space in front of it is not part of it.
            if self.has_arguments || !out.is_empty() || !byte.is_space() {
                out.push(byte.byte);
            }
            if step == json::Step::Done {
                break;
            }
        }
        self.arguments(&out, context);
        match step {
            json::Step::More => Step::More(n),
            json::Step::Bad => Step::Bad(n),
            json::Step::Done => {
                self.is_whole = true;
                self.go(n)
            }
        }
    }

    fn nested(&mut self, text: &[Byte], context: &mut Context<'_>) -> Step {
        let Inner::Nested(nested) = &mut self.inner else { return Step::Bad(0) };
        let mut out = Vec::new();
        let step = nested.read(text, &String::from_utf8_lossy(&self.name), context.tools, &mut out);
        self.converted(&out, step, context)
    }

    fn pairs(&mut self, text: &[Byte], context: &mut Context<'_>) -> Step {
        let Inner::Pairs(converter) = &mut self.inner else { return Step::Bad(0) };
        let mut out = Vec::new();
        let step = converter.read(text, false, &mut out);
        self.converted(&out, step, context)
    }

    /// Arguments have come that were made JSON.
    fn converted(&mut self, out: &[u8], step: literal::Step, context: &mut Context<'_>) -> Step {
        self.arguments(out, context);
        match step {
            literal::Step::More(n) => Step::More(n),
            literal::Step::Done(n) => {
                self.is_whole = true;
                self.go(n)
            }
            literal::Step::Bad(n) => Step::Bad(n),
        }
    }

    fn object(&mut self, text: &[Byte], context: &mut Context<'_>) -> Step {
        let mut out = Vec::new();
        for (n, byte) in text.iter().enumerate() {
            let Inner::Object(object) = &mut self.inner else { return Step::Bad(n) };
            let turn = if byte.is_text() { object.push(byte.byte, &mut out) } else { Turn::Bad };
            if turn == Turn::More {
                continue;
            }
            let (name, id, begun) = (object.name.clone(), object.id.clone(), object.has_arguments());
            if self.index.is_some() {
                self.arguments(&out, context);
                out.clear();
            }
            if turn == Turn::Bad {
                return Step::Bad(n);
            }
            if !self.member(turn, name, id, begun, context) {
                return Step::Bad(n);
            }
            if turn == Turn::End {
                if !self.has_arguments {
                    self.arguments(b"{}", context);
                }
                self.is_whole = true;
                return self.go(n + 1);
            }
        }
        self.arguments(&out, context);
        Step::More(text.len())
    }

    /// Tells what is new of an object's members; whether it can still be a call.
    fn member(
        &mut self,
        turn: Turn,
        name: Option<Vec<u8>>,
        id: Option<Vec<u8>>,
        begun: bool,
        context: &mut Context<'_>,
    ) -> bool {
        if self.bare && self.index.is_none() {
            // Any object may have a name: only one that is a tool's, with arguments behind it, is a call.
            let Some(name) = name else { return turn == Turn::Id };
            let known = str::from_utf8(&name).is_ok_and(|name| context.tools.is_empty() || context.tools.has(name));
            (self.name, self.id) = (name, id);
            if known && begun {
                self.begin(context);
            }
            return known && (begun || turn != Turn::End);
        }
        let Some(index) = self.index else {
            if turn == Turn::End && name.is_none() {
                return false;
            }
            if turn == Turn::Id {
                return true;
            }
            (self.name, self.id) = (name.unwrap_or_default(), id);
            self.begin(context);
            return true;
        };
        if let (true, Some(name)) = (self.name.is_empty(), name) {
            context.events.say(EventKind::CallName, index, false, &name);
            self.name = name;
        }
        if let (false, Some(id)) = (self.has_id, id) {
            context.events.say(EventKind::CallId, index, false, &id);
            self.has_id = true;
        }
        turn != Turn::End || !self.name.is_empty()
    }
}
