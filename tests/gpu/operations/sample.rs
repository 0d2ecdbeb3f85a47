//! States, masks, and the choice of tokens; draws against the host's sampler are in choice.rs.

use kigo::backend::cuda::kernels::abi::{RING, State};

use super::bench::{Bench, numbers};

pub fn set_state(bench: &Bench) {
    let value =
        State { pages: 1, logits: 2, token: 3, position: 4, produced: 5, top_k: 6, seed: 7, ..State::default() };
    let value = State { share: 8, least: 9, temperature: 0.5, inverse: 2.0, ..value };
    let at = bench.zeros(2 * size_of::<State>());
    bench.queue().set_state(at, &value).unwrap();
    assert_eq!(bench.get::<State>(at, 2), [value, State::default()]);
}

pub fn mask(bench: &Bench) {
    let logits = numbers(1, 70);
    let allowed = [0x8000_0001u32, 0x0f0f_0f0f, 0x20];
    let (out, from, bits) = (bench.zeros(71 * 4), bench.put(&logits), bench.put(&allowed));
    bench.queue().mask(from, bits, out, 70).unwrap();
    let got = bench.floats(out, 71);
    for i in 0..70 {
        let wanted = if allowed[i / 32] >> (i % 32) & 1 == 1 { logits[i] } else { f32::NEG_INFINITY };
        assert_eq!(got[i], wanted, "logit {i}");
    }
    assert_eq!(got[70], 0.0);
}

/// The largest, ties to the lowest id, NaN below everything, nothing where there is nothing to choose from.
pub fn choices(bench: &Bench) {
    let n = 1031;
    let largest = |at: &[usize]| {
        let mut logits = numbers(at[0] as u64, n);
        at.iter().for_each(|i| logits[*i] = 9.0);
        logits
    };
    let mut with_nan = largest(&[500]);
    with_nan[3] = f32::NAN;
    let mut infinite = largest(&[7]);
    infinite[8] = f32::INFINITY;
    let none = vec![f32::NEG_INFINITY; n];
    let rows = [largest(&[1030]), largest(&[40, 41]), with_nan, infinite, none];
    let wanted = [1030, 40, 500, u32::MAX, u32::MAX];
    for drawn in [false, true] {
        if drawn && !bench.is_sm90() {
            continue;
        }
        for (row, token) in rows.iter().zip(wanted) {
            let state = State { logits: bench.put(row), token: 77, position: 20, produced: 300, ..State::default() };
            let state = if drawn { State { top_k: 1, temperature: 0.7, inverse: 1.0 / 0.7, ..state } } else { state };
            let (at, ring) = (bench.put(&[state]), bench.zeros(RING as usize * 4));
            if drawn {
                bench.queue().sample(at, 1, n as u32, ring).unwrap();
            } else {
                bench.queue().argmax(at, 1, n as u32, bench.zeros(8), bench.zeros(4), ring).unwrap();
            }
            let left = if token == u32::MAX { 0 } else { token as i32 };
            let after = State { token: left, position: 21, produced: 301, ..state };
            assert_eq!(bench.get::<State>(at, 1), [after], "drawn: {drawn}");
            let ring = bench.get::<u32>(ring, RING as usize);
            assert_eq!(ring[300 % RING as usize], token, "drawn: {drawn}");
        }
    }
    let refused = bench.queue().argmax(16, 0, 5, 16, 16, 16).unwrap_err().to_string();
    assert!(refused.contains("argmax: 5 logits of 0 sequences"), "{refused}");
}
