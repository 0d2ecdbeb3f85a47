//! What compilers and formatters do not hold: heads, lengths, addresses of `unsafe`, nothing left undone.

use crate::sources::{files, library_code};

/// Where a test's file has to be split; those of `src` and `cuda` are shorter (lengths.rs).
const MOST_LINES: usize = 700;

/// Columns of a line in `cuda/`; clang-format has no say over comments and tables.
const MOST_COLUMNS: usize = 150;
/// Wider lines that are there: how many a file has. They only become fewer.
const WIDE: &[(&str, usize)] = &[
    ("cuda/attention/decode_attention_mma.cu", 2),
    ("cuda/attention/flash_prefill.cuh", 1),
    ("cuda/attention/flash_prefill_mma.cu", 1),
    ("cuda/attention/flash_prefill_sm90.cu", 1),
    ("cuda/device/ptx.cuh", 2),
    ("cuda/device/wgmma.cuh", 1),
    ("cuda/emulate/cuda.h", 1),
    ("cuda/emulate/emulate.cpp", 2),
    ("cuda/emulate/ptx.h", 1),
    ("cuda/matmul/f16_batch_sm90.cu", 6),
    ("cuda/matmul/f16_batch_sm90.cuh", 6),
    ("cuda/matmul/f16_mma.cu", 4),
    ("cuda/matmul/f16_mma.cuh", 3),
    ("cuda/matmul/gemv.cuh", 2),
    ("cuda/matmul/prefill/dequantize_f16.cu", 1),
    ("cuda/matmul/prefill/gemm.cuh", 2),
    ("cuda/matmul/prefill/gemm_mma.cu", 1),
    ("cuda/matmul/prefill/gemm_sm90.cu", 1),
    ("cuda/matmul/stage_norm.cuh", 1),
    ("cuda/rows/batch_norm.cu", 2),
    ("cuda/sample/argmax.cu", 1),
];

/// Words that begin no sentence with a subject: "Of a token from these logits." says not what it is.
const NO_SUBJECT: [&str; 4] = ["Of", "By", "As", "With"];

/// Where `unsafe` may stand, and no `unwrap` where input arrives.
const UNSAFE_ADDRESSES: [&str; 5] =
    ["src/c_api/", "src/backend/cpu/", "src/backend/cuda/", "src/alloc.rs", "src/process"];

type Finding = Option<(usize, String)>;

/// The first line, from 1, that `wrong` says something about.
fn first_line(text: &str, wrong: impl Fn(&str) -> Option<String>) -> Finding {
    text.lines().enumerate().find_map(|(i, line)| Some((i + 1, wrong(line)?)))
}

fn contains_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(is_part) && !line[at + word.len()..].starts_with(is_part))
}

fn head(_: &str, text: &str) -> Finding {
    (!text.starts_with("//! ")).then(|| (1, "the file does not open with //!".to_owned()))
}

fn length(_: &str, text: &str) -> Finding {
    let n = text.lines().count();
    (n > MOST_LINES).then(|| (n, format!("more than {MOST_LINES} lines")))
}

fn unsafe_address(path: &str, text: &str) -> Finding {
    if UNSAFE_ADDRESSES.iter().any(|address| path.starts_with(address)) {
        return None;
    }
    first_line(&library_code(path, text), |line| {
        // At the end of a sentence it is text: Jinja's sandbox says what it refuses.
        let unsafe_code = contains_word(&line.replace("unsafe.", ""), "unsafe") || line.contains("allow(unsafe_code)");
        unsafe_code.then(|| "unsafe outside of its addresses".to_owned())
    })
}

fn no_unwrap_in_c_api(path: &str, text: &str) -> Finding {
    if !path.starts_with("src/c_api/") {
        return None;
    }
    first_line(&library_code(path, text), |line| {
        (line.contains(".unwrap()") || line.contains(".expect(")).then(|| "a panic behind a C entry point".to_owned())
    })
}

fn nothing_undone(_: &str, text: &str) -> Finding {
    // Put together here, so that this file has none of them.
    let words = [["TO", "DO"], ["FIX", "ME"], ["X", "XX"]].map(|halves| halves.concat());
    let macros = [["to", "do!"], ["unimple", "mented!"], ["dbg", "!("]].map(|halves| halves.concat());
    first_line(text, |line| {
        let word = words.iter().find(|word| contains_word(line, word));
        word.or(macros.iter().find(|name| line.contains(*name))).map(|what| format!("{what} is left"))
    })
}

fn no_registry_host(_: &str, text: &str) -> Finding {
    let hosts =
        [["pypi", ".org"], ["pythonhosted", ".org"], ["static.crates", ".io"], ["index.crates", ".io"], ["hf", ".co/"]];
    let hosts = hosts.map(|halves| halves.concat());
    first_line(text, |line| {
        hosts.iter().find(|host| line.contains(*host)).map(|host| format!("a registry's host: {host}"))
    })
}

fn no_trailing_space(_: &str, text: &str) -> Finding {
    first_line(text, |line| line.ends_with([' ', '\t', '\r']).then(|| "space at the end of a line".to_owned()))
}

fn width(path: &str, text: &str) -> Finding {
    let most = WIDE.iter().find(|(p, _)| *p == path).map_or(0, |(_, n)| *n);
    let mut wide = text.lines().enumerate().filter(|(_, line)| line.chars().count() > MOST_COLUMNS);
    wide.nth(most).map(|(i, _)| (i + 1, format!("more than {most} lines of more than {MOST_COLUMNS} columns")))
}

/// A kernel's file begins with what it is, as a header's or a program's does.
fn comment_head(_: &str, text: &str) -> Finding {
    (!text.starts_with("// ")).then(|| (1, "the file does not open with //".to_owned()))
}

/// Comments without a subject, as `path:line`: doc comments in Rust, comments at the margin of `cuda`'s files.
fn without_subject(path: &str, text: &str) -> Vec<String> {
    let mark = if path.ends_with(".rs") { "/// " } else { "// " };
    let comment = |line: &str| {
        let line = if mark == "/// " { line.trim_start() } else { line };
        line.strip_prefix(mark).map(str::to_owned)
    };
    let (mut found, mut before) = (Vec::new(), false);
    for (i, line) in text.lines().enumerate() {
        let text = comment(line);
        let first = text.as_deref().and_then(|t| t.split(' ').next());
        if !before && first.is_some_and(|word| NO_SUBJECT.contains(&word)) {
            found.push(format!("{path}:{}: {}", i + 1, line.trim()));
        }
        before = text.is_some();
    }
    found
}

#[test]
fn comments_have_subjects() {
    let kernels = files("cuda", &["cu", "cuh", "h", "cpp"]);
    let found: Vec<String> =
        files("src", &["rs"]).iter().chain(&kernels).flat_map(|(path, text)| without_subject(path, text)).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

fn check(files: &[(String, String)], rules: &[fn(&str, &str) -> Finding]) -> Vec<String> {
    let all = files.iter().flat_map(|(path, text)| rules.iter().map(move |rule| (path, rule(path, text))));
    all.filter_map(|(path, finding)| finding.map(|(line, what)| format!("{path}:{line}: {what}"))).collect()
}

const SOURCE_RULES: [fn(&str, &str) -> Finding; 3] = [head, unsafe_address, no_unwrap_in_c_api];
const TEXT_RULES: [fn(&str, &str) -> Finding; 3] = [nothing_undone, no_registry_host, no_trailing_space];

#[test]
fn sources_are_tidy() {
    let mut found = check(&files("src", &["rs"]), &SOURCE_RULES);
    for dir in ["tests", "examples"] {
        found.extend(check(&files(dir, &["rs"]), &[head, length]));
    }
    found.extend(check(&files("cuda", &["cu", "cuh", "h", "cpp"]), &[comment_head, width]));
    for dir in ["src", "cuda", "tests", "examples", "examples-c", "include", "scripts", "packaging"] {
        found.extend(check(
            &files(dir, &["rs", "c", "h", "hpp", "py", "json", "in", "cu", "cuh", "cpp"])
                .into_iter()
                .filter(|(path, _)| !path.contains("/fixtures/"))
                .collect::<Vec<_>>(),
            &TEXT_RULES,
        ));
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn planted_faults_are_found() {
    let cases: [(&str, &str, &str); 8] = [
        ("src/a.rs", "use x;\n", "src/a.rs:1: the file does not open with //!"),
        ("tests/a.rs", &"//! x\n".repeat(MOST_LINES + 1), "more than 700 lines"),
        ("src/engine/a.rs", "//! x\nunsafe { f() }\n", "src/engine/a.rs:2: unsafe outside of its addresses"),
        ("src/c_api/a.rs", "//! x\nlet y = z.unwrap();\n", "src/c_api/a.rs:2: a panic behind a C entry point"),
        ("src/a.rs", &format!("//! x\n// {}: later\n", ["TO", "DO"].concat()), "src/a.rs:2: "),
        ("src/a.rs", &format!("//! x\nfn f() {{ {}() }}\n", ["to", "do!"].concat()), "src/a.rs:2: "),
        (
            "src/a.rs",
            &format!("//! see files.{}\n", ["pythonhosted", ".org"].concat()),
            "src/a.rs:1: a registry's host",
        ),
        ("src/a.rs", "//! x \n", "src/a.rs:1: space at the end"),
    ];
    for (path, text, wanted) in cases {
        let file = [(path.to_owned(), text.to_owned())];
        let found = [check(&file, &SOURCE_RULES), check(&file, &TEXT_RULES), check(&file, &[length])].concat();
        assert!(found.iter().any(|f| f.contains(wanted)), "{path}: {found:?}");
    }
    let wide = "x".repeat(MOST_COLUMNS + 1);
    for (path, text, wanted) in [
        ("cuda/a.cu", &*format!("// x\n{wide}\n"), "cuda/a.cu:2: more than 0 lines of more than 150"),
        (
            "cuda/rows/batch_norm.cu",
            &*format!("// x\n{wide}\n{wide}\n{wide}\n"),
            "cuda/rows/batch_norm.cu:4: more than 2 lines",
        ),
        ("cuda/a.cu", "#pragma once\n", "cuda/a.cu:1: the file does not open with //"),
    ] {
        let found = check(&[(path.to_owned(), text.to_owned())], &[comment_head, width]);
        assert!(found.iter().any(|f| f.contains(wanted)), "{path}: {found:?}");
    }
    let docs =
        "//! Of it\n/// Of a token.\n/// By what.\nfn f();\n    /// The cache\n    /// of a token.\n    // In code.\n";
    assert_eq!(without_subject("src/a.rs", docs), ["src/a.rs:2: /// Of a token."]);
    assert_eq!(without_subject("cuda/a.cu", "// With it.\n    // At it.\n"), ["cuda/a.cu:1: // With it."]);
    let clean =
        [("src/c_api/a.rs".to_owned(), "//! x\nunsafe {}\n#[cfg(test)]\nmod tests {\n  y.unwrap()\n}\n".to_owned())];
    assert_eq!(check(&clean, &SOURCE_RULES), [] as [String; 0]);
}
