//! Models whose layers keep a state, on the CPU: see `common::kept_states`.

use crate::common::kept_states::{self, On};

macro_rules! shared {
    ($($test:ident,)*) => {
        $(
            #[test]
            fn $test() {
                kept_states::$test(&On { device: "cpu", strict: false });
            }
        )*
    };
}

shared!(
    truncating_computes_at_most_as_much_again_as_it_takes_away,
    what_has_been_computed_again_has_checkpoints_of_its_own,
    a_budget_bounds_checkpoints_and_none_of_them_is_no_harm,
    a_prompt_that_many_begin_with_is_computed_once,
    forks_go_their_own_ways_and_a_failed_call_leaves_the_state_as_it_was,
    a_saved_session_is_its_bytes_again_and_goes_on_with_the_same_bits,
    what_a_session_takes_is_said_beforehand_and_goes_back,
    layers_for_drafts_are_left_out_and_there_need_be_no_attention,
);
