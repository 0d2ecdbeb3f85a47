//! The crate's own sources, for the tests that look at them.

use std::path::{Path, PathBuf};

/// Every file under `dir` (of the repository) with one of the extensions, as its path from the repository and its text.
pub fn files(dir: &str, extensions: &[&str]) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut open = vec![root.join(dir)];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            let entries = std::fs::read_dir(&path).expect("a folder that can be read");
            open.extend(entries.map(|entry| entry.expect("an entry").path()));
        } else if extensions.iter().any(|e| path.extension().is_some_and(|x| x == *e)) {
            let text = std::fs::read_to_string(&path).expect("UTF-8");
            found.push((relative(&path, root), text));
        }
    }
    found.sort();
    assert!(!found.is_empty(), "nothing under {dir}");
    found
}

fn relative(path: &Path, root: &Path) -> String {
    let path: PathBuf = path.strip_prefix(root).expect("below the repository").into();
    path.to_str().expect("UTF-8").to_owned()
}

/// What of a source file is built into the library: without comments, and without its `#[cfg(test)] mod`, which stands
/// at the end. Each line keeps its place. Empty for a file that is a test module.
pub fn library_code(path: &str, text: &str) -> String {
    if path.ends_with("/tests.rs") || path.contains("/tests/") {
        return String::new();
    }
    let lines: Vec<&str> = text.lines().collect();
    let is_tests = |i: usize| {
        lines[i] == "#[cfg(test)]"
            && lines[i + 1..].first().is_some_and(|next| next.starts_with("mod ") && next.ends_with('{'))
    };
    let end = (0..lines.len()).find(|&i| is_tests(i)).unwrap_or(lines.len());
    let code: Vec<&str> = lines[..end].iter().map(|line| line.split("//").next().unwrap_or("")).collect();
    code.join("\n")
}
