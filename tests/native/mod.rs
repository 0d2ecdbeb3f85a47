//! Builds and runs C and C++ programs against this build's shared library and header.
#![allow(dead_code)] // each test file uses its own part

pub mod arguments;
pub mod programs;
pub mod prototypes;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of ours in the target directory.
pub fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Flags for programs that run against an instrumented library: `KIGO_SANITIZE=address,undefined` (scripts/sanitize.sh).
pub fn sanitizers() -> Vec<String> {
    let named = std::env::var("KIGO_SANITIZE").unwrap_or_default();
    if named.is_empty() {
        return Vec::new();
    }
    vec![format!("-fsanitize={named}"), "-fno-sanitize-recover=all".to_owned(), "-fno-omit-frame-pointer".to_owned()]
}

/// The shared library that cargo built beside this test, or the one that `KIGO_LIBRARY` names.
pub fn library() -> PathBuf {
    if let Some(named) = std::env::var_os("KIGO_LIBRARY") {
        return named.into();
    }
    let test = std::env::current_exe().expect("a test has a path");
    let library = test.with_file_name("libkigo.so");
    assert!(library.is_file(), "{} is not there", library.display());
    library
}

/// The name that the loader looks for: `libkigo.so.<major version>.<ABI version>`.
pub fn soname() -> String {
    use kigo::c_api::version::{KIGO_ABI_VERSION, KIGO_VERSION_MAJOR};
    format!("libkigo.so.{KIGO_VERSION_MAJOR}.{KIGO_ABI_VERSION}")
}

/// A directory with the names that the linker and the loader look for.
pub fn link_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        // One for each test program, which may run at the same time.
        let test = std::env::current_exe().expect("a test has a path");
        let dir = scratch(&format!("lib-{}", test.file_name().unwrap_or_default().to_string_lossy()));
        std::fs::create_dir_all(&dir).expect("the target directory is writable");
        for name in ["libkigo.so", &soname()] {
            let link = dir.join(name);
            let _ = std::fs::remove_file(&link);
            std::os::unix::fs::symlink(library(), &link).expect("the target directory is writable");
        }
        dir
    })
}

/// Runs a tool and gives its output; a failure shows everything.
pub fn output(command: &mut Command) -> String {
    let out = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{command:?}: {}\n{stdout}\n{stderr}", out.status);
    stdout.into_owned()
}

/// ThreadSanitizer's run time is that of the compiler which has instrumented the library: `KIGO_SANITIZER_RUNTIME` names the
/// archive, and the program is linked with it instead of its own compiler's.
fn runtime() -> Option<PathBuf> {
    std::env::var_os("KIGO_SANITIZER_RUNTIME").map(PathBuf::from)
}

/// Compiles a program of `tests/c` with warnings as errors and links it.
pub fn build(source: &str) -> PathBuf {
    build_file(&root().join("tests/c").join(source))
}

/// [`build`] for a file that stands elsewhere.
pub fn build_file(path: &Path) -> PathBuf {
    let source = path.file_name().and_then(OsStr::to_str).expect("a file's name");
    let program = scratch(&source.replace('.', "_"));
    let is_c = source.ends_with(".c");
    let (compiler, standard) = if is_c { ("cc", "-std=c99") } else { ("c++", "-std=c++17") };
    let mut command = Command::new(compiler);
    command.args(sanitizers());
    command.args([standard, "-g", "-O1", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-pthread", "-I"]);
    command.arg(root().join("include")).arg("-I").arg(root().join("tests/c"));
    if let Some(runtime) = runtime() {
        let object = program.with_extension("o");
        output(command.arg("-c").arg(path).arg("-o").arg(&object));
        command = Command::new(compiler);
        command.arg("-pthread").arg(object).args(["-Wl,--whole-archive".as_ref(), runtime.as_os_str()]);
        command.args(["-Wl,--no-whole-archive", "-Wl,--export-dynamic", "-ldl", "-lrt"]);
    } else {
        command.arg(path);
    }
    command.arg("-o").arg(&program).arg("-L").arg(link_dir()).args(["-lkigo", "-lm"]);
    command.arg(format!("-Wl,-rpath,{}", link_dir().display()));
    output(&mut command);
    program
}

/// Runs a program, which must succeed and print nothing: neither does it, nor the library.
pub fn run<A: AsRef<OsStr>>(program: &Path, args: &[A]) {
    let out = Command::new(program).args(args).output().expect("the program was built");
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{}: {}\n{stdout}{stderr}", program.display(), out.status);
    assert_eq!((&*stdout, &*stderr), ("", ""), "{} printed", program.display());
}

/// What memcheck is to leave out, and why.
pub fn suppressions() -> String {
    format!("--suppressions={}", root().join("tests/native/memcheck.supp").display())
}

/// Runs a program under valgrind, if there is one: no error, nothing lost. The programs take a second argument as
/// "this is slow".
pub fn run_valgrind<A: AsRef<OsStr>>(program: &Path, args: &[A]) {
    if !sanitizers().is_empty() {
        return; // which see the same
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("skipped: valgrind is not installed");
        return;
    }
    let mut command = Command::new("valgrind");
    command.args([
        "--quiet",
        "--error-exitcode=97",
        "--leak-check=full",
        "--show-leak-kinds=definite,indirect,possible",
    ]);
    command.args(["--errors-for-leak-kinds=definite,indirect,possible", "--num-callers=30", &suppressions()]);
    output(command.arg(program).args(args).arg("slow"));
}
