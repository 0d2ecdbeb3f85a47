//! A sequence of C calls from bytes: several handles of each kind, up to three threads, NULLs, wrong sizes, callbacks that
//! cancel, stop, re-enter and destroy.
//!
//! What it keeps to is what the header demands and nothing more: pointers point at what they say, a handle is destroyed
//! once, and not while another thread uses it. Every status has to be one that the header lists, none of them INTERNAL or
//! POISONED, every failure leaves its text, and at the end no page of any cache is in use.

use std::ffi::{CStr, c_char, c_void};
use std::ptr::{null, null_mut};
use std::sync::OnceLock;
use std::time::Duration;

use kigo::c_api::{
    batch::*, constraint::*, engine::*, generate::*, model::*, prefix::*, sampling::*, session::*, status::*,
    stream::*, tap::*,
};
use kigo::gguf::TensorType;

use crate::calls_more;
use crate::support::{self, Input};

/// What the header lists, but for a defect of the library.
pub fn check(status: kigo_status) -> bool {
    assert!((0..=17).contains(&status), "status {status}");
    if status != KIGO_STATUS_OK {
        // SAFETY: never NULL, NUL-terminated, this thread's.
        let text = unsafe { CStr::from_ptr(kigo_last_error()) };
        let text = text.to_string_lossy();
        assert!(!text.is_empty(), "status {status} without a text");
        assert!(status != KIGO_STATUS_INTERNAL && status != KIGO_STATUS_POISONED, "{text}");
    }
    status == KIGO_STATUS_OK
}

/// Handles that all cases share.
pub struct Common {
    pub engine: *mut kigo_engine,
    /// One with room, one with six pages of cache whose calls are merged.
    pub models: [*mut kigo_model; 2],
    /// A file, to be loaded, or to be spoiled.
    pub file: Vec<u8>,
}
// SAFETY: engines and models may be used by any number of threads at once.
unsafe impl Send for Common {}
// SAFETY: as above.
unsafe impl Sync for Common {}

pub fn common() -> &'static Common {
    static COMMON: OnceLock<Common> = OnceLock::new();
    COMMON.get_or_init(|| {
        let (mut engine, mut models) = (null_mut(), [null_mut(); 2]);
        let options = kigo_engine_options {
            struct_size: size_of::<kigo_engine_options>(),
            device: c"cpu".as_ptr(),
            device_len: 3,
            log: None,
            log_user_data: null_mut(),
            memory_cap_bytes: 0,
            n_threads: 1,
            log_level: 0,
            // SAFETY: all zero is a value, of which each field is its default.
            ..unsafe { std::mem::zeroed() }
        };
        // SAFETY: all pointers are to what stands here.
        unsafe { assert!(check(kigo_engine_create(&raw const options, &raw mut engine))) };
        for (model, arch, flags) in [(0, "qwen3", 0), (1, "gemma3", KIGO_LOAD_MERGE_CALLS)] {
            let file = support::whole(arch).bytes();
            let load = |cache_bytes, prefix_cache_bytes, out: *mut *mut kigo_model| {
                let struct_size = size_of::<kigo_load_options>();
                let options = kigo_load_options {
                    struct_size,
                    progress: None,
                    progress_user_data: null_mut(),
                    cache_bytes,
                    flags,
                    pass_tokens: 5,
                    prefix_cache_bytes,
                    checkpoint_bytes: 0,
                };
                // SAFETY: all pointers are to what stands here.
                unsafe {
                    assert!(check(kigo_model_load_memory(
                        engine,
                        file.as_ptr().cast(),
                        file.len(),
                        &raw const options,
                        out
                    )));
                }
            };
            load(0, 0, &raw mut models[model]);
            if model == 1 {
                let page = calls_more::page_bytes(models[1]);
                // SAFETY: nobody else has it.
                unsafe { kigo_model_destroy(models[1]) };
                load(6 * page, 3 * page, &raw mut models[1]);
            }
        }
        Common { engine, models, file: support::mini_file("gemma3", TensorType::Q8_0) }
    })
}

/// A session that several threads call at once.
#[derive(Clone, Copy)]
struct Shared(*mut kigo_session);
// SAFETY: a session may be called from any thread; who comes second gets BUSY.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

const OWN: usize = 4;

/// What a thread of a case has.
struct Thread<'a> {
    input: Input<'a>,
    sessions: [*mut kigo_session; OWN],
    shared: [Shared; 2],
    streams: [*mut kigo_stream; 2],
    constraint: *mut kigo_constraint,
    model: *mut kigo_model,
    blob: Vec<u8>,
    /// What callbacks that are set for good look at; freed when no session is left.
    kept: Vec<*mut Callback>,
}

/// What a callback does: one byte each time, the last for ever.
struct Callback {
    script: Vec<u8>,
    at: usize,
    session: *mut kigo_session,
    other: *mut kigo_session,
    /// Only a thread's own session may be destroyed from inside.
    own: bool,
    destroyed: bool,
}

impl Callback {
    fn act(&mut self) -> i32 {
        let step = self.script.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        let mut token = 0;
        // SAFETY: the sessions live; outputs stand here.
        unsafe {
            match step % 16 {
                8 => return 1,
                9 => drop(check(kigo_session_cancel(self.session))),
                10 => drop(check(kigo_session_clear_cancel(self.session))),
                11 => drop(check(kigo_session_step(self.session, 3))),
                12 => drop(check(kigo_session_sample(self.other, &raw mut token))),
                13 => drop(check(kigo_session_step(self.other, 3))),
                14 => {
                    let mut fork = null_mut();
                    if check(kigo_session_fork(self.other, &raw mut fork)) {
                        kigo_session_destroy(fork);
                    }
                }
                15 if self.own && !self.destroyed => {
                    self.destroyed = true;
                    kigo_session_destroy(self.session);
                }
                _ => {}
            }
        }
        0
    }
}

unsafe extern "C" fn on_token(_token: u32, text: *const c_char, len: usize, user_data: *mut c_void) -> i32 {
    // SAFETY: the library's text with a NUL behind it; the call's own `Callback`, which nobody else uses meanwhile.
    unsafe {
        assert_eq!(*text.add(len), 0);
        assert!(std::str::from_utf8(std::slice::from_raw_parts(text.cast(), len)).is_ok());
        user_data.cast::<Callback>().as_mut().map_or(0, Callback::act)
    }
}

unsafe extern "C" fn on_step(event: *const kigo_step_event, user_data: *mut c_void) -> i32 {
    // SAFETY: as in `on_token`, of an event and what it points at.
    unsafe {
        let event = &*event;
        assert_eq!((*event.bytes.add(event.n_bytes), event.n_top < 5), (0, true));
        let likeliest = std::slice::from_raw_parts(event.top, event.n_top);
        assert!(likeliest.iter().all(|p| !p.before.is_nan() && !p.after.is_nan() && p.before <= likeliest[0].before));
        on_token(event.token, event.text, event.text_len, user_data)
    }
}

unsafe extern "C" fn on_progress(done: usize, total: usize, user_data: *mut c_void) -> i32 {
    assert!(done < total);
    // SAFETY: the call's own `Callback`, which nobody else uses meanwhile; NULL where a short struct left it out.
    unsafe { user_data.cast::<Callback>().as_mut().map_or(0, Callback::act) }
}

unsafe extern "C" fn on_tap(event: *const kigo_tap_event, user_data: *mut c_void) -> i32 {
    // SAFETY: the library's event; a `Callback` that is kept, which the session's one call at a time uses.
    unsafe {
        let event = &*event;
        assert_eq!(event.element_type, KIGO_TAP_TYPE_F32);
        let data = std::slice::from_raw_parts(event.data.cast::<f32>(), event.n_rows * event.n_cols);
        std::hint::black_box(data.iter().fold(0, |sum, x| sum ^ x.to_bits()));
        user_data.cast::<Callback>().as_mut().map_or(0, Callback::act)
    }
}

/// Sampling parameters: those that a caller could mean, and others.
pub fn sampling(input: &mut Input<'_>, biases: &mut Vec<kigo_logit_bias>) -> kigo_sampling {
    const FLOATS: [f32; 12] =
        [0.0, 1.0, 0.5, 0.9, 2.0, 0.01, -1.0, 100.0, 1e9, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    let float = |input: &mut Input<'_>| {
        let i = input.u8();
        FLOATS[usize::from(if i < 200 { i % 6 } else { i % 12 })]
    };
    for _ in 0..input.u8() % 4 {
        biases.push(kigo_logit_bias { token: u32::from(input.u16()) % 310, bias: float(input) });
    }
    kigo_sampling {
        struct_size: size_of::<kigo_sampling>(),
        seed: input.number(),
        temperature: float(input),
        top_k: input.number() as u32,
        top_p: float(input),
        min_p: float(input),
        repetition_penalty: float(input),
        frequency_penalty: float(input),
        presence_penalty: float(input),
        penalty_window: input.number() as u32,
        logit_bias: if biases.is_empty() { null() } else { biases.as_ptr() },
        n_logit_bias: biases.len(),
    }
}

/// A struct in a larger place, with the size that its caller says it has: mostly the right one.
pub struct Sized(Box<[u64; 520]>);

impl Sized {
    pub fn of<T: Copy>(value: T, input: &mut Input<'_>) -> Sized {
        let mut place = Box::new([0_u64; 520]);
        // SAFETY: a T fits (checked), and any bytes are u64s.
        unsafe {
            assert!(size_of::<T>() <= 512 && align_of::<T>() <= 8);
            place.as_mut_ptr().cast::<T>().write(value);
        }
        let real = size_of::<T>() as u64;
        place[0] = match input.u8() {
            240 => 0,
            241 => real - 8,
            242 => real + 8,
            243 => 4096,
            244 => real - 1,
            245 => u64::MAX,
            246 => 8,
            247 => 4104,
            248 => {
                // A field that this library does not know.
                place[real as usize / 8] = 1;
                real + 8
            }
            _ => real,
        };
        Sized(place)
    }
    pub fn get<T>(&mut self) -> *mut T {
        self.0.as_mut_ptr().cast()
    }
}

/// A buffer of a capacity that is too small, right, or only asks.
pub fn capacity(input: &mut Input<'_>, right: usize) -> usize {
    match input.u8() {
        0..=39 => 0,
        40..=59 => right / 2,
        60..=79 => right + 7,
        _ => right,
    }
}

impl Thread<'_> {
    fn model(&mut self) -> *mut kigo_model {
        match self.input.u8() {
            255 => null_mut(),
            250..=254 if !self.model.is_null() => self.model,
            n => common().models[usize::from(n % 2)],
        }
    }

    /// A session and, if it is the thread's own, its place.
    fn pick(&mut self) -> (*mut kigo_session, Option<usize>) {
        match self.input.u8() {
            255 => (null_mut(), None),
            n if n % 3 == 2 => (self.shared[usize::from(n / 3 % 2)].0, None),
            n => {
                let at = usize::from(n / 3) % OWN;
                (self.sessions[at], Some(at))
            }
        }
    }

    fn session(&mut self) -> *mut kigo_session {
        self.pick().0
    }

    fn free_place(&mut self) -> usize {
        let at = self.input.below(OWN);
        // SAFETY: the thread's own, in no call.
        unsafe { kigo_session_destroy(self.sessions[at]) };
        self.sessions[at] = null_mut();
        at
    }

    fn tokens(&mut self) -> Vec<u32> {
        let n = self.input.u8();
        let n = if n > 250 { 300 } else { usize::from(n % 24) };
        let (first, odd) = (u32::from(self.input.u8()), self.input.u8());
        (0..n as u32).map(|i| if odd == 255 && i == 3 { u32::MAX } else { (first * 7 + i * i) % 300 }).collect()
    }

    fn script(&mut self) -> Vec<u8> {
        let n = self.input.below(8);
        self.input.bytes(n).to_vec()
    }

    fn callback(&mut self, session: *mut kigo_session, own: bool) -> Callback {
        let script = self.script();
        Callback { script, at: 0, session, other: self.session(), own, destroyed: false }
    }

    /// One call, or a few that belong together; one in ten with an allocation that fails.
    fn step(&mut self) {
        let op = self.input.u8();
        if op < 234 {
            return self.call(op);
        }
        let (n, least) = (usize::from(op - 234) * 2 + self.input.below(3), [1, 64, 1024, 16_384][self.input.below(4)]);
        let op = self.input.u8();
        kigo::alloc::watch::failing(n, least, || self.call(op));
    }

    fn call(&mut self, op: u8) {
        // SAFETY: see the file's head; every pointer is to something that stands here or in `self`.
        unsafe {
            match op % 26 {
                0 | 1 => self.create(),
                2 => drop(self.free_place()),
                3 | 4 => {
                    let (session, ids) = (self.session(), self.tokens());
                    check(kigo_session_prefill(session, ids.as_ptr(), ids.len()));
                }
                5 => {
                    let token = self.input.u16();
                    check(kigo_session_step(self.session(), u32::from(token) % 301));
                }
                6 => {
                    let mut token = 7;
                    if !check(kigo_session_sample(self.session(), &raw mut token)) {
                        assert_eq!(token, 0, "an output is nulled");
                    }
                }
                7 | 8 => self.generate(),
                9 => {
                    let (from, at) = (self.session(), self.free_place());
                    let from = if self.sessions.contains(&from) || self.shared.iter().any(|s| s.0 == from) {
                        from
                    } else {
                        null_mut()
                    };
                    check(kigo_session_fork(from, &raw mut self.sessions[at]));
                }
                10 => {
                    let n = self.input.number() as usize;
                    // More than any of them holds.
                    if n % 400 >= 300 {
                        return self.advance(n / 400);
                    }
                    check(kigo_session_truncate(self.session(), n % 400));
                }
                11 => self.save(),
                12 => self.restore(),
                13 => {
                    let mut biases = Vec::new();
                    let value = sampling(&mut self.input, &mut biases);
                    let mut value = Sized::of(value, &mut self.input);
                    check(kigo_session_set_sampling(self.session(), value.get()));
                }
                14 => {
                    let (session, model) = (self.session(), self.model());
                    calls_more::constrain(model, session, &mut self.constraint, &mut self.input);
                }
                15 => self.tap(),
                16 => {
                    let session = self.session();
                    calls_more::floats(session, &mut self.input);
                }
                17 => {
                    let session = self.session();
                    calls_more::logprobs(session, &mut self.input);
                }
                18 => {
                    let session = self.session();
                    if self.input.u8() & 1 == 0 {
                        check(kigo_session_cancel(session));
                    } else {
                        check(kigo_session_clear_cancel(session));
                    }
                }
                19 | 20 => self.batch(),
                21 => {
                    let model = self.model();
                    calls_more::text(model, &mut self.input);
                }
                22 => {
                    let model = self.model();
                    calls_more::facts(model, &mut self.input);
                }
                23 => {
                    let model = self.model();
                    let at = self.input.below(2);
                    calls_more::stream(model, &mut self.streams[at], &mut self.input);
                }
                24 => calls_more::load(&mut self.model, &mut self.input),
                _ => calls_more::engine(&mut self.input),
            }
        }
    }

    unsafe fn create(&mut self) {
        let (model, at) = (self.model(), self.free_place());
        let mut biases = Vec::new();
        let sampling = sampling(&mut self.input, &mut biases);
        let n_ctx = self.input.number() as usize;
        let flags = match self.input.u8() {
            n @ 0..=199 => u64::from(n % 2),
            n => u64::from(n),
        };
        let options = kigo_session_options {
            struct_size: 0,
            n_ctx: if n_ctx < 100 { 0 } else { n_ctx },
            sampling: if self.input.u8() & 1 == 0 { null() } else { &raw const sampling },
            flags,
            prefix_salt: c"salt".as_ptr().cast(),
            prefix_salt_len: n_ctx % 3,
        };
        let mut options = Sized::of(options, &mut self.input);
        // SAFETY: as in `step`.
        unsafe {
            let options = if self.input.u8() & 3 == 0 { null_mut() } else { options.get() };
            if !check(kigo_session_create(model, options, &raw mut self.sessions[at])) {
                assert!(self.sessions[at].is_null(), "an output is nulled");
            }
        }
    }

    unsafe fn generate(&mut self) {
        let (session, own) = self.pick();
        let mut callback = self.callback(session, own.is_some() && !session.is_null());
        let texts = ["a", "ab", "\u{e9}", "", "\n\n"];
        let n_stop = self.input.below(3);
        let stop: Vec<kigo_string> = (0..n_stop)
            .map(|_| texts[self.input.below(5)])
            .map(|t| kigo_string { data: t.as_ptr().cast(), len: t.len() })
            .collect();
        let max_tokens = 1 + self.input.below(40);
        let options = kigo_generate_options {
            struct_size: 0,
            max_tokens,
            stop: if stop.is_empty() { null() } else { stop.as_ptr() },
            n_stop,
            on_token: if self.input.u8() & 3 == 0 { None } else { Some(on_token) },
            user_data: (&raw mut callback).cast(),
            flags: u64::from(self.input.u8() % 8),
            // No byte of the input's: the cases that were kept are what they were.
            on_step: if max_tokens.is_multiple_of(3) { Some(on_step) } else { None },
            n_top: if max_tokens == 39 { 1000 } else { max_tokens % 5 },
        };
        let mut options = Sized::of(options, &mut self.input);
        // SAFETY: numbers alone, of which any bytes are some.
        let generated: kigo_generated = unsafe { std::mem::transmute([9_u8; size_of::<kigo_generated>()]) };
        let mut generated = Sized::of(generated, &mut self.input);
        // SAFETY: as in `step`; the callback is the call's own.
        unsafe { check(kigo_session_generate(session, options.get(), generated.get())) };
        if let (true, Some(at)) = (callback.destroyed, own) {
            self.sessions[at] = null_mut();
        }
    }

    unsafe fn advance(&mut self, n: usize) {
        let (session, own) = self.pick();
        let mut callback = self.callback(session, own.is_some() && !session.is_null());
        let ids: Vec<u32> = (0..n as u32 % 270).map(|i| i % (1 + n as u32 % 7)).collect();
        let options = kigo_advance_options {
            struct_size: 0,
            progress: if n & 1 == 0 { None } else { Some(on_progress) },
            user_data: (&raw mut callback).cast(),
        };
        let mut options = Sized::of(options, &mut self.input);
        let advanced = kigo_advanced { struct_size: 0, n_kept: 9, n_reused: 9, n_computed: 9 };
        let mut advanced = Sized::of(advanced, &mut self.input);
        // SAFETY: as in `step`; the callback is the call's own.
        unsafe { check(kigo_session_advance(session, ids.as_ptr(), ids.len(), options.get(), advanced.get())) };
        if let (true, Some(at)) = (callback.destroyed, own) {
            self.sessions[at] = null_mut();
        }
    }

    unsafe fn save(&mut self) {
        let session = self.session();
        let mut needed = 9;
        // SAFETY: as in `step`.
        unsafe {
            if !check(kigo_session_save(session, null_mut(), 0, &raw mut needed)) {
                return;
            }
            let mut blob = vec![0_u8; capacity(&mut self.input, needed)];
            if check(kigo_session_save(session, blob.as_mut_ptr().cast(), blob.len(), &raw mut needed)) {
                self.blob = blob;
            }
        }
    }

    unsafe fn restore(&mut self) {
        let (model, at) = (self.model(), self.free_place());
        let mut blob = self.blob.clone();
        if self.input.u8() & 7 == 0 && !blob.is_empty() {
            let place = usize::from(self.input.u16()) % blob.len();
            blob[place] ^= self.input.u8();
        }
        let n = if self.input.u8() == 255 { blob.len() / 2 } else { blob.len() };
        // SAFETY: as in `step`.
        unsafe { check(kigo_session_restore(model, blob.as_ptr().cast(), n, &raw mut self.sessions[at])) };
    }

    unsafe fn tap(&mut self) {
        let (session, own) = self.pick();
        let taps: Vec<u32> = (0..self.input.below(4)).map(|_| u32::from(self.input.u8()) % 15).collect();
        // A shared session may be tapped by another thread while a call runs: its callback does nothing but stop.
        let mut callback = self.callback(session, false);
        if own.is_none() {
            callback.script.clear();
        }
        let kept = Box::into_raw(Box::new(callback));
        self.kept.push(kept);
        let options = kigo_tap_options {
            struct_size: 0,
            taps: if taps.is_empty() { null() } else { taps.as_ptr() },
            n_taps: taps.len(),
            callback: if self.input.u8() & 3 == 0 { None } else { Some(on_tap) },
            user_data: kept.cast(),
        };
        let mut options = Sized::of(options, &mut self.input);
        // SAFETY: as in `step`; the callback is kept until no session is left.
        unsafe {
            let options = if self.input.u8() & 7 == 0 { null_mut() } else { options.get() };
            check(kigo_session_set_tap(session, options));
        }
    }

    unsafe fn batch(&mut self) {
        let n = self.input.below(6);
        let sessions: Vec<*mut kigo_session> = (0..n).map(|_| self.session()).collect();
        let tokens: Vec<Vec<u32>> = (0..n).map(|_| self.tokens()).collect();
        let ids: Vec<*const u32> = tokens.iter().map(|t| if t.len() == 5 { null() } else { t.as_ptr() }).collect();
        let n_ids: Vec<usize> = tokens.iter().map(Vec::len).collect();
        let mut statuses = vec![-1; n];
        let mut chosen = vec![0; n];
        let first: Vec<u32> = tokens.iter().map(|t| t.first().copied().unwrap_or(2)).collect();
        let handles = if self.input.u8() == 255 { null() } else { sessions.as_ptr() };
        // SAFETY: as in `step`; the arrays have n entries each.
        unsafe {
            let status = match self.input.u8() % 3 {
                0 => kigo_prefill_batch(handles, ids.as_ptr(), n_ids.as_ptr(), n, statuses.as_mut_ptr()),
                1 => kigo_step_batch(handles, first.as_ptr(), n, statuses.as_mut_ptr()),
                _ => kigo_sample_batch(handles, n, chosen.as_mut_ptr(), statuses.as_mut_ptr()),
            };
            check(status);
        }
        for status in statuses {
            assert!((0..=13).contains(&status) || (16..=17).contains(&status), "an entry's status {status}");
        }
    }

    fn run(&mut self) {
        let mut n = 0;
        while !self.input.is_empty() && n < 64 {
            self.step();
            n += 1;
        }
        for at in 0..OWN {
            // SAFETY: the thread's own, in no call.
            unsafe { kigo_session_destroy(self.sessions[at]) };
        }
        // SAFETY: as above.
        unsafe {
            self.streams.iter().for_each(|s| kigo_stream_destroy(*s));
            kigo_constraint_destroy(self.constraint);
            kigo_model_destroy(self.model);
        }
    }
}

/// One case: how many threads, and each one's calls.
pub fn run(data: &[u8]) {
    support::timed(Duration::from_secs(20), || program(data));
}

fn program(data: &[u8]) {
    let mut input = Input(data);
    let n_threads = [1, 1, 1, 1, 2, 2, 2, 3][input.below(8)];
    let mut shared = [Shared(null_mut()); 2];
    for (i, shared) in shared.iter_mut().enumerate() {
        // SAFETY: the model lives for ever; the output stands here.
        unsafe { assert!(check(kigo_session_create(common().models[i], null(), &raw mut shared.0))) };
    }
    let part = input.0.len().div_ceil(n_threads).max(1);
    let run = |bytes: &[u8]| {
        let mut thread = Thread {
            input: Input(bytes),
            sessions: [null_mut(); OWN],
            shared,
            streams: [null_mut(); 2],
            constraint: null_mut(),
            model: null_mut(),
            blob: Vec::new(),
            kept: Vec::new(),
        };
        thread.run();
        thread.kept.into_iter().map(|kept| kept as usize).collect::<Vec<_>>()
    };
    let mut parts = input.0.chunks(part);
    let first = parts.next().unwrap_or_default();
    let kept: Vec<usize> = std::thread::scope(|scope| {
        let others: Vec<_> = parts.map(|bytes| scope.spawn(move || run(bytes))).collect();
        let mut kept = run(first);
        others.into_iter().for_each(|t| kept.extend(t.join().expect("a thread of calls")));
        kept
    });
    // SAFETY: no thread is left that could use them.
    unsafe { shared.iter().for_each(|s| kigo_session_destroy(s.0)) };
    for callback in kept {
        // SAFETY: made by `Box::into_raw` in `tap`; the sessions that knew it are gone.
        drop(unsafe { Box::from_raw(callback as *mut Callback) });
    }
    for model in common().models {
        let facts = calls_more::cache(model);
        assert_eq!(facts.n_pages_used, facts.n_pages_retained, "pages are left in use");
        assert_eq!((facts.used_bytes, facts.spare_bytes), (facts.retained_bytes, facts.retained_bytes));
    }
}
