//! libFuzzer on [`kigo_fuzz::calls`].
#![no_main]

use kigo_fuzz::{calls, support};

libfuzzer_sys::fuzz_target!(init: support::quiet_hook(), |data: &[u8]| {
    calls::run(data);
});
