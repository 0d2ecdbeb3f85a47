//! A family's syntax made ready for a vocabulary: its marks known by their control tokens, a call's parts as steps.

use super::mark::Mark;
use super::syntax::{Calls, Channels, Field, Item, Keys, Notation, Part, Syntax};
use super::tools::QUOTE;

/// A step of reading a call.
#[derive(Clone, Debug)]
pub(super) enum Op {
    /// White space, then the mark.
    Mark(Mark),
    /// Text up to one of these marks, which is left there.
    Field(Field, Vec<Mark>),
    Json,
    Object(Keys),
    /// Where an argument may begin with this mark; if none does, this step is next.
    Argument(Mark, usize),
    Value {
        lines: bool,
        ends: Vec<Mark>,
        /// What may stand around it.
        cdata: Option<(Mark, Mark)>,
    },
    Jump(usize),
    Pairs(Notation),
    /// Tags behind this mark, up to the end of this one.
    Nested(Mark, &'static str),
    /// The arguments, which came one by one, have ended.
    Close,
}

/// How calls are read.
#[derive(Clone, Debug)]
pub(super) struct CallProgram {
    pub open: Vec<Mark>,
    pub close: Option<Mark>,
    pub listed: bool,
    pub bare: bool,
    pub ops: Vec<Op>,
}

/// How messages in the answer are read.
#[derive(Clone, Debug)]
pub(super) struct ChannelProgram {
    pub open: Vec<Mark>,
    pub message: Mark,
    pub ends: Vec<Mark>,
    pub plan: Channels,
}

/// How an answer is read.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub thinking: Vec<(Mark, Mark)>,
    pub around: Vec<Mark>,
    pub calls: Option<CallProgram>,
    pub channels: Option<ChannelProgram>,
    /// What quotes texts in Gemma's notation.
    pub quote: Mark,
}

impl Program {
    /// `mark` makes a mark of a text.
    pub fn new(syntax: &Syntax, mark: &dyn Fn(&str) -> Mark) -> Program {
        let marks = |texts: &[String]| texts.iter().map(|text| mark(text)).collect::<Vec<_>>();
        let known = |texts: &[&str]| texts.iter().map(|text| mark(text)).collect::<Vec<_>>();
        Program {
            thinking: syntax.thinking.iter().map(|(open, close)| (mark(open), mark(close))).collect(),
            around: marks(&syntax.around),
            calls: syntax.calls.as_ref().map(|calls| CallProgram {
                open: marks(&calls.open),
                close: calls.close.as_deref().map(mark),
                listed: calls.listed,
                bare: calls.bare,
                ops: ops(calls, mark),
            }),
            channels: syntax.channels.as_ref().map(|channels| ChannelProgram {
                open: known(&channels.open),
                message: mark(channels.message),
                ends: known(&channels.ends),
                plan: channels.clone(),
            }),
            quote: mark(QUOTE),
        }
    }
}

fn ops(calls: &Calls, mark: &dyn Fn(&str) -> Mark) -> Vec<Op> {
    let mut ops = Vec::new();
    match &calls.item {
        Item::Object(keys) => ops.push(Op::Object(*keys)),
        Item::Parts(parts) => {
            let close: Vec<&str> = calls.close.as_deref().into_iter().collect();
            lower(parts, &close, mark, &mut ops);
        }
    }
    ops
}

/// The marks that a row of parts may begin with; `behind`: what follows it.
fn begins<'p>(parts: &'p [Part], behind: &[&'p str]) -> Vec<&'p str> {
    match parts.first() {
        Some(Part::Mark(text)) => vec![text],
        Some(Part::Each(inner)) => [begins(inner, &[]), begins(parts.get(1..).unwrap_or_default(), behind)].concat(),
        _ => behind.to_vec(),
    }
}

fn lower(parts: &[Part], behind: &[&str], mark: &dyn Fn(&str) -> Mark, ops: &mut Vec<Op>) {
    for (at, part) in parts.iter().enumerate() {
        let rest = parts.get(at + 1..).unwrap_or_default();
        let next = || begins(rest, behind);
        let marks = |texts: Vec<&str>| texts.into_iter().map(mark).collect::<Vec<_>>();
        match part {
            Part::Mark(text) => ops.push(Op::Mark(mark(text))),
            Part::Field(field) => ops.push(Op::Field(*field, marks(next()))),
            Part::Json => ops.push(Op::Json),
            Part::Pairs(notation) => ops.push(Op::Pairs(*notation)),
            Part::Nested(before, tag) => ops.push(Op::Nested(mark(before), tag)),
            Part::Value { lines, cdata } => {
                let mut ends = marks(next());
                if *lines {
                    ends.extend(next().iter().map(|text| mark(&format!("\n{text}"))));
                }
                let cdata = cdata.then(|| (mark("<![CDATA["), mark("]]>")));
                ops.push(Op::Value { lines: *lines, ends, cdata });
            }
            Part::Each(inner) => {
                let from = ops.len();
                let first = begins(inner, &[]).first().map_or_else(Mark::default, |text| mark(text));
                ops.push(Op::Argument(first.clone(), 0));
                lower(inner, &[], mark, ops);
                ops.push(Op::Jump(from));
                let behind = ops.len();
                if let Some(op) = ops.get_mut(from) {
                    *op = Op::Argument(first, behind);
                }
                ops.push(Op::Close);
            }
        }
    }
}
