//! Every call where memory is short: OK or OUT_OF_MEMORY, the handle as the header says, other sessions undisturbed, and
//! the same outcome when it is made again. `tests/c/limits.c` makes one call, `tests/c/calls.h` lists them.
//!
//! Two ways of being short: of address space (RLIMIT_AS, the heap emptied first), and of one allocation, each of those that
//! the call takes failing once, or it and all later ones. `KIGO_FULL=1` tries every limit and every allocation and prints
//! the table; without it a part is tried, within 30 s. `KIGO_DEVICE` names another device.

use crate::native;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use crate::common::tiny::Tiny;
use kigo::gguf::TensorType;

/// Kibibytes of address space that a call is left with.
const FULL: [usize; 44] = [
    0, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640,
    768, 896, 1024, 1280, 1536, 2048, 2560, 3072, 4096, 6144, 8192, 12288, 16384, 20480, 24576, 32768, 65536, 131_072,
];
const FEW: [usize; 9] = [0, 8, 32, 128, 320, 640, 1024, 4096, 20480];

/// In kigo's `calls.h`: takes a second and more.
const SLOW: u32 = 4;

fn full() -> bool {
    std::env::var_os("KIGO_FULL").is_some()
}

/// The program and the model that it loads.
fn program() -> &'static (PathBuf, PathBuf) {
    static BUILT: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    BUILT.get_or_init(|| {
        let model = native::scratch("memory.gguf");
        Tiny::new("qwen2", TensorType::Q8_0).write(&model);
        (native::build("limits.c"), model)
    })
}

fn limits(args: &[&str]) -> Output {
    let (program, model) = program();
    let mut command = Command::new(program);
    // What a death says is one line; no core, no backtrace.
    command.env_remove("RUST_BACKTRACE").env("RUST_BACKTRACE", "0").arg(model).args(args);
    command.output().expect("the program was built")
}

/// The calls' names and flags.
fn calls() -> Vec<(String, u32)> {
    let out = limits(&["-", "names"]);
    let text = String::from_utf8(out.stdout).expect("UTF-8");
    let calls: Vec<(String, u32)> = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, flags)| (name.to_owned(), flags.parse().expect("a number")))
        .collect();
    assert!(calls.len() >= 39, "{text}");
    calls
}

/// Why a run failed: its end and its last words.
fn reason(out: &Output) -> String {
    let words = String::from_utf8_lossy(&out.stderr);
    format!("{}: {}", out.status, words.lines().take(2).collect::<Vec<_>>().join(" "))
}

/// Runs `work` for each item on two threads; what it says, in the items' order.
fn on_two_threads<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<R>>> = items.iter().map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(i) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|i| *i < items.len()) {
                    *results[i].lock().expect("no panic inside") = Some(work(&items[i]));
                }
            });
        }
    });
    results.into_iter().map(|r| r.into_inner().expect("no panic inside").expect("every item was done")).collect()
}

/// One call under one limit of address space.
enum Short {
    /// It ended with this status, and its outcome was this, as others would have it.
    Judged(i32, String),
    /// It did not end well.
    Bad(String),
}

fn with_space(name: &str, kib: usize) -> Short {
    let out = limits(&[name, "space", &kib.to_string()]);
    let text = String::from_utf8_lossy(&out.stdout);
    match text.trim().split_once(' ') {
        Some((status, outcome)) if out.status.success() && out.stderr.is_empty() => {
            Short::Judged(status.parse().expect("a status"), outcome.to_owned())
        }
        _ => Short::Bad(reason(&out)),
    }
}

#[test]
fn no_call_dies_of_a_limit_of_address_space() {
    let kib: &[usize] = if full() { &FULL } else { &FEW };
    let calls = calls();
    let cases: Vec<(&str, usize)> = calls
        .iter()
        .flat_map(|(name, flags)| {
            let stride = if flags & SLOW != 0 { 4 } else { 1 };
            kib.iter().step_by(stride).map(|kib| (&**name, *kib))
        })
        .collect();
    let results = on_two_threads(&cases, |(name, kib)| with_space(name, *kib));
    let mut bad = Vec::new();
    let mut n_refused = 0;
    for (name, _) in &calls {
        let of: Vec<(usize, &Short)> =
            cases.iter().zip(&results).filter(|((n, _), _)| n == name).map(|((_, kib), r)| (*kib, r)).collect();
        let (mut statuses, mut outcomes) = ([0, 0], BTreeSet::new());
        for (kib, result) in &of {
            match result {
                Short::Judged(status, outcome) => {
                    statuses[usize::from(*status != 0)] += 1;
                    outcomes.insert(outcome);
                }
                Short::Bad(why) => bad.push(format!("{name}, {kib} KiB: {why}")),
            }
        }
        if outcomes.len() > 1 {
            bad.push(format!("{name}: {} outcomes, {outcomes:?}", outcomes.len()));
        }
        n_refused += statuses[1];
        println!("{name:22} {:3} limits: {:3} OK, {:3} OUT_OF_MEMORY", of.len(), statuses[0], statuses[1]);
    }
    println!("{} limits over {} calls, {n_refused} refused, {} bad", cases.len(), calls.len(), bad.len());
    assert!(bad.is_empty(), "{} of {}:\n{}", bad.len(), cases.len(), bad.join("\n"));
    // Otherwise the limits have limited nothing.
    assert!(n_refused > cases.len() / 20, "{n_refused} of {}", cases.len());
}

/// Lets each of the allocations of a call fail, `stride` apart: how many it takes, how often it was refused, what was bad.
fn with_failures(name: &str, mode: &str, stride: usize) -> (usize, Vec<String>) {
    let mut bad = Vec::new();
    let mut outcomes = BTreeSet::new();
    let mut from = 1;
    loop {
        let out = limits(&[name, mode, &from.to_string(), "1000000", &stride.to_string()]);
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let last = text.lines().last().unwrap_or_default();
        if let (true, Some(rest)) = (out.status.success() && out.stderr.is_empty(), last.strip_prefix("of ")) {
            let (n, outcome) = rest.split_once(' ').expect("two words");
            outcomes.insert(outcome.to_owned());
            if outcomes.len() > 1 {
                bad.push(format!("{name}: {outcomes:?}"));
            }
            return (n.parse().expect("a number"), bad);
        }
        let Ok(n) = last.parse::<usize>() else {
            bad.push(format!("{name}: {}", reason(&out)));
            return (0, bad);
        };
        bad.push(format!("{name}, {mode} {n}: {}", reason(&out)));
        if bad.len() >= 50 {
            return (0, bad);
        }
        from = n + stride;
    }
}

fn every_failure(mode: &str) {
    let calls: Vec<(String, u32)> = calls().into_iter().filter(|(_, flags)| full() || flags & SLOW == 0).collect();
    let results = on_two_threads(&calls, |(name, flags)| {
        // About forty of each call's allocations, or all; of a call that takes long, some.
        let all = if flags & SLOW != 0 { 997 } else { 1 };
        let stride = if full() { all } else { strides(name) };
        with_failures(name, mode, stride)
    });
    let mut bad = Vec::new();
    for ((name, _), (n, found)) in calls.iter().zip(results) {
        println!("{name:22} {n:6} allocations, {} bad", found.len());
        bad.extend(found);
    }
    assert!(bad.is_empty(), "{}:\n{}", bad.len(), bad.join("\n"));
}

/// How far apart are the allocations that fail, so that a call has some dozens of them.
fn strides(name: &str) -> usize {
    let out = limits(&[name, "nth", "1000000", "1000000", "1"]);
    let text = String::from_utf8_lossy(&out.stdout);
    let n = text.lines().last().and_then(|l| l.strip_prefix("of ")?.split(' ').next()?.parse::<usize>().ok());
    n.unwrap_or_else(|| panic!("{name}: {}", reason(&out))) / 40 + 1
}

#[test]
fn no_call_dies_of_an_allocation_that_fails_once() {
    every_failure("nth");
}

#[test]
fn no_call_dies_of_allocations_that_fail_from_one_on() {
    every_failure("after");
}
