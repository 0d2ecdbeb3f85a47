//! Files that contradict themselves or their size.

use kigo::gguf::{TensorType, Value, ValueType, Writer};

use super::file::{Case, File, HUGE, bad, changed, put, unsupported};

/// All of them.
pub fn all() -> impl Iterator<Item = Case> {
    header_cases().into_iter().chain(value_cases()).chain(tensor_cases())
}

/// The refusal of a tensor's type.
fn unknown_type(name: &str) -> String {
    format!("type is {name}; expected one of {}", TensorType::ALL.map(TensorType::name).join(", "))
}

/// The header, and the frame of the metadata.
fn header_cases() -> Vec<Case> {
    let header = |name, at, bytes: [u8; 4], text: &str| {
        let mut file = File::new();
        file.put(at, bytes);
        unsupported(name, file, text)
    };
    vec![
        bad("empty", File { bytes: Vec::new() }, "header at byte 0: 0 is less than 24"),
        bad("half a header", File { bytes: File::new().bytes[..23].into() }, "header at byte 0: 23 is less than 24"),
        put(
            "magic",
            |_| 0,
            *b"GGML",
            r#"magic at byte 0 is "GGML" (47 47 4d 4c); expected "GGUF", which a model file begins with"#,
        ),
        put("version 0", |_| 4, 0u32.to_le_bytes(), "version at byte 4: 0 is less than 2"),
        header("version 1", 4, 1u32.to_le_bytes(), "version at byte 4 is 1; expected 2 or 3"),
        header("version 4", 4, 4u32.to_le_bytes(), "version at byte 4 is 4; expected 2 or 3"),
        header(
            "big-endian",
            4,
            3u32.to_be_bytes(),
            "version at byte 4 is 3 as big-endian; expected 2 or 3 as little-endian",
        ),
        changed("huge tensor count", |file| {
            file.put(8, HUGE.to_le_bytes());
            format!("tensor count at byte 8: {HUGE} is more than {}", (file.len() - 24) / 33)
        }),
        changed("huge metadata count", |file| {
            file.put(16, u64::MAX.to_le_bytes());
            format!("metadata count at byte 16: {} is more than {}", u64::MAX, (file.len() - 24) / 14)
        }),
        changed("huge key length", |file| {
            file.put(24, HUGE.to_le_bytes());
            format!("metadata 0 key length at byte 24: {HUGE} is more than 65535")
        }),
        put("empty key", |_| 24, 0u64.to_le_bytes(), "metadata 0 key length at byte 24: 0 is less than 1"),
        put("key not UTF-8", |_| 32 + 7, [0xff], "metadata 0 key at byte 32: not UTF-8 after 7 of 20 bytes"),
        changed("duplicate key", |file| {
            file.rename("general.name", "general.type");
            let at = file.key("general.type") - 12;
            let second = at + 12 + file.bytes[at + 12..].windows(12).position(|w| w == b"general.type").expect("twice");
            format!("key \"general.type\" at byte {second}: stands twice: entry 2 repeats entry 1")
        }),
    ]
}

/// Values of the metadata.
fn value_cases() -> Vec<Case> {
    let arrays = || {
        let mut writer = Writer::new(3);
        writer.array("flags", ValueType::Bool, [true, false, true].map(Value::Bool));
        writer.array("words", ValueType::String, ["one", "two"].map(Value::String));
        File { bytes: writer.to_bytes(|_, _| {}) }
    };
    let in_arrays = |name, change: fn(&mut File) -> String| {
        let mut file = arrays();
        let text = change(&mut file);
        bad(name, file, text)
    };
    vec![
        put(
            "value type 13",
            |f| f.key("general.name"),
            13u32.to_le_bytes(),
            "key \"general.name\" type at byte {}: unknown value 13; known are values below 13",
        ),
        changed("huge string", |file| {
            let at = file.key("general.name") + 4;
            file.put(at, HUGE.to_le_bytes());
            format!("key \"general.name\" length at byte {at}: {HUGE} is more than {}", file.len() - at as u64 - 8)
        }),
        changed("string not UTF-8", |file| {
            let at = file.key("general.name") + 12;
            file.put(at + 2, [0xc0]);
            format!("key \"general.name\" at byte {at}: not UTF-8 after 2 of 17 bytes")
        }),
        put(
            "bool 2",
            |f| f.key("tokenizer.ggml.add_bos_token") + 4,
            [2],
            "key \"tokenizer.ggml.add_bos_token\" at byte {}: 2 is more than 1",
        ),
        in_arrays("bool 7 in an array", |file| {
            let at = file.key("flags") + 16 + 1;
            file.put(at, [7]);
            format!("key \"flags\" at byte {at}: 7 is more than 1")
        }),
        in_arrays("element type 99", |file| {
            let at = file.key("flags") + 4;
            file.put(at, 99u32.to_le_bytes());
            format!("key \"flags\" element type at byte {at}: unknown value 99; known are values below 13")
        }),
        in_arrays("huge array", |file| {
            let at = file.key("flags") + 8;
            file.put(at, (1u64 << 63).to_le_bytes());
            let left = file.len() - at as u64 - 8;
            format!("key \"flags\" array length at byte {at}: {} is more than {left}", 1u64 << 63)
        }),
        in_arrays("huge array of strings", |file| {
            let at = file.key("words") + 8;
            file.put(at, HUGE.to_le_bytes());
            let left = (file.len() - at as u64 - 8) / 8;
            format!("key \"words\" array length at byte {at}: {HUGE} is more than {left}")
        }),
        in_arrays("huge string in an array", |file| {
            let at = file.key("words") + 16 + 8 + 3;
            file.put(at, u64::MAX.to_le_bytes());
            let left = file.len() - at as u64 - 8;
            format!("key \"words\" element 1 length at byte {at}: {} is more than {left}", u64::MAX)
        }),
        unsupported(
            "array of arrays",
            {
                let mut file = arrays();
                let at = file.key("words") + 4;
                file.put(at, 9u32.to_le_bytes());
                file
            },
            "key \"words\" is an array of arrays; expected an array of numbers or texts",
        ),
        bad("alignment 0", aligned(Value::U32(0)), "key \"general.alignment\" at byte 53: 0 is less than 8"),
        bad("alignment 12", aligned(Value::U32(12)), "key \"general.alignment\" at byte 53: 12 is not a multiple of 8"),
        bad(
            "alignment 2^31",
            aligned(Value::U32(1 << 31)),
            "key \"general.alignment\" at byte 53: 2147483648 is more than 65536",
        ),
        bad(
            "alignment a float",
            aligned(Value::F32(32.0)),
            "key \"general.alignment\" at byte 49: metadata type 6 where type 4 was expected",
        ),
    ]
}

/// A file of one metadata entry.
fn aligned(value: Value<'_>) -> File {
    let mut writer = Writer::new(3);
    writer.meta("general.alignment", value);
    File { bytes: writer.to_bytes(|_, _| {}) }
}

/// The tensor table.
fn tensor_cases() -> Vec<Case> {
    const UP: &str = "blk.0.ffn_up.weight"; // [64, 128], Q4_0
    let retyped = |name, number: u32, text: &str| {
        let mut file = File::new();
        let at = file.tensor(UP) + 20;
        file.put(at, number.to_le_bytes());
        unsupported(name, file, text)
    };
    let up = |text: &str| format!("tensor \"{UP}\" {text}");
    vec![
        changed("tensor name too long", |file| {
            let at = file.tensor("token_embd.weight") - 17 - 8;
            file.put(at, 256u64.to_le_bytes());
            format!("tensor 0 name length at byte {at}: 256 is more than 255")
        }),
        changed("tensor name empty", |file| {
            let at = file.tensor("token_embd.weight") - 17 - 8;
            file.put(at, 0u64.to_le_bytes());
            format!("tensor 0 name length at byte {at}: 0 is less than 1")
        }),
        put("no dimensions", |f| f.tensor(UP), [0], &up("dimension count at byte {}: 0 is less than 1")),
        put("five dimensions", |f| f.tensor(UP), [5], &up("dimension count at byte {}: 5 is more than 4")),
        put("zero dimension", |f| f.tensor(UP) + 12, [0; 8], &up("dimension 1 at byte {}: 0 is less than 1")),
        changed("huge dimension", |file| {
            let at = file.tensor(UP) + 4;
            file.put(at, (HUGE + 64).to_le_bytes());
            let limit = file.len() / 18 * 32;
            up(&format!("dimension 0 at byte {at}: {} is more than {limit}", HUGE + 64))
        }),
        changed("dimensions that overflow", |file| {
            let at = file.tensor(UP) + 12;
            file.put(at, (1u64 << 58).to_le_bytes()); // 64 * 2^58 = 2^64
            let limit = file.len() / 18 * 32 / 64;
            up(&format!("dimension 1 at byte {at}: {} is more than {limit}", 1u64 << 58))
        }),
        put("row of 80", |f| f.tensor(UP) + 4, [80], &up("dimension 0 at byte {}: 80 is not a multiple of 32")),
        put(
            "type 44",
            |f| f.tensor(UP) + 20,
            [44],
            &up("type at byte {}: unknown value 44; known are values below 44"),
        ),
        retyped("type Q8_1", 9, &up(&unknown_type("Q8_1"))),
        retyped("type F8_E4M3", 43, &up(&unknown_type("F8_E4M3"))),
        retyped("type Q4_2", 4, &up(&unknown_type("Q4_2"))),
        changed("offset misaligned", |file| {
            let at = file.tensor(UP) + 24;
            let offset = file.u64_at(at) + 4;
            file.put(at, offset.to_le_bytes());
            up(&format!("offset at byte {at}: {offset} is not a multiple of 32"))
        }),
        changed("offset near 2^64", |file| {
            let at = file.tensor(UP) + 24;
            file.put(at, (u64::MAX - 31).to_le_bytes());
            up(&format!("offset at byte {at}: {} is more than {}", u64::MAX - 31, file.len()))
        }),
        changed("data past the end", |file| {
            let at = file.tensor(UP) + 24;
            let offset = (file.len() - 32) / 32 * 32;
            file.put(at, offset.to_le_bytes());
            let data_at = file.data_at();
            let (start, end) = (data_at + offset, data_at + offset + 64 / 32 * 18 * 128);
            up(&format!("data at byte {start}: {end} is more than {}", file.len()))
        }),
        changed("tensors overlap", |file| {
            let at = file.tensor(UP) + 24;
            let before = file.u64_at(file.tensor("blk.0.ffn_gate.weight") + 24);
            file.put(at, (before + 32).to_le_bytes());
            let (start, end) = (file.data_at() + before + 32, file.data_at() + before + 64 / 32 * 18 * 128);
            up(&format!("offset at byte {at}: starts at {start} before {end}, the end of another"))
        }),
        changed("duplicate tensor", |file| {
            file.rename("blk.1.ffn_up.weight", UP);
            let first = file.tensor(UP);
            let second = first + file.bytes[first..].windows(UP.len()).position(|w| w == UP.as_bytes()).expect("twice");
            let index = |at| file.index_of_tensor(at);
            up(&format!("name at byte {second}: stands twice: entry {} repeats entry {}", index(second), index(first)))
        }),
        changed("last byte missing", |file| {
            // The file ends with padding after the last tensor, the output norm of 64 f32.
            let end = file.data_at() + file.u64_at(file.tensor("output_norm.weight") + 16) + 256;
            file.bytes.truncate(end as usize - 1);
            format!("tensor \"output_norm.weight\" data at byte {}: {end} is more than {}", end - 256, end - 1)
        }),
    ]
}
