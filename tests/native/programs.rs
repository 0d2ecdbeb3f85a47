//! The programs of `examples-c/`, built by the Makefile with this build's library; runs with and without valgrind.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use super::{library, root, scratch};

/// A folder for this test, which is there.
pub fn folder(name: &str) -> PathBuf {
    let dir = scratch(name);
    std::fs::create_dir_all(&dir).expect("the target folder can be written");
    dir
}

/// Arguments that make `make` take that library instead of building one.
pub fn make_arguments() -> [String; 2] {
    let library = library();
    let archive = library.with_extension("a");
    assert!(archive.is_file(), "{} is not there", archive.display());
    [format!("LIB={}", library.display()), format!("STATIC_LIB={}", archive.display())]
}

/// `make` in the repository, of a target.
pub fn make(target: &str) -> Command {
    let mut command = Command::new("make");
    // A make above this test run hands its options down; they are not for this one.
    command.env_remove("MAKEFLAGS").env_remove("MFLAGS").env_remove("MAKELEVEL");
    command.current_dir(root()).arg("--silent").arg(target).args(make_arguments());
    let sanitizers = super::sanitizers().join(" ");
    if !sanitizers.is_empty() {
        command.arg(format!("CFLAGS=-O1 -g {sanitizers}"));
    }
    // The server's time is the library's.
    command.arg(format!("CXXFLAGS=-O1 {sanitizers}"));
    command
}

/// The folder with the programs of `examples-c/`, built once.
pub fn examples() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let dir = folder("examples");
        succeed(make("examples").arg("-j2").arg(format!("BUILD={}", dir.display())), "");
        dir
    })
}

/// The names of the programs that a `kigo` runs, as its usage has them.
pub fn named(kigo: &Path) -> BTreeSet<String> {
    let usage = succeed(Command::new(kigo).arg("--help"), "");
    let names = usage.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    names.map(String::from).collect()
}

/// Is there a program of that name?
pub fn has(program: &str) -> bool {
    let quiet = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    quiet.is_ok_and(|status| status.success())
}

/// README's first program.
pub fn readme_program() -> String {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("README.md");
    let program = readme.split("```c\n").nth(1).and_then(|rest| rest.split("```").next());
    program.expect("a C program").to_owned()
}

/// A real model, if `make fetch` has brought it.
pub fn real_model(file: &str) -> Option<PathBuf> {
    let path = root().join("models").join(file);
    if path.is_file() {
        return Some(path);
    }
    println!("skipped: models/{file} not there");
    None
}

/// Runs a command with `input` as its standard input.
pub fn run(command: &mut Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    // Small enough for the pipe; a program that does not read it may have ended already.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    child.wait_with_output().unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

/// The standard output of a command that must succeed.
pub fn succeed(command: &mut Command, input: &str) -> String {
    let out = run(command, input);
    let (stdout, stderr) = (String::from_utf8(out.stdout).expect("UTF-8"), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{command:?}: {}\n{stdout}\n{stderr}", out.status);
    stdout
}

/// The standard error of a command that must end with `code`.
pub fn refuse(command: &mut Command, code: i32) -> String {
    let out = run(command, "");
    let stderr = String::from_utf8(out.stderr).expect("UTF-8");
    assert_eq!(out.status.code(), Some(code), "{command:?}: {}\n{stderr}", out.status);
    stderr
}

/// The program under valgrind, which ends with 99 where it finds an error or, if asked to look, a leak; `None` where
/// there is no valgrind.
pub fn valgrind(program: &Path, leaks: bool) -> Option<Command> {
    if !super::sanitizers().is_empty() {
        return None; // which see the same
    }
    if !has("valgrind") {
        println!("skipped: no valgrind for {}", program.display());
        return None;
    }
    let mut command = Command::new("valgrind");
    command.args(["--quiet", "--error-exitcode=99", &super::suppressions()]);
    if leaks {
        command.args(["--leak-check=full", "--errors-for-leak-kinds=definite,indirect,possible"]);
    }
    command.arg(program);
    Some(command)
}
