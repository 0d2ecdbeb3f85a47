//! Which parts of a grammar are terminals, each one expression of the lexer.
//!
//! The lexer takes, of the terminals that may stand at a place, the longest match, and of those of one length all. That is
//! what the grammar means if no terminal's match can go on in another's (or its own) with a character that may follow it.
//! Invariant: of the terminals that are chosen none can. A part that could is taken apart, down to single characters, which
//! cannot; who may stand where is taken to be anybody anywhere, and what may follow is told for each place.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicBool;

use super::alphabet::{Alphabet, Bits};
use super::automaton::Automaton;
use super::facts::Facts;
use super::tree::{Node, NodeId, RuleId, Tree};
use super::{MAX_LINKS, MAX_STEPS, MAX_WORDS, go_on};

pub(super) struct Cut<'t> {
    tree: &'t Tree,
    facts: &'t Facts,
    /// Parts that are taken apart; all of them where that has taken too long.
    apart: Vec<bool>,
    all_apart: bool,
    /// The automata of terminals, by the nodes behind their names, and what they hold.
    automata: HashMap<NodeId, Automaton>,
    n_held: usize,
    steps: u64,
    stopped: &'t AtomicBool,
}

/// The parts above the terminals, rule by rule, each behind the one that it is in.
pub(super) struct Upper {
    pub rules: Vec<(RuleId, Vec<NodeId>)>,
    terminals: Vec<NodeId>,
}

/// Steps for two places that are looked at together (30 ns were measured).
const PAIR_STEPS: usize = 8;

/// It takes too long, or too much, or has been stopped.
struct Costly;

impl<'t> Cut<'t> {
    /// Chooses the terminals.
    pub(super) fn new(tree: &'t Tree, facts: &'t Facts, stopped: &'t AtomicBool) -> Cut<'t> {
        let apart = vec![false; tree.nodes.len()];
        let (all_apart, automata, n_held, steps) = (false, HashMap::new(), 0, 0);
        let mut cut = Cut { tree, facts, apart, all_apart, automata, n_held, steps, stopped };
        cut.all_apart = cut.choose().is_err();
        cut
    }

    /// Whether a part is a terminal.
    pub(super) fn is_terminal(&self, node: NodeId) -> bool {
        let is_small = || self.facts.extent[node].is_some_and(|extent| extent.chars > 0 && extent.is_small());
        matches!(self.tree.nodes[node], Node::Char(_)) || !self.all_apart && !self.apart[node] && is_small()
    }

    /// The rules that are not part of terminals, from the root on.
    pub(super) fn rules(&self) -> Vec<RuleId> {
        self.upper().rules.into_iter().map(|(rule, _)| rule).collect()
    }

    /// The automaton of a terminal; none where single characters are all that there is.
    pub(super) fn automaton(&self, node: NodeId) -> Option<&Automaton> {
        self.automata.get(&self.tree.behind_names(node))
    }

    pub(super) fn upper(&self) -> Upper {
        let mut upper = Upper { rules: vec![(self.tree.root, Vec::new())], terminals: Vec::new() };
        let mut seen = vec![false; self.tree.rules.len()];
        seen[self.tree.root] = true;
        let mut at = 0;
        while let Some((rule, _)) = upper.rules.get(at) {
            let mut all = vec![self.tree.rules[*rule].body];
            let mut next = 0;
            while let Some(node) = all.get(next).copied() {
                next += 1;
                if self.is_terminal(node) {
                    upper.terminals.push(node);
                    continue;
                }
                all.extend_from_slice(self.tree.children(node));
                if let Node::Rule(rule) = self.tree.nodes[node]
                    && !std::mem::replace(&mut seen[rule], true)
                {
                    upper.rules.push((rule, Vec::new()));
                }
            }
            upper.rules[at].1 = all;
            at += 1;
        }
        upper
    }

    fn spend(&mut self, steps: usize) -> Result<(), Costly> {
        self.steps = self.steps.saturating_add(steps as u64);
        if self.steps > MAX_STEPS || go_on(self.stopped).is_err() { Err(Costly) } else { Ok(()) }
    }

    fn choose(&mut self) -> Result<(), Costly> {
        let alphabet = Alphabet::new(&self.tree.sets, MAX_WORDS).ok_or(Costly)?;
        loop {
            let upper = self.upper();
            let n_nodes = upper.rules.iter().map(|(_, nodes)| nodes.len()).sum::<usize>();
            // All nodes have sets, whether they are above the terminals or not.
            self.spend(n_nodes + self.tree.nodes.len())?;
            if self.tree.nodes.len().saturating_mul(alphabet.n_words()) > MAX_WORDS {
                return Err(Costly);
            }
            let mut changed = false;
            for &node in &upper.terminals {
                let known = self.tree.behind_names(node);
                if self.automata.contains_key(&known) {
                    continue;
                }
                self.spend(self.facts.extent[known].map_or(0, |extent| extent.nodes as usize))?;
                let automaton = if self.apart[known] { None } else { Automaton::new(self.tree, known) };
                let Some(automaton) = automaton else {
                    (self.apart[node], self.apart[known], changed) = (true, true, true);
                    self.spend(MAX_LINKS)?;
                    continue;
                };
                self.n_held += automaton.held();
                self.spend(automaton.held())?;
                if self.n_held > MAX_WORDS {
                    return Err(Costly);
                }
                self.automata.insert(known, automaton);
            }
            if changed {
                continue;
            }
            let first = self.first(&upper, &alphabet)?;
            let follow = self.follow(&upper, &alphabet, &first)?;
            let wrong = self.conflicts(&upper, &alphabet, &first, &follow)?;
            if wrong.is_empty() {
                return Ok(());
            }
            wrong.into_iter().for_each(|node| self.apart[node] = true);
        }
    }

    /// What each part may begin with.
    fn first(&mut self, upper: &Upper, alphabet: &Alphabet) -> Result<Vec<Bits>, Costly> {
        let mut first = vec![alphabet.none(); self.tree.nodes.len()];
        for &node in &upper.terminals {
            let automaton = &self.automata[&self.tree.behind_names(node)];
            automaton.first.iter().for_each(|place| {
                first[node].add(&alphabet.sets[automaton.places[*place as usize].set]);
            });
        }
        let mut grows = true;
        while std::mem::take(&mut grows) {
            for (_, nodes) in upper.rules.iter().rev() {
                self.spend(nodes.len() * alphabet.n_words())?;
                for &node in nodes.iter().rev().filter(|node| !self.is_terminal(**node)) {
                    let mut all = alphabet.none();
                    match &self.tree.nodes[node] {
                        Node::Seq(parts) => {
                            for part in parts {
                                all.add(&first[*part]);
                                if !self.facts.empty[*part] {
                                    break;
                                }
                            }
                        }
                        Node::Alt(parts) => parts.iter().for_each(|part| _ = all.add(&first[*part])),
                        Node::Repeat(_, _, Some(0)) | Node::Char(_) | Node::Token { .. } => {}
                        Node::Repeat(inner, ..) => _ = all.add(&first[*inner]),
                        Node::Rule(rule) => _ = all.add(&first[self.tree.rules[*rule].body]),
                    }
                    grows |= first[node].add(&all);
                }
            }
        }
        Ok(first)
    }

    /// What may follow each part.
    fn follow(&mut self, upper: &Upper, alphabet: &Alphabet, first: &[Bits]) -> Result<Vec<Bits>, Costly> {
        let mut follow = vec![alphabet.none(); self.tree.nodes.len()];
        let mut grows = true;
        while std::mem::take(&mut grows) {
            for (_, nodes) in &upper.rules {
                self.spend(nodes.len() * alphabet.n_words())?;
                for &node in nodes.iter().filter(|node| !self.is_terminal(**node)) {
                    let mut behind = follow[node].clone();
                    match &self.tree.nodes[node] {
                        Node::Seq(parts) => {
                            for part in parts.iter().rev() {
                                grows |= follow[*part].add(&behind);
                                if !self.facts.empty[*part] {
                                    behind = alphabet.none();
                                }
                                behind.add(&first[*part]);
                            }
                        }
                        Node::Alt(parts) => parts.iter().for_each(|part| grows |= follow[*part].add(&behind)),
                        Node::Repeat(inner, _, most) => {
                            if most.is_none_or(|most| most > 1) {
                                behind.add(&first[*inner]);
                            }
                            grows |= follow[*inner].add(&behind);
                        }
                        Node::Rule(rule) => grows |= follow[self.tree.rules[*rule].body].add(&behind),
                        Node::Char(_) | Node::Token { .. } => {}
                    }
                }
            }
        }
        Ok(follow)
    }

    /// Terminals in which another's match, or one of their own, may go on where it should end.
    fn conflicts(
        &mut self,
        upper: &Upper,
        alphabet: &Alphabet,
        first: &[Bits],
        follow: &[Bits],
    ) -> Result<Vec<NodeId>, Costly> {
        let automata = std::mem::take(&mut self.automata);
        let found = self.conflicts_among(&automata, upper, alphabet, first, follow);
        self.automata = automata;
        found
    }

    fn conflicts_among(
        &mut self,
        automata: &HashMap<NodeId, Automaton>,
        upper: &Upper,
        alphabet: &Alphabet,
        first: &[Bits],
        follow: &[Bits],
    ) -> Result<Vec<NodeId>, Costly> {
        let mut wrong = Vec::new();
        for &long in upper.terminals.iter().filter(|node| !matches!(self.tree.nodes[**node], Node::Char(_))) {
            for &short in &upper.terminals {
                self.spend(alphabet.n_words())?;
                if !first[short].meets(&first[long]) {
                    continue;
                }
                let of = |node| &automata[&self.tree.behind_names(node)];
                let pair = (of(short), of(long));
                if self.goes_on(pair, &follow[short], alphabet)? {
                    wrong.push(long);
                    break;
                }
            }
        }
        Ok(wrong)
    }

    /// Whether a match of the first goes on in the second with what may follow the first.
    fn goes_on(
        &mut self,
        (short, long): (&Automaton, &Automaton),
        follow: &Bits,
        alphabet: &Alphabet,
    ) -> Result<bool, Costly> {
        let mut seen: HashSet<(u32, u32)> = HashSet::new();
        // Places of the longer one behind which it does not.
        let mut ended: HashSet<u32> = HashSet::new();
        let mut left: Vec<(&[u32], &[u32])> = vec![(&short.first, &long.first)];
        while let Some((of_short, of_long)) = left.pop() {
            self.spend(of_short.len() * of_long.len() * (alphabet.n_words() + PAIR_STEPS))?;
            for &a in of_short {
                for &b in of_long {
                    let (place, other) = (&short.places[a as usize], &long.places[b as usize]);
                    if !alphabet.sets[place.set].meets(&alphabet.sets[other.set]) || !seen.insert((a, b)) {
                        continue;
                    }
                    let goes_on = |next: &u32| alphabet.sets[long.places[*next as usize].set].meets(follow);
                    if place.ends && !ended.contains(&b) {
                        self.spend(other.next.len() * alphabet.n_words())?;
                        if other.next.iter().any(goes_on) {
                            return Ok(true);
                        }
                        ended.insert(b);
                    }
                    left.push((&place.next, &other.next));
                }
            }
        }
        Ok(false)
    }
}
