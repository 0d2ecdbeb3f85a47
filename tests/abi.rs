//! What the library shows to the outside: the committed header, its exported symbols, its soname, what it links.
//!
//! `KIGO_WRITE_HEADER=1 cargo test --test abi` (`make header`) writes `include/kigo.h` anew.

mod native;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::process::Command;

use native::{library, output, root, scratch, soname};

/// The header: for each section of `src/c_api`, the file's `//!` lines and what cbindgen makes of its items.
fn generate_header() -> String {
    let config = cbindgen::Config::from_file(root().join("cbindgen.toml")).expect("cbindgen.toml");
    let head = config.header.clone().expect("a header in cbindgen.toml");
    let mut out = format!(
        "{}\n\n#ifndef KIGO_H\n#define KIGO_H\n\n#include <stddef.h>\n#include <stdint.h>\n{}\n\
         #ifdef __cplusplus\nextern \"C\" {{\n#endif\n",
        head.trim(),
        config.after_includes.as_deref().expect("after_includes in cbindgen.toml"),
    );
    for (file, heading) in kigo::c_api::SECTIONS {
        let path = root().join("src/c_api").join(file).with_extension("rs");
        let source = std::fs::read_to_string(&path).expect("a section's source");
        writeln!(out, "\n// ==== {heading} {}\n//", "=".repeat(105 - heading.len())).expect("a String takes it");
        for line in source.lines().map_while(|l| l.strip_prefix("//!")) {
            writeln!(out, "//{line}").expect("a String takes it");
        }
        let mut config = config.clone();
        (config.header, config.after_includes) = (None, None);
        let bindings = cbindgen::Builder::new().with_config(config).with_src(&path).generate();
        let mut section = Vec::new();
        bindings.unwrap_or_else(|e| panic!("{}: {e}", path.display())).write(&mut section);
        let section = String::from_utf8(section).expect("UTF-8");
        // The typedefs are there: `kigo_model *`, not `struct kigo_model *`.
        let lines = section.trim().lines().map(|line| match line.strip_prefix("typedef struct ") {
            Some(_) => line.to_owned(),
            None => line.replace("struct kigo_", "kigo_"),
        });
        writeln!(out, "\n{}", lines.collect::<Vec<_>>().join("\n")).expect("a String takes it");
    }
    out += "\n#ifdef __cplusplus\n} // extern \"C\"\n#endif\n\n#endif // KIGO_H\n";
    out
}

#[test]
fn the_committed_header_is_the_generated_one() {
    let path = root().join("include/kigo.h");
    let header = generate_header();
    if std::env::var_os("KIGO_WRITE_HEADER").is_some() {
        std::fs::write(&path, &header).expect("include/kigo.h is writable");
    }
    let committed = std::fs::read_to_string(&path).expect("include/kigo.h");
    let mut lines = committed.lines().zip(header.lines()).enumerate();
    if let Some((i, (old, new))) = lines.find(|(_, (old, new))| old != new) {
        panic!("include/kigo.h line {}: \"{old}\" is now \"{new}\"; run `make header`", i + 1);
    }
    assert_eq!(committed.len(), header.len(), "include/kigo.h differs at its end; run `make header`");
}

#[test]
fn the_header_compiles_twice_included_under_every_standard() {
    for (standard, extension) in [("c99", "c"), ("c11", "c"), ("c17", "c"), ("c++17", "cpp")] {
        let source = scratch(&format!("twice_{standard}.{extension}"));
        std::fs::write(&source, "#include <kigo.h>\n#include <kigo.h>\nint main(void) { return KIGO_STATUS_OK; }\n")
            .expect("the target directory is writable");
        let compiler = if extension == "c" { "cc" } else { "c++" };
        output(
            Command::new(compiler)
                .args(["-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic", "-Werror", &format!("-std={standard}"), "-I"])
                .arg(root().join("include"))
                .arg(&source),
        );
    }
}

/// The functions that the header declares.
fn declared() -> BTreeSet<String> {
    let header = std::fs::read_to_string(root().join("include/kigo.h")).expect("include/kigo.h");
    let code = header.lines().filter(|l| !l.trim_start().starts_with("//") && !l.starts_with("typedef"));
    let words = code.flat_map(|l| l.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '(')));
    words
        .filter_map(|w| w.split_once('('))
        .map(|(name, _)| name)
        .filter(|n| n.starts_with("kigo_"))
        .map(String::from)
        .collect()
}

/// What the shared library exports: each function with its version, `KIGO_0.1`.
fn exported() -> BTreeMap<String, String> {
    let symbols = output(Command::new("readelf").args(["--dyn-syms", "--wide"]).arg(library()));
    // Num, Value, Size, Type, Bind, Vis, Ndx, Name; a version's own name is an absolute symbol with some linkers.
    let rows = symbols.lines().map(|l| l.split_whitespace().collect::<Vec<_>>()).filter(|row| row.len() == 8);
    let defined = rows.filter(|row| !["UND", "Ndx", "ABS"].contains(&row[6]));
    defined
        .map(|row| {
            let (name, version) = row[7].split_once("@@").unwrap_or((row[7], "none"));
            (name.to_owned(), version.to_owned())
        })
        .collect()
}

/// `abi/symbols.txt`: each function with the release that it came in.
fn table() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(root().join("abi/symbols.txt")).expect("abi/symbols.txt");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split_once(' ').expect("a name and a release")).map(|(n, v)| (n.into(), v.into())).collect()
}

#[test]
fn the_library_exports_what_the_header_declares_and_nothing_else() {
    let exported: BTreeSet<String> = exported().into_keys().collect();
    assert_eq!(exported, declared());
    assert!(exported.len() > 40, "{exported:?}");
}

/// Rust's standard library keeps destructors and keys of threads that point into the library, and cannot take them back.
#[test]
fn the_library_stays_and_keeps_its_own_list_of_destructors() {
    let dynamic = output(Command::new("readelf").arg("-d").arg(library()));
    assert!(dynamic.lines().any(|l| l.contains("FLAGS_1") && l.contains("NODELETE")), "{dynamic}");
    let imported = output(Command::new("nm").args(["-D", "--undefined-only"]).arg(library()));
    assert!(!imported.contains("__cxa_thread_atexit_impl"), "the C library's list ends the process without memory");
}

#[test]
fn every_function_has_the_version_that_it_came_in() {
    let table: BTreeMap<String, String> = table().into_iter().map(|(name, v)| (name, format!("KIGO_{v}"))).collect();
    assert_eq!(exported(), table, "abi/symbols.txt is on the right");
    let versions: BTreeSet<&String> = table.values().collect();
    assert!(versions.contains(&"KIGO_0.1".to_owned()), "{versions:?}");
    let (major, minor) = (env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR"));
    assert!(versions.iter().all(|v| **v <= format!("KIGO_{major}.{minor}")), "{versions:?}");
}

#[test]
fn the_library_has_its_soname_and_needs_no_cpp_runtime() {
    let dynamic = output(Command::new("readelf").arg("-d").arg(library()));
    let values = |tag: &str| -> Vec<&str> {
        let lines = dynamic.lines().filter(|l| l.contains(tag));
        lines.filter_map(|l| l.split_once('[')?.1.split_once(']')).map(|(value, _)| value).collect()
    };
    assert_eq!(values("(SONAME)"), [soname()]);
    let allowed = ["libc.so.", "libm.so.", "libgcc_s.so.", "ld-linux"];
    for needed in values("(NEEDED)") {
        assert!(allowed.iter().any(|a| needed.starts_with(a)), "the library needs {needed}");
    }
}
