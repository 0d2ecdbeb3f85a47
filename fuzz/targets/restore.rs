//! libFuzzer on [`kigo_fuzz::restore`].
#![no_main]

use kigo_fuzz::{restore, support};

libfuzzer_sys::fuzz_target!(init: support::quiet_hook(), |data: &[u8]| {
    restore::run(data);
});
