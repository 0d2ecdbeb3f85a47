//! What the library shows to the outside: the committed header, its exported symbols, its soname, what it links.
//!
//! `KIGO_WRITE_HEADER=1 cargo test --test repo abi::` (`make header`) writes `include/kigo.h` anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::common::tiny::Tiny;
use crate::native::programs::{folder, has, run};
use crate::native::{library, link_dir, output, root, scratch, soname};
use kigo::c_api::version::KIGO_ABI_VERSION;
use kigo::gguf::TensorType;

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
    // None is of a release that is still to come, and none of one that never was.
    let known: Vec<String> = releases().into_iter().map(|r| format!("KIGO_{}", release_line(&r.version))).collect();
    let versions: BTreeSet<&String> = table.values().collect();
    assert!(versions.iter().all(|v| known.contains(v)) && versions.len() >= 2, "{versions:?} of {known:?}");
}

/// `0.1` of `0.1.0`: a patch adds no function.
fn release_line(version: &str) -> &str {
    version.rsplit_once('.').expect("three numbers").0
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

/// A release that is kept in `abi/`.
struct Release {
    version: String,
    abi: u32,
    soname: String,
}

impl Release {
    fn file(&self, name: &str) -> PathBuf {
        root().join("abi").join(&self.version).join(name)
    }

    fn text(&self, name: &str) -> String {
        let path = self.file(name);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// A program that was built against it works with this library.
    fn is_served(&self) -> bool {
        self.abi == KIGO_ABI_VERSION
    }
}

/// `abi/releases.txt`, in its order.
fn releases() -> Vec<Release> {
    let text = std::fs::read_to_string(root().join("abi/releases.txt")).expect("abi/releases.txt");
    let rows = text.lines().filter(|l| !l.starts_with('#')).map(|l| l.split(' ').collect::<Vec<_>>());
    rows.map(|row| {
        let [version, abi, soname, _commit] = row[..] else { panic!("{row:?}") };
        Release { version: version.to_owned(), abi: abi.parse().expect("a number"), soname: soname.to_owned() }
    })
    .collect()
}

#[test]
fn the_last_release_in_the_table_is_this_one_and_no_number_falls() {
    let releases = releases();
    let last = releases.last().expect("a release");
    let this = (env!("CARGO_PKG_VERSION"), KIGO_ABI_VERSION, &*soname());
    assert_eq!((&*last.version, last.abi, &*last.soname), this);
    for pair in releases.windows(2) {
        assert!(pair[0].abi <= pair[1].abi, "{} has a larger ABI version than {}", pair[0].version, pair[1].version);
        assert_eq!(pair[0].abi == pair[1].abi, pair[0].soname == pair[1].soname, "{}", pair[1].version);
    }
}

/// The numbers of `abi/structs.sh`, by `struct` and `struct.field`.
fn layout_of(text: &str) -> BTreeMap<String, Vec<usize>> {
    let rows = text.lines().map(|line| line.split(' '));
    rows.map(|mut row| {
        let name = row.next().expect("a name").to_owned();
        (name, row.map(|n| n.parse().expect("a number")).collect())
    })
    .collect()
}

fn structs_sh(header: &Path) -> String {
    output(Command::new(root().join("abi/structs.sh")).arg(header))
}

#[test]
fn structs_are_laid_out_as_each_release_has_them() {
    let today = layout_of(&structs_sh(&root().join("include/kigo.h")));
    for release in releases() {
        let text = release.text("structs.txt");
        assert_eq!(structs_sh(&release.file("kigo.h")), text, "abi/{}/structs.txt", release.version);
        let frozen = layout_of(&text);
        assert!(frozen.len() > 100, "{} rows", frozen.len());
        if !release.is_served() {
            continue;
        }
        for (name, numbers) in &frozen {
            let now = today.get(name).unwrap_or_else(|| panic!("{name}, which {} has, is gone", release.version));
            // A struct that begins with its size grows at its end, where no field of the release's can have moved.
            let grows = !name.contains('.') && frozen.contains_key(&format!("{name}.struct_size"));
            let holds = if grows { now[0] >= numbers[0] } else { now == numbers };
            assert!(holds, "{name} is {now:?}; {} has {numbers:?}", release.version);
        }
    }
}

/// `src/c_api/layout.rs`, which the compiler checks the Rust side by, says what a C compiler makes of the header.
#[test]
fn the_table_of_layouts_is_the_header_s() {
    let source = std::fs::read_to_string(root().join("src/c_api/layout.rs")).expect("layout.rs");
    let table = source.split_once("layout! {").expect("the table").1;
    let words = table.split(|c: char| c.is_whitespace() || ",{}".contains(c)).filter(|w| !w.is_empty());
    let words: Vec<&str> = words.collect();
    let (mut found, mut strukt) = (BTreeMap::new(), "");
    for pair in words.chunks(2) {
        let (name, number) = (pair[0], pair[1].parse::<usize>().expect("a number"));
        match name.strip_suffix(':').and_then(|name| name.split_once("::")) {
            Some((_, name)) => {
                strukt = name;
                found.insert(strukt.to_owned(), number);
            }
            None => _ = found.insert(format!("{strukt}.{name}"), number),
        }
    }
    let header = layout_of(&structs_sh(&root().join("include/kigo.h")));
    let header: BTreeMap<String, usize> = header.into_iter().map(|(name, numbers)| (name, numbers[0])).collect();
    assert_eq!(found, header, "the header's is on the right");
}

/// A header's constants, those of its own version apart.
fn defines(header: &str) -> BTreeMap<&str, &str> {
    let lines = header.lines().filter_map(|line| line.strip_prefix("#define ")?.split_once(' '));
    lines.filter(|(name, _)| name.starts_with("KIGO_") && !name.starts_with("KIGO_VERSION_")).collect()
}

#[test]
fn what_a_release_of_this_abi_has_is_still_there() {
    let (exported, header) = (exported(), std::fs::read_to_string(root().join("include/kigo.h")).expect("kigo.h"));
    let today = defines(&header);
    assert!(today.len() > 60, "{}", today.len());
    for release in releases().iter().filter(|r| r.is_served()) {
        for symbol in release.text("symbols.txt").lines() {
            let (name, version) = symbol.split_once("@@").expect("a version");
            assert_eq!(exported.get(name).map(String::as_str), Some(version), "{symbol} of {}", release.version);
        }
        for (name, value) in defines(&release.text("kigo.h")) {
            assert_eq!(today.get(name), Some(&value), "{name} of {}", release.version);
        }
    }
}

/// The exit status of `abidiff` between two dumps, where fields at the end of sized structs and new functions are nothing.
fn abidiff(old: &Path, new: &Path) -> (Option<i32>, String) {
    let suppressions = root().join("abi/grown.suppr");
    let mut command = Command::new("abidiff");
    let out = command.arg("--suppressions").arg(suppressions).arg("--no-added-syms").arg(old).arg(new).output();
    let out = out.expect("abidiff runs");
    (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned())
}

#[test]
fn abidiff_finds_no_difference_to_a_release_of_this_abi() {
    if !has("abidiff") || !has("abidw") {
        println!("skipped: no abidiff");
        return;
    }
    let today = scratch("today.abi");
    let dump = |header: &Path, soname: &str, out: &Path| {
        output(Command::new(root().join("abi/dump.sh")).arg(header).arg(soname).arg(out));
    };
    dump(&root().join("include/kigo.h"), &soname(), &today);
    for release in releases() {
        let (code, text) = abidiff(&release.file("kigo.abi"), &today);
        if release.is_served() {
            assert_eq!(code, Some(0), "{}:\n{text}", release.version);
        } else {
            // It does see what raised the number.
            assert!(code.is_some_and(|code| code & 4 != 0), "{}: {code:?}\n{text}", release.version);
        }
    }
    // What it must not let pass, and what it must, seen with this header changed.
    let header = std::fs::read_to_string(root().join("include/kigo.h")).expect("kigo.h");
    let (fields, end) = header.split_once("} kigo_plan;").expect("kigo_plan");
    let cases = [
        ("grown", format!("{fields}    uint64_t more;\n}} kigo_plan;{end}"), 0),
        ("moved", header.replace("    uint64_t scratch_bytes;", "    uint64_t more;\n    uint64_t scratch_bytes;"), 4),
        ("parameter", header.replace("uint32_t kigo_abi_version(void);", "uint64_t kigo_abi_version(void);"), 4),
        ("gone", header.replace("uint32_t kigo_abi_version(void);", ""), 8),
    ];
    for (name, text, bits) in cases {
        assert_ne!(text, header, "{name}");
        let (changed, dumped) = (scratch(&format!("{name}.h")), scratch(&format!("{name}.abi")));
        std::fs::write(&changed, text).expect("the target directory");
        dump(&changed, &soname(), &dumped);
        let (code, text) = abidiff(&today, &dumped);
        assert!(
            code.is_some_and(|code| if bits == 0 { code == 0 } else { code & bits != 0 }),
            "{name}: {code:?}\n{text}"
        );
    }
}

/// Programs as users have them: those of this ABI run, the others are refused before they do anything.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[test]
fn programs_that_were_built_against_a_release_run_or_are_refused() {
    let model = scratch("abi.gguf");
    Tiny::new("qwen2", TensorType::Q8_0).write(&model);
    let run_linked = |release: &Release, program: &str, library: &Path| {
        let mut command = Command::new(release.file(program));
        run(command.env("LD_LIBRARY_PATH", library).arg(&model), "")
    };
    for release in releases() {
        let version = &release.version;
        let linked = run_linked(&release, "linked", link_dir());
        let dlopened = run(Command::new(release.file("dlopened")).arg(library()).arg(&model), "");
        let says = |out: &Output| String::from_utf8_lossy(&out.stderr).into_owned();
        if release.is_served() {
            let wide = run_linked(&release, "wide", link_dir());
            for out in [&linked, &wide] {
                assert!(out.status.success(), "{version}: {out:?}");
                let said = concat!("kigo ", env!("CARGO_PKG_VERSION"), ": 2 layers\n");
                assert_eq!(String::from_utf8_lossy(&out.stdout), said);
            }
            assert!(dlopened.status.success() && dlopened.stderr.is_empty(), "{version}: {dlopened:?}");
            continue;
        }
        // The loader looks for another name.
        let missing = format!("{}: cannot open shared object file", release.soname);
        assert!(linked.status.code() == Some(127) && says(&linked).contains(&missing), "{version}: {linked:?}");
        // Under a false name, or by dlopen(), it is the comparison that refuses.
        let false_name = folder(&format!("abi-false-{version}"));
        let link = false_name.join(&release.soname);
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(library(), link).expect("the target directory");
        for out in [run_linked(&release, "linked", &false_name), dlopened] {
            let wanted = format!("has ABI {KIGO_ABI_VERSION}; made for {}", release.abi);
            assert!(out.status.code() == Some(3) && says(&out).contains(&wanted), "{version}: {out:?}");
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_program_of_a_later_release_is_refused_before_it_runs() {
    let dir = folder("abi-future");
    let file = |name: &str| dir.join(name);
    let write = |name: &str, text: &str| std::fs::write(file(name), text).expect("the target directory");
    write("future.map", "KIGO_9.9 { global: kigo_future; local: *; };\n");
    write("future.c", "int kigo_future(void) { return 0; }\n");
    write(
        "main.c",
        "#include <stdio.h>\nint kigo_future(void);\nint main(void) { puts(\"ran\"); return kigo_future(); }\n",
    );
    let map = format!("-Wl,--version-script={}", file("future.map").display());
    let named = format!("-Wl,-soname,{}", soname());
    let mut cc = Command::new("cc");
    output(cc.args(["-shared", "-fPIC", &map, &named, "-o"]).arg(file("libkigo.so")).arg(file("future.c")));
    let mut cc = Command::new("cc");
    output(cc.arg("-o").arg(file("main")).arg(file("main.c")).arg("-L").arg(&dir).arg("-lkigo"));
    let out = run(Command::new(file("main")).env("LD_LIBRARY_PATH", link_dir()), "");
    let says = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && out.stdout.is_empty() && says.contains("`KIGO_9.9' not found"), "{out:?}");
}
