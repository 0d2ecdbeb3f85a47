//! The host's part in an engine: threads and memory of its own, what it is told, where threads run; and devices without an engine.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::common::tiny::Tiny;
use crate::native;
use crate::native::programs::folder;
use kigo::gguf::TensorType;

fn model(arch: &str) -> PathBuf {
    let path = folder("own-models").join(format!("{arch}.gguf"));
    Tiny::new(arch, TensorType::Q8_0).write(&path);
    path
}

/// Runs a case of `own_threads.c`, which prints nothing.
fn threads(case: &str) {
    static PROGRAM: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    let (program, model) = PROGRAM.get_or_init(|| (native::build("own_threads.c"), model("qwen2")));
    native::run(program, &[model.as_path(), Path::new(case)]);
}

#[test]
fn a_host_s_own_threads_compute_the_same_bits() {
    threads("pool");
}

#[test]
fn what_a_host_s_parallel_for_must_not_do_is_a_status() {
    threads("misuse");
}

#[test]
fn a_host_is_told_of_every_thread_and_may_refuse_it() {
    threads("told");
}

#[test]
fn threads_run_where_and_as_the_host_says() {
    if cfg!(target_os = "linux") {
        threads("placed");
    }
}

/// Runs a case of `own_memory.c`, which prints nothing: layers without a window, with one, and with experts.
fn memory(case: &str) {
    static PROGRAM: OnceLock<(PathBuf, [PathBuf; 3])> = OnceLock::new();
    let made = || (native::build("own_memory.c"), [model("qwen2"), model("gemma3"), model("qwen3moe")]);
    let (program, models) = PROGRAM.get_or_init(made);
    for model in models {
        native::run(program, &[model.as_path(), Path::new(case)]);
    }
}

#[test]
fn a_host_s_memory_gives_the_same_bits_and_all_of_it_goes_back() {
    memory("blocks");
}

#[test]
fn a_host_s_cap_is_kept_and_what_is_spare_goes_first() {
    memory("cap");
}

#[test]
fn each_block_that_a_host_refuses_is_out_of_memory_and_nothing_else() {
    memory("nth");
}

#[test]
fn nothing_stays_of_what_a_host_gave_before_it_refused_the_rest() {
    memory("full");
}
