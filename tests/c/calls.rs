//! Runs the C programs of `tests/c` against the shared library, each plainly and under valgrind.

use crate::native;
use std::path::PathBuf;
use std::sync::OnceLock;

use crate::common::tiny::Tiny;
use crate::fixtures;
use kigo::gguf::{Gguf, TensorType, Value, Writer};

/// A tiny random model: qwen2, Q8_0, 512 tokens, a context of 512.
fn model() -> &'static PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let path = native::scratch("c_api.gguf");
        Tiny::new("qwen2", TensorType::Q8_0).write(&path);
        path
    })
}

fn run(source: &str) {
    let program = native::build(source);
    native::run(&program, &[model()]);
    native::run_valgrind(&program, &[model()]);
}

#[test]
fn every_function_works_as_it_is_meant() {
    run("walk.c");
}

#[test]
fn every_misuse_gets_its_status_and_text() {
    run("misuse.c");
}

/// Its cases are made of the header: a function that is new there is called here, or fails the test for want of a row.
#[test]
fn every_function_refuses_every_wrong_argument() {
    let frame = std::fs::read_to_string(native::root().join("tests/c/arguments.c")).expect("the frame");
    let (code, n_refused) = native::arguments::program(&frame);
    assert!(n_refused > 300, "{n_refused}");
    let source = native::scratch("all_arguments.c");
    std::fs::write(&source, code.replace("N_REFUSED", &n_refused.to_string())).expect("the target directory");
    let program = native::build_file(&source);
    native::run(&program, &[model()]);
    native::run_valgrind(&program, &[model()]);
}

#[test]
fn batches_run_a_while_at_a_time() {
    run("polled.c");
}

#[test]
fn programs_of_other_header_versions_are_served() {
    run("sizes.c");
}

#[test]
fn answers_are_taken_apart() {
    run("answers.c");
}

#[test]
fn chat_templates_are_held_on_small_stacks() {
    run("chat.c");
}

#[test]
fn handles_are_destroyed_in_any_order() {
    run("order.c");
}

#[test]
fn a_session_is_for_one_thread_and_a_model_for_many() {
    run("threads.c");
}

#[test]
fn batches_have_a_status_for_each_session() {
    run("batch.c");
}

#[test]
fn prefixes_are_kept_and_a_session_is_taken_to_other_tokens() {
    run("prefix.c");
}

#[test]
fn figures_are_read_while_sessions_run_and_tokens_come_with_their_log_probabilities() {
    run("figures.c");
}

#[test]
fn a_session_tells_which_of_two_ropes_it_has() {
    let program = native::build("long_rope.c");
    let model = crate::common::long::fixture();
    native::run(&program, &[&model]);
    native::run_valgrind(&program, &[&model]);
}

#[test]
fn windows_give_back_what_they_do_not_show() {
    let (program, model) = (native::build("windows.c"), native::scratch("windows.gguf"));
    Tiny::new("gemma3", TensorType::Q8_0).write(&model);
    native::run(&program, &[&model]);
    native::run_valgrind(&program, &[&model]);
}

#[test]
fn broken_files_are_refused() {
    run("malformed.c");
}

#[test]
fn the_cpp_wrapper_works() {
    run("wrapper.cpp");
}

/// Built without the library, which it loads.
#[test]
fn the_library_closed_and_opened_again_leaves_nothing() {
    if !native::sanitizers().is_empty() {
        println!("skipped: AddressSanitizer keeps what it knows of a library that is closed");
        return;
    }
    let program = native::scratch("unload");
    let mut cc = std::process::Command::new("cc");
    cc.args(native::sanitizers());
    cc.args(["-std=c99", "-g", "-O1", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-pthread", "-I"]);
    cc.arg(native::root().join("include")).arg(native::root().join("tests/c/unload.c"));
    native::output(cc.arg("-o").arg(&program).arg("-ldl"));
    native::run(&program, &[&native::library(), model()]);
}

#[test]
fn a_handle_has_its_own_last_error() {
    run("errors.c");
}

#[test]
fn a_tap_sees_everything_and_changes_nothing() {
    run("tap.c");
}

/// The vocabulary of the model alone, of an architecture that nobody has heard of.
fn vocabulary() -> PathBuf {
    let path = native::scratch("c_api_vocabulary.gguf");
    let bytes = std::fs::read(model()).expect("the model");
    let gguf = Gguf::from_bytes(&bytes).expect("a model");
    let mut writer = Writer::new(3);
    for (key, value) in gguf.meta_iter() {
        let unheard_of = Value::String("unheard-of");
        writer.meta(key, if key == "general.architecture" { unheard_of } else { value });
    }
    std::fs::write(&path, writer.to_bytes(|_, _| {})).expect("the target directory");
    path
}

#[test]
fn a_vocabulary_without_weights_tokenizes_and_does_nothing_else() {
    let program = native::build("vocabulary.c");
    let files = [model().clone(), vocabulary()];
    native::run(&program, &files);
    native::run_valgrind(&program, &files);
}

/// Vocabularies of every kind: small ones that are always there, and those that `scripts/fetch_vocabularies.py` fetches.
#[test]
fn every_kind_of_vocabulary_tokenizes_alone() {
    let program = native::build("kinds.c");
    let mark = |exact: bool| if exact { "=" } else { "" };
    let small = [
        ("tiny_llama_bpe", true),
        ("tiny_gemma4", true),
        ("tiny_spm", false),
        ("tiny_bert", false),
        ("tiny_unigram", false),
        ("tiny_unigram_bytes", true),
    ];
    let small = small.map(|(name, exact)| {
        let path = native::scratch(&format!("kind_{name}.gguf"));
        let fixture = fixtures::fixture(name);
        std::fs::write(&path, fixtures::gguf(&fixtures::vocab(&fixture))).expect("the target directory");
        format!("{}{}", mark(exact), path.display())
    });
    native::run(&program, &small);
    native::run_valgrind(&program, &small);
    let published = [("gemma-4", true), ("llama-bpe", true), ("bert-bge", false), ("nomic-bert-moe", false)];
    let path = |name: &str| native::root().join(format!("models/vocabularies/ggml-vocab-{name}.gguf"));
    if !published.iter().all(|(name, _)| path(name).is_file()) {
        println!("skipped: models/vocabularies is not there (scripts/fetch_vocabularies.py fetches it)");
        return;
    }
    native::run(&program, &published.map(|(name, exact)| format!("{}{}", mark(exact), path(name).display())));
}

#[test]
fn doctor_reports_each_check() {
    run("doctor.c");
}

#[test]
fn syllables_are_counted() {
    let program = native::build("syllables.c");
    native::run(&program, &[native::root().join("tests/fixtures/syllables.txt")]);
}
