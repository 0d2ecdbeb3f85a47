//! `make install` puts everything in place: C programs find it with pkg-config and with CMake, and run.

use crate::native;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::common::tiny::Tiny;
use crate::native::programs::{examples, folder, has, make, named, readme_program, refuse, run, succeed};
use kigo::gguf::TensorType;

const PROGRAM: &str = "#include <kigo.h>\n#include <stdio.h>\n#include <string.h>\n\
    int main(void) {\n    kigo_engine *engine;\n    kigo_status status = kigo_engine_create(NULL, &engine);\n\
    kigo_engine_destroy(engine);\n    printf(\"%s %d\\n\", kigo_version(), (int)status);\n\
    return kigo_abi_version() != KIGO_ABI_VERSION;\n}\n";

/// What it prints.
const PRINTS: &str = concat!(env!("CARGO_PKG_VERSION"), " 0\n");

/// `make install` with the programs that the tests of tests/c have built, if they have.
fn install() -> Command {
    let mut command = make("install");
    command.arg(format!("BUILD={}", examples().display()));
    command
}

/// The prefix of an installation, made once.
fn prefix() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let plain = folder("install-prefix");
        let _ = std::fs::remove_dir_all(&plain);
        succeed(install().arg(format!("PREFIX={}", plain.display())), "");
        plain
    })
}

fn program(name: &str) -> (PathBuf, PathBuf) {
    let dir = folder(name);
    std::fs::write(dir.join("main.c"), PROGRAM).expect("writable");
    (dir.join("main.c"), dir.join("main"))
}

#[test]
fn the_tree_is_whole_and_the_links_tell_the_truth() {
    let lib = prefix().join("lib");
    let file = concat!("libkigo.so.", env!("CARGO_PKG_VERSION"));
    for file in [
        file,
        "libkigo.a",
        "pkgconfig/kigo.pc",
        "cmake/kigo/kigoConfig.cmake",
        "cmake/kigo/kigoConfigVersion.cmake",
        "../include/kigo.h",
        "../include/kigo.hpp",
        "../share/licenses/kigo/LICENSE-MIT",
        "../share/licenses/kigo/LICENSE-IQ-GRIDS",
        "../share/licenses/kigo/THIRD-PARTY",
        "../bin/kigo",
        "../libexec/kigo/chat",
        "../libexec/kigo/generate",
    ] {
        assert!(lib.join(file).is_file(), "{file}");
    }
    let link = |name: &str| std::fs::read_link(lib.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(link("libkigo.so"), Path::new(&native::soname()));
    assert_eq!(link(&native::soname()), Path::new(file));
    for file in ["pkgconfig/kigo.pc", "cmake/kigo/kigoConfig.cmake", "cmake/kigo/kigoConfigVersion.cmake"] {
        let text = std::fs::read_to_string(lib.join(file)).expect("UTF-8");
        assert!(!text.contains('@'), "{file}: a place that was not filled\n{text}");
    }
}

/// All but the server where it could not be built, which `kigo` says then.
#[test]
fn kigo_runs_every_program_that_is_installed_and_no_other() {
    let files = std::fs::read_dir(prefix().join("libexec/kigo")).expect("readable");
    let installed: BTreeSet<String> =
        files.map(|file| file.expect("readable").file_name().into_string().expect("UTF-8")).collect();
    let mut known = named(&prefix().join("bin/kigo"));
    known.retain(|name| name != "serve" || installed.contains("serve"));
    assert_eq!(known, installed);
}

#[test]
fn destdir_goes_in_front_and_uninstall_takes_all_away() {
    prefix(); // which builds what both need
    let stage = folder("install-stage");
    let destination = format!("DESTDIR={}", stage.display());
    succeed(install().args([&destination, "PREFIX=/opt/kigo"]), "");
    let root = stage.join("opt/kigo");
    let pc = std::fs::read_to_string(root.join("lib/pkgconfig/kigo.pc")).expect("kigo.pc");
    assert!(pc.starts_with("prefix=${pcfiledir}/../..\n") && !pc.contains("install-stage"), "{pc}");
    succeed(make("uninstall").args([&destination, "PREFIX=/opt/kigo"]), "");
    let left = succeed(Command::new("find").arg(&root).args(["-not", "-type", "d"]), "");
    assert_eq!(left, "");
}

#[test]
fn pkg_config_builds_a_program_that_runs() {
    if !has("pkg-config") {
        println!("skipped: no pkg-config");
        return;
    }
    let (source, program) = program("install-pkg-config");
    let pkg_config = |args: &[&str]| {
        let mut command = Command::new("pkg-config");
        let out = succeed(command.env("PKG_CONFIG_PATH", prefix().join("lib/pkgconfig")).args(args).arg("kigo"), "");
        out.split_whitespace().map(String::from).collect::<Vec<_>>()
    };
    assert_eq!(pkg_config(&["--modversion"]), [env!("CARGO_PKG_VERSION")]);
    succeed(
        Command::new("cc")
            .arg("-std=c99")
            .arg(&source)
            .arg("-o")
            .arg(&program)
            .args(pkg_config(&["--cflags", "--libs"])),
        "",
    );
    // Found by the soname that it was linked with.
    assert_eq!(succeed(Command::new(&program).env("LD_LIBRARY_PATH", prefix().join("lib")), ""), PRINTS);

    let archive = prefix().join("lib/libkigo.a");
    let private: Vec<String> =
        pkg_config(&["--static", "--libs-only-l"]).into_iter().filter(|l| l != "-lkigo").collect();
    let flags = pkg_config(&["--cflags"]);
    let fixed = program.with_extension("static");
    succeed(Command::new("cc").arg(&source).args(flags).arg(&archive).arg("-o").arg(&fixed).args(private), "");
    assert_eq!(succeed(&mut Command::new(&fixed), ""), PRINTS);
}

/// The line of README that compiles and runs its first program, as it stands there.
#[test]
fn the_readme_s_line_works_wherever_the_tree_lies() {
    if !has("pkg-config") {
        println!("skipped: no pkg-config");
        return;
    }
    let readme = std::fs::read_to_string(native::root().join("README.md")).expect("README.md");
    let line = readme.lines().find(|line| line.starts_with("    cc hello.c ")).expect("the line").trim();
    let dir = folder("install-hello");
    std::fs::write(dir.join("hello.c"), readme_program()).expect("writable");
    Tiny::new("llama", TensorType::Q8_0).write(&dir.join("model.gguf"));
    let hello = |prefix: &Path| {
        let _ = std::fs::remove_file(dir.join("hello"));
        let mut shell = Command::new("sh");
        shell.args(["-ec", line]).current_dir(&dir).env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
        let said = succeed(shell.env_remove("LD_LIBRARY_PATH"), "");
        (said, loaded(&dir.join("hello")))
    };
    let (said, from) = hello(prefix());
    assert!(!said.is_empty() && from.starts_with(prefix()), "{from:?}");
    // Moved as a whole, and the programs with it.
    let moved = folder("install-moved").join("elsewhere");
    let _ = std::fs::remove_dir_all(&moved);
    succeed(Command::new("cp").arg("-a").arg(prefix()).arg(&moved), "");
    let (again, from) = hello(&moved);
    assert!(again == said && from.starts_with(&moved), "{from:?}");
    assert!(loaded(&moved.join("libexec/kigo/chat")).starts_with(&moved));
    let kigo = |args: &[&str]| succeed(Command::new(moved.join("bin/kigo")).args(args), "");
    assert_eq!(kigo(&["chat", "--version"]), concat!("chat (kigo) ", env!("CARGO_PKG_VERSION"), "\n"));
    assert_eq!(kigo(&["--version"]), concat!("kigo ", env!("CARGO_PKG_VERSION"), "\n"));
    assert!(kigo(&["help", "generate"]).starts_with("usage: generate "));
    assert!(refuse(Command::new(moved.join("bin/kigo")).arg("sing"), 2).contains("sing: is no program"));
}

/// The library that the loader finds for a program.
fn loaded(program: &Path) -> PathBuf {
    let libraries = succeed(Command::new("ldd").arg(program), "");
    let path =
        libraries.lines().find_map(|l| l.trim().strip_prefix("libkigo")?.split(" => ").nth(1)?.split(' ').next());
    let path = path.unwrap_or_else(|| panic!("{libraries}"));
    std::fs::canonicalize(path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

#[test]
fn without_cargo_it_takes_what_was_built_and_says_what_is_missing() {
    let install = |more: &[String]| {
        let mut command = Command::new("make");
        command.env_remove("MAKEFLAGS").env_remove("MFLAGS").env_remove("MAKELEVEL").env_remove("RUSTFLAGS");
        let fixed = [
            "--silent".to_owned(),
            "install".to_owned(),
            "CARGO=/no/such/cargo".to_owned(),
            "CXXFLAGS=-O1 ".to_owned(),
            format!("CARGO_TARGET_DIR={}", folder("install-nothing").display()),
            format!("BUILD={}", examples().display()),
            format!("PREFIX={}", folder("install-no-cargo").display()),
        ];
        command.current_dir(native::root()).args(fixed).args(more);
        command
    };
    let refused = run(&mut install(&[]), "");
    let says = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && says.contains("libkigo.so") && says.contains("is not there"), "{says}");
    let library = format!("LIB={}", native::library().display());
    let refused = run(&mut install(&[library.clone(), "STATIC_LIB=/no/such.a".to_owned()]), "");
    let says = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && says.contains("/no/such.a is not there"), "{says}");
    succeed(&mut install(&[library]), "");
    assert!(folder("install-no-cargo").join("lib/libkigo.so").is_file());
}

#[test]
fn the_library_is_stripped_and_tells_nothing_of_where_it_was_built() {
    let library = prefix().join("lib/libkigo.so");
    let sections = succeed(Command::new("readelf").args(["--wide", "--section-headers"]).arg(&library), "");
    assert!(
        sections.contains(".dynsym") && !sections.contains(".symtab") && !sections.contains(".debug"),
        "{sections}"
    );
    if !std::env::var("RUSTFLAGS").is_ok_and(|flags| flags.contains("--remap-path-prefix")) {
        println!("skipped: cargo was run without the flags of scripts/remap.sh, as make and CI have them");
        return;
    }
    let home = std::env::var("HOME").expect("a home");
    for file in [library, prefix().join("lib/libkigo.a")] {
        let bytes = std::fs::read(&file).expect("readable");
        for path in [format!("{home}/."), native::root().display().to_string()] {
            let at = bytes.windows(path.len()).position(|w| w == path.as_bytes());
            let around = at.map(|at| String::from_utf8_lossy(&bytes[at..bytes.len().min(at + 100)]).into_owned());
            assert_eq!(around, None, "{}: {path}", file.display());
        }
    }
}

#[test]
fn the_licences_of_what_is_linked_are_current() {
    let script = native::root().join("scripts/third_party.py");
    succeed(Command::new("python3").arg(script).arg("--check"), "");
}

#[test]
fn cmake_finds_the_package_and_refuses_a_wrong_version() {
    if !has("cmake") {
        println!("skipped: no cmake");
        return;
    }
    let (source, _) = program("install-cmake");
    let dir = source.parent().expect("a folder");
    let lists = |version: &str| {
        let text = format!(
            "cmake_minimum_required(VERSION 3.13)\nproject(user C)\nfind_package(kigo {version} REQUIRED)\n\
             add_executable(main main.c)\ntarget_link_libraries(main kigo::kigo)\n\
             add_executable(fixed main.c)\ntarget_link_libraries(fixed kigo::static)\n"
        );
        std::fs::write(dir.join("CMakeLists.txt"), text).expect("writable");
        let mut command = Command::new("cmake");
        let _ = std::fs::remove_dir_all(dir.join("build"));
        command
            .arg("-S")
            .arg(dir)
            .arg("-B")
            .arg(dir.join("build"))
            .arg(format!("-DCMAKE_PREFIX_PATH={}", prefix().display()));
        command
    };
    // A release that is still to come, and one of another ABI.
    for version in ["9.0", "0.1", "0.1.0"] {
        let refused = run(&mut lists(version), "");
        let says = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && says.contains("compatible"), "{version}: {refused:?}");
    }
    succeed(&mut lists(concat!(env!("CARGO_PKG_VERSION_MAJOR"), ".", env!("CARGO_PKG_VERSION_MINOR"))), "");
    succeed(Command::new("cmake").arg("--build").arg(dir.join("build")), "");
    for name in ["main", "fixed"] {
        assert_eq!(succeed(&mut Command::new(dir.join("build").join(name)), ""), PRINTS);
    }
}

/// Another library in Rust: its own standard library, with panics, and a function of the name of one of our dependency's.
const OTHER: &str = "use std::collections::HashMap;\n\
    #[unsafe(no_mangle)]\npub extern \"C\" fn other_caught(n: i32) -> i32 {\n    std::panic::set_hook(Box::new(|_| {}));\n    \
    let outcome = std::panic::catch_unwind(|| HashMap::from([(1, 2)])[&n]);\n    outcome.unwrap_or(-1)\n}\n\
    #[unsafe(no_mangle)]\npub extern \"C\" fn llg_new_constraint() -> i32 {\n    77\n}\n";

/// A host of both. It has Kigo compile a grammar, for which the function of that name is there.
const HOST: &str = r#"#include <kigo.h>
#include <stdio.h>
int other_caught(int n);
int llg_new_constraint(void);
int main(int argc, char **argv)
{
    kigo_engine *engine;
    kigo_model *model;
    kigo_session *session;
    kigo_constraint *letters = NULL;
    kigo_constraint_options held = {.struct_size = sizeof held, .kind = KIGO_CONSTRAINT_REGEX, .text = "[a-c]+", .text_len = 6};
    uint32_t ids[3] = {1, 2, 3}, token = 0;
    kigo_status status = kigo_engine_create(NULL, &engine);
    status = argc == 2 && status == 0 ? kigo_model_load_file(engine, argv[1], KIGO_STRLEN, NULL, &model) : 1;
    if (status == 0)
        status = kigo_session_create(model, NULL, &session);
    if (status == 0)
        status = kigo_session_prefill(session, ids, 3);
    if (status == 0)
        status = kigo_constraint_create(model, &held, &letters);
    if (status == 0)
        status = kigo_session_set_constraint(session, letters);
    if (status == 0)
        status = kigo_session_sample(session, &token);
    char text[8] = "";
    size_t n = 0;
    if (status == 0)
        status = kigo_token_text(model, token, text, sizeof text, &n);
    printf("%d %d %d %d %d\n", (int)status, text[0] >= 'a' && text[0] <= 'c', other_caught(1), other_caught(5), llg_new_constraint());
    kigo_constraint_destroy(letters);
    kigo_session_destroy(session);
    kigo_model_destroy(model);
    kigo_engine_destroy(engine);
    return 0;
}
"#;

#[test]
fn the_archive_has_no_names_but_the_api_s_and_links_beside_another_rust_library() {
    let archive = prefix().join("lib/libkigo.a");
    let names = succeed(Command::new("nm").args(["-g", "--defined-only"]).arg(&archive), "");
    let names: BTreeSet<&str> = names.lines().filter_map(|l| l.split(' ').nth(2)).collect();
    let table = std::fs::read_to_string(native::root().join("abi/symbols.txt")).expect("abi/symbols.txt");
    let table = table.lines().filter(|l| !l.starts_with('#')).filter_map(|l| Some(l.split_once(' ')?.0));
    assert_eq!(names, table.collect());

    let dir = folder("install-beside");
    let file = |name: &str| dir.join(name);
    std::fs::write(file("other.rs"), OTHER).expect("writable");
    std::fs::write(file("host.c"), HOST).expect("writable");
    Tiny::new("qwen2", TensorType::Q8_0).write(&file("tiny.gguf"));
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let other = file("libother.a");
    succeed(
        Command::new(rustc).args(["--edition=2024", "--crate-type=staticlib", "-o"]).arg(&other).arg(file("other.rs")),
        "",
    );
    let pc = std::fs::read_to_string(prefix().join("lib/pkgconfig/kigo.pc")).expect("kigo.pc");
    let private = pc.lines().find_map(|l| l.strip_prefix("Libs.private: ")).expect("Libs.private").split(' ');
    let private: Vec<&str> = private.collect();
    // In either order, and with what nobody reaches left out.
    let orders = [[&archive, &other], [&other, &archive]];
    for (order, more) in orders.into_iter().zip([&[][..], &["-Wl,--gc-sections"]]) {
        let mut cc = Command::new("cc");
        cc.args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-I"]).arg(prefix().join("include")).arg(file("host.c"));
        succeed(cc.args(order).args(more).args(&private).arg("-o").arg(file("host")), "");
        let said = succeed(Command::new(file("host")).arg(file("tiny.gguf")), "");
        assert_eq!(said, "0 1 2 -1 77\n");
    }
    // cargo's own archive would not do.
    let mut cc = Command::new("cc");
    cc.arg("-I")
        .arg(prefix().join("include"))
        .arg(file("host.c"))
        .arg(native::library().with_extension("a"))
        .arg(&other);
    let refused = run(cc.args(&private).arg("-o").arg(file("refused")), "");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("llg_new_constraint"), "{refused:?}");
}
