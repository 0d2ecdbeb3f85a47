//! Which of the calls that wait make the next pass.
//!
//! Invariants: somebody goes whenever somebody waits; where prompts are cut so that steps can go between, a step that has
//! waited while a prompt's pass ran goes before the next one, and no prompt waits for a step that has come after that.

/// A call that waits, as far as its place depends on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) n_tokens: usize,
    /// Those of prompts; the others are steps.
    pub(super) n_prompt: usize,
    /// The most tokens of prompts that a pass should have which begins with this one.
    pub(super) bound: usize,
    /// Passes with a prompt's tokens that had ended when it came.
    pub(super) came: u64,
}

/// How passes are made of calls.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Several calls may share one.
    pub(super) merges: bool,
    /// Prompts come in small parts; else calls go as they come.
    pub(super) is_bounded: bool,
    /// The most tokens of a pass.
    pub(super) most: usize,
}

/// The indices of those that make the next pass, in ascending order; `ended` passes with a prompt's tokens have ended.
pub(super) fn next(waiting: &[Place], ended: u64, rules: Rules) -> Vec<usize> {
    let is_step = |place: &Place| place.n_prompt == 0;
    let is_late = |place: &Place| is_step(place) && place.came < ended;
    let late = waiting.iter().position(is_late);
    let prompt = waiting.iter().position(|place| !is_step(place));
    if !rules.merges {
        let first = (!waiting.is_empty()).then_some(0);
        return (if rules.is_bounded { late.or(prompt).or(first) } else { first }).into_iter().collect();
    }
    let n_steps: usize = waiting.iter().filter(|place| is_step(place)).map(|place| place.n_tokens).sum();
    let least = beside(n_steps);
    let mut pass = Pass { most: rules.most, least, bound: None, n_tokens: 0, n_prompt: 0, chosen: Vec::new() };
    let mut take = |wanted: &dyn Fn(usize, &Place) -> bool| {
        // Whoever does not fit is waited for by those behind: nobody is overtaken again and again.
        let mut wanted = waiting.iter().enumerate().filter(|(index, place)| wanted(*index, place));
        wanted.all(|(index, place)| pass.take(index, place));
    };
    if !rules.is_bounded {
        take(&|_, _| true);
    } else if late.is_some() {
        // With a prompt they would wait for a second of its passes.
        take(&|_, place| is_step(place));
    } else {
        // The first prompt before the steps, which by themselves may fill a pass.
        take(&|index, _| Some(index) == prompt);
        take(&|_, place| is_step(place));
        take(&|index, place| !is_step(place) && Some(index) != prompt);
    }
    pass.chosen.sort_unstable();
    pass.chosen
}

/// Tokens of prompts that a pass may have with so many steps in it, whatever its bound: a step's row costs it as much as a prompt's, so that
/// with these it takes a few times as long as without them. Where many answer, many prompts come in.
pub(in crate::engine) fn beside(n_steps: usize) -> usize {
    4 * n_steps
}

/// A pass that is put together.
struct Pass {
    most: usize,
    /// See [`beside`].
    least: usize,
    /// The bound of the first prompt.
    bound: Option<usize>,
    n_tokens: usize,
    n_prompt: usize,
    chosen: Vec<usize>,
}

impl Pass {
    /// Takes a call if there is room for it, and the first in any case; whether it was taken.
    fn take(&mut self, index: usize, place: &Place) -> bool {
        let (n_tokens, n_prompt) = (self.n_tokens + place.n_tokens, self.n_prompt + place.n_prompt);
        let bound = self.bound.map_or(usize::MAX, |bound| bound.max(self.least));
        let fits = n_tokens <= self.most && (place.n_prompt == 0 || n_prompt <= bound);
        let taken = fits || self.chosen.is_empty();
        if taken {
            (self.n_tokens, self.n_prompt) = (n_tokens, n_prompt);
            if place.n_prompt > 0 {
                self.bound.get_or_insert(place.bound);
            }
            self.chosen.push(index);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MERGED: Rules = Rules { merges: true, is_bounded: true, most: 512 };
    const APART: Rules = Rules { merges: false, ..MERGED };

    fn step(came: u64) -> Place {
        Place { n_tokens: 1, n_prompt: 0, bound: 0, came }
    }

    fn prompt(n_tokens: usize, came: u64) -> Place {
        Place { n_tokens, n_prompt: n_tokens, bound: 16, came }
    }

    #[test]
    fn a_step_that_has_waited_goes_before_the_next_of_a_prompt_and_no_other_does() {
        for rules in [MERGED, APART] {
            assert_eq!(next(&[prompt(16, 3), step(2)], 3, rules), [1]);
        }
        assert_eq!(next(&[step(3), prompt(16, 3)], 3, APART), [1]);
        assert_eq!(next(&[step(3), step(3)], 3, APART), [0]);
        assert_eq!(next(&[prompt(16, 1), step(2), step(2)], 3, APART), [1]);
        assert!(next(&[], 3, MERGED).is_empty() && next(&[], 3, APART).is_empty());
    }

    #[test]
    fn steps_ride_with_one_bounded_part_of_prompts() {
        let waiting = [step(3), prompt(16, 3), prompt(10, 3), step(3), step(3)];
        assert_eq!(next(&waiting, 3, MERGED), [0, 1, 3, 4]);
        // What is left of the bound another takes that is short enough.
        assert_eq!(next(&[prompt(6, 3), prompt(10, 3), step(3), prompt(1, 3)], 3, MERGED), [0, 1, 2]);
        // Those that have waited go without, with those that come with them.
        let waiting = [step(2), prompt(16, 3), step(3)];
        assert_eq!(next(&waiting, 3, MERGED), [0, 2]);
    }

    #[test]
    fn more_than_a_pass_holds_starves_nobody() {
        let few = Rules { most: 4, ..MERGED };
        let mut waiting = vec![step(3); 6];
        waiting.push(prompt(3, 3));
        assert_eq!(next(&waiting, 3, few), [0, 6]);
        assert_eq!(next(&[step(2); 6], 3, few), [0, 1, 2, 3]);
        // One that is alone larger than a pass goes alone.
        assert_eq!(next(&[prompt(9, 3), step(3)], 3, few), [0]);
    }

    #[test]
    fn where_prompts_are_not_cut_calls_go_as_they_come() {
        let rules = Rules { is_bounded: false, most: 20, ..MERGED };
        assert_eq!(next(&[step(0), prompt(20, 3), step(3)], 3, rules), [0]);
        let prompt = |n| Place { bound: 20, ..prompt(n, 3) };
        assert_eq!(next(&[prompt(15), step(0), prompt(4), step(3)], 3, rules), [0, 1, 2]);
    }
}
