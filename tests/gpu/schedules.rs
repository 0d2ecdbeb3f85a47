//! A thousand random schedules over 32 sessions against sessions that are run one at a time, and longer ones over models whose
//! windows give memory back; and shared prefixes.
//!
//! KIGO_DEVICE="cuda:0" runs them there, in strict mode; KIGO_SCHEDULES says how many instead of a thousand.

use std::collections::HashMap;

use crate::common::random::mix;
use crate::common::tiny::Tiny;
use kigo::engine::{
    Append, Engine, EngineOptions, LoadOptions, LogSink, Model, Session, SessionOptions, append_batch, sample_batch,
};
use kigo::error::Status;
use kigo::gguf::TensorType;
use kigo::sampler::SamplingParams;

/// Seeds of schedules; each is a schedule of `OPS` calls.
fn schedules() -> u64 {
    std::env::var("KIGO_SCHEDULES").map_or(1000, |n| n.parse().expect("KIGO_SCHEDULES is a number"))
}
const OPS: u64 = 30;
const SESSIONS: usize = 32;
const N_CTX: usize = 256;
/// Fewer than the sessions would like, so that the cache is full now and then.
const PAGES: u64 = 24;
/// Those of the pages that stay when their sessions are gone, in every other schedule.
const KEPT: u64 = 5;

fn load(options: LoadOptions) -> Model {
    load_arch("qwen2", options)
}

fn load_arch(arch: &str, options: LoadOptions) -> Model {
    let mut tiny = Tiny::new(arch, TensorType::Q8_0);
    tiny.shape.n_vocab = 320;
    // With strict mode also a GPU's bits do not depend on how a prompt is cut.
    let (device, strict) = match std::env::var("KIGO_DEVICE") {
        Ok(name) => (name, true),
        Err(_) => ("cpu".to_string(), false),
    };
    let options = LoadOptions { strict: strict || options.strict, ..options };
    let engine =
        Engine::new(EngineOptions { device: &device, n_threads: 1, memory_cap: None, log: LogSink::silent() }).unwrap();
    engine.load_memory_with(&tiny.bytes(), options, &mut |_, _| Ok(())).unwrap()
}

fn bits(session: &Session) -> Option<Vec<u32>> {
    let mut logits = vec![0.0_f32; session.n_vocab()];
    session.logits(&mut logits).ok().map(|()| logits.iter().map(|l| l.to_bits()).collect())
}

/// A session, and what it should be.
struct Twin {
    session: Session,
    tokens: Vec<u32>,
    has_logits: bool,
    sampling: SamplingParams,
}

/// Sessions of tokens alone, each made by itself.
struct Oracle {
    model: Model,
    known: HashMap<Vec<u32>, (Vec<u32>, Session)>,
}

impl Oracle {
    fn logits(&mut self, tokens: &[u32]) -> &(Vec<u32>, Session) {
        let model = &self.model;
        self.known.entry(tokens.to_vec()).or_insert_with(|| {
            let session = Session::new(model, SessionOptions::default()).unwrap();
            session.prefill(tokens).unwrap();
            (bits(&session).unwrap(), session)
        })
    }

    fn sample(&mut self, tokens: &[u32], sampling: &SamplingParams) -> u32 {
        let (_, session) = self.logits(tokens);
        session.set_sampling(sampling.clone()).unwrap();
        session.sample().unwrap()
    }
}

struct Run {
    seed: u64,
    counter: u64,
    model: Model,
    twins: Vec<Option<Twin>>,
    blobs: Vec<(Vec<u8>, usize)>,
    /// What each blob holds.
    saved: Vec<(Vec<u32>, bool, SamplingParams)>,
    full: usize,
    reused: usize,
    /// Truncations to where memory had been given back.
    again: usize,
    /// The most bytes that stay of sessions that are gone.
    kept: u64,
}

impl Run {
    fn random(&mut self, below: usize) -> usize {
        self.counter += 1;
        (mix(mix(self.seed) ^ self.counter) % below.max(1) as u64) as usize
    }

    /// Beginnings that sessions have in common, then tokens of their own.
    fn prompt(&mut self) -> Vec<u32> {
        let text = self.random(3) as u32;
        let shared = [0, 5, 64, 70, 128, 130][self.random(6)];
        let most = if self.random(8) == 0 { 70 } else { 10 };
        let own = 1 + self.random(most);
        let head = (0..shared as u32).map(|i| (text * 50 + i * 7) % 300);
        let mut tokens: Vec<u32> = head.collect();
        for _ in 0..own {
            let token = self.random(300) as u32;
            tokens.push(token);
        }
        tokens
    }

    fn some(&mut self) -> Option<usize> {
        let live: Vec<usize> = (0..self.twins.len()).filter(|i| self.twins[*i].is_some()).collect();
        (!live.is_empty()).then(|| live[self.random(live.len())])
    }

    fn empty(&mut self) -> Option<usize> {
        self.twins.iter().position(Option::is_none)
    }

    /// Appends to several in one call; one of them may be cancelled first.
    fn batch(&mut self, n: usize, step: bool) {
        let mut members: Vec<usize> = (0..self.twins.len()).filter(|i| self.twins[*i].is_some()).collect();
        while members.len() > n {
            let out = self.random(members.len());
            members.swap_remove(out);
        }
        let tokens: Vec<Vec<u32>> = members
            .iter()
            .map(|_| if step || self.random(2) == 0 { vec![self.random(300) as u32] } else { self.prompt() })
            .collect();
        let cancelled = if self.random(6) == 0 { members.first().copied() } else { None };
        if let Some(i) = cancelled {
            self.twins[i].as_ref().unwrap().session.cancel();
        }
        let entries: Vec<Append<'_>> = members
            .iter()
            .zip(&tokens)
            .map(|(i, tokens)| Append { session: &self.twins[*i].as_ref().unwrap().session, tokens })
            .collect();
        let outcomes = append_batch(&entries);
        for ((i, tokens), outcome) in members.into_iter().zip(tokens).zip(outcomes) {
            let twin = self.twins[i].as_mut().unwrap();
            let fits = twin.tokens.len() + tokens.len() <= N_CTX;
            match outcome.map_err(|e| e.status()) {
                Ok(()) => {
                    assert!(fits && cancelled != Some(i), "seed {}", self.seed);
                    twin.tokens.extend(tokens);
                    twin.has_logits = true;
                }
                Err(Status::Cancelled) => assert_eq!(cancelled, Some(i), "seed {}", self.seed),
                Err(Status::ContextFull) => {
                    assert!(!fits, "seed {}", self.seed);
                    twin.session.clear_cancel();
                }
                Err(Status::CacheFull) => {
                    self.full += 1;
                    twin.session.clear_cancel();
                }
                Err(status) => panic!("seed {}: {status:?}", self.seed),
            }
        }
    }

    fn create(&mut self) {
        let Some(at) = self.empty() else { return };
        let sampling =
            SamplingParams { temperature: self.random(3) as f32, seed: self.random(1000) as u64, ..Default::default() };
        let reuse_prefix = self.random(2) == 0;
        let prefix_salt = if self.random(4) == 0 { b"salt".to_vec() } else { Vec::new() };
        let options = SessionOptions { n_ctx: Some(N_CTX), sampling: sampling.clone(), reuse_prefix, prefix_salt };
        let session = Session::new(&self.model, options).unwrap();
        self.twins[at] = Some(Twin { session, tokens: Vec::new(), has_logits: false, sampling });
    }

    fn destroy(&mut self, i: usize) {
        let twin = self.twins[i].take().unwrap();
        self.reused += twin.session.facts().unwrap().n_reused;
    }

    fn op(&mut self, oracle: &mut Oracle) {
        match self.random(17) {
            0 | 1 => self.create(),
            2 | 3 => self.batch(1, false),
            4 | 5 => self.batch(5, false),
            6 => self.batch(SESSIONS, true),
            7 => {
                // Choose for all that can, in one call, and check some of the choices.
                let able: Vec<&Twin> = self.twins.iter().flatten().filter(|t| t.has_logits).collect();
                let chosen = sample_batch(&able.iter().map(|t| &t.session).collect::<Vec<_>>());
                for (twin, token) in able.iter().zip(chosen).take(2) {
                    assert_eq!(token.unwrap(), oracle.sample(&twin.tokens, &twin.sampling), "seed {}", self.seed);
                }
            }
            8 | 9 => {
                let (Some(from), Some(to)) = (self.some(), self.empty()) else { return };
                let twin = self.twins[from].as_ref().unwrap();
                let (tokens, sampling) = (twin.tokens.clone(), twin.sampling.clone());
                let fork =
                    Twin { session: twin.session.fork().unwrap(), tokens, has_logits: twin.has_logits, sampling };
                self.twins[to] = Some(fork);
            }
            10 | 11 => {
                let Some(i) = self.some() else { return };
                let n = self.twins[i].as_ref().unwrap().tokens.len();
                let any = self.random(n + 1);
                let keep = [n, n.saturating_sub(1), n / 2, n / 64 * 64, any][self.random(5)];
                let twin = self.twins[i].as_mut().unwrap();
                let is_free = keep == 0 || keep == n || keep >= twin.session.facts().unwrap().n_free_from;
                match twin.session.truncate(keep).map_err(|e| e.status()) {
                    Ok(()) => {
                        twin.tokens.truncate(keep);
                        twin.has_logits &= keep == n;
                    }
                    outcome => {
                        assert_eq!(outcome, Err(Status::CacheFull), "seed {}", self.seed);
                        assert!(!is_free, "seed {}", self.seed);
                    }
                }
                self.again += usize::from(!is_free);
            }
            12 => {
                let Some(i) = self.some() else { return };
                let twin = self.twins[i].as_ref().unwrap();
                let mut blob = vec![0; twin.session.saved_bytes().unwrap()];
                let n = twin.session.save(&mut blob).unwrap();
                self.saved.push((twin.tokens.clone(), twin.has_logits, twin.sampling.clone()));
                self.blobs.push((blob, n));
            }
            13 => {
                let (true, Some(to)) = (!self.blobs.is_empty(), self.empty()) else { return };
                let which = self.random(self.blobs.len());
                let flipped = self.random(self.blobs[which].1);
                let mut bad = self.blobs[which].0.clone();
                bad[flipped] ^= 1;
                assert!(Session::restore(&self.model, &bad).is_err(), "seed {}", self.seed);
                match Session::restore(&self.model, &self.blobs[which].0) {
                    Ok(session) => {
                        let (tokens, has_logits, sampling) = self.saved[which].clone();
                        self.twins[to] = Some(Twin { session, tokens, has_logits, sampling });
                    }
                    Err(error) => {
                        assert_eq!(error.status(), Status::CacheFull, "seed {}", self.seed);
                        self.full += 1;
                    }
                }
            }
            14 => self.advance(),
            _ => {
                let Some(i) = self.some() else { return };
                self.destroy(i);
            }
        }
    }

    /// Goes back to anywhere and on to anything, such as a text that others have.
    fn advance(&mut self) {
        let Some(i) = self.some() else { return };
        let n = self.twins[i].as_ref().unwrap().tokens.len();
        let kept = [0, n, self.random(n + 1)][self.random(3)];
        let more = self.prompt();
        let stops = self.random(6) == 0;
        let twin = self.twins[i].as_mut().unwrap();
        let tokens = [&twin.tokens[..kept], &more].concat();
        match twin.session.advance(&tokens, Some(&mut |_, _| !stops)) {
            Ok(came) => {
                assert_eq!(came.n_kept + came.n_reused + came.n_computed, tokens.len(), "seed {}", self.seed);
                (twin.tokens, twin.has_logits) = (tokens, true);
            }
            Err(error) => match error.status() {
                Status::CacheFull => self.full += 1,
                Status::Cancelled => assert!(stops, "seed {}", self.seed),
                status => assert!(status == Status::ContextFull && tokens.len() > N_CTX, "seed {}: {error}", self.seed),
            },
        }
    }

    fn check(&mut self, oracle: &mut Oracle) {
        for twin in self.twins.iter().flatten() {
            let tokens = twin.session.with_tokens(|t| Ok(t.to_vec())).unwrap();
            assert_eq!(tokens, twin.tokens, "seed {}", self.seed);
            let logits = bits(&twin.session);
            assert_eq!(logits.is_some(), twin.has_logits, "seed {}", self.seed);
            if logits.is_some() {
                let expected = &oracle.logits(&tokens).0;
                assert!(logits.as_ref() == Some(expected), "seed {}: {} tokens", self.seed, tokens.len());
            }
        }
        let facts = self.model.cache_facts();
        assert!(facts.used_bytes <= facts.n_pages_limit.unwrap() * facts.page_bytes, "seed {}", self.seed);
        assert!(facts.retained_bytes <= self.kept, "seed {}", self.seed);
    }
}

/// What so many schedules came to.
struct Came {
    full: usize,
    reused: usize,
    again: usize,
}

fn run_schedules(arch: &str, n_sessions: usize, n_pages: u64, n_ops: u64, n: u64) -> Came {
    let plain = load_arch(arch, LoadOptions::default());
    // With a state behind each page, where there are some.
    let page = plain.cache_facts().page_bytes + plain.facts().state_bytes;
    let models = [0, KEPT].map(|n_kept| {
        let (cache_bytes, prefix_cache_bytes) = (Some(n_pages * page), n_kept * page);
        load_arch(arch, LoadOptions { cache_bytes, prefix_cache_bytes, ..Default::default() })
    });
    let mut came = Came { full: 0, reused: 0, again: 0 };
    for seed in 0..n {
        let model = &models[seed as usize % 2];
        let mut oracle = Oracle { model: plain.clone(), known: HashMap::new() };
        let mut run = Run {
            seed,
            counter: 0,
            model: model.clone(),
            twins: (0..n_sessions).map(|_| None).collect(),
            blobs: Vec::new(),
            saved: Vec::new(),
            full: 0,
            reused: 0,
            again: 0,
            kept: KEPT * page,
        };
        for _ in 0..4 + run.random(n_sessions - 4) {
            run.create();
        }
        for i in 1..=n_ops {
            run.op(&mut oracle);
            if i % OPS == 0 {
                run.check(&mut oracle);
            }
        }
        // In no order.
        while let Some(i) = run.some() {
            run.destroy(i);
        }
        came.full += run.full;
        came.reused += run.reused;
        came.again += run.again;
        let facts = model.cache_facts();
        let (left, retained) = ((facts.n_pages_used, facts.used_bytes), (facts.n_pages_retained, facts.retained_bytes));
        assert_eq!((left, facts.spare_bytes), (retained, facts.retained_bytes), "seed {seed}");
    }
    came
}

#[test]
fn a_thousand_random_schedules_agree_with_sessions_run_one_at_a_time() {
    let Came { full, reused, .. } = run_schedules("qwen2", SESSIONS, PAGES, OPS, schedules());
    let least = schedules() as usize;
    // A few of them may be tame.
    assert!(
        least < 100 || full * 10 > least && reused > least,
        "{full} times full, {reused} tokens reused: the schedules are too tame"
    );
}

#[test]
fn random_schedules_of_windowed_models_agree_with_sessions_run_one_at_a_time() {
    let least = schedules() / 10;
    for (arch, n_pages) in [("gemma3", 10), ("gpt-oss", 12), ("phi3", 8)] {
        let Came { full, reused, again } = run_schedules(arch, 6, n_pages, 10 * OPS, least);
        println!("{arch}: {full} times full, {reused} tokens reused, {again} truncations to what had gone");
        let least = least as usize;
        assert!(full * 10 >= least && reused >= least && again * 5 >= least, "{arch}: the schedules are too tame");
    }
}

/// Layers that share keys and values, two of four with a window; and latents.
#[test]
fn random_schedules_of_models_that_share_or_keep_latents_agree_with_sessions_run_one_at_a_time() {
    let on_gpu = std::env::var("KIGO_DEVICE").is_ok_and(|name| name.starts_with("cuda"));
    let least = schedules() / 40;
    // GPUs do not compute deepseek2.
    for (arch, n_pages) in [("gemma4", 10), ("deepseek2", 16)].into_iter().take(if on_gpu { 1 } else { 2 }) {
        let Came { full, reused, again } = run_schedules(arch, 6, n_pages, 10 * OPS, least);
        println!("{arch}: {full} times full, {reused} tokens reused, {again} truncations to what had gone");
        let least = least as usize;
        assert!(full * 10 >= least && reused >= least, "{arch}: the schedules are too tame");
        assert!(arch != "gemma4" || again * 5 >= least, "{arch}: no window has gone");
    }
}

#[test]
fn random_schedules_of_models_with_states_agree_with_sessions_run_one_at_a_time() {
    let least = schedules() / 25;
    for (arch, n_pages) in [("lfm2", 14), ("qwen35", 14), ("falcon-h1", 14), ("nemotron_h", 14)] {
        let Came { full, reused, again } = run_schedules(arch, 6, n_pages, 10 * OPS, least);
        println!(
            "{arch}: {full} times full, {reused} tokens reused, {again} truncations to where there may be no state"
        );
        let least = least as usize;
        let is_tame = full < least || reused < least || again < least;
        assert!(least < 10 || !is_tame, "{arch}: the schedules are too tame");
    }
}

#[test]
fn a_prompt_that_another_session_holds_is_not_computed_again() {
    let model = load(LoadOptions::default());
    let session = |reuse_prefix| Session::new(&model, SessionOptions { reuse_prefix, ..Default::default() }).unwrap();
    let text = |n: usize| (0..n as u32).map(|i| i * 37 % 300).collect::<Vec<u32>>();
    let used = || model.cache_facts().n_pages_used;
    let reused = |s: &Session| s.facts().unwrap().n_reused;
    let first = session(false);
    first.prefill(&text(200)).unwrap();
    assert_eq!(used(), 4);
    // Whole pages, and never all of it.
    for (n, expected) in [(200, 192), (192, 128), (193, 192), (64, 0), (65, 64), (20, 0)] {
        let (own, other) = (session(true), session(false));
        own.prefill(&text(n)).unwrap();
        other.prefill(&text(n)).unwrap();
        assert_eq!((reused(&own), reused(&other)), (expected, 0), "{n} tokens");
        assert_eq!(bits(&own), bits(&other));
        own.prefill(&[9; 70]).unwrap();
        other.prefill(&[9; 70]).unwrap();
        assert_eq!(bits(&own), bits(&other));
    }
    assert_eq!(used(), 4);
    // A prompt in pieces, another text after the first page, and the holder going away.
    let own = session(true);
    own.prefill(&text(200)[..128]).unwrap();
    own.prefill(&text(200)[128..]).unwrap();
    assert_eq!(reused(&own), 64 + 64);
    let half = session(true);
    half.prefill(&[&text(64)[..], &[1; 100]].concat()).unwrap();
    assert_eq!(reused(&half), 64);
    drop(first);
    let third = session(true);
    third.prefill(&text(130)).unwrap();
    assert_eq!(reused(&third), 128);
    // The pages of one that goes back and on are its own text's, not the old one's.
    third.truncate(100).unwrap();
    third.prefill(&[2; 28]).unwrap();
    drop((own, half));
    let fourth = session(true);
    fourth.prefill(&text(130)).unwrap();
    assert_eq!(reused(&fourth), 64);
    let fifth = session(true);
    fifth.prefill(&[&text(100)[..], &[2; 40]].concat()).unwrap();
    assert_eq!(reused(&fifth), 128);
    // What was restored is nobody else's.
    let mut blob = vec![0; fourth.saved_bytes().unwrap()];
    fourth.save(&mut blob).unwrap();
    drop((third, fourth, fifth));
    assert_eq!(used(), 0);
    let restored = Session::restore(&model, &blob).unwrap();
    restored.prefill(&text(64)).unwrap();
    let sixth = session(true);
    sixth.prefill(&text(130)).unwrap();
    assert_eq!(reused(&sixth), 0);
    drop((restored, sixth));
    assert_eq!(used(), 0);
}

#[test]
fn prompts_of_a_batch_reuse_what_was_there_before_it() {
    let model = load(LoadOptions::default());
    let session = || Session::new(&model, SessionOptions { reuse_prefix: true, ..Default::default() }).unwrap();
    let text = |end: u32| (0..140).map(|i| i * 11 % 300).chain([end]).collect::<Vec<u32>>();
    let first = session();
    first.prefill(&text(0)).unwrap();
    let others: Vec<Session> = (0..4).map(|_| session()).collect();
    let texts: Vec<Vec<u32>> = (1..5).map(text).collect();
    let entries: Vec<_> = others.iter().zip(&texts).map(|(session, tokens)| Append { session, tokens }).collect();
    append_batch(&entries).into_iter().for_each(|o| o.unwrap());
    for (session, tokens) in others.iter().zip(&texts) {
        let alone = Session::new(&model, SessionOptions::default()).unwrap();
        alone.prefill(tokens).unwrap();
        assert_eq!((session.facts().unwrap().n_reused, bits(session)), (128, bits(&alone)));
    }
    assert_eq!(model.cache_facts().n_pages_used, 3 + 4);
}
