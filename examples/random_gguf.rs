//! Writes a GGUF of random weights with the shape of a real model, for measuring and testing without downloads.
//!
//! ```text
//! random_gguf --shape qwen2.5-0.5b --type Q4_K_M -o FILE [--seed N] [--layers N] [--vocab N] [--vocab-from FILE]
//! random_gguf --list
//! ```
//!
//! The file is the same for the same arguments, however many threads write it: every row's numbers are a function of
//! the seed, the tensor's name and the row. Quantized matrices are drawn as blocks, of the standard deviation that
//! their shape asks for: quantizing would take minutes for a large model, and their numbers mean nothing anyway.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use kigo::gguf::{Gguf, TensorType, Writer, quantize_row};

#[path = "../tests/common/blocks.rs"]
mod blocks;
#[path = "../tests/common/habits.rs"]
mod habits;
#[path = "../tests/common/newer.rs"]
mod newer;
#[path = "../tests/common/random.rs"]
mod random;
#[path = "../tests/common/recipes.rs"]
mod recipes;
#[path = "../tests/common/shapes.rs"]
mod shapes;
#[path = "../tests/common/states.rs"]
mod states;
#[path = "../tests/common/vocab.rs"]
mod vocab;

use blocks::Blocks;
use recipes::{RECIPES, Recipe};
use shapes::{Kind, Shape, TensorSpec};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Bytes that a thread makes before it writes them.
const PIECE_BYTES: usize = 4 << 20;

struct Args {
    shape: Shape,
    recipe: Recipe,
    seed: u64,
    out: PathBuf,
    vocab_from: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("random_gguf: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let Some(args) = parse(std::env::args().skip(1))? else {
        for shape in shapes::all() {
            println!(
                "{:16} {:7} {} layers, {} wide, {} tokens",
                shape.name, shape.arch, shape.n_layers, shape.n_embd, shape.n_vocab
            );
        }
        println!("types: {}", RECIPES.map(|r| r.name).join(" "));
        return Ok(());
    };
    let start = Instant::now();
    let mut shape = args.shape;
    let source = args.vocab_from.as_deref().map(Gguf::open).transpose()?;
    if let Some(source) = &source {
        shape.n_vocab = source.strings("tokenizer.ggml.tokens")?.len();
    }

    let mut writer = Writer::new(3);
    shape.write_meta(&mut writer, args.recipe.file_type);
    match &source {
        Some(source) => {
            for (key, value) in source.meta_iter().filter(|(key, _)| key.starts_with("tokenizer.")) {
                writer.meta(key, value);
            }
        }
        None => vocab::write(&mut writer, shape.pre, shape.n_vocab),
    }
    let specs = shape.tensors();
    let types: Vec<TensorType> = specs.iter().map(|spec| args.recipe.type_of(&shape, spec)).collect();
    for (spec, &ty) in specs.iter().zip(&types) {
        writer.tensor(&spec.name, ty, &spec.dims());
    }
    let layout = writer.layout();

    let file = File::create(&args.out).map_err(|e| format!("{}: {e}", args.out.display()))?;
    file.set_len(layout.file_bytes)?;
    file.write_all_at(&layout.head, 0)?;
    let blocks: Vec<Option<Blocks>> = specs.iter().zip(&types).map(|(spec, &ty)| blocks_of(spec, ty)).collect();
    let mut pieces = Vec::new();
    for (i, (spec, range)) in specs.iter().zip(&layout.tensors).enumerate() {
        let row_bytes = types[i].row_bytes(spec.cols);
        let rows_a_piece = (PIECE_BYTES / row_bytes).max(1);
        for first in (0..spec.rows).step_by(rows_a_piece) {
            let at = range.start + (first * row_bytes) as u64;
            let rows = first..spec.rows.min(first + rows_a_piece);
            pieces.push(Piece { spec, ty: types[i], blocks: blocks[i].as_ref(), rows, at });
        }
    }
    write_pieces(&file, &pieces, args.seed)?;

    check(&args.out)?;
    let (gib, seconds) = (layout.file_bytes as f64 / (1u64 << 30) as f64, start.elapsed().as_secs_f64());
    println!("{}: {gib:.2} GiB, {} tensors, {seconds:.1} s", args.out.display(), specs.len());
    Ok(())
}

/// `None` for `--list`.
fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Args>, Failure> {
    let (mut shape, mut recipe, mut out, mut vocab_from) = (None, None, None, None);
    let (mut seed, mut layers, mut vocab) = (0, None, None);
    while let Some(word) = words.next() {
        if word == "--list" {
            return Ok(None);
        }
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--shape" => {
                let name = value()?;
                shape = Some(Shape::named(&name).ok_or(format!("no shape {name}; --list shows them"))?);
            }
            "--type" => {
                let name = value()?;
                recipe = Some(Recipe::named(&name).ok_or(format!("no type {name}; --list shows them"))?);
            }
            "--seed" => seed = value()?.parse()?,
            "--layers" => layers = Some(value()?.parse()?),
            "--vocab" => vocab = Some(value()?.parse::<usize>()?),
            "--vocab-from" => vocab_from = Some(PathBuf::from(value()?)),
            "-o" => out = Some(PathBuf::from(value()?)),
            _ => return Err(format!("unknown argument {word}").into()),
        }
    }
    let mut shape: Shape = shape.ok_or("--shape is missing")?;
    shape.n_layers = layers.unwrap_or(shape.n_layers);
    shape.n_vocab = vocab.unwrap_or(shape.n_vocab);
    if shape.n_layers == 0 || shape.n_vocab < 300 {
        return Err("at least 1 layer and 300 tokens are needed".into());
    }
    let recipe = recipe.ok_or("--type is missing")?;
    let out = out.ok_or("-o is missing")?;
    Ok(Some(Args { shape, recipe, seed, out, vocab_from }))
}

/// Rows of a tensor that are made and written together.
struct Piece<'a> {
    spec: &'a TensorSpec,
    ty: TensorType,
    blocks: Option<&'a Blocks>,
    rows: std::ops::Range<usize>,
    /// Where they begin in the file.
    at: u64,
}

/// How a matrix of a type with blocks is drawn.
fn blocks_of(spec: &TensorSpec, ty: TensorType) -> Option<Blocks> {
    match spec.kind {
        Kind::Matrix { std, .. } => Blocks::new(ty, std),
        _ => None,
    }
}

/// Makes and writes all pieces on all cores.
fn write_pieces(file: &File, pieces: &[Piece<'_>], seed: u64) -> Result<(), Failure> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<(), Failure> {
        let (mut row, mut bytes) = (Vec::new(), Vec::new());
        while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            row.resize(piece.spec.cols, 0.0);
            bytes.resize(piece.rows.len() * piece.ty.row_bytes(piece.spec.cols), 0);
            let key = random::key(seed, &piece.spec.name);
            for (r, out) in piece.rows.clone().zip(bytes.chunks_exact_mut(piece.ty.row_bytes(piece.spec.cols))) {
                if let Some(blocks) = piece.blocks {
                    blocks.fill_row(key, r as u64, out);
                } else {
                    random::fill_row(piece.spec, seed, r as u64, &mut row);
                    quantize_row(piece.ty, &row, out)?;
                }
            }
            file.write_all_at(&bytes, piece.at)?;
        }
        Ok(())
    };
    let n_threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..n_threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|t| t.join().map_err(|_| "a thread panicked")?)
    })
}

/// Opens the file as the engine would.
fn check(path: &Path) -> Result<(), Failure> {
    kigo::model::bind(&Gguf::open(path)?)?;
    Ok(())
}
