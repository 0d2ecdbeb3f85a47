//! Threads of the library as their host sees them: it is told of each that begins and ends, and says where it runs and how urgently.

use std::cell::Cell;
use std::sync::Arc;

/// What a thread is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadKind {
    /// It computes, for as long as its engine lives.
    Worker,
    /// It does one thing for a call, which waits for it.
    Task,
}

/// A thread that begins or ends, as it says itself.
#[derive(Clone, Copy, Debug)]
pub struct ThreadEvent<'a> {
    /// Its name, such as "kigo-1".
    pub name: &'a str,
    /// What it is for.
    pub kind: ThreadKind,
    /// Its number among those of its kind that run together.
    pub index: usize,
    /// It ends.
    pub ends: bool,
}

/// Who is told of threads; returns whether a thread that begins may go on.
pub struct ThreadHook(Box<dyn Fn(&ThreadEvent<'_>) -> bool + Send + Sync>);

impl ThreadHook {
    /// Tells that function.
    pub fn new(told: impl Fn(&ThreadEvent<'_>) -> bool + Send + Sync + 'static) -> Arc<ThreadHook> {
        Arc::new(ThreadHook(Box::new(told)))
    }
}

thread_local! {
    /// Who is told of the threads that this one starts, as `Arc::into_raw` gives it. No destructor: signal handlers come by.
    static HOOK: Cell<*const ThreadHook> = const { Cell::new(std::ptr::null()) };
    /// The function of the host's that this thread is in, of those that no call may come from.
    static ENCLOSED: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Makes that one who is told of the threads that this one starts; gives who was it before.
pub fn exchange_hook(hook: Option<Arc<ThreadHook>>) -> Option<Arc<ThreadHook>> {
    let before = HOOK.replace(hook.map_or(std::ptr::null(), Arc::into_raw));
    // SAFETY: only `Arc::into_raw`'s pointers are put into HOOK, and each is taken out of it once.
    (!before.is_null()).then(|| unsafe { Arc::from_raw(before) })
}

/// Who is told of the threads that this one starts.
pub fn hook() -> Option<Arc<ThreadHook>> {
    let hook = HOOK.get();
    // SAFETY: HOOK holds a reference to it, which stays there.
    (!hook.is_null()).then(|| unsafe {
        Arc::increment_strong_count(hook);
        Arc::from_raw(hook)
    })
}

/// Runs a function of the host's, of this name, that is called in the middle of things: no call may come from inside of it.
pub fn enclosed<T>(name: &'static str, call: impl FnOnce() -> T) -> T {
    /// What it was.
    struct Back(Option<&'static str>);
    impl Drop for Back {
        fn drop(&mut self) {
            ENCLOSED.set(self.0);
        }
    }
    let _back = Back(ENCLOSED.replace(Some(name)));
    super::outside(call)
}

/// The function of the host's that this thread is in, of those that no call may come from.
pub fn enclosure() -> Option<&'static str> {
    ENCLOSED.get()
}

/// A thread that has been told to `hook`; its end is when this is dropped.
struct Told<'a> {
    hook: &'a ThreadHook,
    event: ThreadEvent<'a>,
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        let event = ThreadEvent { ends: true, ..self.event };
        enclosed("on_thread", || (self.hook.0)(&event));
    }
}

/// Runs the body of a thread, the current one, told to `hook`; `None`: it may not go on, and has done nothing.
pub fn told<T>(
    hook: Option<&ThreadHook>,
    (name, kind, index): (&str, ThreadKind, usize),
    body: impl FnOnce() -> T,
) -> Option<T> {
    let Some(hook) = hook else { return Some(body()) };
    let event = ThreadEvent { name, kind, index, ends: false };
    if !enclosed("on_thread", || (hook.0)(&event)) {
        return None;
    }
    let _told = Told { hook, event };
    Some(body())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_thread_is_told_of_by_itself_and_may_be_refused() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let tell = Arc::clone(&seen);
        let hook = ThreadHook::new(move |event| {
            let enclosure = enclosure();
            tell.lock().unwrap().push((std::thread::current().id(), event.index, event.ends, enclosure));
            event.index != 7
        });
        assert!(exchange_hook(Some(Arc::clone(&hook))).is_none());
        let run = |index| {
            let hook = Arc::clone(&hook);
            let body =
                move || told(Some(&hook), ("kigo-test", ThreadKind::Worker, index), || std::thread::current().id());
            super::super::spawn("kigo-test", 64 << 10, body).unwrap().join().unwrap()
        };
        let (first, refused) = (run(3).unwrap(), run(7));
        let task = super::super::spawn_task("kigo-test", 64 << 10, || std::thread::current().id());
        let task = task.unwrap().join().unwrap().unwrap();
        assert!(exchange_hook(None).is_some() && refused.is_none());
        assert_eq!(super::super::spawn_task("kigo-test", 64 << 10, || 6).unwrap().join().unwrap(), Some(6));
        let mut seen = seen.lock().unwrap().clone();
        let (at, last) = (Some("on_thread"), seen.remove(2));
        assert_eq!(seen, [(first, 3, false, at), (first, 3, true, at), (task, 0, false, at), (task, 0, true, at)]);
        assert_eq!((last.1, last.2), (7, false));
        assert_eq!((enclosure(), Arc::strong_count(&hook)), (None, 1));
    }
}
