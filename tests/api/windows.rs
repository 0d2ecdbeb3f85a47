//! Layers with a window on the CPU and the reference: see `common::windows`.

use std::sync::Arc;

use kigo::backend::cpu::{CpuDevice, CpuOptions};
use kigo::backend::reference::ReferenceDevice;

use crate::common::apart::apart;
use crate::common::windows::{self, On};

fn cpu() -> On {
    let device = Arc::new(CpuDevice::new(CpuOptions { n_threads: 2, isa: None }).unwrap());
    On { device, strict: false, element: 2, pass: 512, few: false }
}

fn reference() -> On {
    On { device: Arc::new(ReferenceDevice::PLAIN), strict: false, element: 4, pass: 512, few: true }
}

/// Tests that both have.
macro_rules! both {
    ($($test:ident),* $(,)?) => {
        $(
            #[test]
            fn $test() {
                windows::$test(&cpu());
            }
        )*
        mod on_the_reference {
            $(
                #[test]
                fn $test() {
                    super::windows::$test(&super::reference());
                }
            )*
        }
    };
}

both!(
    memory_goes_back_when_it_is_needed_and_no_earlier,
    a_prompt_needs_all_of_it_only_in_layers_without_a_window,
    truncating_behind_the_window_gives_the_bits_of_a_new_session,
    what_steps_and_prompts_have_made_is_computed_again_as_it_was,
    a_truncation_that_computes_again_leaves_nothing_to_the_next_prompt,
    forks_of_which_one_computes_again_share_what_they_had,
    without_memory_to_compute_again_nothing_changes,
    a_prefix_is_shared_as_far_as_the_windows_in_front_are_there,
    a_long_prompt_behind_a_shared_prefix_takes_what_is_left,
    a_session_without_its_old_parts_is_saved_and_restored,
    one_model_s_spare_memory_is_another_s_under_the_engine_s_cap,
    threads_of_two_models_take_from_one_another_and_change_nothing,
    a_plan_says_what_windows_save,
);

#[test]
fn whatever_allocation_fails_a_truncation_changes_nothing() {
    if apart(|| ()) {
        return;
    }
    windows::whatever_allocation_fails_a_truncation_changes_nothing(&cpu());
}
