//! What there is to know of a grammar's rules: which may be empty, which are regular and how large, and whether one begins with
//! itself.

use std::sync::atomic::AtomicBool;

use super::tree::{Node, NodeId, RuleId, Tree};
use super::{MAX_CHARS, MAX_EXPANDED, MAX_HEIGHT, go_on};
use crate::engine::grammar::cost::at_most;

/// Nodes that are looked at, some of them again, to tell which may be empty.
const MAX_EMPTY_STEPS: u64 = 20_000_000;

/// What one expression for a node, with all that it names, would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extent {
    /// Characters, each as often as it may be repeated.
    pub chars: u64,
    /// Nodes that are gone through for it: of those without a character at most one in each alternative is left.
    pub nodes: u64,
    /// Nodes within each other.
    pub height: u64,
}

impl Extent {
    /// Whether it may be one expression.
    pub(super) fn is_small(self) -> bool {
        self.chars <= MAX_CHARS && self.nodes <= MAX_EXPANDED && self.height <= MAX_HEIGHT
    }
}

#[derive(Debug)]
pub(super) struct Facts {
    /// Whether each node may be empty.
    pub empty: Vec<bool>,
    /// What each node comes to, if it is regular.
    pub extent: Vec<Option<Extent>>,
}

/// The rules that each rule names.
fn links(tree: &Tree, orders: &[Vec<NodeId>]) -> Vec<Vec<RuleId>> {
    let of = |nodes: &Vec<NodeId>| {
        let mut all: Vec<RuleId> = nodes.iter().filter_map(|node| rule_of(tree, *node)).collect();
        all.sort_unstable();
        all.dedup();
        all
    };
    orders.iter().map(of).collect()
}

fn rule_of(tree: &Tree, node: NodeId) -> Option<RuleId> {
    if let Node::Rule(rule) = tree.nodes[node] { Some(rule) } else { None }
}

/// Which nodes may be empty. A rule is looked at again for each that it names and that turns out to be.
fn empties(
    tree: &Tree,
    orders: &[Vec<NodeId>],
    links: &[Vec<RuleId>],
    stopped: &AtomicBool,
) -> Result<Vec<bool>, String> {
    let mut empty = vec![false; tree.nodes.len()];
    let mut of_rule = vec![false; tree.rules.len()];
    let mut users = vec![Vec::new(); tree.rules.len()];
    for (rule, named) in links.iter().enumerate() {
        named.iter().for_each(|named| users[*named].push(rule));
    }
    let mut left: Vec<RuleId> = (0..tree.rules.len()).collect();
    let mut steps = 0;
    while let Some(rule) = left.pop() {
        steps += orders[rule].len() as u64;
        at_most(steps, MAX_EMPTY_STEPS, "steps to tell which rules may be empty")?;
        go_on(stopped)?;
        for &node in orders[rule].iter().rev() {
            empty[node] = match &tree.nodes[node] {
                Node::Char(_) | Node::Token { .. } => false,
                Node::Seq(all) => all.iter().all(|node| empty[*node]),
                Node::Alt(all) => all.iter().any(|node| empty[*node]),
                Node::Repeat(inner, least, most) => *least == 0 || *most == Some(0) || empty[*inner],
                Node::Rule(rule) => of_rule[*rule],
            };
        }
        if empty[tree.rules[rule].body] && !of_rule[rule] {
            of_rule[rule] = true;
            left.extend_from_slice(&users[rule]);
        }
    }
    Ok(empty)
}

/// The rules that a rule may begin with.
fn leftmost(tree: &Tree, empty: &[bool], rule: RuleId) -> Vec<RuleId> {
    let (mut found, mut left) = (Vec::new(), vec![tree.rules[rule].body]);
    while let Some(node) = left.pop() {
        match &tree.nodes[node] {
            Node::Seq(all) => {
                let n = all.iter().position(|node| !empty[*node]).map_or(all.len(), |n| n + 1);
                left.extend_from_slice(&all[..n]);
            }
            Node::Alt(all) => left.extend_from_slice(all),
            Node::Repeat(inner, _, most) if *most != Some(0) => left.push(*inner),
            Node::Rule(rule) => found.push(*rule),
            Node::Repeat(..) | Node::Char(_) | Node::Token { .. } => {}
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// The rules in an order in which each stands behind those that it names; without those that name themselves, in whatever way,
/// and what names them.
fn acyclic(links: &[Vec<RuleId>]) -> Vec<RuleId> {
    let mut users = vec![Vec::new(); links.len()];
    for (rule, named) in links.iter().enumerate() {
        named.iter().for_each(|named| users[*named].push(rule));
    }
    let mut n_left: Vec<usize> = links.iter().map(Vec::len).collect();
    let mut order: Vec<RuleId> = (0..links.len()).filter(|rule| n_left[*rule] == 0).collect();
    let mut at = 0;
    while let Some(rule) = order.get(at).copied() {
        at += 1;
        for &user in &users[rule] {
            n_left[user] -= 1;
            if n_left[user] == 0 {
                order.push(user);
            }
        }
    }
    order
}

impl Facts {
    /// Looks at all rules, and leaves out of the tree what has no text but the empty one, since nothing bounds how often that
    /// may stand somewhere. A rule that begins with itself is refused by its name.
    pub(super) fn new(tree: &mut Tree, stopped: &AtomicBool) -> Result<Facts, String> {
        let orders: Vec<Vec<NodeId>> = (0..tree.rules.len()).map(|rule| tree.of_rule(rule)).collect();
        let links = links(tree, &orders);
        let empty = empties(tree, &orders, &links, stopped)?;
        let begins: Vec<Vec<RuleId>> = (0..tree.rules.len()).map(|rule| leftmost(tree, &empty, rule)).collect();
        let harmless = acyclic(&begins);
        if harmless.len() < tree.rules.len() {
            let mut is_harmless = vec![false; tree.rules.len()];
            harmless.iter().for_each(|rule| is_harmless[*rule] = true);
            let name = &tree.rules[on_a_circle(&begins, &is_harmless)].name;
            return Err(format!("the rule {name:?} begins with itself (left recursion)"));
        }
        let mut extent = vec![None; tree.nodes.len()];
        let mut of_rule: Vec<Option<Extent>> = vec![None; tree.rules.len()];
        for rule in acyclic(&links) {
            for &node in orders[rule].iter().rev() {
                extent[node] = of_node(tree, node, &extent, &of_rule);
            }
            of_rule[rule] = extent[tree.rules[rule].body];
        }
        // What is regular in rules that are not.
        for order in &orders {
            for &node in order.iter().rev() {
                extent[node] = of_node(tree, node, &extent, &of_rule);
            }
        }
        let is_nothing = |node: NodeId| extent[node].is_some_and(|extent: Extent| extent.chars == 0);
        for (id, node) in tree.nodes.iter_mut().enumerate() {
            prune(id, node, &is_nothing);
        }
        Ok(Facts { empty, extent })
    }
}

/// Leaves out what is nothing: all of a node that is, such parts of a sequence, and all but one such alternative.
fn prune(id: NodeId, node: &mut Node, is_nothing: &dyn Fn(NodeId) -> bool) {
    if is_nothing(id) {
        *node = Node::Seq(Vec::new());
        return;
    }
    match node {
        Node::Seq(all) => all.retain(|part| !is_nothing(*part)),
        Node::Alt(all) => {
            let mut n_nothing = 0;
            all.retain(|part| {
                n_nothing += usize::from(is_nothing(*part));
                !is_nothing(*part) || n_nothing == 1
            });
        }
        _ => {}
    }
}

/// A rule that names itself: of those that are not harmless each names another, so that following them comes round.
fn on_a_circle(links: &[Vec<RuleId>], harmless: &[bool]) -> RuleId {
    let mut rule = harmless.iter().position(|harmless| !harmless).unwrap_or(0);
    let mut seen = vec![false; links.len()];
    while !std::mem::replace(&mut seen[rule], true) {
        rule = links[rule].iter().copied().find(|next| !harmless[*next]).unwrap_or(rule);
    }
    rule
}

fn of_node(tree: &Tree, node: NodeId, extent: &[Option<Extent>], of_rule: &[Option<Extent>]) -> Option<Extent> {
    let all = |nodes: &[NodeId]| {
        let sum = Some(Extent::default());
        nodes.iter().fold(sum, |sum, node| {
            let (sum, inner) = (sum?, extent[*node]?);
            let nodes = if inner.chars == 0 { 0 } else { inner.nodes };
            Some(Extent {
                chars: sum.chars.saturating_add(inner.chars),
                nodes: sum.nodes.saturating_add(nodes),
                height: sum.height.max(inner.height + 1),
            })
        })
    };
    // One more for itself, and for the alternative that is nothing.
    let more = |extent: Extent, n: u64| Extent { nodes: extent.nodes.saturating_add(n), ..extent };
    match &tree.nodes[node] {
        Node::Char(_) => Some(Extent { chars: 1, nodes: 1, height: 0 }),
        Node::Seq(nodes) => all(nodes).map(|extent| more(extent, 1)),
        Node::Alt(nodes) => all(nodes).map(|extent| more(extent, 2)),
        Node::Repeat(_, _, Some(0)) => Some(Extent::default()),
        Node::Repeat(inner, least, most) => {
            let inner = extent[*inner]?;
            let times = u64::from(most.unwrap_or(*least).max(1));
            let nodes = inner.nodes.saturating_mul(times).saturating_add(times);
            Some(Extent { chars: inner.chars.saturating_mul(times), nodes, height: inner.height + 1 })
        }
        Node::Rule(rule) => of_rule[*rule].map(|inner| more(Extent { height: inner.height + 1, ..inner }, 1)),
        Node::Token { .. } => None,
    }
}
