"""Writes the trace of `generate --trace` from Hugging Face transformers, to compare a model with its origin.

    build/generate -m FILE.gguf -p TEXT -n 8 --trace kigo.safetensors
    python scripts/trace_transformers.py --model FILE.gguf --like kigo.safetensors --out origin.safetensors
    build/compare kigo.safetensors origin.safetensors

`--model` is a GGUF file, whose dequantized weights then run in f32: what is left is arithmetic and the f16 cache. Or it
is a folder of a transformers model: the difference is then that of the quantization too. The tokens are those of the
trace `--like`. Tensors and names: examples-c/trace.h; `sampled` are the most likely tokens where the trace sampled.
Architectures: qwen2, qwen3, llama, gemma3. Queries and keys of llama are written in the order of the GGUF file.

Written against transformers 5.23.0, torch 2.15.0, numpy 2.4.6, safetensors 0.8.0.
"""

import argparse
import os
import sys

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file, save_file

import hf_gguf


def neighbours(rows: np.ndarray, head_dim: int) -> np.ndarray:
    """Elements `i` and `i + head_dim / 2` of each head become elements `2i` and `2i + 1`; rows: [n, heads * head_dim]."""
    return rows.reshape(len(rows), -1, 2, head_dim // 2).swapaxes(2, 3).reshape(rows.shape)


def trace(model, arch: str, tokens: np.ndarray) -> dict:
    """All stages of a forward pass over `tokens`, f32 [n, columns] each."""
    stages = {}

    def keep(name, x):
        stages[name] = x.detach().float().reshape(len(tokens), -1).numpy().copy()

    def output_of(module, name):
        module.register_forward_hook(lambda m, args, out: keep(name, out[0] if isinstance(out, tuple) else out))

    def input_of(module, name):
        module.register_forward_pre_hook(lambda m, args: keep(name, args[0]))

    output_of(model.model.embed_tokens, "embed")
    for i, layer in enumerate(model.model.layers):
        at = f"layers.{i}."
        output_of(layer.input_layernorm, at + "attn_norm")
        output_of(layer.self_attn.v_proj, at + "v")
        input_of(layer.self_attn.o_proj, at + "attn_mix")
        output_of(layer.self_attn.o_proj, at + "attn_out")
        output_of(getattr(layer, "pre_feedforward_layernorm", layer.post_attention_layernorm), at + "ffn_norm")
        input_of(layer.mlp.down_proj, at + "ffn_act")
        output_of(layer.mlp.down_proj, at + "ffn_out")
        output_of(layer, at + "resid")
    output_of(model.model.norm, "final_norm")

    code = sys.modules[type(model).__module__]
    rotate, n_calls = code.apply_rotary_pos_emb, 0

    def rotate_and_keep(*args, **kwargs):
        nonlocal n_calls
        q, k = rotate(*args, **kwargs)
        for name, x in (("q_rope", q), ("k_rope", k)):  # [1, heads, n, head_dim]
            keep(f"layers.{n_calls}.{name}", x.transpose(1, 2))
            if arch == "llama":
                rows = stages[f"layers.{n_calls}.{name}"]
                stages[f"layers.{n_calls}.{name}"] = np.ascontiguousarray(neighbours(rows, x.shape[-1]))
        n_calls += 1
        return q, k

    code.apply_rotary_pos_emb = rotate_and_keep
    try:
        with torch.no_grad():
            keep("logits", model(torch.from_numpy(tokens)[None], use_cache=False).logits)
    finally:
        code.apply_rotary_pos_emb = rotate
    if n_calls != len(model.model.layers):
        raise SystemExit(f"{n_calls} rotations in {len(model.model.layers)} layers: another version of transformers?")
    return stages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a GGUF file, or a folder of a transformers model")
    parser.add_argument("--like", required=True, help="the trace whose tokens are taken")
    parser.add_argument("--out", required=True)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    like = load_file(args.like)
    tokens, counters = like["tokens"], like["random_counters"]
    if os.path.isdir(args.model):
        model = transformers.AutoModelForCausalLM.from_pretrained(
            args.model, dtype=torch.float32, attn_implementation="eager"
        ).eval()
    else:
        model = hf_gguf.load(args.model)
    arch = model.config.model_type.removesuffix("_text")
    stages = trace(model, arch, tokens)
    n = len(tokens)
    positions = np.arange(n, dtype=np.int64)
    best = stages["logits"].argmax(axis=1).astype(np.int64)
    whole = {
        "tokens": tokens,
        "positions": positions,
        "sampled": best[counters - 1],
        "random_counters": counters,
        "final_norm.positions": positions,
        "logits.positions": positions,
    }
    save_file(whole | stages, args.out, {"transformers": transformers.__version__, "seed": "0"})
    print(f"{args.out}: {n} tokens, {len(stages)} stages of {args.model}")


if __name__ == "__main__":
    main()
