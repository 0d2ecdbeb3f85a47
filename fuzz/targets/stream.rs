//! libFuzzer on [`kigo_fuzz::stream`].
#![no_main]

use kigo_fuzz::{stream, support};

libfuzzer_sys::fuzz_target!(init: support::quiet_hook(), |data: &[u8]| {
    stream::run(data);
});
