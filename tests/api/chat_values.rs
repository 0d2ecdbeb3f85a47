//! Values of templates whose handling has failed: sorted without an order, heavy as keys, deep as they are printed.

use kigo::error::Error;
use kigo::tokenizer::ChatTemplate;

use crate::fixtures::tiny;

fn render(source: &str) -> Result<String, Error> {
    let tokenizer = tiny("tiny_llama_bpe");
    let template = ChatTemplate::with_source(&tokenizer, source)?;
    template.render(&[("user", "x")], true).map(|rendered| rendered.text)
}

fn shows(source: &str, expected: &str) {
    assert_eq!(render(source).unwrap_or_else(|e| panic!("{source}: {e}")), expected, "{source}");
}

fn fails(source: &str, expected: &str) {
    let error = render(source).expect_err(source);
    assert!(error.to_string().contains(expected), "{source}: {error}");
}

/// A template that makes a list of `n` items of `i`, then does something with it.
fn listed(n: usize, item: &str, then: &str) -> String {
    format!(
        "{{% set ns = namespace(l=[]) %}}{{% for i in range({n}) %}}{{% set ns.l = ns.l + [{item}] %}}{{% endfor %}}{then}"
    )
}

/// What Python says; a sort that goes on after it panics at an order that is none.
#[test]
fn a_sort_ends_at_the_first_pair_without_an_order() {
    let less = |a, b| format!("'<' not supported between instances of '{a}' and '{b}'");
    fails("{{ [1, 'a'] | sort }}", &less("str", "int"));
    fails("{{ [1, 'a'] | sort(reverse=true) }}", &less("int", "str"));
    // Neighbours have an order, others have none.
    let mixed = "[1, 'a'] if i % 4 == 0 else [1, 5] if i % 4 == 2 else [2, 0]";
    for n in [4, 40, 63, 64, 100, 300] {
        fails(&listed(n, mixed, "{{ ns.l | sort }}"), &less("int", "str"));
        fails(&listed(n, mixed, "{{ ns.l | sort(reverse=true) }}"), &less("str", "int"));
    }
    let far = "[i * 37 % 50, 'x' if i % 3 == 0 else i % 7]";
    for n in [100, 200, 400] {
        fails(&listed(n, far, "{{ ns.l | sort }}"), "' and '");
    }
}

#[test]
fn what_is_alike_stays_in_its_order() {
    for n in [0, 1, 2, 3, 31, 63, 64, 65, 97, 300] {
        for (name, key) in [("i * 37 % 11", (|i| i * 37 % 11) as fn(usize) -> usize), ("i // 5", |i| i / 5)] {
            let item = format!("[{name}, i]");
            for (reverse, how) in [(false, "sort(attribute=0)"), (true, "sort(attribute=0, reverse=true)")] {
                let mut expected: Vec<(usize, usize)> = (0..n).map(|i| (key(i), i)).collect();
                expected.sort_by_key(|(key, _)| if reverse { usize::MAX - key } else { *key });
                let expected: Vec<String> = expected.iter().map(|(_, i)| i.to_string()).collect();
                let then = format!("{{{{ ns.l | {how} | map(attribute=1) | join(',') }}}}");
                shows(&listed(n, &item, &then), &expected.join(","));
            }
        }
    }
    // Runs that fall are turned round, of equals too.
    shows("{{ [5, 4, 4.0, 3, true, 1] | sort }}", "[True, 1, 3, 4, 4.0, 5]");
    shows("{{ [5, 4, 4.0, 3, true, 1] | sort(reverse=true) }}", "[5, 4, 4.0, 3, True, 1]");
}

#[test]
fn a_key_that_is_too_heavy_is_refused_for_what_it_takes() {
    for source in [
        "{{ {('x' * 65536,): 1} }}",
        "{{ {1: 2}[('x' * 65536,)] }}",
        "{{ ('x' * 65536,) in {1: 2} }}",
        "{{ {(1, (2, ('x' * 65536,))): 1} }}",
        "{{ [('x' * 65536,)] | unique | list }}",
    ] {
        fails(source, "it makes a key of more than 65536 bytes");
    }
    shows("{{ {('x' * 65000,): 1} | length }}", "1");
    // Python's words name what cannot be hashed, and Jinja takes such a key for one that is not there.
    fails("{{ {(1, [2]): 3} }}", "unhashable type: 'list'");
    fails("{{ {(1, {}): 3} }}", "unhashable type: 'dict'");
    fails("{{ (1, [1]) in {'a': 1} }}", "unhashable type: 'list'");
    fails("{{ {}.keys() in {'a': 1} }}", "unhashable type: 'dict_keys'");
    fails("{{ {([(1, 2)] | groupby(0))[0]: 1} }}", "unhashable type: 'list'");
    shows("[{{ {1: 2}[(1, [2])] }}]", "[]");
}

/// As deep as there are values: data around a namespace and data in it.
#[test]
fn the_deepest_values_are_printed() {
    let inside = "{% set n = namespace(a=1) %}{% for i in range(64) %}{% set n.a = [n.a] %}{% endfor %}";
    let printed = |around: usize| format!("{inside}{{{{ {}n{} }}}}", "[".repeat(around), "]".repeat(around));
    let deep = format!("{}1{}", "[".repeat(64), "]".repeat(64));
    let expected = format!("{}<Namespace {{'a': {deep}}}>{}", "[".repeat(63), "]".repeat(63));
    shows(&printed(63), &expected);
    fails(&printed(64), "it builds a structure of more than 64 levels");
    fails(&inside.replace("64", "65"), "it builds a structure of more than 64 levels");
    fails("{% set n = namespace(a=1) %}{% set n.a = [{'b': n}] %}", "a namespace in a namespace");
}
