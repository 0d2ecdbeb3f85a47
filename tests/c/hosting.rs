//! Kigo inside hosts as they are: plugins, small stacks, odd processors, signals, forks, full disks, and for a long time.
//!
//! `tests/c/calls.h` lists the calls; `host.c`, `forks.c`, `loader.c`, `context.c` and `soak.c` make them. `KIGO_SOAK_SECONDS` and
//! `KIGO_SOAK_MODEL` make the soak longer and larger than the ten seconds of a tiny model that it has here; `KIGO_DEVICE`
//! names another device than the CPU.

use crate::native;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::common::tiny::Tiny;
use crate::native::programs::{examples, folder, real_model};
use kigo::gguf::TensorType;

fn model() -> &'static PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        // Where nobody in particular can read it too.
        let path = folder("hosting-models").join("tiny.gguf");
        Tiny::new("qwen2", TensorType::Q8_0).write(&path);
        path
    })
}

fn host() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| native::build("host.c"))
}

/// Runs a case of `host.c`, which prints nothing.
fn host_case(args: &[&str]) {
    let model = model().to_str().expect("UTF-8");
    native::run(host(), &[&[model], args].concat());
}

#[test]
fn every_call_runs_on_a_stack_of_128_kib() {
    host_case(&["stack", "128"]);
}

/// The header says 128 KiB; half of it suffices, so that a compiler's whim does not break the promise.
#[test]
fn every_call_runs_on_half_of_that() {
    host_case(&["stack", "64"]);
}

#[test]
fn the_host_s_floating_point_state_changes_nothing_and_stays() {
    if cfg!(target_arch = "x86_64") {
        host_case(&["float"]);
    } else {
        println!("skipped: the test sets MXCSR, which this processor does not have");
    }
}

#[test]
fn signals_go_to_the_host() {
    host_case(&["signals"]);
}

#[test]
fn a_host_without_standard_descriptors_is_served_and_nothing_is_printed() {
    host_case(&["closed"]);
}

#[test]
fn without_descriptors_only_files_are_refused() {
    host_case(&["descriptors"]);
}

#[test]
fn without_threads_an_engine_is_out_of_memory() {
    host_case(&["threads"]);
}

#[test]
fn signals_that_interrupt_everything_change_nothing() {
    host_case(&["storm"]);
}

#[test]
fn a_child_of_fork_is_told_so_and_its_parent_goes_on() {
    native::run(&native::build("forks.c"), &[model().to_str().expect("UTF-8"), "20"]);
}

#[test]
fn a_plugin_is_opened_and_closed_200_times() {
    let library = native::library();
    let args = [model().as_os_str(), "cycles".as_ref(), library.as_os_str(), "200".as_ref()];
    native::run(&loader(), &args);
}

#[test]
fn two_copies_of_the_library_work_in_one_process() {
    let (library, copy) = (native::library(), native::scratch("libanother.so"));
    std::fs::copy(&library, &copy).expect("the target directory is writable");
    native::run(&loader(), &[model().as_os_str(), "copies".as_ref(), library.as_os_str(), copy.as_os_str()]);
}

#[test]
fn a_host_with_megabytes_of_thread_local_variables_is_served() {
    native::run(&native::build("locals.c"), &[model()]);
}

/// On a GPU: KIGO_DEVICE=cuda:0. tests/gpu/engine.rs has what can be seen without one.
#[test]
fn a_host_s_own_cuda_context_stays_its_thread_s() {
    let program = native::build("context.c");
    let said = native::output(Command::new(program).arg(model()));
    assert!(said.is_empty() || said == "skipped: no CUDA device\n", "{said}");
    assert!(said.is_empty() || std::env::var_os("KIGO_REQUIRE_CUDA").is_none(), "{said}");
    print!("{said}");
}

/// `KIGO_LIBLLAMA` names a libllama.so whose headers stand in the source tree that `KIGO_LLAMA_SOURCE` names
/// (llama-cpp-python's vendor/llama.cpp). `KIGO_BESIDE_MODEL`: a file that both know; SmolLM2 of models/ by default.
#[test]
fn libllama_works_beside_it() {
    let (Some(llama), Some(source)) = (std::env::var_os("KIGO_LIBLLAMA"), std::env::var_os("KIGO_LLAMA_SOURCE")) else {
        println!("skipped: no libllama (set KIGO_LIBLLAMA and KIGO_LLAMA_SOURCE)");
        return;
    };
    let named = std::env::var_os("KIGO_BESIDE_MODEL").map(PathBuf::from);
    let Some(model) = named.or_else(|| real_model("SmolLM2-135M-Instruct-Q4_1.gguf")) else { return };
    let program = native::scratch("beside");
    let mut command = Command::new("cc");
    command.args(["-std=c11", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-I"]);
    command.arg(native::root().join("include"));
    for headers in ["include", "ggml/include"] {
        command.arg("-isystem").arg(Path::new(&source).join(headers));
    }
    command.arg(native::root().join("tests/c/beside.c"));
    native::output(command.arg("-o").arg(&program).arg("-ldl"));
    let lines = ["k", "l", "kg", "lg"].map(|how| {
        let mut command = Command::new(&program);
        native::output(command.arg(&model).arg(native::library()).arg(&llama).arg(how))
    });
    println!("{}", lines[0]);
    assert!(lines.iter().all(|line| *line == lines[0]), "{lines:?}");
}

/// Not linked with the library that it loads.
fn loader() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let program = native::scratch("loader");
        let mut command = Command::new("cc");
        command.args(["-std=c99", "-g", "-O1", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-pthread", "-I"]);
        command.arg(native::root().join("include")).arg(native::root().join("tests/c/loader.c"));
        native::output(command.arg("-o").arg(&program).arg("-ldl"));
        program
    };
    PROGRAM.get_or_init(build).clone()
}

/// A full disk: the programs that write say so and fail; the library itself writes no files.
#[test]
fn programs_report_a_full_disk() {
    if !Path::new("/dev/full").exists() {
        println!("skipped: no /dev/full here");
        return;
    }
    let model = model().to_str().expect("UTF-8");
    let prompts = folder("hosting-full").join("prompts.txt");
    std::fs::write(&prompts, "abc\ndef\n").expect("the target directory is writable");
    let cases: [(&str, &[&str]); 9] = [
        ("generate", &["-p", "abc", "-n", "4"]),
        ("generate", &["-p", "abc", "-n", "4", "--json"]),
        ("generate", &["-p", "abc", "-n", "4", "--logprobs", "2"]),
        ("batch", &["-f", prompts.to_str().expect("UTF-8"), "-n", "4"]),
        ("chat", &["-n", "4"]),
        ("bench", &["-p", "4", "-n", "4", "-r", "1"]),
        ("haiku", &["--seconds", "1"]),
        ("doctor", &[]),
        ("doctor", &["--json"]),
    ];
    for (name, args) in cases {
        let full = File::options().write(true).open("/dev/full").expect("anybody may write to it");
        let questions = File::open(&prompts).expect("written above");
        let mut command = Command::new(examples().join(name));
        command.args(["-m", model]).args(args).stdin(questions).stdout(full);
        let out = command.output().expect("the program was built");
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{name} {args:?}: {}\n{stderr}", out.status);
        assert!(stderr.contains("standard output: No space left on device"), "{name} {args:?}: {stderr}");
    }
}

#[test]
fn a_soak_keeps_its_tokens_and_its_memory() {
    let seconds = std::env::var("KIGO_SOAK_SECONDS").unwrap_or_else(|_| "10".to_owned());
    let model = std::env::var_os("KIGO_SOAK_MODEL").map_or_else(|| model().clone(), PathBuf::from);
    let program = native::build("soak.c");
    let line = native::output(Command::new(&program).arg(model).arg(&seconds));
    println!("{line}");
    assert!(line.contains(" tokens, "), "{line}");
}
