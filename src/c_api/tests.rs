//! What only a defect can cause, seen from C: a panic inside the library.

use std::ffi::CStr;
use std::ptr::null;
use std::sync::Arc;

use super::engine::kigo_engine;
use super::handle::put;
use super::model::{kigo_model_destroy, kigo_model_load_memory};
use super::session::{
    kigo_session_create, kigo_session_destroy, kigo_session_n_tokens, kigo_session_prefill, kigo_session_sample,
};
use super::status::*;
use crate::common::probe::{Plot, Probe};
use crate::common::tiny::Tiny;
use crate::engine::{Engine, LogSink};
use crate::gguf::TensorType;

fn text() -> String {
    // SAFETY: a NUL-terminated text of this thread's.
    unsafe { CStr::from_ptr(kigo_last_error()) }.to_str().unwrap().to_owned()
}

#[test]
fn a_panic_is_a_status_and_poisons_only_its_session() {
    let plot = Arc::new(Plot::default());
    let file = Tiny::new("qwen2", TensorType::F32).bytes();
    let (mut engine, mut model) = (std::ptr::null_mut(), std::ptr::null_mut());
    let (mut one, mut two) = (std::ptr::null_mut(), std::ptr::null_mut());
    let mut n = 0;
    // SAFETY: handles and buffers are live locals, used as the header says.
    unsafe {
        put(&mut engine, kigo_engine(Engine::with_device(Arc::new(Probe(plot.clone())), 1, None, LogSink::silent())))
            .unwrap();
        assert_eq!(
            kigo_model_load_memory(engine, file.as_ptr().cast(), file.len(), null(), &mut model),
            KIGO_STATUS_OK
        );
        assert_eq!(kigo_session_create(model, null(), &mut one), KIGO_STATUS_OK);
        assert_eq!(kigo_session_create(model, null(), &mut two), KIGO_STATUS_OK);
        assert_eq!(kigo_session_prefill(two, [1, 2].as_ptr(), 2), KIGO_STATUS_OK);

        *plot.panic_at.lock().unwrap() = Some(77);
        assert_eq!(kigo_session_prefill(one, [1, 77].as_ptr(), 2), KIGO_STATUS_INTERNAL);
        assert_eq!(text(), "internal: a panic injected by a test");
        let mut token = 5;
        assert_eq!(kigo_session_sample(one, &mut token), KIGO_STATUS_POISONED);
        assert_eq!((token, &*text()), (0, "the session is unusable after an earlier failure"));
        assert_eq!(kigo_session_n_tokens(one, &mut n), KIGO_STATUS_POISONED);

        assert_eq!(kigo_session_sample(two, &mut token), KIGO_STATUS_OK);
        assert_eq!(kigo_session_prefill(two, [token].as_ptr(), 1), KIGO_STATUS_OK);
        kigo_session_destroy(one);
        assert_eq!(kigo_session_create(model, null(), &mut one), KIGO_STATUS_OK);
        assert_eq!(kigo_session_prefill(one, [1, 76].as_ptr(), 2), KIGO_STATUS_OK);
        for session in [one, two] {
            kigo_session_destroy(session);
        }
        kigo_model_destroy(model);
        super::engine::kigo_engine_destroy(engine);
    }
}
