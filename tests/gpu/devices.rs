//! GPUs as they are listed without an engine, named by their UUIDs, and the threads that read a file onto one.

use std::sync::{Arc, Mutex};

use crate::common::gpu::device;
use crate::common::tiny::Tiny;
use kigo::backend::cuda::current_context;
use kigo::backend::{DeviceKind, device_count, device_info};
use kigo::engine::{Engine, EngineOptions, LogSink};
use kigo::error::{Result, Status};
use kigo::gguf::TensorType;
use kigo::process::{ThreadHook, exchange_hook};

fn open(device: &str) -> Result<Engine> {
    Engine::new(EngineOptions { device, n_threads: 1, memory_cap: None, log: LogSink::silent() })
}

#[test]
fn a_gpu_is_listed_as_it_is_and_opened_by_its_uuid() {
    let Some(gpu) = device() else { return };
    let before = std::thread::scope(|scope| scope.spawn(current_context).join().unwrap());
    let n = device_count();
    assert!(n >= 2, "{n}");
    for index in 1..n {
        let info = device_info(index).unwrap();
        assert_eq!((info.kind, info.device.as_str()), (DeviceKind::Cuda, format!("cuda:{}", index - 1).as_str()));
        assert!(0 < info.free_bytes && info.free_bytes <= info.total_bytes, "{info:?}");
        assert!(!info.name.is_empty() && info.n_cores > 0 && info.compute.0 >= 8 && info.usable, "{info:?}");
        let uuid = info.uuid.unwrap();
        assert!(uuid != [0; 16] && info.uuid_text.len() == 40 && info.reason.is_empty(), "{info:?}");
        let hex: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(info.uuid_text[4..].replace('-', ""), hex);
        // What a context of ours has free is about what is free.
        if index == 1 {
            let (free, total) = gpu.memory();
            assert!(
                total.abs_diff(info.total_bytes) < total / 8 && free.abs_diff(info.free_bytes) < total / 8,
                "{info:?}"
            );
        }
        for named in [format!("cuda:{}", info.uuid_text), format!("cuda:{}", info.uuid_text.to_uppercase())] {
            assert_eq!(open(&named).unwrap().device_name(), info.device, "{named}");
        }
        let nobody = format!("cuda:GPU-{}", "00000000-0000-0000-0000-000000000000");
        let refused = open(&nobody).err().unwrap();
        assert_eq!(refused.status(), Status::DeviceUnavailable);
        let text = refused.to_string();
        assert!(text.ends_with(&format!("none of the {} CUDA devices of this process has that UUID", n - 1)), "{text}");
    }
    // Listing leaves no context on a thread that had none.
    let after = std::thread::scope(|scope| {
        let listed = scope.spawn(|| {
            device_info(1).unwrap();
            current_context()
        });
        listed.join().unwrap()
    });
    assert_eq!((before, after), (0, 0));
}

#[test]
fn a_host_is_told_of_the_threads_that_read_a_file() {
    let Some(_gpu) = device() else { return };
    let file = Tiny::new("qwen2", TensorType::Q8_0).bytes();
    let (seen, allowed) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(true)));
    let (tell, may) = (Arc::clone(&seen), Arc::clone(&allowed));
    let hook = ThreadHook::new(move |event| {
        tell.lock().unwrap().push((event.name.to_owned(), event.index, event.ends));
        *may.lock().unwrap()
    });
    exchange_hook(Some(hook));
    let engine = open("cuda:0").unwrap();
    engine.load_memory(&file, &mut |_, _| Ok(())).unwrap();
    let readers = |seen: &[(String, usize, bool)], ends: bool| {
        seen.iter().filter(|(name, _, at_end)| name == "kigo-load" && *at_end == ends).count()
    };
    let first = std::mem::take(&mut *seen.lock().unwrap());
    assert!(readers(&first, false) > 0 && readers(&first, false) == readers(&first, true), "{first:?}");
    *allowed.lock().unwrap() = false;
    let refused = engine.load_memory(&file, &mut |_, _| Ok(())).err().unwrap();
    assert_eq!(refused.status(), Status::Cancelled);
    *allowed.lock().unwrap() = true;
    engine.load_memory(&file, &mut |_, _| Ok(())).unwrap();
    exchange_hook(None);
}
