//! Which places of a grammar may be come to by the same text: where a token of text stands at one and characters at another,
//! the grammar is refused, since the parser reads such a token as itself and then never as characters.
//!
//! Rules are gone through as if each returned to all that name it, so that what is found is at least what there is.

use std::collections::HashSet;
use std::sync::atomic::AtomicBool;

use super::alphabet::Alphabet;
use super::cut::{Cut, Upper};
use super::facts::Facts;
use super::tree::{Node, NodeId, RuleId, Tree};
use super::{MAX_WORDS, Tokens, go_on};
use crate::engine::grammar::cost::at_most;

/// Steps to tell what may stand where tokens of text do, and links of the places.
const MAX_PLACE_STEPS: u64 = 1_000_000;

/// What a token would be read as, if it were characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Text {
    /// Nothing: a control token is no text.
    None,
    /// Characters of which this is the first.
    From(char),
    /// Any: it is one of many, or begins within a character.
    Any,
}

impl Text {
    fn of(tokens: &dyn Tokens, id: u32, negated: bool) -> Text {
        if negated {
            return Text::Any;
        }
        let text = tokens.text(id).unwrap_or_default();
        match String::from_utf8_lossy(&text).chars().next() {
            None => Text::None,
            Some(char::REPLACEMENT_CHARACTER) => Text::Any,
            Some(c) => Text::From(c),
        }
    }
}

#[derive(Clone, Copy)]
enum What {
    Char(usize),
    Token { id: u32, negated: bool, text: Text, rule: RuleId },
}

/// The grammar as an automaton: two states for each node, before and behind it, and one for each place. A step from a place
/// takes a character or a token; one from another state takes nothing.
struct Places {
    next: Vec<Vec<u32>>,
    n_states: usize,
    what: Vec<What>,
    n_links: u64,
}

fn before(node: NodeId) -> usize {
    2 * node
}

fn behind(node: NodeId) -> usize {
    2 * node + 1
}

impl Places {
    fn link(&mut self, from: usize, to: usize) -> Result<(), String> {
        self.n_links += 1;
        at_most(self.n_links, MAX_PLACE_STEPS, "places that follow each other in a text with tokens")?;
        self.next[from].push(to as u32);
        Ok(())
    }

    fn place(&mut self, what: What) -> usize {
        self.what.push(what);
        self.next.push(Vec::new());
        self.next.len() - 1
    }

    fn terminal(&mut self, tree: &Tree, facts: &Facts, cut: &Cut<'_>, node: NodeId) -> Result<(), String> {
        let Some(automaton) = cut.automaton(node) else {
            if let Node::Char(set) = tree.nodes[node] {
                let place = self.place(What::Char(set));
                self.link(before(node), place)?;
                self.link(place, behind(node))?;
            }
            return Ok(());
        };
        let base = self.next.len();
        for place in &automaton.places {
            self.place(What::Char(place.set));
        }
        for first in &automaton.first {
            self.link(before(node), base + *first as usize)?;
        }
        if facts.empty[node] {
            self.link(before(node), behind(node))?;
        }
        for (n, place) in automaton.places.iter().enumerate() {
            for next in &place.next {
                self.link(base + n, base + *next as usize)?;
            }
            if place.ends {
                self.link(base + n, behind(node))?;
            }
        }
        Ok(())
    }

    fn node(&mut self, tree: &Tree, tokens: &dyn Tokens, rule: RuleId, node: NodeId) -> Result<(), String> {
        match &tree.nodes[node] {
            Node::Seq(parts) => {
                let mut last = before(node);
                for part in parts {
                    self.link(last, before(*part))?;
                    last = behind(*part);
                }
                self.link(last, behind(node))
            }
            Node::Alt(parts) => parts.iter().try_for_each(|part| {
                self.link(before(node), before(*part))?;
                self.link(behind(*part), behind(node))
            }),
            Node::Repeat(inner, least, most) => {
                self.link(before(node), before(*inner))?;
                self.link(behind(*inner), behind(node))?;
                if *least == 0 {
                    self.link(before(node), behind(node))?;
                }
                if *most == Some(1) { Ok(()) } else { self.link(behind(*inner), before(*inner)) }
            }
            Node::Rule(named) => {
                let body = tree.rules[*named].body;
                self.link(before(node), before(body))?;
                self.link(behind(body), behind(node))
            }
            Node::Token { id, negated } => {
                let text = Text::of(tokens, *id, *negated);
                let place = self.place(What::Token { id: *id, negated: *negated, text, rule });
                self.link(before(node), place)?;
                self.link(place, behind(node))
            }
            // It is a terminal.
            Node::Char(_) => Ok(()),
        }
    }
}

/// Whether one token may be both.
fn may_be_one((id, negated): (u32, bool), (other, other_negated): (u32, bool)) -> bool {
    match (negated, other_negated) {
        (false, false) => id == other,
        (true, true) => true,
        _ => id != other,
    }
}

/// Refuses a grammar in which a token of text stands where characters may.
pub(super) fn check(
    tree: &Tree,
    facts: &Facts,
    cut: &Cut<'_>,
    tokens: &dyn Tokens,
    stopped: &AtomicBool,
) -> Result<(), String> {
    let Upper { rules, .. } = cut.upper();
    let is_text = |node: &NodeId| match tree.nodes[*node] {
        Node::Token { id, negated } => Text::of(tokens, id, negated) != Text::None,
        _ => false,
    };
    if !rules.iter().any(|(_, nodes)| nodes.iter().any(is_text)) {
        return Ok(());
    }
    let n_states = 2 * tree.nodes.len();
    let mut places = Places { next: vec![Vec::new(); n_states], n_states, what: Vec::new(), n_links: 0 };
    for (rule, nodes) in &rules {
        for node in nodes {
            go_on(stopped)?;
            if cut.is_terminal(*node) {
                places.terminal(tree, facts, cut, *node)?;
            } else {
                places.node(tree, tokens, *rule, *node)?;
            }
        }
    }
    let alphabet = Alphabet::new(&tree.sets, MAX_WORDS);
    pairs(tree, &places, alphabet.as_ref(), stopped)
}

/// Goes through the pairs of states that the same text may come to.
fn pairs(tree: &Tree, places: &Places, alphabet: Option<&Alphabet>, stopped: &AtomicBool) -> Result<(), String> {
    let root = before(tree.rules[tree.root].body) as u32;
    let (mut seen, mut left) = (HashSet::from([(root, root)]), vec![(root, root)]);
    let mut steps = 0;
    while let Some((a, b)) = left.pop() {
        go_on(stopped)?;
        let of = |state: u32| (state as usize).checked_sub(places.n_states).map(|n| places.what[n]);
        // Whether each of the two goes on: who takes nothing does so alone.
        let (first, second) = match (of(a), of(b)) {
            (None, _) => (true, false),
            (_, None) => (false, true),
            (Some(a), Some(b)) => {
                steps += alphabet.map_or(0, |alphabet| alphabet.n_words() as u64 / 16);
                let both = meet(tree, a, b, alphabet)?;
                (both, both)
            }
        };
        if !first && !second {
            continue;
        }
        let (own_a, own_b) = ([a], [b]);
        let next_a = if first { &places.next[a as usize][..] } else { &own_a };
        let next_b = if second { &places.next[b as usize][..] } else { &own_b };
        for &a in next_a {
            for &b in next_b {
                steps += 1;
                at_most(steps, MAX_PLACE_STEPS, "steps to tell what may stand where tokens of text do")?;
                let pair = (a.min(b), a.max(b));
                if seen.insert(pair) {
                    left.push(pair);
                }
            }
        }
    }
    Ok(())
}

/// Whether two places may take the same; a refusal where a token of text and characters may.
fn meet(tree: &Tree, a: What, b: What, alphabet: Option<&Alphabet>) -> Result<bool, String> {
    let (set, (id, negated, text, rule)) = match (a, b) {
        (What::Char(a), What::Char(b)) => {
            return Ok(alphabet.is_none_or(|alphabet| alphabet.sets[a].meets(&alphabet.sets[b])));
        }
        (What::Token { id, negated, .. }, What::Token { id: other, negated: other_negated, .. }) => {
            return Ok(may_be_one((id, negated), (other, other_negated)));
        }
        (What::Char(set), What::Token { id, negated, text, rule })
        | (What::Token { id, negated, text, rule }, What::Char(set)) => (set, (id, negated, text, rule)),
    };
    let is_read = match text {
        Text::None => false,
        Text::Any => true,
        Text::From(c) => tree.sets[set].ranges().iter().any(|(from, to)| (*from..=*to).contains(&u32::from(c))),
    };
    if !is_read {
        return Ok(false);
    }
    let (name, mark) = (&tree.rules[rule].name, if negated { "!" } else { "" });
    let what = "a token of text where characters may stand too, as which it would never be read";
    Err(format!("the rule {name:?}: {mark}<[{id}]> is {what}"))
}
