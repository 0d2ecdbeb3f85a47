//! Feeds the token ids of a file to a model and writes the logits after each, for scripts/kl.py.
//!
//! `dump_logits MODEL.gguf IDS.tokens.json OUT.bin [cpu|reference]`: `IDS` as scripts/kl_truth.py writes them; `OUT` is
//! f32, little endian, `[positions, n_vocab]`, prompt after prompt. Tokens go in one at a time.

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use kigo::backend::cpu::{CpuDevice, CpuOptions};
use kigo::backend::reference::ReferenceDevice;
use kigo::backend::{Chunk, Device, LoadControl, PAGE_TOKENS, RunControl, Want};
use kigo::gguf::Gguf;
use kigo::model::bind;

struct NoControl;

impl LoadControl for NoControl {
    fn progress(&mut self, _done: u64, _total: u64) -> kigo::error::Result<()> {
        Ok(())
    }
    fn release(&mut self, _bytes: &[u8]) {}
}

fn device(name: &str) -> Result<Box<dyn Device>, Box<dyn Error>> {
    match name {
        "reference" => Ok(Box::new(ReferenceDevice)),
        "cpu" => Ok(Box::new(CpuDevice::new(CpuOptions::default())?)),
        other => Err(format!("no device {other}").into()),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, ids, out, rest @ ..] = &args[..] else {
        return Err("usage: dump_logits MODEL.gguf IDS.tokens.json OUT.bin [DEVICE]".into());
    };
    let device = device(rest.first().map_or("cpu", |d| d))?;
    let ids: serde_json::Value = serde_json::from_reader(File::open(ids)?)?;
    let prompts: Vec<Vec<u32>> = serde_json::from_value(ids["prompts"].clone())?;
    let gguf = Gguf::open(Path::new(model))?;
    let (config, weights) = bind(&gguf)?;
    let model = device.load(&config, &weights, &mut NoControl)?;

    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    let pages: Vec<u32> = (0..longest.div_ceil(PAGE_TOKENS) as u32).collect();
    model.reserve_pages(pages.len())?;
    let mut slot = model.create_slot()?;
    let mut logits = vec![0f32; config.n_vocab];
    let mut out = BufWriter::new(File::create(out)?);
    for (i, prompt) in prompts.iter().enumerate() {
        for start in 0..prompt.len() {
            let tokens = &prompt[start..start + 1];
            let mut chunks = [Chunk { tokens, start, pages: &pages, slot: &mut *slot, want: Want::Last }];
            model.forward(&mut chunks, &mut RunControl { cancel: &AtomicBool::new(false), tap: None })?;
            model.logits(&mut *slot, &mut logits)?;
            for l in &logits {
                out.write_all(&l.to_le_bytes())?;
            }
        }
        eprintln!("{}/{}", i + 1, prompts.len());
    }
    Ok(out.flush()?)
}
