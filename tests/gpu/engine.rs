//! Sessions on the GPU: what the engine does above the backend is the same there as on the CPU.
//!
//! Without a device the tests print `skipped: no CUDA device` and pass, unless KIGO_REQUIRE_CUDA=1. KIGO_FEW: less of everything.

use std::sync::Arc;
use std::thread;

use crate::common::gpu::{device, few};
use crate::common::hold::hold;
use crate::common::tiny::{ARCHS, Tiny};
use kigo::backend::Device;
use kigo::backend::cpu::{CpuDevice, CpuOptions};
use kigo::backend::cuda::CudaDevice;
use kigo::engine::{
    Append, By, EmbedOptions, Engine, GenerateOptions, Grammar, LoadOptions, LogSink, Model, Pooling, Session,
    SessionOptions, StopReason, append_batch, sample_batch,
};
use kigo::error::{Error, Status};
use kigo::gguf::TensorType;
use kigo::sampler::SamplingParams;

fn load_on(device: Arc<dyn Device>, cap: Option<u64>, arch: &str, options: LoadOptions) -> Model {
    let mut tiny = Tiny::new(arch, TensorType::F16);
    tiny.shape.n_ctx = 1024;
    let engine = Engine::with_device(device, 1, cap, LogSink::silent());
    engine.load_memory_with(&tiny.bytes(), options, &mut |_, _| Ok(())).unwrap()
}

fn load(arch: &str, options: LoadOptions) -> Model {
    load_on(Arc::new(CudaDevice::new(0).unwrap()), None, arch, options)
}

fn cpu(arch: &str) -> Model {
    load_on(
        Arc::new(CpuDevice::new(CpuOptions { n_threads: 2, isa: None }).unwrap()),
        None,
        arch,
        LoadOptions::default(),
    )
}

fn session(model: &Model, sampling: SamplingParams) -> Session {
    Session::new(model, SessionOptions { sampling, ..SessionOptions::default() }).unwrap()
}

fn prompt(seed: usize, n: usize) -> Vec<u32> {
    (0..n).map(|i| ((seed * 101 + i * i * 31 + i * 7 + 3) % 500) as u32).collect()
}

fn bits(session: &Session) -> Vec<u32> {
    let mut logits = vec![f32::NAN; session.n_vocab()];
    session.logits(&mut logits).unwrap();
    logits.iter().map(|l| l.to_bits()).collect()
}

/// The tokens that come, and their text.
fn generate(session: &Session, n: usize) -> (Vec<u32>, String, StopReason) {
    let (mut tokens, mut text) = (Vec::new(), String::new());
    let options = GenerateOptions { max_tokens: Some(n), ignore_end: true, ..GenerateOptions::default() };
    let generated = session.generate(&options, &mut |token, piece| {
        tokens.extend(token);
        text.push_str(piece);
        true
    });
    (tokens, text, generated.unwrap().reason)
}

/// Greedy, drawn, drawn from a few.
fn sampling(i: usize) -> SamplingParams {
    let seed = i as u64;
    match i % 3 {
        0 => SamplingParams::default(),
        1 => SamplingParams { temperature: 0.9, seed, ..SamplingParams::default() },
        _ => SamplingParams { temperature: 1.2, top_k: 20, top_p: 0.9, seed, ..SamplingParams::default() },
    }
}

#[test]
fn batches_of_prompts_and_steps_are_the_same_alone_and_in_company() {
    let Some(_device) = device() else { return };
    for strict in [false, true] {
        for arch in ARCHS.into_iter().take(if few() { 1 } else { 4 }) {
            let model = load(arch, LoadOptions { strict, ..LoadOptions::default() });
            let n = if few() { 9 } else { 64 };
            let lens: Vec<usize> =
                (0..n).map(|i| [3, 40, 9, 1, if few() { 66 } else { 130 }, 17, 8, 70][i % 8] + i / 8).collect();
            let alone: Vec<(Vec<u32>, Vec<u32>)> = (0..n)
                .map(|i| {
                    let mine = session(&model, sampling(i));
                    mine.prefill(&prompt(i, lens[i])).unwrap();
                    let tokens = (0..3).map(|_| {
                        let token = mine.sample().unwrap();
                        mine.prefill(&[token]).unwrap();
                        token
                    });
                    (tokens.collect(), bits(&mine))
                })
                .collect();
            for size in [3, 8, 2, 5, 17, 64].into_iter().filter(|size| *size <= n).take(if few() { 2 } else { 6 }) {
                let which: Vec<usize> = (0..size).map(|i| (i * 7 + size) % n).collect();
                let sessions: Vec<Session> = which.iter().map(|i| session(&model, sampling(*i))).collect();
                let prompts: Vec<Vec<u32>> = which.iter().map(|i| prompt(*i, lens[*i])).collect();
                let append = |tokens: &[Vec<u32>]| {
                    let entries: Vec<Append<'_>> =
                        sessions.iter().zip(tokens).map(|(session, tokens)| Append { session, tokens }).collect();
                    append_batch(&entries).into_iter().for_each(|o| o.unwrap());
                };
                append(&prompts);
                let mut chosen = vec![Vec::new(); size];
                for _ in 0..3 {
                    let all: Vec<&Session> = sessions.iter().collect();
                    let tokens: Vec<u32> = sample_batch(&all).into_iter().map(|t| t.unwrap()).collect();
                    append(&tokens.iter().map(|t| vec![*t]).collect::<Vec<_>>());
                    chosen.iter_mut().zip(tokens).for_each(|(all, token)| all.push(token));
                }
                for ((i, session), tokens) in which.iter().zip(&sessions).zip(chosen) {
                    assert!(
                        (tokens, bits(session)) == alone[*i],
                        "{arch}, strict {strict}: {i} of {} among {size}",
                        lens[*i]
                    );
                }
            }
        }
    }
}

#[test]
fn threads_generate_what_they_generate_alone_merged_or_not() {
    let Some(_device) = device() else { return };
    let (n, threads) = if few() { (12, 3) } else { (150, 8) };
    for merge in [false, true] {
        let model = load("qwen2", LoadOptions { merge, ..LoadOptions::default() });
        let run = |i: usize| {
            let mine = session(&model, sampling(i));
            mine.prefill(&prompt(i, 5 + 9 * i)).unwrap();
            generate(&mine, n).0
        };
        let alone: Vec<Vec<u32>> = (0..threads).map(run).collect();
        let together: Vec<Vec<u32>> = thread::scope(|scope| {
            let all: Vec<_> = (0..threads).map(|i| scope.spawn(move || run(i))).collect();
            all.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert!(together == alone, "merge {merge}");
        assert!(alone.iter().all(|tokens| tokens.len() == n));
    }
}

#[test]
fn generating_is_sampling_and_stepping() {
    let Some(_device) = device() else { return };
    let model = load("gemma3", LoadOptions::default());
    for i in 0..3 {
        let (one, other) = (session(&model, sampling(i)), session(&model, sampling(i)));
        let (first, n) = if few() { (20, 12) } else { (70, 200) };
        one.prefill(&prompt(i, first)).unwrap();
        other.prefill(&prompt(i, first)).unwrap();
        let stepped: Vec<u32> = (0..n)
            .map(|_| {
                let token = other.sample().unwrap();
                other.prefill(&[token]).unwrap();
                token
            })
            .collect();
        let (tokens, _, reason) = generate(&one, n);
        assert_eq!((tokens, reason), (stepped, StopReason::MaxTokens));
        assert_eq!(bits(&one), bits(&other));
    }
}

#[test]
fn grammars_logprobs_and_embeddings_are_there() {
    let Some(_device) = device() else { return };
    let (model, cpu) = (load("qwen3", LoadOptions::default()), cpu("qwen3"));
    for i in 0..if few() { 2 } else { 9 } {
        let mine = session(&model, sampling(i));
        mine.prefill(&prompt(i, 20)).unwrap();
        hold(&mine, Grammar::Regex("[0-9]{4}-[0-9]{2}")).unwrap();
        let options = GenerateOptions { max_tokens: Some(40), ..GenerateOptions::default() };
        let mut text = String::new();
        let generated = mine.generate(&options, &mut |_, piece| {
            text.push_str(piece);
            true
        });
        assert!(matches!(generated.unwrap().reason, StopReason::EndToken(_)), "{text:?}");
        let digit = |i: usize| text.as_bytes()[i].is_ascii_digit();
        assert!(text.len() == 7 && (0..7).all(|i| digit(i) != (i == 4)), "{text:?}");
    }
    let (mine, other) = (session(&model, sampling(1)), session(&cpu, sampling(1)));
    mine.prefill(&prompt(2, 33)).unwrap();
    other.prefill(&prompt(2, 33)).unwrap();
    let all: Vec<u32> = (0..mine.n_vocab() as u32).collect();
    let found = mine.token_logprobs(&all, 0, By::Before).unwrap();
    let expected = other.token_logprobs(&all, 0, By::Before).unwrap();
    for (a, b) in found.iter().zip(&expected) {
        assert!((a.before - b.before).abs() < 1e-2 && (a.after - b.after).abs() < 1e-2, "{a:?} {b:?}");
    }
    for (pooling, normalize) in [(Pooling::Mean, true), (Pooling::Last, false)] {
        let embed = |model: &Model| {
            let mut out = vec![f32::NAN; model.facts().n_embd];
            model.embed(&prompt(3, 70), EmbedOptions { pooling, normalize }, &mut out).unwrap();
            out
        };
        let (a, b) = (embed(&model), embed(&cpu));
        let error: f32 = a.iter().zip(&b).map(|(a, b)| (a - b).powi(2)).sum();
        let truth: f32 = b.iter().map(|b| b * b).sum();
        assert!(error <= 2f32.powi(-18) * truth && truth > 0.0, "{error} of {truth}");
    }
}

#[test]
fn the_memory_cap_holds_on_the_device() {
    let Some(_device) = device() else { return };
    let free = load("qwen2", LoadOptions::default());
    let planned = free.facts().weights_bytes + if few() { 10 << 20 } else { 12 << 20 };
    drop(free);
    let device = Arc::new(CudaDevice::new(0).unwrap());
    let (cap, n) = if few() { (planned, 70) } else { (planned + (8 << 20), 700) };
    let model = load_on(device.clone(), Some(cap), "qwen2", LoadOptions::default());
    // Prompts through the tensor cores, batches of ever more sessions, until there is no room.
    let mut sessions = Vec::new();
    let error = loop {
        let made = Session::new(&model, SessionOptions::default());
        let mine = match made {
            Ok(mine) => mine,
            Err(error) => break error,
        };
        if let Err(error) = mine.prefill(&prompt(sessions.len(), n)) {
            break error;
        }
        sessions.push(mine);
        if few() && sessions.len() % 16 != 1 {
            continue;
        }
        let steps: Vec<Append<'_>> = sessions.iter().map(|session| Append { session, tokens: &[1] }).collect();
        if let Some(Err(error)) = append_batch(&steps).into_iter().find(|o| o.is_err()) {
            break error;
        }
        assert!(device.allocated() <= cap, "{} of {cap} bytes", device.allocated());
        assert!(sessions.len() < 10_000, "no end");
    };
    assert_eq!(error.status(), Status::OutOfMemory, "{error}");
    let Error::OutOfMemory { place, requested, .. } = &error else { panic!("{error}") };
    assert!(place.as_str() == "memory cap" && *requested > 0, "{error}");
    assert!(device.allocated() <= cap && sessions.len() > 3, "{} sessions", sessions.len());
    // Those that are there go on; freeing one makes room.
    let before = bits(&sessions[1]);
    sessions.truncate(2);
    let again = session(&model, SamplingParams::default());
    again.prefill(&prompt(1, n)).unwrap();
    assert_eq!(bits(&sessions[1]), before);
    drop((again, sessions, model));
    assert_eq!(device.allocated(), 0);
}

/// Behind a call, and in its callbacks, the thread has the context that it had: here none. tests/c/context.c does so with
/// contexts of a host's.
#[test]
#[allow(unsafe_code)]
fn a_call_leaves_the_thread_s_context_as_it_was() {
    use kigo::backend::cuda::current_context;
    use kigo::c_api::{engine::*, generate::*, model::*, prefix::*, session::*};
    use std::ffi::{c_char, c_void};
    use std::ptr::{null, null_mut};

    if device().is_none() {
        return;
    }
    extern "C" fn check(_: u32, _: *const c_char, _: usize, n: *mut c_void) -> i32 {
        assert_eq!(current_context(), 0, "in a callback");
        // SAFETY: the counter below, which lives as long as the call.
        unsafe { *n.cast::<usize>() += 1 };
        0
    }
    let mut tiny = Tiny::new("llama", TensorType::F16);
    tiny.shape.n_ctx = 1024;
    let (bytes, ids) = (tiny.bytes(), prompt(1, 70));
    let body = move || {
        let at = |what: &str, status: i32| assert_eq!((status, current_context()), (0, 0), "{what}");
        let (mut engine, mut model, mut session) = (null_mut(), null_mut(), null_mut());
        let mut fork = null_mut();
        // SAFETY: of these structs all zeros are the defaults.
        let (mut options, mut how, mut generated): (kigo_engine_options, kigo_generate_options, kigo_generated) =
            unsafe { (std::mem::zeroed(), std::mem::zeroed(), std::mem::zeroed()) };
        options.struct_size = size_of_val(&options);
        how.struct_size = size_of_val(&how);
        generated.struct_size = size_of_val(&generated);
        options.device = c"cuda:0".as_ptr();
        options.device_len = 6;
        let mut n_calls = 0_usize;
        how.max_tokens = 12;
        how.on_token = Some(check);
        how.user_data = (&raw mut n_calls).cast();
        let mut token = 0;
        // SAFETY: the header's contract: live handles, buffers of the lengths that are said.
        unsafe {
            at("before", 0);
            at("engine_create", kigo_engine_create(&raw const options, &raw mut engine));
            at("load", kigo_model_load_memory(engine, bytes.as_ptr().cast(), bytes.len(), null(), &raw mut model));
            at("session_create", kigo_session_create(model, null(), &raw mut session));
            at("prefill", kigo_session_prefill(session, ids.as_ptr(), ids.len()));
            at("sample", kigo_session_sample(session, &raw mut token));
            at("step", kigo_session_step(session, token));
            at("fork", kigo_session_fork(session, &raw mut fork));
            at("generate", kigo_session_generate(session, &raw const how, &raw mut generated));
            at("truncate", kigo_session_truncate(session, 8));
            kigo_session_destroy(fork);
            kigo_session_destroy(session);
            kigo_model_destroy(model);
            at("destroy", 0);
            kigo_engine_destroy(engine);
            at("destroy", 0);
        }
        assert!(n_calls > 0);
    };
    // On a thread that nobody has used.
    thread::spawn(body).join().unwrap();
}
