"""Makes the reference for kl.py: logits of transformers, f32, on a GGUF file's dequantized weights.

    python scripts/kl_truth.py --model FILE.gguf --out DIR [--tokens N] [--threads N]

Takes the texts of kl_prompts.txt, tokenizes them with llama-cpp-python (only for the ids: what they are does not matter
to the comparison, but they must be the same for everybody) and keeps the first N (100) tokens of each. Writes

    DIR/STEM.tokens.json   {"model", "n_vocab", "prompts": [[id, ...], ...], "versions"}
    DIR/STEM.npy           f32 [positions, n_vocab]: the logits after each token, prompt after prompt

Versions: transformers 5.23.0, torch 2.15.0 (CPU), gguf 0.19.0, numpy 2.4.6, llama-cpp-python 0.3.36.
llama-cpp-python need not be built by pip: its python package finds libllama.so under LLAMA_CPP_LIB_PATH.
"""

import argparse
import importlib.metadata
import json
import os

import numpy as np
import torch
from llama_cpp import Llama, __version__ as llama_cpp_version
from numpy.lib.format import open_memmap

import hf_gguf


def prompts() -> list:
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "kl_prompts.txt")
    with open(path, encoding="utf-8") as f:
        return [text.strip("\n") for text in f.read().split("\n---\n")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--tokens", type=int, default=100, help="of each prompt")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    os.makedirs(args.out, exist_ok=True)
    stem = os.path.join(args.out, os.path.splitext(os.path.basename(args.model))[0])

    vocab = Llama(args.model, vocab_only=True, verbose=False)
    begin = vocab.metadata.get("tokenizer.ggml.add_bos_token", "false") == "true"
    ids = [vocab.tokenize(t.encode(), add_bos=begin, special=True)[: args.tokens] for t in prompts()]
    short = [(i, len(p)) for i, p in enumerate(ids) if len(p) < args.tokens]
    if short:
        raise SystemExit(f"too short: (prompt, tokens) {short}")
    del vocab

    model = hf_gguf.load(args.model)
    n_vocab = model.config.vocab_size
    versions = {p: importlib.metadata.version(p) for p in ("transformers", "torch", "gguf", "numpy")}
    versions["llama-cpp-python"] = llama_cpp_version
    with open(f"{stem}.tokens.json", "w") as f:
        json.dump({"model": os.path.basename(args.model), "n_vocab": n_vocab, "prompts": ids, "versions": versions}, f)
    out = open_memmap(f"{stem}.npy", mode="w+", dtype=np.float32, shape=(sum(map(len, ids)), n_vocab))
    at = 0
    for i, prompt in enumerate(ids):
        with torch.no_grad():
            logits = model(torch.tensor([prompt])).logits[0].numpy()
        out[at : at + len(prompt)] = logits
        at += len(prompt)
        print(f"{i + 1}/{len(ids)}", flush=True)
    out.flush()


if __name__ == "__main__":
    main()
