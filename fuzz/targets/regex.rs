//! libFuzzer on [`kigo_fuzz::regex`].
#![no_main]

use kigo_fuzz::{regex, support};

libfuzzer_sys::fuzz_target!(init: support::quiet_hook(), |data: &[u8]| {
    regex::run(data);
});
