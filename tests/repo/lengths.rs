//! A file is read at one sitting, a function on a screen: 400 and 80 lines, in `src` and in `cuda`.
//!
//! The lists name what is longer today, why, and how long it may be, a little rounded up. They only get shorter: a new file or
//! function is not added, and what has become short enough is taken away.

use crate::sources::files;

/// Lines of a file.
const FILE: usize = 400;
/// Lines of a function, from its first to its closing brace.
const FUNCTION: usize = 80;

/// Longer files; there is none.
const LONG_FILES: &[(&str, usize)] = &[];
/// Longer functions: the file, the name, the lines.
const LONG_FUNCTIONS: &[(&str, &str, usize)] = &[
    // The CPU's innermost loop of attention: its sums stay in registers from the scores to the weights.
    ("src/backend/cpu/attention.rs", "span_tile", 100),
    // Kernels, whose registers the compiler gives out otherwise when their bodies are cut further: their machine code is to be
    // what was measured.
    ("cuda/attention/decode_attention.cu", "kg_decode_attention_blocks", 340),
    ("cuda/attention/decode_attention_mma.cu", "kg_tensor_half", 280),
    ("cuda/attention/flash_prefill_mma.cu", "kg_flash", 150),
    ("cuda/attention/flash_prefill_sm90.cu", "kg_flash_sm90", 160),
    ("cuda/matmul/f16_batch_sm90.cuh", "kg_f16_batch_kernel", 170),
    ("cuda/matmul/f16_mma.cuh", "kg_f16_mma_run", 150),
    ("cuda/matmul/gemv.cuh", "kg_gemv_run", 100),
];

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The functions of a Rust file, as rustfmt writes them, with their lines.
fn rust_functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let name = |line: &str| {
        let start = line.trim_start().split("fn ").next()?;
        let words = ["pub", "pub(crate)", "pub(super)", "const", "unsafe", "async", "extern", "\"C\"", "default"];
        if !line.contains("fn ")
            || !start.split_whitespace().all(|word| words.contains(&word) || word.starts_with("pub(in"))
        {
            return None;
        }
        let rest = &line.trim_start()[start.len() + 3..];
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_'))?;
        (end > 0).then(|| rest[..end].to_owned())
    };
    let mut found = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        let Some(name) = name(line) else { continue };
        let closes = |l: &&str| indent(l) == indent(line) && (l.trim_start().starts_with('}') || l.ends_with(';'));
        let one_line = line.ends_with('}') || line.ends_with(';');
        let n = if one_line { 1 } else { lines[i + 1..].iter().position(closes).map_or(0, |n| n + 2) };
        found.push((name, n));
    }
    found
}

/// The name before the parameters of a C++ function's head, whose attributes may have parentheses of their own.
fn function_name(head: &str) -> String {
    let mut rest = head;
    while let Some(open) = rest.find('(') {
        let name = rest[..open].trim_end().rsplit([' ', '*', '&']).next().unwrap_or_default();
        if !["__launch_bounds__", "__align__", "__cluster_dims__", "alignas"].contains(&name) {
            return name.to_owned();
        }
        let mut depth = 0;
        let closing = rest[open..].find(|c| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            depth == 0
        });
        rest = closing.map_or("", |n| &rest[open + n + 1..]);
    }
    String::new()
}

/// The functions of a C++ file whose braces stand at the margin, with their lines.
fn cuda_functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    let mut start = None;
    for (i, line) in lines.iter().enumerate() {
        let at_margin = line.starts_with(|c: char| c.is_alphabetic() || c == '_' || c == '[');
        let is_other = ["struct ", "namespace ", "enum ", "union ", "using ", "typedef ", "extern \"C\" {"]
            .iter()
            .any(|word| line.starts_with(word));
        if at_margin && !is_other && start.is_none() && line.contains('(') {
            start = Some(i);
        }
        let ends = line.ends_with(';') && start == Some(i)
            || *line == "}"
            || *line == "};"
            || line.ends_with('}') && start == Some(i);
        if let (true, Some(first)) = (ends, start) {
            let head = lines[first..=i].join(" ");
            let head = head.split('{').next().unwrap_or_default();
            let name = function_name(head);
            if head.len() < lines[first..=i].join(" ").len() {
                found.push((name, i + 1 - first));
            }
            start = None;
        }
    }
    found
}

/// What is longer than allowed, and what is listed in vain.
fn wrong(files: &[(String, String)], long_files: &[(&str, usize)], long: &[(&str, &str, usize)]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut used_files = Vec::new();
    let mut used = Vec::new();
    for (path, text) in files {
        let n = text.lines().count();
        let listed = long_files.iter().find(|(p, _)| p == path);
        if n > FILE {
            used_files.extend(listed.map(|l| l.0));
        }
        let most = listed.map_or(FILE, |l| l.1);
        if n > most {
            wrong.push(format!("{path}: {n} lines, {most} are allowed"));
        }
        let functions = if path.ends_with(".rs") { rust_functions(text) } else { cuda_functions(text) };
        for (name, n) in functions.into_iter().filter(|f| f.1 > FUNCTION) {
            let listed = long.iter().find(|(p, f, _)| p == path && *f == name);
            used.extend(listed.map(|l| (l.0, l.1)));
            let most = listed.map_or(FUNCTION, |l| l.2);
            if n > most {
                wrong.push(format!("{path}: {name} has {n} lines, {most} are allowed"));
            }
        }
    }
    let gone = long_files.iter().filter(|l| !used_files.contains(&l.0)).map(|l| l.0.to_owned());
    let gone_functions = long.iter().filter(|l| !used.contains(&(l.0, l.1))).map(|l| format!("{}: {}", l.0, l.1));
    wrong.extend(gone.chain(gone_functions).map(|what| format!("{what}: short enough now, take its line away")));
    wrong
}

#[test]
fn files_and_functions_are_short() {
    let mut all = files("src", &["rs"]);
    all.extend(files("cuda", &["rs", "cu", "cuh", "h", "cpp"]));
    let wrong = wrong(&all, LONG_FILES, LONG_FUNCTIONS);
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn planted_lengths_are_found() {
    let lines = |n: usize| "        x();\n".repeat(n);
    let rust = format!("impl A {{\n    pub(crate) fn f(\n        a: u8,\n    ) {{\n    {}    }}\n}}\n", lines(80));
    assert_eq!(rust_functions(&rust), [("f".to_owned(), 84)]);
    assert_eq!(
        rust_functions("fn a() {}\nfn b();\nlet fn_ = 1;\n// fn c() {\n"),
        [("a".to_owned(), 1), ("b".to_owned(), 1)]
    );
    let cuda = format!(
        "// f(x)\ntemplate <int N> __global__ void __launch_bounds__(256, per_sm(N)) kernel(int a,\n    int b) {{\n{}}}\nint g(int);\n",
        lines(90)
    );
    assert_eq!(cuda_functions(&cuda), [("kernel".to_owned(), 93)]);
    let file = |path: &str, text: String| [(path.to_owned(), text)];
    let long = lines(500);
    let found = |path: &str, text: &str, a: &[(&str, usize)], b: &[(&str, &str, usize)]| {
        wrong(&file(path, text.to_owned()), a, b)
    };
    assert_eq!(found("src/a.rs", &long, &[], &[]), ["src/a.rs: 500 lines, 400 are allowed"]);
    assert_eq!(found("src/a.rs", &long, &[("src/a.rs", 500)], &[]), [""; 0]);
    assert_eq!(found("src/a.rs", "x", &[("src/a.rs", 500)], &[]), ["src/a.rs: short enough now, take its line away"]);
    assert_eq!(found("src/a.rs", &rust, &[], &[]), ["src/a.rs: f has 84 lines, 80 are allowed"]);
    assert_eq!(found("src/a.rs", &rust, &[], &[("src/a.rs", "f", 84)]), [""; 0]);
    assert_eq!(found("cuda/a.cu", &cuda, &[], &[]), ["cuda/a.cu: kernel has 93 lines, 80 are allowed"]);
}
