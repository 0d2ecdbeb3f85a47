//! The numbers of `cuda/abi.h` as the compiled object has them.

use std::ffi::{CStr, c_char};

use super::Number;
use crate::error::{Error, Result};

/// `KgAbiNumber`: a number as the compiled object has it.
#[repr(C)]
struct Reported {
    name: *const c_char,
    value: u64,
}

unsafe extern "C" {
    fn kgc_abi(n: *mut u32) -> *const Reported;
}

/// The compiled object's numbers.
pub fn reported() -> Vec<(String, u64)> {
    let mut n = 0;
    // SAFETY: writes one number, and returns an array of so many entries that lives as long as the library.
    let entries = unsafe { std::slice::from_raw_parts(kgc_abi(&mut n), n as usize) };
    // SAFETY: each name is a literal of the compiled object.
    entries.iter().map(|e| (unsafe { CStr::from_ptr(e.name) }.to_string_lossy().into_owned(), e.value)).collect()
}

/// That both sides have the same names with the same numbers.
pub fn compare(here: &[&[Number]], there: &[(String, u64)]) -> Result<()> {
    let refuse = |name: &str, here: &dyn std::fmt::Display, there: &dyn std::fmt::Display| {
        let message = format!("the kernels were compiled for another layout: {name} is {there} there, {here} here");
        Err(Error::Internal { message })
    };
    for (name, here) in here.iter().copied().flatten() {
        match there.iter().find(|(n, _)| n == name) {
            Some((_, there)) if there == here => {}
            Some((_, there)) => return refuse(name, here, there),
            None => return refuse(name, here, &"unknown"),
        }
    }
    for (name, there) in there {
        if !here.iter().copied().flatten().any(|(n, _)| n == name) {
            return refuse(name, &"unknown", there);
        }
    }
    Ok(())
}
