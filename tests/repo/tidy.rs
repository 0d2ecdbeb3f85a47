//! What compilers and formatters do not hold: heads, lengths, addresses of `unsafe`, nothing left undone.

use crate::sources::{files, library_code};

/// A source file should stay under about 500 lines; here is where it has to be split.
const MOST_LINES: usize = 700;

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
        let unsafe_code = contains_word(line, "unsafe") || line.contains("allow(unsafe_code)");
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

fn check(files: &[(String, String)], rules: &[fn(&str, &str) -> Finding]) -> Vec<String> {
    let all = files.iter().flat_map(|(path, text)| rules.iter().map(move |rule| (path, rule(path, text))));
    all.filter_map(|(path, finding)| finding.map(|(line, what)| format!("{path}:{line}: {what}"))).collect()
}

const SOURCE_RULES: [fn(&str, &str) -> Finding; 4] = [head, length, unsafe_address, no_unwrap_in_c_api];
const TEXT_RULES: [fn(&str, &str) -> Finding; 3] = [nothing_undone, no_registry_host, no_trailing_space];

#[test]
fn sources_are_tidy() {
    let mut found = check(&files("src", &["rs"]), &SOURCE_RULES);
    for dir in ["tests", "examples"] {
        found.extend(check(&files(dir, &["rs"]), &[head, length]));
    }
    for dir in ["src", "tests", "examples", "examples-c", "include", "scripts", "packaging"] {
        found.extend(check(
            &files(dir, &["rs", "c", "h", "hpp", "py", "json", "in", "cu", "cuh"])
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
        ("src/a.rs", &"//! x\n".repeat(MOST_LINES + 1), "more than 700 lines"),
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
        let found = [check(&file, &SOURCE_RULES), check(&file, &TEXT_RULES)].concat();
        assert!(found.iter().any(|f| f.contains(wanted)), "{path}: {found:?}");
    }
    let clean =
        [("src/c_api/a.rs".to_owned(), "//! x\nunsafe {}\n#[cfg(test)]\nmod tests {\n  y.unwrap()\n}\n".to_owned())];
    assert_eq!(check(&clean, &SOURCE_RULES), [] as [String; 0]);
}
