"""Makes tests/fixtures/parity: tiny random models as GGUF files and their logits from transformers in f32.

    python scripts/make_parity_fixtures.py

The matrices' values are exact in f16, so that the F32 and the F16 file of a model hold the same numbers and one
set of logits serves both. For each model NAME: NAME-f32.gguf and/or NAME-f16.gguf; NAME.json with the token ids, the
positions whose logits are kept, and the versions; NAME.logits, f32 little endian [positions, n_vocab];
NAME.embeddings, f32 little endian [4, n_embd]: of all tokens' last hidden states the mean, the mean divided by its
length, the last, the last divided by its length.

Written with transformers 5.23.0, torch 2.15.0 (CPU), gguf 0.19.0, numpy 2.4.6; the versions used stand in each json.
"""

import importlib.metadata
import json
import math
import os

import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType as Q

import hf_gguf

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "fixtures", "parity")
N_TOKENS = 80  # crosses the edge of a cache page (64) and five of gemma's windows (16)
POSITIONS = [0, 1, 14, 15, 16, 17, 63, 64, 79]
MERGES = ["t h", "th e", "i n", "a n", "e r", "o n"]
N_VOCAB = 256 + len(MERGES) + 2

COMMON = dict(vocab_size=N_VOCAB, hidden_size=64, max_position_embeddings=256, attn_implementation="eager")
# name: (architecture, files, configuration). Head counts, head sizes and widths all differ from each other.
MODELS = {
    "qwen2": ("qwen2", [Q.F32, Q.F16], transformers.Qwen2Config(
        **COMMON, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        rms_norm_eps=1e-6, tie_word_embeddings=True, rope_parameters={"rope_type": "default", "rope_theta": 1e6})),
    "qwen3": ("qwen3", [Q.F16], transformers.Qwen3Config(
        **COMMON, intermediate_size=80, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2, head_dim=24,
        rms_norm_eps=1e-6, tie_word_embeddings=False, rope_parameters={"rope_type": "default", "rope_theta": 1e6})),
    "llama": ("llama", [Q.F32], transformers.LlamaConfig(
        **COMMON, intermediate_size=72, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=1,
        rms_norm_eps=1e-5, tie_word_embeddings=False, rope_parameters={
            "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64})),
    "gemma3": ("gemma3", [Q.F16], transformers.Gemma3TextConfig(
        **COMMON, intermediate_size=72, num_hidden_layers=7, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
        query_pre_attn_scalar=16, rms_norm_eps=1e-6, tie_word_embeddings=True, sliding_window=16,
        hidden_activation="gelu_pytorch_tanh", final_logit_softcapping=None, rope_parameters={
            "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}})),
}


def byte_alphabet() -> list:
    """The characters that stand for the 256 bytes in a byte-level vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    chars = {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}
    return [chars[b] for b in range(256)]


def randomize(model, arch: str, generator: torch.Generator) -> None:
    """Weights that keep every stage's outputs near one, so that an error anywhere reaches the logits."""
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if "norm" in name:
            p.data = 0.2 * noise + (0.0 if arch == "gemma3" else 1.0)
        elif name.endswith("bias"):
            p.data = 0.5 * noise
        elif "embed_tokens" in name:
            p.data = (0.3 * noise).half().float()
        else:
            p.data = (1.5 / math.sqrt(p.shape[1]) * noise).half().float()


def main() -> None:
    os.makedirs(OUT, exist_ok=True)
    torch.use_deterministic_algorithms(True)
    versions = {p: importlib.metadata.version(p) for p in ("transformers", "torch", "gguf", "numpy")}
    tokens = byte_alphabet() + [m.replace(" ", "") for m in MERGES] + ["<|bos|>", "<|eos|>"]
    token_types = [1] * (N_VOCAB - 2) + [3, 3]
    for seed, (name, (arch, types, config)) in enumerate(MODELS.items()):
        generator = torch.Generator().manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        randomize(model, arch, generator)
        ids = torch.randint(0, N_VOCAB, (1, N_TOKENS), generator=generator)
        with torch.no_grad():
            logits = model(ids).logits[0, POSITIONS].numpy()
            states = model.model(ids).last_hidden_state[0].double()
        pooled = [states.mean(0), states[-1]]
        embeddings = torch.stack([v for x in pooled for v in (x, torch.nn.functional.normalize(x, dim=0))])
        embeddings.numpy().astype("<f4").tofile(os.path.join(OUT, f"{name}.embeddings"))
        assert logits.dtype == np.float32 and np.isfinite(logits).all()
        logits.astype("<f4").tofile(os.path.join(OUT, f"{name}.logits"))
        files = [f"{name}-{t.name.lower()}.gguf" for t in types]
        with open(os.path.join(OUT, f"{name}.json"), "w") as f:
            json.dump({"files": files, "tokens": ids[0].tolist(), "positions": POSITIONS, "versions": versions}, f)
            f.write("\n")
        for t, file in zip(types, files):
            path = os.path.join(OUT, file)
            hf_gguf.save(model, arch, path, t, tokens, token_types, MERGES)
            # The file, read back into transformers, gives the same logits: the two directions agree.
            with torch.no_grad():
                again = hf_gguf.load(path)(ids).logits[0, POSITIONS].numpy()
            scale = np.sqrt(np.mean(logits**2))
            print(f"{file}: {os.path.getsize(path)} bytes, logits rms {scale:.3f}, top gap median "
                  f"{np.median(np.diff(np.sort(logits)[:, -2:])):.2f}, read back max error {np.abs(again - logits).max() / scale:.1e}")


if __name__ == "__main__":
    main()
