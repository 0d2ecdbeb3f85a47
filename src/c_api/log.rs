//! The library prints nothing. What it has to say goes to the callback of the engine concerned, and is lost without
//! one. A message is one line of UTF-8 without a line break. One that concerns a model begins with "model N: ", where N
//! counts the engine's loads from 1, those whose file could not be read apart; other wording is no part of the interface.
//! What happens in a pass or to the cache is told at the end of the call, or of the token of a generation, in which it happens,
//! or of the model's next call.

use super::prelude::*;
use crate::engine::{LogLevel, LogSink};

/// Level of a message: something failed that no status reports, such as a pass of several sessions, each of which then gets one
/// of its own.
pub const KIGO_LOG_LEVEL_ERROR: i32 = 1;
/// Level of a message: something works, but not as well as it could, such as a pass that takes eight times as long as others of
/// its size do, of which one is told of in ten seconds.
pub const KIGO_LOG_LEVEL_WARN: i32 = 2;
/// Level of a message: what was chosen and loaded, and why "auto" took no GPU; a few lines an engine and a model.
pub const KIGO_LOG_LEVEL_INFO: i32 = 3;
/// Level of a message: details for the search of a fault, such as kept prefixes that were given up, and what each generation
/// took.
pub const KIGO_LOG_LEVEL_DEBUG: i32 = 4;

/// A message.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_log_event {
    /// sizeof(kigo_log_event) of the library: a field behind it is not there.
    pub struct_size: usize,
    /// The message. UTF-8 with a NUL, valid during the callback.
    pub text: *const c_char,
    /// Bytes of `text`.
    pub text_len: usize,
    /// KIGO_LOG_LEVEL_*.
    pub level: i32,
    /// 0. Later versions may say more of where a message comes from.
    pub reserved: u32,
}
sized_struct!(kigo_log_event, bytes: 32, fields: [usize, *const c_char, usize, i32, u32]);

/// Receives a message, valid during the call. Returns 0 to go on; anything else ends the engine's logging. Called only on
/// threads that are inside a call of this library, from several at once if there are several. It must return (not throw,
/// not longjmp).
pub type kigo_log_callback = Option<unsafe extern "C" fn(event: *const kigo_log_event, user_data: *mut c_void) -> i32>;

/// A caller's `user_data`, which its callbacks alone look into.
pub(super) struct UserData(pub(super) *mut c_void);
// SAFETY: the library only hands the pointer back; the header asks for callbacks that can be called from these threads.
unsafe impl Send for UserData {}
// SAFETY: as above.
unsafe impl Sync for UserData {}

/// The sink of an engine's log, from the options' fields.
pub(super) fn sink(callback: kigo_log_callback, user_data: *mut c_void, level: i32) -> Result<LogSink> {
    let level = match level {
        0 | KIGO_LOG_LEVEL_INFO => LogLevel::Info,
        KIGO_LOG_LEVEL_ERROR => LogLevel::Error,
        KIGO_LOG_LEVEL_WARN => LogLevel::Warn,
        KIGO_LOG_LEVEL_DEBUG => LogLevel::Debug,
        other => {
            let expected = "one of KIGO_LOG_LEVEL_* (0 to 4)".to_owned();
            return Err(Error::Argument { name: "log_level", found: other.to_string(), expected });
        }
    };
    let Some(callback) = callback else { return Ok(LogSink::silent()) };
    let user_data = UserData(user_data);
    Ok(LogSink::new(level, move |level, text| {
        let user_data = &user_data;
        let number = match level {
            LogLevel::Error => KIGO_LOG_LEVEL_ERROR,
            LogLevel::Warn => KIGO_LOG_LEVEL_WARN,
            LogLevel::Info => KIGO_LOG_LEVEL_INFO,
            LogLevel::Debug => KIGO_LOG_LEVEL_DEBUG,
        };
        let mut line: Vec<u8> = text.bytes().map(|b| if b < b' ' { b' ' } else { b }).collect();
        line.push(0);
        let event = kigo_log_event {
            struct_size: size_of::<kigo_log_event>(),
            text: line.as_ptr().cast(),
            text_len: line.len() - 1,
            level: number,
            reserved: 0,
        };
        // SAFETY: the caller's function, called as the header says, with an event and a NUL-terminated text that live
        // through the call.
        outside(|| unsafe { callback(&raw const event, user_data.0) == 0 })
    }))
}
