//! libFuzzer on [`kigo_fuzz::reader`].
#![no_main]

use kigo_fuzz::{reader, support};

libfuzzer_sys::fuzz_target!(init: support::quiet_hook(), |data: &[u8]| {
    reader::run(data);
});

libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    kigo_fuzz::gguf_edit::mutate(data, size, max_size, seed, libfuzzer_sys::fuzzer_mutate)
});
