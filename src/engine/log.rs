//! Where an engine's messages go.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How important a message is; the most important first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Something failed that no status reports.
    Error,
    /// Something works, but not as well as it could.
    Warn,
    /// What was chosen and loaded.
    Info,
    /// Details for the search of a fault.
    Debug,
}

type Callback = Box<dyn Fn(LogLevel, &str) -> bool + Send + Sync>;

/// A receiver of messages down to a level, until it has had enough.
pub struct LogSink {
    level: LogLevel,
    callback: Option<Callback>,
    ended: AtomicBool,
}

impl LogSink {
    /// Drops everything.
    pub fn silent() -> LogSink {
        LogSink { level: LogLevel::Error, callback: None, ended: AtomicBool::new(true) }
    }

    /// `callback` gets what is at least as important as `level`, until it returns false. Called from any thread that is
    /// inside a call of this library.
    pub fn new(level: LogLevel, callback: impl Fn(LogLevel, &str) -> bool + Send + Sync + 'static) -> LogSink {
        LogSink { level, callback: Some(Box::new(callback)), ended: AtomicBool::new(false) }
    }

    /// Whether a message of this level would be heard: what it takes to make one is saved otherwise.
    pub fn wants(&self, level: LogLevel) -> bool {
        level <= self.level && !self.ended.load(Ordering::Relaxed)
    }

    /// Hands a message on; the text is only made if somebody wants it.
    pub fn log(&self, level: LogLevel, text: fmt::Arguments<'_>) {
        if !self.wants(level) {
            return;
        }
        if let Some(callback) = &self.callback
            && !callback(level, &text.to_string())
        {
            self.ended.store(true, Ordering::Relaxed);
        }
    }
}

/// The messages that concern one model. They go out where no lock is held that the host's code could wait for.
#[derive(Clone)]
pub(super) struct ModelLog {
    sink: Arc<LogSink>,
    /// The load's, counted by the engine.
    number: u64,
}

impl ModelLog {
    pub(super) fn new(sink: &Arc<LogSink>, number: u64) -> ModelLog {
        ModelLog { sink: Arc::clone(sink), number }
    }

    /// See [`LogSink::wants`].
    pub(super) fn wants(&self, level: LogLevel) -> bool {
        self.sink.wants(level)
    }

    /// Hands a message on, with the model's number in front.
    pub(super) fn log(&self, level: LogLevel, text: fmt::Arguments<'_>) {
        self.sink.log(level, format_args!("model {}: {text}", self.number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[test]
    fn messages_pass_by_level_until_the_callback_stops() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let in_callback = Arc::clone(&seen);
        let sink = LogSink::new(LogLevel::Info, move |_, text| {
            let mut seen = in_callback.lock().unwrap();
            seen.push(text.to_owned());
            seen.len() < 2
        });
        for (level, text) in
            [(LogLevel::Debug, "a"), (LogLevel::Info, "b"), (LogLevel::Error, "c"), (LogLevel::Error, "d")]
        {
            sink.log(level, format_args!("{text}"));
        }
        assert_eq!(*seen.lock().unwrap(), ["b", "c"]);
    }
}
