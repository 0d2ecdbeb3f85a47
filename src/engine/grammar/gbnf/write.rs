//! A grammar whose terminals are chosen, as a Lark text.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::atomic::AtomicBool;

use super::cut::Cut;
use super::facts::Facts;
use super::tree::{LAST, Node, NodeId, Set, Tree};
use crate::engine::grammar::cost::{MAX_GRAMMAR_BYTES, MAX_LARK_BYTES, at_most};

struct Writer<'t> {
    tree: &'t Tree,
    facts: &'t Facts,
    cut: &'t Cut<'t>,
    out: String,
    /// The terminals' expressions, and their numbers.
    terminals: HashMap<String, usize>,
    /// The terminals of nodes behind names, and the bytes of all expressions that have been written.
    known: HashMap<NodeId, usize>,
    n_written: usize,
    ids: &'t dyn super::Tokens,
    /// The tokens that end a text, in order, and each token's text of all others.
    ends: Option<Vec<u32>>,
    all_but: HashMap<u32, String>,
    /// Brackets that are open, and parts that have rules of their own, since the parser bounds these.
    depth: usize,
    later: Vec<NodeId>,
    stopped: &'t AtomicBool,
}

/// Brackets within each other in a rule of the Lark text; what is deeper has a rule of its own.
const MAX_BRACKETS: usize = 10;

/// The Lark text of a grammar.
pub(super) fn write(
    tree: &Tree,
    facts: &Facts,
    cut: &Cut<'_>,
    ids: &dyn super::Tokens,
    stopped: &AtomicBool,
) -> Result<String, String> {
    let mut writer = Writer {
        tree,
        facts,
        cut,
        out: String::new(),
        terminals: HashMap::new(),
        known: HashMap::new(),
        n_written: 0,
        ids,
        ends: None,
        all_but: HashMap::new(),
        depth: 0,
        later: Vec::new(),
        stopped,
    };
    let _ = writeln!(writer.out, "start: r{}", tree.root);
    for rule in cut.rules() {
        let _ = write!(writer.out, "r{rule}: ");
        writer.node(tree.rules[rule].body)?;
        writer.out.push('\n');
    }
    while let Some(node) = writer.later.pop() {
        let _ = write!(writer.out, "g{node}: ");
        writer.bracketed(node)?;
        writer.out.push('\n');
    }
    let mut terminals: Vec<(&String, &usize)> = writer.terminals.iter().collect();
    terminals.sort_unstable_by_key(|(_, n)| **n);
    for (text, n) in terminals {
        let _ = writeln!(writer.out, "T{n}: /{text}/");
        at_most(writer.out.len() as u64, MAX_LARK_BYTES as u64, "bytes of the Lark text that the rules come to")?;
    }
    Ok(writer.out)
}

impl Writer<'_> {
    /// A part of a rule. Recurses as deep as brackets and repetitions of a rule go.
    fn node(&mut self, node: NodeId) -> Result<(), String> {
        at_most(self.out.len() as u64, MAX_LARK_BYTES as u64, "bytes of the Lark text that the rules come to")?;
        super::go_on(self.stopped)?;
        if self.cut.is_terminal(node) {
            return self.terminal(node);
        }
        if self.depth == MAX_BRACKETS && !self.tree.children(node).is_empty() {
            let _ = write!(self.out, "g{node}");
            self.later.push(node);
            return Ok(());
        }
        self.depth += 1;
        let written = self.bracketed(node);
        self.depth -= 1;
        written
    }

    /// A part that is no terminal, and has brackets around it if it is more than one.
    fn bracketed(&mut self, node: NodeId) -> Result<(), String> {
        let tree = self.tree;
        match &tree.nodes[node] {
            Node::Seq(parts) | Node::Alt(parts) if parts.is_empty() => self.out.push_str("\"\""),
            Node::Seq(parts) => self.row(parts, " ")?,
            Node::Alt(parts) => self.row(parts, " | ")?,
            Node::Repeat(inner, least, most) => {
                // A row has brackets of its own, or is the name of a rule.
                let is_row = matches!(&tree.nodes[*inner], Node::Seq(_) | Node::Alt(_));
                let has_brackets = is_row && !self.cut.is_terminal(*inner);
                self.out.push_str(if has_brackets { "" } else { "(" });
                self.node(*inner)?;
                self.out.push_str(if has_brackets { "" } else { ")" });
                self.out.push_str(&times(*least, *most));
            }
            Node::Rule(rule) => _ = write!(self.out, "r{rule}"),
            Node::Token { id, negated } => {
                if *negated {
                    self.all_but(*id);
                } else {
                    let _ = write!(self.out, "<[{id}]>");
                }
            }
            // It is a terminal.
            Node::Char(_) => {}
        }
        Ok(())
    }

    fn row(&mut self, parts: &[NodeId], between: &str) -> Result<(), String> {
        self.out.push('(');
        for (n, part) in parts.iter().enumerate() {
            if n > 0 {
                self.out.push_str(between);
            }
            self.node(*part)?;
        }
        self.out.push(')');
        Ok(())
    }

    /// Every token but this one and those that end a text.
    fn all_but(&mut self, id: u32) {
        let n = self.ids.n_vocab() as u32;
        let ids = self.ids;
        let ends = self.ends.get_or_insert_with(|| (0..n).filter(|other| ids.is_end(*other)).collect());
        let text = self.all_but.entry(id).or_insert_with(|| {
            let at = ends.partition_point(|end| *end < id);
            let (before, behind) = ends.split_at(at);
            let mut ranges = Vec::new();
            let mut from = 0;
            for &out in before.iter().chain([&id]).chain(behind).chain([&n]) {
                if out > from {
                    ranges.push(format!("{from}-{}", out - 1));
                }
                from = out + 1;
            }
            format!("<[{}]>", ranges.join(","))
        });
        self.out.push_str(text);
    }

    /// A terminal; where it may be empty, one that is not and may be left out.
    fn terminal(&mut self, node: NodeId) -> Result<(), String> {
        let node = self.tree.behind_names(node);
        let empty = self.facts.empty[node];
        let n = match self.known.get(&node) {
            Some(n) => *n,
            None => {
                let mut expression =
                    Expression { tree: self.tree, facts: self.facts, out: String::new(), stopped: self.stopped };
                if empty {
                    expression.not_empty(node)?
                } else {
                    expression.whole(node)?
                }
                self.n_written += expression.out.len();
                at_most(self.n_written as u64, MAX_GRAMMAR_BYTES as u64, "bytes of expressions that rules come to")?;
                let n = self.terminals.len();
                let n = *self.terminals.entry(expression.out).or_insert(n);
                self.known.insert(node, n);
                n
            }
        };
        let _ = write!(self.out, "T{n}{}", if empty { "?" } else { "" });
        Ok(())
    }
}

fn times(least: u32, most: Option<u32>) -> String {
    match (least, most) {
        (0, None) => "*".to_owned(),
        (1, None) => "+".to_owned(),
        (0, Some(1)) => "?".to_owned(),
        (1, Some(1)) => String::new(),
        (_, None) => format!("{{{least},}}"),
        (_, Some(most)) if most == least => format!("{{{least}}}"),
        (_, Some(most)) => format!("{{{least},{most}}}"),
    }
}

/// A regular part as an expression. Recurses as deep as the part is high.
struct Expression<'t> {
    tree: &'t Tree,
    facts: &'t Facts,
    out: String,
    stopped: &'t AtomicBool,
}

impl Expression<'_> {
    fn check(&self) -> Result<(), String> {
        super::go_on(self.stopped)?;
        at_most(self.out.len() as u64, MAX_LARK_BYTES as u64, "bytes of an expression that rules come to")
    }

    /// The texts of a part.
    fn whole(&mut self, node: NodeId) -> Result<(), String> {
        self.check()?;
        let tree = self.tree;
        match &tree.nodes[node] {
            Node::Char(set) => character(&tree.sets[*set], &mut self.out),
            Node::Seq(parts) => parts.iter().try_for_each(|part| self.whole(*part))?,
            Node::Alt(parts) => {
                self.out.push('(');
                for (n, part) in parts.iter().enumerate() {
                    if n > 0 {
                        self.out.push('|');
                    }
                    self.whole(*part)?;
                }
                self.out.push(')');
            }
            Node::Repeat(inner, least, most) => self.repeated(*inner, *least, *most)?,
            Node::Rule(rule) => self.whole(tree.rules[*rule].body)?,
            // It is in no expression.
            Node::Token { .. } => {}
        }
        Ok(())
    }

    fn repeated(&mut self, inner: NodeId, least: u32, most: Option<u32>) -> Result<(), String> {
        // Where it may be empty, so often at least is no bound: one with none that is empty is as good, and is plainer.
        let empty = self.facts.empty[inner];
        if self.is_nothing(inner) {
            return Ok(());
        }
        let least = if empty { 0 } else { least };
        self.out.push('(');
        if empty {
            self.not_empty(inner)?
        } else {
            self.whole(inner)?
        }
        self.out.push(')');
        self.out.push_str(&times(least, most));
        Ok(())
    }

    /// Whether a part has no text but the empty one.
    fn is_nothing(&self, node: NodeId) -> bool {
        self.facts.extent[node].is_some_and(|extent| extent.chars == 0)
    }

    /// The texts of a part that may be empty, without that one.
    fn not_empty(&mut self, node: NodeId) -> Result<(), String> {
        self.check()?;
        if !self.facts.empty[node] {
            return self.whole(node);
        }
        let tree = self.tree;
        match &tree.nodes[node] {
            // The first part that is not empty, and what is behind it.
            Node::Seq(parts) => self.each(parts, |writer, n| {
                writer.not_empty(parts[n])?;
                parts[n + 1..].iter().try_for_each(|part| writer.whole(*part))
            })?,
            Node::Alt(parts) => self.each(parts, |writer, n| writer.not_empty(parts[n]))?,
            Node::Repeat(inner, _, most) => self.repeated_not_empty(*inner, *most)?,
            Node::Rule(rule) => self.not_empty(tree.rules[*rule].body)?,
            Node::Char(_) | Node::Token { .. } => {}
        }
        Ok(())
    }

    fn repeated_not_empty(&mut self, inner: NodeId, most: Option<u32>) -> Result<(), String> {
        self.out.push('(');
        self.not_empty(inner)?;
        self.out.push(')');
        self.out.push_str(&times(1, most));
        Ok(())
    }

    /// Alternatives, one for each part that is not nothing.
    fn each(
        &mut self,
        parts: &[NodeId],
        mut write: impl FnMut(&mut Self, usize) -> Result<(), String>,
    ) -> Result<(), String> {
        self.out.push('(');
        let mut n_written = 0;
        for (n, part) in parts.iter().enumerate() {
            if self.is_nothing(*part) {
                continue;
            }
            if n_written > 0 {
                self.out.push('|');
            }
            n_written += 1;
            write(self, n)?;
        }
        self.out.push(')');
        Ok(())
    }
}

/// A set of characters as a class, or the one that it has.
fn character(set: &Set, out: &mut String) {
    if let [(from, to)] = set.ranges()
        && from == to
    {
        escaped(*from, out);
        return;
    }
    let ends = (set.ranges().first(), set.ranges().last());
    let negated = matches!(ends, (Some((0, _)), Some((_, LAST))));
    let all = if negated { set.negated() } else { set.clone() };
    if all.ranges().is_empty() {
        out.push_str("(.|\\n)");
        return;
    }
    out.push_str(if negated { "[^" } else { "[" });
    for &(from, to) in all.ranges() {
        escaped(from, out);
        if to > from {
            out.push('-');
            escaped(to, out);
        }
    }
    out.push(']');
}

/// A character within an expression, as itself where it can be.
fn escaped(code: u32, out: &mut String) {
    let Some(c) = char::from_u32(code) else { return };
    match c {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        _ => {
            if c == '/' || regex_syntax::is_meta_character(c) {
                out.push('\\');
            }
            out.push(c);
        }
    }
}
