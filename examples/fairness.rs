//! What a long prompt does to answers that are under way, and what passes of a prompt cost by their size.
//!
//! ```text
//! fairness -m FILE [--threads N] [--prompt N] [--answers N] [--rounds N] [--merge] [--device NAME]
//! fairness -m FILE --passes
//! ```
//!
//! Each round measures, one after the other: the answers alone, the prompt alone, the prompt beside the answers. A gap is the
//! time from one token of an answer to its next; "usual" is the median of an answer's gaps without the prompt.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kigo::engine::{Engine, EngineOptions, GenerateOptions, LoadOptions, LogSink, Model, Session, SessionOptions};

type Failure = Box<dyn std::error::Error + Send + Sync>;

struct Args {
    file: PathBuf,
    device: String,
    n_threads: usize,
    n_prompt: usize,
    n_answers: usize,
    n_rounds: usize,
    merge: bool,
    passes: bool,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fairness: {error}");
            ExitCode::FAILURE
        }
    }
}

fn args() -> Result<Args, Failure> {
    let mut args = Args {
        file: PathBuf::new(),
        device: "cpu".to_owned(),
        n_threads: 0,
        n_prompt: 1500,
        n_answers: 1,
        n_rounds: 3,
        merge: false,
        passes: false,
    };
    let mut given = std::env::args().skip(1);
    while let Some(arg) = given.next() {
        let mut value = || given.next().ok_or_else(|| format!("{arg} wants a value"));
        match &*arg {
            "-m" => args.file = value()?.into(),
            "--device" => args.device = value()?,
            "--threads" => args.n_threads = value()?.parse()?,
            "--prompt" => args.n_prompt = value()?.parse()?,
            "--answers" => args.n_answers = value()?.parse()?,
            "--rounds" => args.n_rounds = value()?.parse()?,
            "--merge" => args.merge = true,
            "--passes" => args.passes = true,
            _ => return Err(format!("unknown argument {arg}").into()),
        }
    }
    Ok(args)
}

fn run() -> Result<(), Failure> {
    let args = args()?;
    let (device, n_threads) = (&*args.device, args.n_threads);
    let engine = Engine::new(EngineOptions { device, n_threads, memory_cap: None, log: LogSink::silent() })?;
    let options = LoadOptions { merge: args.merge, ..LoadOptions::default() };
    let model = engine.load_file_with(&args.file, options, &mut |_, _| Ok(()))?;
    println!("{} on {}, {} threads", args.file.display(), engine.device_name(), engine.n_threads());
    if args.passes { passes(&model, args.n_rounds) } else { beside(&model, &args) }
}

fn tokens(model: &Model, n: usize) -> Vec<u32> {
    let n_vocab = model.facts().n_vocab;
    (0..n).map(|i| ((i * i * 31 + i * 7 + 3) % n_vocab.min(5000)) as u32).collect()
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The times in milliseconds, ascending.
fn sorted(times: &[Vec<Duration>]) -> Vec<f64> {
    let mut times: Vec<f64> = times.iter().flatten().map(|time| milliseconds(*time)).collect();
    times.sort_unstable_by(f64::total_cmp);
    times
}

/// The one that so large a part of them does not exceed, or nothing of nothing.
fn at(sorted: &[f64], part: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * part).round() as usize).copied().unwrap_or_default()
}

/// The time of calls of so many tokens each, behind a prompt of 256, the sizes in turn.
fn passes(model: &Model, n_rounds: usize) -> Result<(), Failure> {
    const SIZES: [usize; 13] = [1, 2, 4, 8, 9, 12, 16, 17, 24, 32, 64, 128, 256];
    let mut times = SIZES.map(|_| Vec::new());
    for _ in 0..n_rounds {
        for (size, times) in SIZES.iter().zip(&mut times) {
            let session = Session::new(model, SessionOptions::default())?;
            session.prefill(&tokens(model, 256))?;
            for piece in tokens(model, 256.max(4 * size)).chunks_exact(*size).take(32) {
                let begin = Instant::now();
                session.prefill(piece)?;
                times.push(begin.elapsed());
            }
        }
    }
    println!("tokens a pass, ms a pass, ms a token");
    for (size, times) in SIZES.iter().zip(times) {
        let pass = at(&sorted(&[times]), 0.5);
        println!("{size:4} {pass:8.2} {:7.3}", pass / *size as f64);
    }
    Ok(())
}

/// The gaps of answers while `meanwhile` runs, each answer on a thread of its own; what `meanwhile` gives.
fn answering<T>(
    model: &Model,
    n_answers: usize,
    meanwhile: impl FnOnce() -> Result<T, Failure>,
) -> Result<(Vec<Vec<Duration>>, T), Failure> {
    let (ends, counts, n_going) = (AtomicBool::new(false), AtomicBool::new(false), AtomicUsize::new(0));
    let answer = |seed: usize| -> Result<Vec<Duration>, Failure> {
        let session = Session::new(model, SessionOptions::default())?;
        session.prefill(&tokens(model, 32 + seed))?;
        let options = GenerateOptions { ignore_end: true, ..GenerateOptions::default() };
        let (mut gaps, mut last) = (Vec::new(), None);
        session.generate(&options, &mut |_, _| {
            let now = Instant::now();
            match last.replace(now) {
                Some(_) if !counts.load(Ordering::Acquire) => {}
                Some(last) => gaps.push(now - last),
                None => drop(n_going.fetch_add(1, Ordering::Release)),
            }
            !ends.load(Ordering::Acquire)
        })?;
        Ok(gaps)
    };
    std::thread::scope(|scope| {
        let answer = &answer;
        let threads: Vec<_> = (0..n_answers).map(|seed| scope.spawn(move || answer(seed))).collect();
        while n_going.load(Ordering::Acquire) < n_answers && !threads.iter().any(|t| t.is_finished()) {
            std::thread::sleep(Duration::from_millis(1));
        }
        // The usual pace first.
        std::thread::sleep(Duration::from_millis(300));
        counts.store(true, Ordering::Release);
        let made = meanwhile();
        ends.store(true, Ordering::Release);
        let gaps = threads.into_iter().map(|t| t.join().map_err(|_| "a thread has panicked")?);
        Ok((gaps.collect::<Result<_, _>>()?, made?))
    })
}

fn beside(model: &Model, args: &Args) -> Result<(), Failure> {
    let prompt = tokens(model, args.n_prompt);
    let prefill = || -> Result<Duration, Failure> {
        let session = Session::new(model, SessionOptions::default())?;
        let begin = Instant::now();
        session.prefill(&prompt)?;
        Ok(begin.elapsed())
    };
    println!(
        "{} answers beside a prompt of {}, calls {}merged; ms",
        args.n_answers,
        args.n_prompt,
        if args.merge { "" } else { "not " }
    );
    println!(
        "gaps alone: usual, longest; beside: half, 9 of 10, all at most, times the usual; prompt alone, beside, more"
    );
    for _ in 0..args.n_rounds {
        let wait = || {
            std::thread::sleep(Duration::from_secs(1));
            Ok(())
        };
        let (alone, ()) = answering(model, args.n_answers, wait)?;
        let prompt_alone = milliseconds(prefill()?);
        let (gaps, beside) = answering(model, args.n_answers, prefill)?;
        let beside = milliseconds(beside);
        let (alone, gaps) = (sorted(&alone), sorted(&gaps));
        let usual = at(&alone, 0.5);
        println!(
            "{usual:8.2} {:8.2}   {:8.2} {:8.2} {:8.2} {:6.1}   {prompt_alone:8.0} {beside:8.0} {:+5.1}%",
            at(&alone, 1.0),
            at(&gaps, 0.5),
            at(&gaps, 0.9),
            at(&gaps, 1.0),
            at(&gaps, 1.0) / usual,
            (beside / prompt_alone - 1.0) * 100.0,
        );
    }
    Ok(())
}
