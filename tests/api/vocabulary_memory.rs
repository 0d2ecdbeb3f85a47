//! A model whose first constraint finds no memory makes its next one: what failed is not kept.

use crate::common::tiny::Tiny;
use kigo::alloc::watch;
use kigo::engine::{Constraint, Engine, EngineOptions, Grammar, LogSink, Model};
use kigo::error::Error;
use kigo::gguf::TensorType;

fn load() -> Model {
    let options = EngineOptions { device: "cpu", n_threads: 1, memory_cap: None, log: LogSink::silent() };
    let bytes = Tiny::new("qwen2", TensorType::Q8_0).bytes();
    Engine::new(options).unwrap().load_memory(&bytes, &mut |_, _| Ok(())).unwrap()
}

/// Runs the test of this name alone in a process, since the allocations that fail are the process's; whether this is it.
fn is_alone(name: &str) -> bool {
    if std::env::var_os("KIGO_ALONE").is_some() {
        return true;
    }
    let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
    let out = alone.env("KIGO_ALONE", "1").args(["--exact", name, "--nocapture"]).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&out.stderr));
    false
}

#[test]
fn a_vocabulary_that_found_no_memory_is_made_the_next_time() {
    if !is_alone("vocabulary_memory::a_vocabulary_that_found_no_memory_is_made_the_next_time") {
        return;
    }
    let grammar = Grammar::Regex("[a-z]+");
    let (mut n_failed, mut n) = (0, 0);
    loop {
        let model = load();
        // Small allocations come by the thousand and are the dependency's own.
        let (first, there_was_one) = watch::failing(n, 512, || Constraint::compile(&model, grammar));
        match first {
            Ok(_) => {}
            Err(Error::OutOfMemory { .. }) => {
                n_failed += 1;
                let again = Constraint::compile(&model, grammar);
                assert!(again.is_ok(), "after allocation {n} had failed: {:?}", again.err());
            }
            Err(other) => panic!("allocation {n}: {other}"),
        }
        if !there_was_one {
            break;
        }
        n += 1;
    }
    assert!(n_failed >= 3 && n > n_failed, "{n_failed} of {n}");
}

#[test]
fn constraints_of_one_model_share_its_vocabulary_and_no_other_model_s() {
    let (model, other) = (load(), load());
    let made: Vec<Constraint> = std::thread::scope(|scope| {
        let make = || Constraint::compile(&model, Grammar::Regex("[0-9]+")).unwrap();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(make)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for constraint in &made {
        let own = kigo::engine::Session::new(&model, Default::default()).unwrap();
        own.set_constraint(Some(constraint)).unwrap();
        let foreign = kigo::engine::Session::new(&other, Default::default()).unwrap();
        let refused = foreign.set_constraint(Some(constraint)).unwrap_err();
        assert!(matches!(refused, Error::Argument { name: "constraint", .. }), "{refused}");
    }
}
