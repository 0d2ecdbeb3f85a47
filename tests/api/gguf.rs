//! The GGUF reader on correct files: what was written comes back, from a buffer, a file, and several files.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kigo::error::Status;
use kigo::gguf::{Gguf, TensorType, Value, ValueType, Writer};

use crate::common::tiny::Tiny;

/// A folder of this test's own, empty.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("the temporary folder can be written");
    path
}

/// One value of each type that is not an array.
const SCALARS: [Value<'static>; 12] = [
    Value::U8(250),
    Value::I8(-7),
    Value::U16(65_000),
    Value::I16(-30_000),
    Value::U32(4_000_000_000),
    Value::I32(-2_000_000_000),
    Value::F32(-0.1),
    Value::Bool(true),
    Value::String("haiku: 五七五"),
    Value::U64(u64::MAX),
    Value::I64(i64::MIN),
    Value::F64(1e300),
];

#[test]
fn all_metadata_types_come_back_in_order() {
    for version in [2, 3] {
        let mut writer = Writer::new(version);
        for value in SCALARS {
            writer.meta(&format!("scalar.{:?}", value.value_type()), value);
            writer.array(&format!("array.{:?}", value.value_type()), value.value_type(), [value, value, value]);
            writer.array(&format!("empty.{:?}", value.value_type()), value.value_type(), []);
        }
        let bytes = writer.to_bytes(|_, _| {});
        let gguf = Gguf::from_bytes(&bytes).expect("opens");
        assert_eq!((gguf.version(), gguf.n_meta(), gguf.n_tensors()), (version, 36, 0));

        let keys: Vec<&str> = gguf.meta_iter().map(|(key, _)| key).collect();
        for (i, value) in SCALARS.into_iter().enumerate() {
            let ty = value.value_type();
            let expected = ["scalar", "array", "empty"].map(|kind| format!("{kind}.{ty:?}"));
            assert_eq!(keys[3 * i..3 * i + 3], expected);
            // Every value prints differently, so the text tells them apart.
            assert_eq!(gguf.meta(&expected[0]).expect("there").to_string(), value.to_string());
            let array = gguf.meta(&expected[1]).and_then(|v| v.as_array()).expect("an array");
            assert_eq!((array.element_type(), array.len()), (ty, 3));
            assert!(array.values().all(|v| v.value_type() == ty && v.to_string() == value.to_string()));
            assert_eq!(array.values().count(), 3);
            let empty = gguf.meta(&expected[2]).and_then(|v| v.as_array()).expect("an array");
            assert!(empty.is_empty() && empty.values().next().is_none());
        }
        assert!(gguf.meta("scalar").is_none());
    }
}

#[test]
fn typed_getters_convert_widths_and_refuse_types() {
    let mut writer = Writer::new(3);
    writer.meta("small", Value::U8(3)).meta("negative", Value::I64(-1)).meta("double", Value::F64(0.5));
    writer.array("words", ValueType::String, [Value::String("a"), Value::String("")]);
    writer.array("numbers", ValueType::I32, [Value::I32(-1), Value::I32(5)]);
    let bytes = writer.to_bytes(|_, _| {});
    let gguf = Gguf::from_bytes(&bytes).expect("opens");
    assert_eq!(gguf.uint("small").expect("an integer"), 3);
    assert_eq!(gguf.float("double").expect("a float"), 0.5);
    assert_eq!(gguf.opt_uint("absent").expect("no error"), None);
    assert_eq!(gguf.strings("words").expect("strings").strings().collect::<Vec<_>>(), ["a", ""]);
    let numbers = gguf.opt_array("numbers").expect("an array").expect("there");
    assert_eq!(numbers.ints().collect::<Vec<_>>(), [-1, 5]);
    assert_eq!((numbers.strings().count(), numbers.floats().count()), (0, 0));
    assert_eq!(gguf.meta("words").expect("there").to_string(), "[\"a\", \"\"]");
    for error in [
        gguf.uint("negative").expect_err("negative"),
        gguf.uint("double").expect_err("a float"),
        gguf.uint("absent").expect_err("absent"),
        gguf.float("small").expect_err("an integer"),
        gguf.text("words").expect_err("an array"),
        gguf.strings("numbers").map(|_| ()).expect_err("integers"),
    ] {
        assert_eq!(error.status(), Status::InvalidModel, "{error}");
    }
}

#[test]
fn tensors_of_all_types_come_back() {
    for (version, alignment) in [(2, 32), (3, 32), (3, 8), (3, 4096)] {
        let mut writer = Writer::new(version);
        writer.alignment(alignment);
        for ty in TensorType::ALL {
            writer.tensor(ty.name(), ty, &[256, 3]);
        }
        let fill = |i: usize, out: &mut [u8]| out.iter_mut().enumerate().for_each(|(j, b)| *b = (i * 31 + j) as u8);
        let bytes = writer.to_bytes(fill);
        let gguf = Gguf::from_bytes(&bytes).expect("opens");
        assert_eq!(gguf.file_bytes(), bytes.len() as u64);
        for (i, tensor) in gguf.tensors().enumerate() {
            let ty = TensorType::ALL[i];
            assert_eq!((tensor.name, tensor.ty, tensor.dims), (ty.name(), ty, [256, 3].as_slice()));
            assert_eq!((tensor.cols(), tensor.rows(), tensor.n_elements()), (256, 3, 768));
            let mut expected = vec![0; 3 * ty.row_bytes(256)];
            fill(i, &mut expected);
            assert_eq!(tensor.data.to_vec().expect("in memory"), expected);
            assert!(tensor.offset.is_multiple_of(alignment.into()));
            assert_eq!(gguf.tensor(ty.name()).expect("found by name").offset, tensor.offset);
        }
        assert!(gguf.tensor("Q4").is_none());
    }
}

/// A shard of a split model with one tensor of each name.
fn shard(path: &Path, no: u16, count: u16, n_tensors: i32, names: &[&str]) {
    let mut writer = Writer::new(3);
    writer.meta("split.no", Value::U16(no)).meta("split.count", Value::U16(count));
    writer.meta("split.tensors.count", Value::I32(n_tensors));
    if no == 0 {
        writer.meta("general.name", Value::String("in three files"));
    }
    names.iter().for_each(|name| {
        writer.tensor(name, TensorType::F32, &[8]);
    });
    std::fs::write(path, writer.to_bytes(|_, out| out.fill(no as u8 + 1))).expect("written");
}

#[test]
fn split_files_are_one_model() {
    let folder = folder("split");
    let path = |k: usize| folder.join(format!("m-{k:05}-of-00003.gguf"));
    let write_all = || {
        shard(&path(1), 0, 3, 4, &["a"]);
        shard(&path(2), 1, 3, 4, &["b", "c"]);
        shard(&path(3), 2, 3, 4, &["d"]);
    };
    write_all();
    for k in 1..=3 {
        let gguf = Gguf::open(&path(k)).expect("opens from any of its files");
        assert_eq!(gguf.tensors().map(|t| t.name).collect::<Vec<_>>(), ["a", "b", "c", "d"]);
        assert_eq!(gguf.tensors().map(|t| t.data.to_vec().expect("read")[31]).collect::<Vec<_>>(), [1, 2, 2, 3]);
        assert_eq!(gguf.text("general.name").expect("the first file's metadata"), "in three files");
        let on_disk: u64 = (1..=3).map(|k| std::fs::metadata(path(k)).expect("there").len()).sum();
        assert_eq!(gguf.file_bytes(), on_disk);
    }

    let refused = |status: Status, text: &str| {
        let error = Gguf::open(&path(1)).map(|_| ()).expect_err(text);
        assert_eq!(error.status(), status, "{error}");
        assert!(error.to_string().contains(text), "{error}");
        write_all();
        Gguf::open(&path(1)).expect("the correct files still open");
    };
    shard(&path(2), 2, 3, 4, &["b", "c"]);
    refused(Status::InvalidModel, "file 2 of 3: key \"split.no\" at byte 44: 2 where 1 was expected");
    shard(&path(3), 2, 4, 4, &["d"]);
    refused(Status::InvalidModel, "file 3 of 3: key \"split.count\" at byte 69: 4 where 3 was expected");
    shard(&path(1), 0, 3, 5, &["a"]);
    refused(Status::InvalidModel, "file 1 of 3: key \"split.tensors.count\" at byte 102: 5 where 4 was expected");
    shard(&path(1), 0, 3, -1, &["a"]);
    refused(Status::InvalidModel, "key \"split.tensors.count\"");
    shard(&path(3), 2, 3, 4, &["a"]);
    refused(Status::InvalidModel, "file 3 of 3: tensor \"a\" name at byte 114: stands twice: entry 3 repeats entry 0");
    std::fs::write(path(2), Writer::new(3).to_bytes(|_, _| {})).expect("written");
    refused(
        Status::InvalidModel,
        "file 2 of 3: key \"split.no\" is missing; expected 1, because the name ends in \"00002-of-00003.gguf\"",
    );
    std::fs::remove_file(path(3)).expect("removed");
    refused(Status::Io, "m-00003-of-00003.gguf: cannot open");
    let bytes = std::fs::read(path(2)).expect("read");
    std::fs::write(path(2), &bytes[..bytes.len() - 1]).expect("written");
    refused(Status::InvalidModel, "file 2 of 3: tensor \"c\" data");

    // One of several under another name, or in a buffer, is not a whole model.
    let bytes = std::fs::read(path(1)).expect("read");
    let alone = Gguf::from_bytes(&bytes).map(|_| ()).expect_err("a third of a model");
    assert_eq!(
        alone.to_string(),
        "key \"split.count\" of bytes in memory is 3, with file 1 here; expected 1: the others could not be found"
    );
    assert_eq!(alone.status(), Status::Unsupported);
    std::fs::write(folder.join("m.gguf"), &bytes).expect("written");
    let renamed = Gguf::open(&folder.join("m.gguf")).map(|_| ()).expect_err("a third of a model");
    assert_eq!(renamed.status(), Status::InvalidModel);
    let expected = "expected \"...-00001-of-00003.gguf\", because split.no is 0 and split.count is 3";
    assert_eq!(renamed.to_string(), format!("file name is \"m.gguf\"; {expected}"));
}

#[test]
fn paths_that_are_no_files_are_refused() {
    let folder = folder("paths");
    for path in [folder.join("absent.gguf"), folder.clone()] {
        let error = Gguf::open(&path).map(|_| ()).expect_err("no file");
        assert_eq!(error.status(), Status::Io, "{error}");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
    std::fs::write(folder.join("empty.gguf"), []).expect("written");
    let error = Gguf::open(&folder.join("empty.gguf")).map(|_| ()).expect_err("empty");
    assert_eq!(error.to_string(), "header at byte 0: 0 is less than 24");
}

#[test]
fn a_file_reads_as_the_buffer() {
    let path = folder("read").join("tiny.gguf");
    let tiny = Tiny::new("llama", TensorType::Q4_1);
    tiny.write(&path);
    let bytes = std::fs::read(&path).expect("read");
    let (file, buffer) = (Gguf::open(&path).expect("opens"), Gguf::from_bytes(&bytes).expect("opens"));
    assert_eq!((file.n_tensors(), file.n_meta()), (buffer.n_tensors(), buffer.n_meta()));
    for ((a, x), (b, y)) in file.meta_iter().zip(buffer.meta_iter()) {
        assert_eq!((a, x.to_string()), (b, y.to_string()));
    }
    for (a, b) in file.tensors().zip(buffer.tensors()) {
        assert_eq!((a.name, a.data.len()), (b.name, b.data.len()));
        assert_eq!(a.data.to_vec().expect("read"), b.data.to_vec().expect("there"), "{}", a.name);
        let (n, mut scratch) = (a.data.len(), Vec::new());
        for range in [0..n, 0..0, n..n, 1..n - 1, n / 3..n / 2] {
            let found = a.data.piece(range.clone(), &mut scratch).expect("read");
            assert_eq!(found, &bytes[a.offset as usize + range.start..a.offset as usize + range.end]);
        }
        for data in [a.data, b.data] {
            assert!(data.read(n, &mut [0]).is_err(), "behind the end");
            assert!(data.piece(1..n + 1, &mut scratch).is_err());
            assert!(data.piece(usize::MAX..n, &mut scratch).is_err());
        }
    }
}

/// What is read ahead of the tensors is read in steps: a head of many times the first step, from a file as from a buffer.
#[test]
fn a_long_head_is_read_in_steps() {
    let folder = folder("long-head");
    let words: Vec<String> = (0..300_000).map(|i| format!("word {i}")).collect();
    for n in [0, 1, 5_000, 12_000, 15_500, 300_000] {
        let mut writer = Writer::new(3);
        writer.array("words", ValueType::String, words[..n].iter().map(|w| Value::String(w)));
        writer.meta("after", Value::U32(n as u32)).tensor("t", TensorType::F32, &[8]);
        let path = folder.join(format!("{n}.gguf"));
        std::fs::write(&path, writer.to_bytes(|_, out| out.fill(7))).expect("written");
        let gguf = Gguf::open(&path).expect("opens");
        assert!(gguf.strings("words").expect("there").strings().eq(words[..n].iter().map(String::as_str)));
        assert_eq!(gguf.uint("after").expect("there"), n as u64);
        assert_eq!(gguf.tensor("t").expect("there").data.to_vec().expect("read"), [7; 32]);
    }
}

#[test]
fn real_files_open_quickly() {
    for name in
        ["SmolLM2-135M-Instruct-Q4_1.gguf", "Qwen2.5-Coder-0.5B-Instruct-Q4_K_M.gguf", "gemma-3-270m-Q4_K_M.gguf"]
    {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(name);
        if !path.exists() {
            println!("skipped: models/{name} not there");
            continue;
        }
        // The least of three: the first one may wait for the disk.
        let time = (0..3).map(|_| {
            let start = Instant::now();
            let gguf = Gguf::open(&path).expect("opens");
            let n = gguf.strings("tokenizer.ggml.tokens").expect("tokens").strings().count();
            let time = start.elapsed();
            println!("{name}: opened and {n} tokens read in {time:?}");
            assert_eq!(gguf.tensor("token_embd.weight").expect("embedding").rows(), n);
            time
        });
        let time = time.min().expect("three");
        // A tenth of what issue 2 gives to opening SmolLM2 on an idle machine is 30 ms; tests run beside others.
        assert!(time < Duration::from_millis(300), "{time:?}");
    }
}
