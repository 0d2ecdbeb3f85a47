//! Calls that compute pages which others may wait for.
//!
//! Invariant: who leads does not wait; what a call leads is taken out when the call has come to its end, whichever.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::prefix::Pending;
use crate::alloc::asking;

/// How long a call that is in its caller's code is waited for: that code may wait for those who wait here.
const PATIENCE: Duration = Duration::from_millis(5);

/// A call's pages.
struct Leading {
    /// Nodes of the tree, some of which may be others' by now.
    nodes: Vec<u32>,
    /// So many of them are there, or will not be found.
    n_done: usize,
    /// The call is in its caller's code.
    is_paused: bool,
}

/// All that there are.
#[derive(Default)]
pub(super) struct Leads {
    of: HashMap<u64, Leading>,
    last: u64,
}

/// What somebody waits for.
#[derive(Debug)]
pub(in crate::engine) struct Awaited {
    pending: Pending,
    /// Since when it has been seen paused.
    paused: Option<Instant>,
    /// It was paused too long.
    is_given_up: bool,
    /// When the waiting began, of what was awaited before this included.
    since: Instant,
}

impl Awaited {
    /// `before`: what the same call has waited for already.
    pub(super) fn new(pending: Pending, before: Option<&Awaited>) -> Awaited {
        let since = before.map_or_else(Instant::now, Awaited::since);
        Awaited { pending, paused: None, is_given_up: false, since }
    }

    /// When the waiting began.
    pub(in crate::engine) fn since(&self) -> Instant {
        self.since
    }

    /// The call that is not to be waited for any more.
    pub(super) fn given_up(&self) -> Option<u64> {
        self.is_given_up.then_some(self.pending.lead)
    }
}

impl Leads {
    /// A number for one more, which there is room for.
    pub(super) fn next(&mut self) -> Option<u64> {
        asking(|| self.of.try_reserve(1)).ok()?;
        self.last += 1;
        Some(self.last)
    }

    /// Counts it; [`Self::next`] has given its number.
    pub(super) fn begin(&mut self, lead: u64, nodes: Vec<u32>) {
        self.of.insert(lead, Leading { nodes, n_done: 0, is_paused: false });
    }

    /// The nodes that have been done by it only now, being the first `n` of its pages.
    pub(super) fn done(&mut self, lead: u64, n: usize) -> &[u32] {
        let Some(leading) = self.of.get_mut(&lead) else { return &[] };
        let n = n.clamp(leading.n_done, leading.nodes.len());
        let before = std::mem::replace(&mut leading.n_done, n);
        &leading.nodes[before..n]
    }

    /// It is over; its nodes.
    pub(super) fn end(&mut self, lead: u64) -> Vec<u32> {
        self.of.remove(&lead).map(|leading| leading.nodes).unwrap_or_default()
    }

    /// Whether it is in its caller's code.
    pub(super) fn pause(&mut self, lead: u64, is_paused: bool) {
        if let Some(leading) = self.of.get_mut(&lead) {
            leading.is_paused = is_paused;
        }
    }

    /// Whether nobody needs to wait for it any more: it is there, or will not come.
    pub(super) fn is_settled(&self, awaited: &mut Awaited) -> bool {
        let Some(leading) = self.of.get(&awaited.pending.lead) else { return true };
        if leading.n_done > awaited.pending.at {
            return true;
        }
        if !leading.is_paused {
            awaited.paused = None;
        } else if awaited.paused.get_or_insert_with(Instant::now).elapsed() >= PATIENCE {
            awaited.is_given_up = true;
        }
        awaited.is_given_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_awaited_is_done_over_or_paused_too_long() {
        let mut leads = Leads::default();
        let lead = leads.next().unwrap();
        leads.begin(lead, vec![5, 6, 7]);
        let mut awaited = [0, 2].map(|at| Awaited::new(Pending { lead, at }, None));
        let mut settled = |leads: &Leads| [0, 1].map(|i| leads.is_settled(&mut awaited[i]));
        assert_eq!(settled(&leads), [false, false]);
        assert_eq!(leads.done(lead, 2), [5, 6]);
        assert_eq!(leads.done(lead, 1), [] as [u32; 0]);
        assert_eq!(settled(&leads), [true, false]);
        leads.pause(lead, true);
        assert_eq!(settled(&leads), [true, false]);
        leads.pause(lead, false);
        std::thread::sleep(PATIENCE);
        assert_eq!(settled(&leads), [true, false], "it has gone on meanwhile");
        leads.pause(lead, true);
        assert_eq!(settled(&leads), [true, false]);
        std::thread::sleep(PATIENCE);
        assert_eq!(settled(&leads), [true, true]);
        assert_eq!((awaited[0].given_up(), awaited[1].given_up()), (None, Some(lead)));
        let mut other = Awaited::new(Pending { lead, at: 2 }, None);
        assert!(!leads.is_settled(&mut other));
        assert_eq!(leads.end(lead), [5, 6, 7]);
        assert!(leads.is_settled(&mut other) && other.given_up().is_none());
    }
}
