//! A CUDA driver that is not there, is none, lacks a function, or writes down what it is asked: each a status, or nothing.
//!
//! `tests/c/fake_driver.c` stands in a folder of its own, which the loader looks through before any other.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::common::tiny::Tiny;
use crate::native;
use crate::native::programs::folder;
use kigo::gguf::TensorType;

/// What `driver.c` prints with the drivers of this folder; nothing else is printed, and it succeeds.
fn said(drivers: &Path) -> String {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| native::build("driver.c"));
    let model = drivers.join("tiny.gguf");
    Tiny::new("qwen2", TensorType::Q8_0).write(&model);
    let others = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
    let path = format!("{}:{others}", drivers.display());
    let mut command = Command::new(program);
    command.arg(model).env("LD_LIBRARY_PATH", path).env("FAKE_DRIVER_LOG", drivers.join("log"));
    let out = command.output().expect("the program was built");
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success() && stderr.is_empty(), "{}: {stdout}{stderr}", out.status);
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    stdout.trim_end().to_owned()
}

/// A folder with a fake driver under both names that are looked for.
fn fake(name: &str, flags: &[&str]) -> PathBuf {
    let drivers = folder(&format!("driver-{name}"));
    let _ = std::fs::remove_file(drivers.join("log"));
    let mut command = Command::new("cc");
    command.args(["-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]).args(flags);
    command.arg(native::root().join("tests/c/fake_driver.c")).arg("-o").arg(drivers.join("libcuda.so.1"));
    native::output(&mut command);
    std::fs::copy(drivers.join("libcuda.so.1"), drivers.join("libcuda.so")).expect("the folder is writable");
    drivers
}

fn skipped() -> bool {
    let without = !cfg!(kigo_cuda);
    if without {
        println!("skipped: no nvcc (this build is for the CPU only)");
    }
    without
}

const UNAVAILABLE: &str = "KIGO_STATUS_DEVICE_UNAVAILABLE: device \"cuda:0\" is unavailable: ";

#[test]
fn a_driver_that_lacks_a_function_is_a_status_with_its_name() {
    if skipped() {
        return;
    }
    // The first and the last that are called, and one in between.
    for name in ["cuInit", "cuLibraryLoadData", "cuLaunchKernelEx"] {
        let drivers = fake(&format!("without-{name}"), &[&format!("-D{name}=unnamed")]);
        let said = said(&drivers);
        let why = format!("{UNAVAILABLE}the CUDA driver has no {name}; drivers of CUDA 12.0 and later have it");
        assert_eq!(said, why);
        assert!(!drivers.join("log").exists(), "{name}: it was called");
    }
}

#[test]
fn a_driver_that_is_no_library_is_a_status_with_the_loader_s_reason() {
    if skipped() {
        return;
    }
    let drivers = folder("driver-none");
    std::fs::write(drivers.join("libcuda.so.1"), "nothing").expect("the folder is writable");
    let said = said(&drivers);
    assert!(said.starts_with(&format!("{UNAVAILABLE}no CUDA driver: ")), "{said}");
    assert!(said.contains("libcuda.so.1"), "{said}");
}

/// The kernels reach the driver: each image as nvcc wrote it, each name once, with the attributes of its launch.
#[test]
fn kernels_reach_the_driver() {
    if skipped() {
        return;
    }
    let drivers = fake("log", &[]);
    assert_eq!(said(&drivers), "KIGO_STATUS_OK:");
    let log = std::fs::read_to_string(drivers.join("log")).expect("the driver was called");
    let lines = |what: &str| -> Vec<&str> { log.lines().filter_map(|l| l.strip_prefix(what)).collect() };
    assert_eq!(lines("fault"), [""; 0]);
    let (images, kernels, launches) = (lines("image "), lines("kernel "), lines("launch "));
    let distinct: BTreeSet<&str> = kernels.iter().copied().collect();
    // The emulated device has one image, of its own kind, and calls each of its kernels "kernel".
    if images != ["6d45676b"] {
        assert!(images.len() > 3 && images.iter().all(|magic| *magic == "ba55ed50"), "{images:?}");
        assert_eq!(distinct.len(), kernels.len(), "{kernels:?}");
        assert!(kernels.iter().all(|name| name.contains("kg_")), "{kernels:?}");
    }
    let named = |line: &&str| distinct.contains(line.split(' ').next().unwrap_or_default());
    assert!(launches.len() > 20 && launches.iter().all(named), "{launches:?}");
    // On a device of compute capability 9.0: some with programmatic dependence, some with much shared memory, in a graph too.
    assert!(launches.iter().any(|l| l.contains(" attribute 6 1")), "{launches:?}");
    assert!(!lines("capture 1").is_empty() && !lines("graph").is_empty() && !lines("shared ").is_empty(), "{log}");
}

/// A host that has the runtime keeps its own: the library neither shows those names nor looks for them.
#[test]
fn the_runtime_s_names_stay_inside() {
    let names = native::output(Command::new("nm").arg("-D").arg(native::library()));
    let seen: Vec<&str> = names.lines().filter(|line| line.contains("cuda") || line.contains(" cu")).collect();
    assert!(seen.is_empty() && names.contains("kigo_engine_create"), "{seen:?}");
}
