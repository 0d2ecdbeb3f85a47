//! libFuzzer on [`kigo_fuzz::parser`].
#![no_main]

use kigo_fuzz::{parser, support};

libfuzzer_sys::fuzz_target!(init: support::quiet_hook(), |data: &[u8]| {
    parser::run(data);
});
