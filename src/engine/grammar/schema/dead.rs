//! Whether anything is left that a conjunction allows, as far as that is looked for.

use std::rc::Rc;

use super::branch::{ARRAY, Branch, Literal, NUMBER, OBJECT, STRING};
use super::rules::Compiler;

impl Compiler<'_> {
    /// Whether it is certain that no value is valid; looks so many values deep.
    pub(super) fn is_empty(&mut self, conjunction: &[Literal], depth: u32) -> Result<bool, String> {
        if depth == 0 || self.level == 16 {
            return Ok(false);
        }
        self.level += 1;
        let empty = self.all_dead(conjunction, depth);
        self.level -= 1;
        empty
    }

    fn all_dead(&mut self, conjunction: &[Literal], depth: u32) -> Result<bool, String> {
        for branch in self.branches(conjunction)? {
            if !self.is_dead(&branch, depth)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn is_dead(&mut self, branch: &Branch, depth: u32) -> Result<bool, String> {
        if !self.constants(branch)?.is_empty() {
            return Ok(false);
        }
        // What is refused there is not known to be empty.
        if branch.types & NUMBER != 0 && !matches!(self.numbers(branch), Ok((None, None))) {
            return Ok(false);
        }
        if branch.types & STRING != 0 && !matches!(self.strings(branch), Ok(None)) {
            return Ok(false);
        }
        if branch.types & ARRAY != 0 && !self.dead_array(branch, depth)? {
            return Ok(false);
        }
        Ok(branch.types & OBJECT == 0 || self.dead_object(branch, depth)?)
    }

    fn dead_array(&mut self, branch: &Branch, depth: u32) -> Result<bool, String> {
        let n = self.n_prefix(branch)?.min(usize::try_from(branch.min_items).unwrap_or(usize::MAX));
        for i in 0..n {
            let item = self.item(branch, i)?;
            if self.is_empty(&item, depth - 1)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn dead_object(&mut self, branch: &Branch, depth: u32) -> Result<bool, String> {
        let names: Vec<Rc<str>> = branch.required.iter().cloned().collect();
        for name in names {
            self.pay(1)?;
            let Some(member) = self.member(branch, &name)? else { return Ok(true) };
            // What one schema says alone is seldom empty.
            if member.len() > 1 && self.is_empty(&member, depth - 1)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
