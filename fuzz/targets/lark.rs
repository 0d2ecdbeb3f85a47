//! libFuzzer on [`kigo_fuzz::lark`].
#![no_main]

use kigo_fuzz::{lark, support};

libfuzzer_sys::fuzz_target!(init: support::quiet_hook(), |data: &[u8]| {
    lark::run(data);
});
