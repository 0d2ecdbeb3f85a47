//! The layout of every struct that C sees, on machines of 64 bits, frozen.
//!
//! A program that was compiled against a released header has these numbers in it. Within one ABI version a struct with a
//! size may get fields at its end, which come here too, and nothing else of this file changes; `abi/<release>/structs.txt`
//! has what each release had, and `tests/repo/abi.rs` compares.

macro_rules! layout {
    ($($module:ident::$struct:ident: $bytes:literal { $($field:ident $offset:literal),* $(,)? })*) => {
        #[cfg(target_pointer_width = "64")]
        const _: () = {
            $(
                assert!(size_of::<super::$module::$struct>() == $bytes, stringify!($struct));
                $(assert!(
                    std::mem::offset_of!(super::$module::$struct, $field) == $offset,
                    concat!(stringify!($struct), ".", stringify!($field)),
                );)*
            )*
        };
    };
}

layout! {
    log::kigo_log_event: 32 {
        struct_size 0, text 8, text_len 16, level 24, reserved 28,
    }
    devices::kigo_device_facts: 512 {
        struct_size 0, total_bytes 8, free_bytes 16, n_cores 24, kind 32, usable 36, compute_major 40, compute_minor 44,
        uuid 48, device 64, uuid_text 80, name 128, reason 256,
    }
    host::kigo_thread_event: 32 {
        struct_size 0, name 8, index 16, kind 24, ends 28,
    }
    engine::kigo_engine_options: 144 {
        struct_size 0, device 8, device_len 16, log 24, log_user_data 32, memory_cap_bytes 40, n_threads 48,
        log_level 52, on_thread 56, thread_user_data 64, cpus 72, n_cpus 80, affinity 88, thread_policy 96,
        thread_priority 100, parallel_for 104, parallel_for_user_data 112, alloc 120, free 128, memory_user_data 136,
    }
    engine::kigo_engine_facts: 32 {
        struct_size 0, memory_cap_bytes 8, memory_used_bytes 16, n_threads 24,
    }
    model::kigo_load_options: 64 {
        struct_size 0, progress 8, progress_user_data 16, cache_bytes 24, flags 32, pass_tokens 40,
        prefix_cache_bytes 48, checkpoint_bytes 56,
    }
    model::kigo_plan_options: 24 {
        struct_size 0, n_tokens 8, flags 16,
    }
    model::kigo_plan: 72 {
        struct_size 0, weights_bytes 8, scratch_bytes 16, n_tokens 24, cache_bytes 32, state_bytes 40,
        checkpoint_bytes 48, cache_spare_bytes 56, checkpoint_limit_bytes 64,
    }
    facts::kigo_model_facts: 112 {
        struct_size 0, n_parameters 8, file_bytes 16, weights_bytes 24, decode_bytes 32, state_bytes 40, n_meta 48,
        flags 56, n_vocab 64, n_ctx_train 68, n_layers 72, n_embd 76, begin_token 80, end_token 84,
        fim_prefix_token 88, fim_suffix_token 92, fim_middle_token 96, fim_pad_token 100, fim_repository_token 104,
        fim_file_token 108,
    }
    facts::kigo_layer_facts: 72 {
        struct_size 0, kv_bytes_per_token 8, state_bytes 16, mixers 24, window 28, n_heads 32, n_kv_heads 36,
        k_head_dim 40, v_head_dim 44, n_rot 48, kv_layer 52, n_ff 56, n_experts 60, n_experts_used 64, n_ff_expert 68,
    }
    facts::kigo_cache_facts: 104 {
        struct_size 0, page_tokens 8, n_pages_used 16, used_bytes 24, limit_bytes 32, free_bytes 40, spare_bytes 48,
        n_pages_retained 56, retained_bytes 64, n_tokens_saved 72, n_states 80, n_checkpoints 88,
        checkpoint_limit_bytes 96,
    }
    chat::kigo_message: 32 {
        role 0, role_len 8, content 16, content_len 24,
    }
    chat::kigo_chat_options: 80 {
        struct_size 0, flags 8, tools_json 16, tools_json_len 24, variables_json 32, variables_json_len 40,
        template_source 48, template_source_len 56, template_name 64, template_name_len 72,
    }
    answers::kigo_chat_event: 32 {
        kind 0, call 4, text 8, text_len 16, flags 24,
    }
    answers::kigo_chat_format: 24 {
        struct_size 0, family 8, flags 16,
    }
    answers::kigo_tools_options: 56 {
        struct_size 0, choice 8, name 16, name_len 24, flags 32, go_on 40, user_data 48,
    }
    sampling::kigo_logit_bias: 8 {
        token 0, bias 4,
    }
    sampling::kigo_sampling: 64 {
        struct_size 0, seed 8, temperature 16, top_k 20, top_p 24, min_p 28, repetition_penalty 32,
        frequency_penalty 36, presence_penalty 40, penalty_window 44, logit_bias 48, n_logit_bias 56,
    }
    session::kigo_session_options: 48 {
        struct_size 0, n_ctx 8, sampling 16, flags 24, prefix_salt 32, prefix_salt_len 40,
    }
    session::kigo_session_facts: 88 {
        struct_size 0, n_tokens 8, n_ctx 16, n_pages 24, n_pages_own 32, has_logits 40, n_tokens_reused 48,
        has_long_rope 56, truncate_free_from 64, state_bytes 72, n_checkpoints 80,
    }
    prefix::kigo_advance_options: 24 {
        struct_size 0, progress 8, user_data 16,
    }
    prefix::kigo_advanced: 32 {
        struct_size 0, n_kept 8, n_reused 16, n_computed 24,
    }
    constraint::kigo_constraint_options: 56 {
        struct_size 0, kind 8, text 16, text_len 24, flags 32, go_on 40, user_data 48,
    }
    logprobs::kigo_logprob: 12 {
        token 0, before 4, after 8,
    }
    logprobs::kigo_logprobs_options: 40 {
        struct_size 0, tokens 8, n_tokens 16, n_top 24, flags 32,
    }
    generate::kigo_string: 16 {
        data 0, len 8,
    }
    generate::kigo_step_event: 80 {
        struct_size 0, text 8, text_len 16, bytes 24, n_bytes 32, top 40, n_top 48, position 56, token 64, before 68,
        after 72, reserved 76,
    }
    generate::kigo_generate_options: 72 {
        struct_size 0, max_tokens 8, stop 16, n_stop 24, on_token 32, user_data 40, flags 48, on_step 56, n_top 64,
    }
    generate::kigo_generated: 88 {
        struct_size 0, n_tokens 8, stop_index 16, stop_token 24, stop_reason 28, n_prompt_tokens 32,
        n_prompt_tokens_reused 40, prefill_ns 48, first_token_ns 56, decode_ns 64, callback_ns 72, waiting_ns 80,
    }
    figures::kigo_session_figures: 56 {
        struct_size 0, n_tokens_prefilled 8, n_tokens_reused 16, n_tokens_decoded 24, prefill_ns 32, decode_ns 40,
        waiting_ns 48,
    }
    figures::kigo_model_figures: 200 {
        struct_size 0, n_sessions 8, n_sessions_running 16, n_sessions_waiting 24, n_tokens_prefilled 32,
        n_tokens_decoded 40, n_tokens_reused 48, n_tokens_recomputed 56, n_passes 64, n_prefill_passes 72,
        n_pass_tokens 80, n_pass_sessions 88, most_pass_tokens 96, pass_ns 104, prefill_pass_ns 112,
        longest_pass_ns 120, n_pages_used 128, n_pages_retained 136, n_pages_evicted 144, n_cancelled 152, n_busy 160,
        n_context_full 168, n_cache_full 176, n_out_of_memory 184, n_other_failures 192,
    }
    polled::kigo_batch_work: 40 {
        struct_size 0, ids 8, n_ids 16, generate 24, user_data 32,
    }
    polled::kigo_batch_event: 136 {
        struct_size 0, session 8, user_data 16, text 24, text_len 32, n_tokens 40, stop_index 48, kind 56, token 60,
        stop_token 64, stop_reason 68, status 72, reserved 76, n_prompt_tokens 80, n_prompt_tokens_reused 88,
        prefill_ns 96, first_token_ns 104, decode_ns 112, between_ns 120, waiting_ns 128,
    }
    embed::kigo_embed_options: 16 {
        struct_size 0, pooling 8, normalization 12,
    }
    tap::kigo_tap_event: 64 {
        struct_size 0, name 8, data 16, n_rows 24, n_cols 32, position 40, layer 48, tap 56, element_type 60,
    }
    tap::kigo_tap_options: 40 {
        struct_size 0, taps 8, n_taps 16, callback 24, user_data 32,
    }
    doctor::kigo_check: 64 {
        struct_size 0, name 8, text 16, text_len 24, figure 32, bound 40, seconds 48, number 56, outcome 60,
    }
    doctor::kigo_doctor_options: 32 {
        struct_size 0, on_check 8, user_data 16, seed 24,
    }
    doctor::kigo_diagnosis: 40 {
        struct_size 0, n_holding 8, n_failed 16, n_skipped 24, at_fault 32,
    }
    stream::kigo_stream_options: 32 {
        struct_size 0, stop 8, n_stop 16, flags 24,
    }
    stream::kigo_stream_text: 40 {
        struct_size 0, text 8, text_len 16, stopped 24, stop_index 32,
    }
}
