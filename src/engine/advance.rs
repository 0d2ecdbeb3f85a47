//! A session taken to other tokens: what they have in common with those that it holds is kept.
//!
//! Invariant: what fails or is cancelled leaves the session's tokens and logits as they were: the way there is gone by a branch, which
//! becomes the session when it has arrived.

use super::append::Progress;
use super::session::{Session, State};
use crate::backend::PAGE_TOKENS;
use crate::error::{Error, Result};

/// What became of the tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Advanced {
    /// The session held so many of them, from the first on.
    pub n_kept: usize,
    /// So many were another session's.
    pub n_reused: usize,
    /// So many were computed.
    pub n_computed: usize,
}

impl Session {
    /// Makes the session hold exactly these tokens, with the logits of the last: what it holds of them from the first on stays, the rest
    /// goes, and what follows is computed. `progress` is told before each pass how many of how many are there, and may stop it.
    pub fn advance(&self, tokens: &[u32], progress: Option<&mut dyn FnMut(usize, usize) -> bool>) -> Result<Advanced> {
        self.call(|state| {
            if tokens.is_empty() {
                return Err(Error::Argument { name: "n_ids", found: "0".into(), expected: "at least 1".into() });
            }
            self.check(tokens)?;
            if tokens.len() > self.n_ctx() {
                return Err(Error::ContextFull { n_tokens: 0, n_new: tokens.len(), n_ctx: self.n_ctx() });
            }
            let common = state.tokens.iter().zip(tokens).take_while(|(held, new)| held == new).count();
            if common == tokens.len() && common == state.tokens.len() && state.has_logits {
                return Ok(Advanced { n_kept: common, ..Advanced::default() });
            }
            let n_kept = self.worth_keeping(state, tokens, common);
            let mut told = progress.map(|progress| move |done: usize| progress(n_kept + done, tokens.len()));
            let told = told.as_mut().map(|told| told as Progress<'_>);
            let n_reused = if n_kept == state.tokens.len() {
                self.append(state, &tokens[n_kept..], told)?
            } else {
                self.go_back_and_on(state, n_kept, &tokens[n_kept..], told)?
            };
            Ok(Advanced { n_kept, n_reused, n_computed: tokens.len() - n_kept - n_reused })
        })
    }

    /// How many of the tokens to keep, of so many in common: one is computed for its logits, and where others have more of the page in
    /// which the common ones end it is taken from them.
    fn worth_keeping(&self, state: &State, tokens: &[u32], common: usize) -> usize {
        let most = common.min(tokens.len() - 1);
        let whole = most / PAGE_TOKENS * PAGE_TOKENS;
        let others = state.reuse_prefix
            && state.tap.is_none()
            && whole < most
            && tokens.len() > whole + PAGE_TOKENS
            && state.pages.is_known(whole / PAGE_TOKENS, &tokens[whole..]);
        if others { whole } else { most }
    }

    fn go_back_and_on(
        &self,
        state: &mut State,
        n_kept: usize,
        tokens: &[u32],
        progress: Option<Progress<'_>>,
    ) -> Result<usize> {
        let mut branch = state.branch();
        self.cut(&mut branch, n_kept)?;
        branch.tap = state.tap.take();
        let outcome = self.append(&mut branch, tokens, progress);
        state.tap = branch.tap.take();
        let n_reused = outcome?;
        let State { tokens, pages, slot, behind, has_logits, n_reused: n_all, .. } = branch;
        (state.tokens, state.pages, state.slot, state.has_logits) = (tokens, pages, slot, has_logits);
        state.behind = behind;
        state.n_reused = n_all;
        Ok(n_reused)
    }
}
