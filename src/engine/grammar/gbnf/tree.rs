//! A GBNF grammar as a tree: rules, their nodes in one list, and sets of characters.

use std::collections::HashMap;

/// Ranges of characters, in order and apart from each other; no surrogates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Set(Vec<(u32, u32)>);

/// The last character, and those that are none.
pub(super) const LAST: u32 = 0x10_ffff;
pub(super) const SURROGATES: (u32, u32) = (0xd800, 0xdfff);

impl Set {
    /// The set of these ranges.
    pub(super) fn new(mut ranges: Vec<(u32, u32)>) -> Set {
        ranges.sort_unstable();
        let mut all: Vec<(u32, u32)> = Vec::new();
        for (from, to) in ranges {
            match all.last_mut() {
                Some(last) if from <= last.1.saturating_add(1) => last.1 = last.1.max(to),
                _ => all.push((from, to)),
            }
        }
        let (first, last) = SURROGATES;
        let cut = all.into_iter().flat_map(|(from, to)| [(from, to.min(first - 1)), (from.max(last + 1), to)]);
        Set(cut.filter(|(from, to)| from <= to).collect())
    }

    /// The characters that it has not.
    pub(super) fn negated(&self) -> Set {
        let mut all = Vec::new();
        let mut next = 0;
        for &(from, to) in &self.0 {
            if from > next {
                all.push((next, from - 1));
            }
            next = to + 1;
        }
        if next <= LAST {
            all.push((next, LAST));
        }
        Set::new(all)
    }

    pub(super) fn ranges(&self) -> &[(u32, u32)] {
        &self.0
    }
}

/// A rule's number, and a node's.
pub(super) type RuleId = usize;
pub(super) type NodeId = usize;

#[derive(Clone, Debug)]
pub(super) enum Node {
    /// One character of this set.
    Char(usize),
    Seq(Vec<NodeId>),
    Alt(Vec<NodeId>),
    /// So many times at least, and at most.
    Repeat(NodeId, u32, Option<u32>),
    Rule(RuleId),
    /// A token, or any other than it.
    Token {
        id: u32,
        negated: bool,
    },
}

/// A rule: its name and what it is.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub name: String,
    pub body: NodeId,
}

/// A grammar whose rules are all defined.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub nodes: Vec<Node>,
    pub rules: Vec<Rule>,
    pub sets: Vec<Set>,
    numbers: HashMap<Set, usize>,
    pub root: RuleId,
}

impl Tree {
    pub(super) fn add(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    pub(super) fn char(&mut self, set: Set) -> NodeId {
        let n = self.sets.len();
        let number = *self.numbers.entry(set).or_insert_with_key(|set| {
            self.sets.push(set.clone());
            n
        });
        self.add(Node::Char(number))
    }

    /// The nodes that a node has below it in its rule.
    pub(super) fn children(&self, node: NodeId) -> &[NodeId] {
        match &self.nodes[node] {
            Node::Seq(all) | Node::Alt(all) => all,
            Node::Repeat(inner, ..) => std::slice::from_ref(inner),
            Node::Char(_) | Node::Rule(_) | Node::Token { .. } => &[],
        }
    }

    /// The node behind the names of rules that a node only is; rules that name themselves alone are none that it is asked for.
    pub(super) fn behind_names(&self, mut node: NodeId) -> NodeId {
        while let Node::Rule(rule) = self.nodes[node] {
            node = self.rules[rule].body;
        }
        node
    }

    /// Every node of a rule.
    pub(super) fn of_rule(&self, rule: RuleId) -> Vec<NodeId> {
        let mut all = vec![self.rules[rule].body];
        let mut at = 0;
        while let Some(node) = all.get(at).copied() {
            all.extend_from_slice(self.children(node));
            at += 1;
        }
        all
    }
}
