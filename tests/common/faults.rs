//! Every fault that was reported, with what holds it now: for `tests/regression.rs`, which looks that all of it is there.

/// A fault: who reported it, what it was, and what fails if it comes back.
pub struct Fault {
    /// `issue.number`, or the commit that mended it.
    pub reported: &'static str,
    pub what: &'static str,
    /// A test as `program/module::name`, or a file with a case (those of `fuzz/cases` are replayed); then words of the case that the
    /// test's file or that file has. None: nothing does, and `what` says why.
    pub held: &'static [(&'static str, &'static str)],
}

const fn fault(reported: &'static str, what: &'static str, held: &'static [(&'static str, &'static str)]) -> Fault {
    Fault { reported, what, held }
}

/// In the order of the reports.
pub const FAULTS: &[Fault] = &[
    fault(
        "17.1",
        "a schema's least integer recurses for ever: SIGSEGV",
        &[
            ("fuzz/cases/schema/const-least-integer", "-9223372036854775808"),
            ("fuzz/cases/schema/range-least-integer", "-9223372036854775808"),
            ("fuzz/cases/lark/json-least-integer", "%json"),
            ("api/constraint_schema::numbers_are_those_of_the_text", "9223372036854775808"),
        ],
    ),
    fault(
        "17.1",
        "a forged blob with such a schema ends the process in restore",
        &[("api/save::a_forged_blob_gives_a_status_or_a_session_and_nothing_worse", "")],
    ),
    fault(
        "17.2",
        "numbers beyond doubles change in silence",
        &[
            ("fuzz/cases/schema/enum-beyond-2-53", "9007199254740993"),
            ("fuzz/cases/schema/const-uint64", "18446744073709551615"),
            ("api/constraint_schema::numbers_are_those_of_the_text", "9007199254740993"),
        ],
    ),
    fault(
        "17.3",
        "multipleOf takes for ever",
        &[
            ("fuzz/cases/schema/multiple-of-2-31", "2147483648"),
            ("api/constraint_schema::what_is_not_exact_is_refused_with_its_path", "999983"),
        ],
    ),
    fault(
        "17.3",
        "a* over 64 KB takes 69 s and 2 GB",
        &[
            ("regression/long_texts_are_bounded", "a* over 64 KB"),
            ("api/grammar_cost::compiling_is_bounded", ""),
            ("api/grammar_cost::choosing_is_bounded", ""),
            ("api/held::compiling_is_cancelled", ""),
        ],
    ),
    fault(
        "17.4",
        "valid schemas are refused: escapes in $ref, 200 nested arrays, limits of types",
        &[
            ("fuzz/cases/schema/ref-escaped", "~1"),
            ("fuzz/cases/schema/nested-arrays-200", ""),
            ("api/constraint_schema::two_hundred_arrays_need_no_stack_of_the_caller", ""),
            ("api/constraint_schema::sessions_write_what_jsonschema_finds_valid", ""),
        ],
    ),
    fault(
        "17.4",
        "an error of a schema has no path",
        &[(
            "api/constraint_schema::what_is_not_exact_is_refused_with_its_path",
            "#/items: \\\"uniqueItems\\\" is not supported",
        )],
    ),
    fault("17.4", "models run into endless newlines of JSON", &[("api/held::compact_json_has_no_white_space", "")]),
    fault(
        "17.5",
        "chat templates overflow the stack: unary minus, elif, not, plus, attributes",
        &[
            ("fuzz/cases/chat/unary-minus-1300", "--"),
            ("fuzz/cases/chat/elif-300", "elif"),
            ("api/chat_cost::every_chain_is_compiled_or_refused", "unary minus"),
            ("c/calls::chat_templates_are_held_on_small_stacks", ""),
        ],
    ),
    fault(
        "17.5",
        "a chain of `and` is quadratic, and compiled up to four times a render",
        &[("regression/long_texts_are_bounded", "20000 and"), ("api/chat::a_model_s_template_is_compiled_once", "")],
    ),
    fault(
        "17.6",
        "an allocation that fails ends the process",
        &[
            ("c/memory::no_call_dies_of_a_limit_of_address_space", ""),
            ("c/memory::no_call_dies_of_an_allocation_that_fails_once", ""),
            ("c/memory::no_call_dies_of_allocations_that_fail_from_one_on", ""),
            ("api/memory_load::tiny_models_at_many_limits", ""),
            ("fuzz/cases/calls/no-memory-1", ""),
        ],
    ),
    fault(
        "17.6",
        "a word of 10 MB takes 113 bytes a byte",
        &[("api/tokenizer_cost::long_texts_cost_little_time_and_memory", "bytes a byte")],
    ),
    fault(
        "17.7",
        "panics of dependencies print",
        &[
            ("fuzz/cases/chat/divisibleby-0", "divisibleby"),
            ("api/chat::what_the_engine_panics_on_is_computed_here", "divisibleby(0)"),
            ("api/held::long_words_are_left_out_in_silence", "1024"),
            ("c/hosting::a_host_without_standard_descriptors_is_served_and_nothing_is_printed", ""),
        ],
    ),
    fault(
        "17.8",
        "a child of fork() computes for ever, and prints",
        &[("c/hosting::a_child_of_fork_is_told_so_and_its_parent_goes_on", "")],
    ),
    fault(
        "17.9",
        "workers take the host's signals",
        &[
            ("c/hosting::signals_go_to_the_host", ""),
            ("c/hosting::signals_that_interrupt_everything_change_nothing", ""),
        ],
    ),
    fault("17.10", "no threads to be had is IO", &[("c/hosting::without_threads_an_engine_is_out_of_memory", "")]),
    fault(
        "17.10",
        "a file that is no GGUF is told by a number",
        &[("api/files::a_file_that_is_no_model_is_told_by_what_it_begins_with", "which a model file begins with")],
    ),
    fault(
        "17.10",
        "an eot id out of range names a key that does not exist",
        &[("api/tokenizer::contradictory_vocabularies_are_refused", "tokenizer.ggml.eot_token_id is 5000000")],
    ),
    fault(
        "17.10",
        "a renamed part of a split file names split.count only",
        &[("api/gguf::split_files_are_one_model", "because split.no is 0 and split.count is 3")],
    ),
    fault(
        "17.10",
        "a constraint's refusal says neither from where it holds nor what to do",
        &[("api/held::messages_say_what_to_do", "set it after what it is")],
    ),
    fault(
        "17.10",
        "a message without lengths is taken as empty",
        &[("c/calls::every_misuse_gets_its_status_and_text", ""), ("tests/c/misuse.c", "role is empty in message 0")],
    ),
    fault(
        "17.10",
        "a session that is destroyed from its tap ends its call with OK",
        &[
            ("c/calls::a_tap_sees_everything_and_changes_nothing", ""),
            ("tests/c/tap.c", "a destroyed session is freed when it returns"),
        ],
    ),
    fault(
        "17.12",
        "dlclose leaves the library mapped while a thread lives",
        &[
            ("repo/abi::the_library_stays_and_keeps_its_own_list_of_destructors", ""),
            ("c/hosting::a_plugin_is_opened_and_closed_200_times", ""),
        ],
    ),
    fault(
        "17.12",
        "the archive's global names keep a host from linking",
        &[("repo/install::the_archive_has_no_names_but_the_api_s_and_links_beside_another_rust_library", "")],
    ),
    fault(
        "17.13",
        "a file that is shortened under a load is SIGBUS",
        &[
            ("api/files::a_file_shortened_during_a_load_is_a_status", ""),
            ("api/files::a_file_overwritten_during_a_load_gives_a_model_or_a_status", ""),
        ],
    ),
    fault(
        "17.14",
        "the host's rounding mode changes the logits",
        &[("c/hosting::the_host_s_floating_point_state_changes_nothing_and_stays", "")],
    ),
    fault("17.15", "nothing says what stack suffices", &[("c/hosting::every_call_runs_on_a_stack_of_128_kib", "")]),
    fault(
        "17",
        "the check of ABI versions passes for a wrong library",
        &[
            ("repo/abi::programs_that_were_built_against_a_release_run_or_are_refused", ""),
            ("repo/abi::a_program_of_a_later_release_is_refused_before_it_runs", ""),
        ],
    ),
    fault("17", "n_top = SIZE_MAX overflows before it is checked", &[("tests/c/misuse.c", "lp.n_top = SIZE_MAX")]),
    fault(
        "dcc475e",
        "references and repeated names take a look at every value",
        &[("api/constraint_schema::references_and_names_that_come_again_take_no_longer", "")],
    ),
    fault(
        "13d3376",
        "a call leaves another CUDA context on the host's thread",
        &[
            ("c/hosting::a_host_s_own_cuda_context_stays_its_thread_s", ""),
            ("gpu/engine::a_call_leaves_the_thread_s_context_as_it_was", ""),
        ],
    ),
    fault(
        "162d335",
        "a template's '{0[é]}'.format() panics in the template engine and is INTERNAL",
        &[
            ("fuzz/cases/chat/format-key-beyond-ascii", "format"),
            ("api/chat::what_the_engine_panics_on_is_computed_here", "{0["),
        ],
    ),
    fault(
        "40adb5f",
        "a file of 65,536 layers ends the process where memory is short",
        &[("api/memory_load::a_file_of_many_layers_at_many_limits", "")],
    ),
    fault(
        "ef1d4fb",
        "a thread without a CUDA context draws on the host",
        &[("c/driver::kernels_reach_the_driver", "")],
    ),
    fault(
        "245206a",
        "a host's thread-local variables eat the stacks of the library's threads",
        &[("c/hosting::a_host_with_megabytes_of_thread_local_variables_is_served", "")],
    ),
    fault(
        "17.10",
        "load_memory of one part of a split file is INVALID_MODEL",
        &[("api/gguf::split_files_are_one_model", "key \\\"split.count\\\" of bytes in memory is 3, with file 1 here")],
    ),
    fault(
        "f2b722b",
        "a multipleOf without an exact double is refused for something else",
        &[("regression/a_multiple_without_an_exact_double_is_told", "0.07")],
    ),
    fault(
        "17.3",
        "16 MiB that are one word take 7.4 s to tokenize",
        &[
            ("api/tokenizer_cost::long_texts_cost_little_time_and_memory", "14.0 + "),
            ("api/tokenizer_cost::long_words_have_the_ids_of_slow_merging", "2200"),
        ],
    ),
    fault(
        "17.3",
        "a refusal of a large enum has its limit and not what was found",
        &[("api/constraint::a_large_enum_is_refused_with_its_number", "")],
    ),
    fault(
        "17.4",
        "the header leaves out limits of schemas",
        &[("repo/limits::the_header_names_every_limit_of_a_grammar", "")],
    ),
    fault(
        "17.10",
        "a mistake in a regular expression is told by a place in a text around it",
        &[(
            "api/constraint::a_mistake_in_a_regular_expression_is_told_by_its_place",
            "byte 1 of the regular expression",
        )],
    ),
    fault(
        "17.10",
        "a key that means something unknown is named without its value, or without what is known",
        &[
            ("tests/api/malformed/model_cases.rs", "no_such_architecture("),
            ("tests/api/malformed/reader_cases.rs", "version at byte 4 is 1; expected 2 or 3"),
        ],
    ),
    fault(
        "17.11",
        "templates of others render otherwise than by Jinja",
        &[("api/chat_json::conversations_equal_jinja", ""), ("api/chat_fuzz::no_template_makes_the_engine_panic", "")],
    ),
    fault(
        "19",
        "chat templates render otherwise than in transformers: tests, loops, constants, line ends, Python's texts and methods",
        &[
            ("api/templates::each_difference_found_has_its_right_value", ""),
            ("api/templates::published_templates_render_as_in_transformers", ""),
        ],
    ),
    fault(
        "19",
        "a control token in a template's own text is none of its text, so that thinking stays in earlier turns",
        &[("api/templates::control_tokens_are_text_to_the_template", "</think>")],
    ),
    fault(
        "19",
        "a model with LongRoPE has no session longer than its original context on a GPU",
        &[
            ("gpu/long::sessions_of_either_kind_stay_apart", ""),
            ("gpu/features::every_feature_matches_the_reference_and_itself_in_company", ""),
        ],
    ),
    fault(
        "19",
        "a template's sort goes on after its first fault, with an order that is none",
        &[("api/chat_values::a_sort_ends_at_the_first_pair_without_an_order", "sort(reverse=true)")],
    ),
    fault(
        "19",
        "a heavy tuple as a key is refused as unhashable",
        &[("api/chat_values::a_key_that_is_too_heavy_is_refused_for_what_it_takes", "65536")],
    ),
    fault(
        "19",
        "what a map of characters makes longer takes more memory than was said",
        &[("api/tokenizer_cost::a_map_that_makes_a_text_longer_costs_32_bytes_a_byte_or_is_refused", "")],
    ),
    fault(
        "19",
        "a prompt that is stopped behind a truncation that computed again gives other logits, and OK",
        &[
            ("tests/common/windows.rs", "pub fn a_truncation_that_computes_again_leaves_nothing_to_the_next_prompt("),
            ("tests/api/windows.rs", "a_truncation_that_computes_again_leaves_nothing_to_the_next_prompt"),
        ],
    ),
    fault(
        "19",
        "where a device is short of memory for two classes of layers, spare parts are never taken",
        &[("src/engine/cache/pools.rs", "fn what_devices_hold_for_nobody_is_not_all_that_goes()")],
    ),
    fault(
        "19",
        "one score of an expert that is no number makes the other's weight 7e19",
        &[("src/model/route.rs", "fn weights_are_no_numbers_where_one_is_none()")],
    ),
    fault(
        "19",
        "a kernel copies a word that is half beyond a matrix",
        &[("tests/gpu/operations/expert_tiles.rs", "(3, 33, 96, 21, 2)")],
    ),
    fault(
        "19",
        "a kernel whose own variables take shared memory cannot be launched with nearly all that there is unasked",
        &[("gpu/operations/mod::each_computes_its_formula", "experts::products_of_wide_rows")],
    ),
    fault(
        "b4cf286",
        "`kigo window` says that there is no such program",
        &[("repo/install::kigo_runs_every_program_that_is_installed_and_no_other", "")],
    ),
    fault(
        "20",
        "an enum of a tool whose text has a tab or another control character is no grammar",
        &[("api/tool_grammar::texts_of_an_enum_have_any_characters", "\\u{7f}")],
    ),
    fault(
        "20",
        "a grammar of tools ends thinking with the first pair's mark where the prompt has opened another",
        &[("api/tool_grammar::thinking_ends_with_the_mark_of_the_pair_that_the_prompt_opens", "[/THINK]")],
    ),
    fault(
        "9da453a",
        "blocks that a host gave stay with the library where it refuses another class of layers",
        &[("c/own::nothing_stays_of_what_a_host_gave_before_it_refused_the_rest", "full")],
    ),
    fault(
        "20",
        "a conversation with tools takes the template without a name where the file has one for tools",
        &[("api/continued::a_file_has_templates_by_their_names", "(Some(\"default\"), None, \"first\")")],
    ),
    fault(
        "20",
        "oneOf is written as anyOf in notations of their own",
        &[
            ("api/tool_grammar::one_of_several_schemas_is_any_of_them_where_no_two_hold_for_a_value", ""),
            (
                "api/tool_grammar::what_a_notation_cannot_hold_is_refused_with_the_path",
                "whose schemas may hold for the same value",
            ),
        ],
    ),
    fault(
        "20",
        "[^] of a GBNF text is any character, and no text at all to llama.cpp",
        &[("src/engine/grammar/gbnf/tests/peer.rs", "root ::= [^]")],
    ),
];
