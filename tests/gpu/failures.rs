//! What the GPU backend does when something fails: no memory, a lost device, a cancel, no device.
//!
//! Without a device every test prints `skipped: no CUDA device` and passes, unless KIGO_REQUIRE_CUDA=1. KIGO_FEW leaves much out.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use crate::common::gpu::{NoControl, Sequence, device_alone, few, load, random_file, tokens};
use crate::common::recipes::Recipe;
use crate::common::run::chunk;
use crate::common::shapes::Shape;
use crate::common::tiny::Tiny;
use kigo::backend::cuda::{CudaDevice, CudaModel};
use kigo::backend::{Ahead, Chunk, Device, LoadOptions, LoadedModel, PAGE_TOKENS, RunControl, Slot, TapEvent, Verdict};
use kigo::error::{Error, Result};
use kigo::gguf::{Gguf, TensorType};
use kigo::model::bind;
use kigo::sampler::{SampleRequest, SamplingParams};

#[test]
fn failures_leave_the_device_as_it_was() {
    let Some(device) = device_alone() else { return };
    let bytes = Tiny::new("llama", TensorType::Q4_K).bytes();
    let gguf = Gguf::from_bytes(&bytes).unwrap();
    let (config, weights) = bind(&gguf).unwrap();
    let prompt = tokens(9, config.n_vocab);
    let everything = || -> Result<Vec<f32>> {
        let model = device.load(&config, &weights, &LoadOptions::default(), &mut NoControl)?;
        model.reserve_pages(1)?;
        let mut slot = model.create_slot()?;
        let mut chunks = [chunk(&*model, &mut *slot, &prompt, 0, &[0])];
        model.forward(&mut chunks, &mut RunControl { cancel: &AtomicBool::new(false), tap: None })?;
        let mut logits = vec![0f32; config.n_vocab];
        model.logits(&mut *slot, &mut logits)?;
        Ok(logits)
    };
    let expected = everything().unwrap();
    let mut n_failed = 0;
    for n in 0.. {
        device.fail_allocation_in(n);
        match everything() {
            Err(Error::OutOfMemory { requested, .. }) => assert!(requested > 0),
            Ok(logits) => {
                assert_eq!(logits, expected);
                break;
            }
            Err(e) => panic!("allocation {n}: {e}"),
        }
        n_failed += 1;
        assert_eq!(device.allocated(), 0, "allocation {n} leaks");
    }
    device.fail_allocation_in(-1);
    assert!(n_failed >= 8, "{n_failed} allocations");
    assert_eq!(everything().unwrap(), expected);
    let free = device.memory().0;
    let rounds = if few() { 20 } else { 100 };
    for _ in 0..rounds {
        assert_eq!(everything().unwrap(), expected, "other bits in another run");
    }
    assert_eq!(device.allocated(), 0);
    let after = device.memory().0;
    println!("{n_failed} allocations; free before {free}, after {rounds} rounds {after}");
    assert!(after + (2 << 20) >= free, "device memory: {free} free before, {after} after");
}

#[test]
fn a_model_goes_on_after_each_failed_allocation() {
    let Some(device) = device_alone() else { return };
    let mut tiny = Tiny::new("qwen2", TensorType::F16);
    tiny.shape.n_ctx = 256;
    let bytes = tiny.bytes();
    let gguf = Gguf::from_bytes(&bytes).unwrap();
    let (config, weights) = bind(&gguf).unwrap();
    let prompt = tokens(11, config.n_vocab);
    let params = SamplingParams::default();
    // What a running model allocates for: slots, a prompt, a run ahead, a batch, choices of one, a tap, longer contexts than it was
    // made for.
    type Call<'a> = &'a dyn Fn(&CudaModel) -> Result<Vec<f32>>;
    let calls: [Call<'_>; 6] = [
        &|model| {
            let mut slot = model.create_slot()?;
            let mut chunks = [chunk(model, &mut *slot, &prompt, 0, &[0])];
            model.forward(&mut chunks, &mut RunControl { cancel: &AtomicBool::new(false), tap: None })?;
            logits_of(model, &mut *slot)
        },
        &|model| {
            let mut slot = model.create_slot()?;
            let mut chunks = [chunk(model, &mut *slot, &prompt[..3], 0, &[0])];
            model.forward(&mut chunks, &mut RunControl { cancel: &AtomicBool::new(false), tap: None })?;
            let ahead =
                Ahead { slot: &mut *slot, pages: &[0], params: &params, last_token: prompt[2], position: 3, n: 20 };
            model.decode_ahead(ahead, &mut |_| Ok(Verdict::GoOn))?.unwrap();
            logits_of(model, &mut *slot)
        },
        &|model| {
            let mut slots = (0..3).map(|_| model.create_slot()).collect::<Result<Vec<_>>>()?;
            let pages = [[0u32], [1], [2]];
            let mut chunks: Vec<Chunk<'_>> = slots
                .iter_mut()
                .zip(&pages)
                .map(|(slot, pages)| chunk(model, &mut **slot, &prompt[..2], 0, pages))
                .collect();
            model.forward(&mut chunks, &mut RunControl { cancel: &AtomicBool::new(false), tap: None })?;
            let mut all: Vec<&mut dyn Slot> = slots.iter_mut().map(|s| &mut **s as &mut dyn Slot).collect();
            let request = SampleRequest { params: &params, history: &prompt[..2], position: 2 };
            for chosen in model.sample_batch(&mut all, &[request; 3]) {
                chosen?;
            }
            logits_of(model, &mut *slots[2])
        },
        &|model| {
            let mut slot = model.create_slot()?;
            let mut chunks = [chunk(model, &mut *slot, &prompt, 0, &[0])];
            let (mut n, cancel) = (0, AtomicBool::new(false));
            let mut see = |_: &TapEvent<'_>| n += 1;
            model.forward(&mut chunks, &mut RunControl { cancel: &cancel, tap: Some(&mut see) })?;
            assert!(n > 10);
            logits_of(model, &mut *slot)
        },
        &|model| {
            let mut slot = model.create_slot()?;
            let pages: Vec<u32> = (0..12).collect();
            let start = 12 * PAGE_TOKENS - 1;
            let mut chunks = [chunk(model, &mut *slot, &[1], start, &pages)];
            model.forward(&mut chunks, &mut RunControl { cancel: &AtomicBool::new(false), tap: None })?;
            logits_of(model, &mut *slot)
        },
        &|model| {
            let mut slots = (0..2).map(|_| model.create_slot()).collect::<Result<Vec<_>>>()?;
            let pages: Vec<u32> = (0..12).collect();
            let start = 12 * PAGE_TOKENS - 1;
            let mut chunks: Vec<Chunk<'_>> =
                slots.iter_mut().map(|slot| chunk(model, &mut **slot, &[1], start, &pages)).collect();
            model.forward(&mut chunks, &mut RunControl { cancel: &AtomicBool::new(false), tap: None })?;
            logits_of(model, &mut *slots[1])
        },
    ];
    let fresh = || -> Arc<CudaModel> {
        let model = device.load_model(&config, &weights, &LoadOptions::default(), &mut NoControl).unwrap();
        model.reserve_pages(12).unwrap();
        let zero = vec![0u8; model.page_image().unwrap().bytes];
        (0..12).for_each(|page| model.write_page(page, &zero).unwrap());
        model
    };
    for (i, call) in calls.iter().enumerate() {
        let expected = call(&fresh()).unwrap();
        let mut n_failed = 0;
        loop {
            let model = fresh();
            device.fail_allocation_in(n_failed);
            let outcome = call(&model);
            device.fail_allocation_in(-1);
            match outcome {
                Err(Error::OutOfMemory { requested, .. }) => assert!(requested > 0, "call {i}, allocation {n_failed}"),
                Ok(logits) => {
                    assert_eq!(logits, expected, "call {i}");
                    break;
                }
                Err(e) => panic!("call {i}, allocation {n_failed}: {e}"),
            }
            assert_eq!(call(&model).unwrap(), expected, "call {i} after failed allocation {n_failed}");
            n_failed += 1;
        }
        println!("call {i}: {n_failed} allocations, each failed once");
        assert!(n_failed >= 2, "call {i}");
    }
}

fn logits_of(model: &CudaModel, slot: &mut dyn Slot) -> Result<Vec<f32>> {
    let mut logits = vec![f32::NAN; model.config().n_vocab];
    model.logits(slot, &mut logits)?;
    Ok(logits)
}

#[test]
fn a_lost_device_is_named_by_every_call_from_then_on() {
    let Some(healthy) = device_alone() else { return };
    let bytes = Tiny::new("qwen2", TensorType::Q8_0).bytes();
    let gguf = Gguf::from_bytes(&bytes).unwrap();
    let (config, weights) = bind(&gguf).unwrap();
    let prompt = tokens(9, config.n_vocab);
    let greedy = SamplingParams::default();
    // With the device lost at call `n`: loading, a prompt, steps, a batch, choices, pages.
    let lost_at = |n: i64| -> Result<()> {
        let device = CudaDevice::new(0).unwrap();
        device.lose_in(n);
        let everything = || -> Result<()> {
            let model = device.load(&config, &weights, &LoadOptions::default(), &mut NoControl)?;
            model.reserve_pages(3)?;
            let (mut a, mut b) = (model.create_slot()?, model.create_slot()?);
            let cancel = AtomicBool::new(false);
            let work = |a: &mut dyn Slot, b: &mut dyn Slot| -> Result<()> {
                for (start, n) in [(0, 8), (8, 1)] {
                    let tokens = &prompt[start..start + n];
                    let mut chunks =
                        [chunk(&*model, &mut *a, tokens, start, &[0]), chunk(&*model, &mut *b, tokens, start, &[1])];
                    model.forward(&mut chunks, &mut RunControl { cancel: &cancel, tap: None })?;
                }
                let request = SampleRequest { params: &greedy, history: &prompt, position: 9 };
                model.sample(a, &request)?;
                model
                    .sample_batch(&mut [&mut *a, &mut *b], &[request, request])
                    .into_iter()
                    .try_for_each(|r| r.map(|_| ()))?;
                model.copy_page(0, 2)
            };
            let outcome = work(&mut *a, &mut *b);
            if let Err(lost) = &outcome {
                assert!(matches!(lost, Error::DeviceLost { .. }), "call {n}: {lost}");
                // Whatever is asked of it now, it says so.
                let mut logits = vec![0f32; config.n_vocab];
                let mut page = vec![0; model.page_image().unwrap().bytes];
                let request = SampleRequest { params: &greedy, history: &prompt, position: 9 };
                for again in [
                    work(&mut *a, &mut *b),
                    model.logits(&mut *a, &mut logits),
                    model.sample(&mut *a, &request).map(|_| ()),
                    model.create_slot().map(|_| ()),
                    model.reserve_pages(9),
                    model.copy_page(0, 1),
                    model.read_page(0, 1, &mut page),
                    model.write_page(0, &page),
                    device.load(&config, &weights, &LoadOptions::default(), &mut NoControl).map(|_| ()),
                ] {
                    assert_eq!(again.unwrap_err().to_string(), lost.to_string(), "call {n}");
                }
            }
            outcome
        };
        let outcome = everything();
        assert_eq!(device.allocated(), 0, "call {n} leaks");
        outcome
    };
    lost_at(-1).unwrap(); // the driver's own share, once
    let free = healthy.memory().0;
    let mut n_lost = 0;
    // At each call in turn, until everything goes by before that.
    for n in 0.. {
        match lost_at(n) {
            Err(Error::DeviceLost { device, .. }) => assert_eq!(device, "cuda:0"),
            Ok(()) => break,
            Err(e) => panic!("call {n}: {e}"),
        }
        n_lost += 1;
    }
    assert!(n_lost > 50, "{n_lost} calls");
    println!("lost at each of {n_lost} calls");
    let after = healthy.memory().0;
    assert!(after + (2 << 20) >= free, "device memory: {free} free before, {after} after");
}

#[test]
fn a_plan_is_what_a_load_takes() {
    let Some(device) = device_alone() else { return };
    if few() {
        return println!("skipped: KIGO_FEW leaves out what measures the device");
    }
    for (shape, recipe) in [("qwen2.5-0.5b", "F16"), ("smollm2-135m", "Q4_1"), ("qwen2.5-0.5b", "Q4_K_M")] {
        let bytes = random_file(&Shape::named(shape).unwrap(), Recipe::named(recipe).unwrap(), false);
        let gguf = Gguf::from_bytes(&bytes).unwrap();
        let (config, weights) = bind(&gguf).unwrap();
        let prompt = tokens(3000, config.n_vocab);
        let run = || {
            let before = device.memory().0;
            let model = device.load_model(&config, &weights, &LoadOptions::default(), &mut NoControl).unwrap();
            let mut sequence = Sequence::new(&*model, prompt.len());
            sequence.run(&*model, &prompt, 0, None);
            sequence.run(&*model, &prompt[..1], 0, None);
            (before - device.memory().0, LoadedModel::plan(&*model))
        };
        run(); // the driver's own share, once
        let (used, now) = run();
        let plan = Device::plan(&*device, &config, &weights);
        let pages = (prompt.len().div_ceil(PAGE_TOKENS) * PAGE_TOKENS) as u64 * plan.kv_bytes_per_token;
        let planned = plan.weights_bytes + plan.scratch_bytes + pages;
        println!("{shape} {recipe}: planned {planned}, used {used}; {plan:?}, {now:?}");
        assert!(used.abs_diff(planned) * 50 <= planned, "{shape} {recipe}: planned {planned}, used {used}");
        assert!(now.weights_bytes == plan.weights_bytes && now.scratch_bytes <= plan.scratch_bytes);
    }
}

#[test]
fn a_long_prefill_is_cancelled_soon() {
    let Some(device) = device_alone() else { return };
    if few() {
        return println!("skipped: KIGO_FEW leaves out what measures the device");
    }
    let bytes = random_file(&Shape::named("qwen2.5-0.5b").unwrap(), Recipe::named("F16").unwrap(), false);
    let model = load(&device, &bytes);
    let prompt = tokens(16_384, model.config().n_vocab);
    let mut sequence = Sequence::new(&*model, prompt.len());
    sequence.run(&*model, &prompt[..2048], 0, None);
    for delay in [1, 10, 30] {
        let cancel = AtomicBool::new(false);
        let took = std::thread::scope(|scope| {
            let caller = scope.spawn(|| {
                let mut chunks = [chunk(&*model, &mut *sequence.slot, &prompt, 0, &sequence.pages)];
                let outcome = model.forward(&mut chunks, &mut RunControl { cancel: &cancel, tap: None });
                (outcome, Instant::now())
            });
            std::thread::sleep(std::time::Duration::from_millis(delay));
            let start = Instant::now();
            cancel.store(true, std::sync::atomic::Ordering::Release);
            let (outcome, end) = caller.join().unwrap();
            assert!(matches!(outcome, Err(Error::Cancelled)), "{outcome:?}");
            end.duration_since(start)
        });
        println!("cancelled after {delay} ms, back {:.2} ms later", took.as_secs_f64() * 1e3);
        assert!(took.as_millis() < 20, "{took:?}");
    }
    // And the next call is right.
    let again = sequence.run(&*model, &prompt[..100], 0, None);
    let mut fresh = Sequence::new(&*model, prompt.len());
    assert_eq!(fresh.run(&*model, &prompt[..100], 0, None), again);
}

#[test]
fn a_device_that_is_not_there_is_refused_by_name() {
    match CudaDevice::new(99) {
        Err(Error::DeviceUnavailable { device, reason }) => {
            assert_eq!(device, "cuda:99");
            assert!(!reason.is_empty());
        }
        Err(e) => panic!("{e}"),
        Ok(_) => panic!("there is no GPU 99"),
    }
}
