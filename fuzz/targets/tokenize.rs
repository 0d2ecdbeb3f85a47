//! libFuzzer on [`kigo_fuzz::tokenize`].
#![no_main]

use kigo_fuzz::{support, tokenize};

libfuzzer_sys::fuzz_target!(init: support::quiet_hook(), |data: &[u8]| {
    tokenize::run(data);
});
