//! Models whose layers keep a state, on the GPU: in strict mode those of `common::kept_states`; and outside of it.
//!
//! Without a device the tests print `skipped: no CUDA device` and pass, unless KIGO_REQUIRE_CUDA=1. KIGO_FEW: less of everything.

use crate::common::gpu::{device, few};
use crate::common::kept_states::{self, On};

const STRICT: On = On { device: "cuda:0", strict: true };

/// Those of all devices; KIGO_FEW leaves the second list out.
macro_rules! shared {
    ($($test:ident),* ; $($long:ident),* $(,)?) => {
        $(
            #[test]
            fn $test() {
                if device().is_some() {
                    kept_states::$test(&STRICT);
                }
            }
        )*
        $(
            #[test]
            fn $long() {
                if let (Some(_turn), false) = (device(), few()) {
                    kept_states::$long(&STRICT);
                }
            }
        )*
    };
}

shared!(
    a_saved_session_is_its_bytes_again_and_goes_on_with_the_same_bits,
    layers_for_drafts_are_left_out_and_there_need_be_no_attention;
    truncating_computes_at_most_as_much_again_as_it_takes_away,
    what_has_been_computed_again_has_checkpoints_of_its_own,
    a_budget_bounds_checkpoints_and_none_of_them_is_no_harm,
    a_prompt_that_many_begin_with_is_computed_once,
    forks_go_their_own_ways_and_a_failed_call_leaves_the_state_as_it_was,
    what_a_session_takes_is_said_beforehand_and_goes_back,
);

/// What steps have computed, and what a prompt's passes, are computed again as they were.
#[test]
fn what_steps_and_prompts_have_kept_is_computed_again_as_it_was() {
    if device().is_some() {
        kept_states::what_calls_have_made_is_computed_again_as_it_was(&On { device: "cuda:0", strict: false });
    }
}
