//! The GGUF reader: real files.

use std::path::Path;
use std::time::Instant;

use kigo::gguf::{Gguf, dequantize_row};

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
        let start = Instant::now();
        let gguf = Gguf::open(&path).expect("opens");
        println!("{name}: {:?}", start.elapsed());
        let start = Instant::now();
        let n = gguf.strings("tokenizer.ggml.tokens").expect("tokens").strings().count();
        println!("{n} strings: {:?}", start.elapsed());
        let info = gguf.tensor("token_embd.weight").expect("embedding");
        assert_eq!(info.rows(), n);
        let mut row = vec![0.0; info.cols()];
        dequantize_row(info.ty, &info.data[..info.ty.row_bytes(info.cols())], &mut row).expect("row");
        println!("{:?}", &row[..4]);
        gguf.release(info.data);
    }
}
