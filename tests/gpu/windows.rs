//! Layers with a window on the GPU, in strict mode and outside of it: see `common::windows`; and what of it is the device's own.
//!
//! Without a device the tests print `skipped: no CUDA device` and pass, unless KIGO_REQUIRE_CUDA=1. KIGO_FEW: less of everything.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::common::gpu::{NoControl, device, few, tokens};
use crate::common::run::chunk;
use crate::common::tiny::Tiny;
use crate::common::windows::{self, On, prompt, session, tiny};
use kigo::backend::cuda::{CudaDevice, CudaModel};
use kigo::backend::{Chunk, LoadOptions, LoadedModel, RunControl, Slot};
use kigo::engine::Session;
use kigo::error::Status;
use kigo::gguf::{Gguf, TensorType};
use kigo::model::{MAX_CLASSES, bind};

fn on(strict: bool) -> On {
    On { device: Arc::new(CudaDevice::new(0).unwrap()), strict, element: 2, pass: 2048, few: few() }
}

/// Those of all devices; KIGO_FEW leaves the second list out.
macro_rules! shared {
    ($($test:ident),* ; $($long:ident),* $(,)?) => {
        $(
            #[test]
            fn $test() {
                if let Some(_turn) = device() {
                    if !few() {
                        windows::$test(&on(true));
                    }
                    windows::$test(&on(false));
                }
            }
        )*
        $(
            #[test]
            fn $long() {
                if let (Some(_turn), false) = (device(), few()) {
                    windows::$long(&on(true));
                    windows::$long(&on(false));
                }
            }
        )*
    };
}

shared!(
    truncating_behind_the_window_gives_the_bits_of_a_new_session,
    what_steps_and_prompts_have_made_is_computed_again_as_it_was,
    a_plan_says_what_windows_save;
    memory_goes_back_when_it_is_needed_and_no_earlier,
    forks_of_which_one_computes_again_share_what_they_had,
    without_memory_to_compute_again_nothing_changes,
    a_prefix_is_shared_as_far_as_the_windows_in_front_are_there,
    a_session_without_its_old_parts_is_saved_and_restored,
    a_prompt_needs_all_of_it_only_in_layers_without_a_window,
    a_truncation_that_computes_again_leaves_nothing_to_the_next_prompt,
    a_long_prompt_behind_a_shared_prefix_takes_what_is_left,
    threads_of_two_models_take_from_one_another_and_change_nothing,
);

/// Outside strict mode a first prompt takes its working memory beside the pages that are counted here to the byte.
#[test]
fn one_model_s_spare_memory_is_another_s_under_the_engine_s_cap() {
    if let (Some(_turn), false) = (device(), few()) {
        windows::one_model_s_spare_memory_is_another_s_under_the_engine_s_cap(&on(true));
    }
}

/// Under a cap, which what the device lends never exceeds, a long session leaves room for more pages than there would be whole, and
/// has the bits that it has without a cap.
#[test]
fn under_a_cap_what_windows_give_back_is_others() {
    let Some(_turn) = device() else { return };
    for arch in &["gemma3", "gpt-oss", "phi3"][..if few() { 1 } else { 3 }] {
        let file = tiny(arch, 512).bytes();
        let device = Arc::new(CudaDevice::new(0).unwrap());
        let on = On { device: device.clone(), ..on(true) };
        let plain_engine = on.engine(None);
        let plain = plain_engine.load_memory_with(&file, on.options(), &mut |_, _| Ok(())).unwrap();
        let page = plain.cache_facts().page_bytes;
        let expected = windows::bits(&session(&plain, &[prompt(400), vec![5]].concat()));
        let taken = plain_engine.memory_used();
        drop((plain, plain_engine));
        assert_eq!(device.allocated(), 0, "{arch}");

        // A load takes more at times than it takes at last: so many pages.
        let (engine, model, n_more) = on.load_under(&file, taken, page, 8);
        let cap = engine.memory_cap().unwrap();
        let mut others: Vec<Session> = (0..n_more).map(|_| session(&model, &prompt(3))).collect();
        let a = session(&model, &prompt(400));
        while let Ok(other) = windows::try_session(&model, &prompt(3)) {
            others.push(other);
            assert!(device.allocated() <= cap, "{arch}: {} of {cap} bytes", device.allocated());
        }
        let facts = model.cache_facts();
        assert_eq!(facts.n_pages_used, 7 + others.len() as u64, "{arch}");
        assert!(facts.n_pages_used > 8 + n_more && facts.used_bytes <= (8 + n_more) * page, "{arch}: {facts:?}");
        a.prefill(&[5]).unwrap();
        assert_eq!(windows::bits(&a), expected, "{arch}");
        // And back to where its windows have gone, once there is memory.
        drop(others);
        a.truncate(70).unwrap();
        a.prefill(&prompt(400)[70..]).unwrap();
        a.prefill(&[5]).unwrap();
        assert_eq!(windows::bits(&a), expected, "{arch}");
        drop((a, model, engine));
        assert_eq!(device.allocated(), 0, "{arch}");
    }
}

#[test]
fn whatever_allocation_fails_a_prompt_changes_nothing() {
    let Some(_turn) = device() else { return };
    let device = Arc::new(CudaDevice::new(0).unwrap());
    let on = On { device: device.clone(), ..on(true) };
    let load = || on.load("gemma3", 512, None);
    let text = prompt(150);
    let expected = windows::bits(&session(&load(), &text));
    for n in 0.. {
        let model = load();
        let a = session(&model, &text[..60]);
        device.fail_allocation_in(n);
        let outcome = a.prefill(&text[60..]);
        device.fail_allocation_in(-1);
        if let Err(error) = &outcome {
            assert_eq!(error.status(), Status::OutOfMemory, "allocation {n}");
            assert_eq!((a.facts().unwrap().n_tokens, model.cache_facts().n_pages_used), (60, 1), "allocation {n}");
            a.prefill(&text[60..]).unwrap();
        }
        assert_eq!(windows::bits(&a), expected, "allocation {n}");
        drop((a, model));
        assert_eq!(device.allocated(), 0, "allocation {n}");
        if outcome.is_ok() {
            // The second class's is asked for once more, when what the first has got for nothing has gone back.
            assert!(n >= 1);
            break;
        }
    }
}

/// A blob of strict mode is of other bits and does not say what steps have computed, so that another does not take it; without windows
/// it does.
#[test]
fn a_session_of_strict_mode_is_saved_for_strict_mode() {
    let Some(_turn) = device() else { return };
    for arch in ["gemma3", "phi3", "qwen2"] {
        let mut file = Tiny::new(arch, TensorType::Q8_0);
        file.shape.n_ctx = 256;
        let device = Arc::new(CudaDevice::new(0).unwrap());
        let models = [true, false].map(|strict| {
            let on = On { device: device.clone(), ..on(strict) };
            on.engine(None).load_memory_with(&file.bytes(), on.options(), &mut |_, _| Ok(())).unwrap()
        });
        let blobs = models.each_ref().map(|model| {
            let session = session(model, &prompt(150));
            let mut blob = vec![0; session.saved_bytes().unwrap()];
            session.save(&mut blob).unwrap();
            blob
        });
        for (i, blob) in blobs.iter().enumerate() {
            Session::restore(&models[i], blob).unwrap();
            match Session::restore(&models[1 - i], blob) {
                Ok(_) => assert_eq!(arch, "qwen2"),
                Err(error) => assert!(arch != "qwen2" && error.status() == Status::InvalidArgument, "{arch}: {error}"),
            }
        }
    }
}

fn loaded(device: &CudaDevice, file: &[u8], strict: bool) -> Arc<CudaModel> {
    let gguf = Gguf::from_bytes(file).unwrap();
    let (config, weights) = bind(&gguf).unwrap();
    let options = LoadOptions { strict, ..LoadOptions::default() };
    device.load_model(&config, &weights, &options, &mut NoControl).unwrap()
}

/// The bytes of the parts themselves: what a page has of layers with a window goes back to the device.
#[test]
fn a_part_that_goes_is_memory_of_the_device() {
    let Some(_turn) = device() else { return };
    for arch in &["gemma3", "gpt-oss", "phi3"][..if few() { 1 } else { 3 }] {
        let device = CudaDevice::new(0).unwrap();
        let model = loaded(&device, &tiny(arch, 512).bytes(), true);
        let classes = model.cache_classes().unwrap();
        let class = (0..classes.n()).find(|class| classes.window(*class).is_some()).unwrap();
        let part = model.page_image().unwrap().parts[class] as u64;
        let mut n = [0; MAX_CLASSES];
        for i in 1..=7 {
            n[..classes.n()].fill(i);
            model.reserve_pages(i).unwrap();
            model.reserve_parts(&n).unwrap();
        }
        let run = |slot: &mut dyn Slot, pages: &[u32], ids: &[u32], start: usize| {
            let mut chunks = [chunk(&*model, slot, ids, start, pages)];
            let cancel = AtomicBool::new(false);
            model.forward(&mut chunks, &mut RunControl { cancel: &cancel, tap: None }).unwrap();
        };
        let ids = tokens(402, 500);
        let mut slot = model.create_slot().unwrap();
        run(&mut *slot, &[0, 1, 2, 3, 4, 5, 6], &ids[..400], 0);
        let logits = |slot: &mut dyn Slot| {
            let mut logits = vec![0.0; model.config().n_vocab];
            model.logits(slot, &mut logits).unwrap();
            logits.iter().map(|l: &f32| l.to_bits()).collect::<Vec<_>>()
        };
        run(&mut *slot, &[0, 1, 2, 3, 4, 5, 6], &ids[400..401], 400);
        let expected = logits(&mut *slot);
        // The next token sees a window that is on the last page alone, or on the last two.
        let kept = classes.first(class, 400) / 64;
        assert!((5..=6).contains(&kept), "{arch}");
        let before = device.allocated();
        assert!(!model.trim_parts(&n), "{arch}: all have a place");
        (0..kept as u32).for_each(|page| model.drop_part(page, class));
        assert_eq!(device.allocated(), before, "{arch}: not before it is needed");
        n[class] = 7 - kept;
        assert!(model.trim_parts(&n) && !model.trim_parts(&n), "{arch}");
        let gone = before - device.allocated();
        println!("{arch}: {gone} bytes, of {} a page", model.page_image().unwrap().bytes);
        // Places are made one by one, the fifth and the sixth together: where the sixth stays, both do.
        assert_eq!(gone, (7 - (7 - kept) as u64 - u64::from(kept == 5)) * part, "{arch}");
        run(&mut *slot, &[0, 1, 2, 3, 4, 5, 6], &ids[400..401], 400);
        assert_eq!(logits(&mut *slot), expected, "{arch}");
        // What has gone is there again when it is next written.
        run(&mut *slot, &[0, 1, 2, 3, 4, 5, 6], &ids[..400], 0);
        run(&mut *slot, &[0, 1, 2, 3, 4, 5, 6], &ids[400..401], 400);
        assert_eq!(logits(&mut *slot), expected, "{arch}");
    }
}

/// Prompts through tensor cores, of one sequence and of two in a pass, and steps of both, over pages whose front parts have gone: the bits
/// of a model whose pages are whole.
#[test]
fn prompts_on_tensor_cores_find_the_parts_of_their_class() {
    let Some(device) = device() else { return };
    for arch in ["gemma3", "gpt-oss"] {
        let file = tiny(arch, 512).bytes();
        let model = loaded(&device, &file, false);
        let classes = model.cache_classes().unwrap();
        assert_eq!(classes.n(), 2, "{arch}");
        let ids = tokens(400, 500);
        let run = |drops: bool| {
            let mut bits = Vec::new();
            model.reserve_pages(10).unwrap();
            let mut slots: Vec<Box<dyn Slot>> = (0..2).map(|_| model.create_slot().unwrap()).collect();
            let pages = [[4, 3, 2, 1, 0], [5, 7, 9, 8, 6]];
            let mut pass = |lens: &[(usize, usize)]| {
                let mut chunks: Vec<Chunk<'_>> = slots
                    .iter_mut()
                    .zip(&pages)
                    .zip(lens)
                    .map(|((slot, pages), (start, n))| {
                        chunk(&*model, &mut **slot, &ids[*start..start + n], *start, pages)
                    })
                    .collect();
                let cancel = AtomicBool::new(false);
                model.forward(&mut chunks, &mut RunControl { cancel: &cancel, tap: None }).unwrap();
                drop(chunks);
                for slot in &mut slots[..lens.len()] {
                    let mut logits = vec![0.0; model.config().n_vocab];
                    model.logits(&mut **slot, &mut logits).unwrap();
                    bits.extend(logits.iter().map(|l: &f32| l.to_bits()));
                }
                // What no window of the next token reaches.
                for (pages, (start, n)) in pages.iter().zip(lens).filter(|_| drops) {
                    for class in (0..classes.n()).filter(|class| classes.window(*class).is_some()) {
                        let first = classes.first(class, start + n) / 64;
                        pages[..first].iter().for_each(|page| model.drop_part(*page, class));
                    }
                }
            };
            pass(&[(0, 130)]);
            pass(&[(130, 70), (0, 150)]);
            pass(&[(200, 9), (150, 90)]);
            pass(&[(209, 1), (240, 1)]);
            pass(&[(210, 80)]);
            bits
        };
        assert!(run(false) == run(true), "{arch}");
    }
}
