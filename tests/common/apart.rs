//! Tests that count what the whole process takes: each runs in a process of its own.

use std::process::Command;

/// Names the test that a child was made for.
const APART: &str = "KIGO_APART";

/// Whether a child has run the test in this process's stead, so that the caller returns; `false` in that child.
///
/// `here` is any closure of the test's body: its type names the test. What the child printed is printed, and the test fails
/// as it failed there.
pub fn apart<F: FnOnce()>(_here: F) -> bool {
    let name = std::any::type_name::<F>().trim_end_matches("::{{closure}}");
    let name = name.split_once("::").expect("a path inside a crate").1;
    if std::env::var(APART).is_ok_and(|child| child == name) {
        return false;
    }
    let program = std::env::current_exe().expect("a test has a path");
    let mut command = Command::new(program);
    command.args([name, "--exact", "--include-ignored", "--show-output", "--test-threads=1"]).env(APART, name);
    let child = command.output().expect("a test program can be started");
    let stdout = String::from_utf8_lossy(&child.stdout);
    let heading = format!("---- {name} stdout ----");
    let shown = stdout.lines().skip_while(|line| *line != heading).skip(1);
    for line in shown.take_while(|line| !["successes:", "failures:"].contains(line)) {
        println!("{line}");
    }
    let stderr = String::from_utf8_lossy(&child.stderr);
    // A name that no test has would succeed, too.
    let one = stdout.contains("test result: ok. 1 passed");
    assert!(child.status.success() && one, "{name} in a process of its own: {}\n{stderr}", child.status);
    true
}
