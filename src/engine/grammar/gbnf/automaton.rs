//! The characters of an expression and which follow each other: its automaton, by positions.

use super::MAX_LINKS;
use super::tree::{Node, NodeId, Tree};

/// A place of an expression where a character stands.
#[derive(Debug)]
pub(super) struct Place {
    /// The set that the character is of.
    pub set: usize,
    /// The places that may come next.
    pub next: Vec<u32>,
    /// Whether the expression may end behind it.
    pub ends: bool,
}

#[derive(Debug)]
pub(super) struct Automaton {
    pub places: Vec<Place>,
    /// Those with which it may begin.
    pub first: Vec<u32>,
}

enum State {
    Char(usize, usize),
    Any(Vec<usize>),
    End,
}

struct Builder<'t> {
    tree: &'t Tree,
    states: Vec<State>,
}

impl Builder<'_> {
    fn push(&mut self, state: State) -> usize {
        self.states.push(state);
        self.states.len() - 1
    }

    /// The state in front of a node behind which `next` stands. Recurses as deep as the node is high.
    fn node(&mut self, node: NodeId, next: usize) -> usize {
        let tree = self.tree;
        match &tree.nodes[node] {
            Node::Char(set) => self.push(State::Char(*set, next)),
            Node::Seq(all) => all.iter().rev().fold(next, |next, node| self.node(*node, next)),
            Node::Alt(all) => {
                let all = all.iter().map(|node| self.node(*node, next)).collect();
                self.push(State::Any(all))
            }
            Node::Repeat(inner, least, most) => {
                let mut start = next;
                match most {
                    None => {
                        start = self.push(State::Any(Vec::new()));
                        let body = self.node(*inner, start);
                        self.states[start] = State::Any(vec![body, next]);
                    }
                    Some(most) => {
                        for _ in *least..*most {
                            let body = self.node(*inner, start);
                            start = self.push(State::Any(vec![body, next]));
                        }
                    }
                }
                (0..*least).fold(start, |next, _| self.node(*inner, next))
            }
            Node::Rule(rule) => self.node(tree.rules[*rule].body, next),
            // A token is in no expression.
            Node::Token { .. } => next,
        }
    }
}

impl Automaton {
    /// Places and links that it holds.
    pub(super) fn held(&self) -> usize {
        self.places.iter().map(|place| place.next.len() + 1).sum()
    }

    /// The automaton of a regular node of a small extent; none if too many places follow each other.
    pub(super) fn new(tree: &Tree, node: NodeId) -> Option<Automaton> {
        let mut builder = Builder { tree, states: vec![State::End] };
        let start = builder.node(node, 0);
        let states = builder.states;
        let mut numbers = vec![0u32; states.len()];
        let mut n = 0;
        for (state, number) in states.iter().zip(&mut numbers) {
            if let State::Char(..) = state {
                *number = n;
                n += 1;
            }
        }
        let mut seen = vec![usize::MAX; states.len()];
        let mut n_links = 0;
        // Places that may come next from a state on, and whether the end may.
        let mut closure = |from: usize, mark: usize| {
            let (mut next, mut ends, mut left) = (Vec::new(), false, vec![from]);
            while let Some(state) = left.pop() {
                if std::mem::replace(&mut seen[state], mark) == mark {
                    continue;
                }
                n_links += 1;
                match &states[state] {
                    State::Char(..) => next.push(numbers[state]),
                    State::Any(all) => left.extend_from_slice(all),
                    State::End => ends = true,
                }
            }
            (n_links <= MAX_LINKS).then_some((next, ends))
        };
        let (first, _) = closure(start, states.len())?;
        let mut places = Vec::new();
        for (mark, state) in states.iter().enumerate() {
            if let State::Char(set, next) = state {
                let (next, ends) = closure(*next, mark)?;
                places.push(Place { set: *set, next, ends });
            }
        }
        Some(Automaton { places, first })
    }
}
