//! The device's copy of the sampler's rules, in C, against the one in Rust: each constant, and the text's own arithmetic.

use crate::sources;
use kigo::sampler::{DEPTH, LN2, ONE, TERMS, exp_neg, random_u64};

/// The file of `cuda/` that draws.
fn source() -> String {
    let found: Vec<String> = sources::files("cuda", &["cu", "cuh"])
        .into_iter()
        .map(|(_, text)| text.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n"))
        .filter(|text| text.contains("float kg_exp_neg("))
        .collect();
    assert_eq!(found.len(), 1, "files that define kg_exp_neg");
    found.into_iter().next().unwrap()
}

/// The body of the function of that name.
fn body<'a>(text: &'a str, name: &str) -> &'a str {
    let from = text.find(name).unwrap_or_else(|| panic!("no {name}"));
    let rest = &text[from..];
    &rest[..rest.find("\n}").expect("the end of a function")]
}

/// The numbers with a decimal point or an exponent, as C reads them: `87.f`, `1.44269504f`, `8.333334e-3f`.
fn floats(text: &str) -> Vec<f32> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '_';
    let mut found = Vec::new();
    let joined = text.replace("e-", "e\u{1}");
    for word in joined.split(|c: char| !is_part(c) && c != '\u{1}') {
        let word = word.replace('\u{1}', "-");
        if word.contains('.')
            && let Some(number) = word.strip_suffix('f').and_then(|w| w.trim_end_matches('.').parse().ok())
        {
            found.push(number);
        }
    }
    found
}

/// [`exp_neg`] as the C says it, with the numbers that stand there.
fn exp_by(c: &[f32], x: f32) -> f32 {
    let [least, log2_e, high, low, rest @ ..] = c else { panic!("{c:?}") };
    // The first is a bound, written with its sign in front.
    if !(x >= -least) {
        return 0.0;
    }
    let n = (x * log2_e).round_ties_even();
    let r = low.mul_add(n, (-high).mul_add(n, x));
    // The last of the numbers without an exponent stand in steps of their own: 0.5, 1, 1.
    let p = rest[1..].iter().fold(rest[0], |p, c| p.mul_add(r, *c));
    p * f32::from_bits(((n as i32 + 127) as u32) << 23)
}

#[test]
fn the_exponential_in_c_has_the_numbers_of_the_one_in_rust() {
    let text = source();
    let mut numbers = floats(body(&text, "float kg_exp_neg("));
    // `return 0.f` is none of them.
    let zero = numbers.iter().position(|x| *x == 0.0).expect("what is too small is 0");
    numbers.remove(zero);
    assert_eq!(numbers.len(), 11, "{numbers:?}");
    assert_eq!(numbers[..4], [DEPTH, std::f32::consts::LOG2_E, LN2[0], -LN2[1]]);
    assert_eq!(numbers[4..], TERMS);
    for i in 0..200_000 {
        let x = -(i as f32) * 4.4e-4;
        assert_eq!(exp_by(&numbers, x).to_bits(), exp_neg(x).to_bits(), "{x}");
    }
}

#[test]
fn weights_and_the_depth_in_c_are_those_of_rust() {
    let text = source();
    let line = text.lines().find(|l| l.contains("float KG_ONE")).expect("KG_ONE");
    assert_eq!(floats(line), [ONE]);
    let weight = body(&text, "uint64_t kg_weight(");
    assert!(weight.contains("__float2ull_rz(__fmul_rn(e, KG_ONE))"), "{weight}");
    let floor: Vec<&str> = text.lines().filter(|l| l.contains("const float floor")).collect();
    assert_eq!(floor.len(), 1);
    assert_eq!(floats(floor[0]), [DEPTH]);
    // Top-p's bound is a share in units of 2^-32, of which at least one is kept.
    assert!(text.contains("(__umul64hi(total, share) << 32 | (total * share) >> 32), (uint64_t)1)"));
}

#[test]
fn random_numbers_in_c_have_the_constants_of_those_in_rust() {
    let text = source();
    let text = body(&text, "uint64_t kg_random(");
    let hex = |word: &str| u32::from_str_radix(word.trim_start_matches("0x").trim_end_matches('u'), 16).ok();
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    let constants: Vec<u32> = words.filter(|w| w.starts_with("0x")).filter_map(hex).collect();
    let [m0, m1, w0, w1] = constants[..] else { panic!("{constants:x?}") };
    let rounds = text.split("i < ").nth(1).and_then(|rest| rest.split(';').next()?.parse::<u32>().ok());
    let philox = |seed: u64, counter: u64| {
        let mut c = [counter as u32, (counter >> 32) as u32, 0, 0];
        let mut k = [seed as u32, (seed >> 32) as u32];
        for _ in 0..rounds.expect("a number of rounds") {
            let (a, b) = (u64::from(c[0]) * u64::from(m0), u64::from(c[2]) * u64::from(m1));
            c = [(b >> 32) as u32 ^ c[1] ^ k[0], b as u32, (a >> 32) as u32 ^ c[3] ^ k[1], a as u32];
            k = [k[0].wrapping_add(w0), k[1].wrapping_add(w1)];
        }
        u64::from(c[1]) << 32 | u64::from(c[0])
    };
    for i in 0..100 {
        let (seed, counter) = (random_u64(9, i), random_u64(10, i) >> (i % 40));
        assert_eq!(philox(seed, counter), random_u64(seed, counter));
    }
}
