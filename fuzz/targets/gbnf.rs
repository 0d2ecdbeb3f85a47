//! libFuzzer on [`kigo_fuzz::gbnf`].
#![no_main]

use kigo_fuzz::{gbnf, support};

libfuzzer_sys::fuzz_target!(init: support::quiet_hook(), |data: &[u8]| {
    gbnf::run(data);
});
