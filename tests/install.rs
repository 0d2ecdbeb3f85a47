//! `make install` puts everything in place: C programs find it with pkg-config and with CMake, and run.

mod native;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use native::programs::{folder, has, make, run, succeed};

const PROGRAM: &str = "#include <kigo.h>\n#include <stdio.h>\n#include <string.h>\n\
    int main(void) {\n    kigo_engine *engine;\n    kigo_status status = kigo_engine_create(NULL, &engine);\n\
    kigo_engine_destroy(engine);\n    printf(\"%s %d\\n\", kigo_version(), (int)status);\n\
    return kigo_abi_version() != KIGO_ABI_VERSION;\n}\n";

/// What it prints.
const PRINTS: &str = concat!(env!("CARGO_PKG_VERSION"), " 0\n");

/// The prefix of an installation, made once.
fn prefix() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let plain = folder("install-prefix");
        let _ = std::fs::remove_dir_all(&plain);
        succeed(make("install").arg(format!("PREFIX={}", plain.display())), "");
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

#[test]
fn destdir_goes_in_front_and_uninstall_takes_all_away() {
    let stage = folder("install-stage");
    let destination = format!("DESTDIR={}", stage.display());
    succeed(make("install").args([&destination, "PREFIX=/opt/kigo"]), "");
    let root = stage.join("opt/kigo");
    let pc = std::fs::read_to_string(root.join("lib/pkgconfig/kigo.pc")).expect("kigo.pc");
    assert!(pc.starts_with("prefix=/opt/kigo\n") && !pc.contains("install-stage"), "{pc}");
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
    let refused = run(&mut lists("9.0"), "");
    assert!(
        !refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("compatible"),
        "{refused:?}"
    );
    succeed(&mut lists(concat!(env!("CARGO_PKG_VERSION_MAJOR"), ".", env!("CARGO_PKG_VERSION_MINOR"))), "");
    succeed(Command::new("cmake").arg("--build").arg(dir.join("build")), "");
    for name in ["main", "fixed"] {
        assert_eq!(succeed(&mut Command::new(dir.join("build").join(name)), ""), PRINTS);
    }
}
