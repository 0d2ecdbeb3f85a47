"""llama.cpp's logits beside the reference's: the peer's numbers that Kigo's are measured against.

    python scripts/compare_llama_cpp.py --model FILE.gguf --truth DIR [--threads N] [--save FILE.npy]

Feeds the token ids of DIR/STEM.tokens.json (kl_truth.py) one by one to an installed llama-cpp-python, at llama.cpp's own
defaults (f16 KV cache), takes the logits after each, and prints kl.py's line. Measured with llama-cpp-python 0.3.36
(ggml 0.25.3), libllama built with GGML_NATIVE=ON.
"""

import argparse
import ctypes
import json
import os

import llama_cpp
import numpy as np

import kl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--truth", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1, help="tokens a call; more than 1 runs its prefill path")
    parser.add_argument("--save")
    args = parser.parse_args()
    stem = os.path.splitext(os.path.basename(args.model))[0]
    with open(os.path.join(args.truth, f"{stem}.tokens.json")) as f:
        prompts = json.load(f)["prompts"]
    truth = np.load(os.path.join(args.truth, f"{stem}.npy"), mmap_mode="r")

    quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    model = llama_cpp.llama_model_load_from_file(args.model.encode(), llama_cpp.llama_model_default_params())
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = 512
    params.n_batch = params.n_ubatch = 512
    params.n_threads = params.n_threads_batch = args.threads
    context = llama_cpp.llama_init_from_model(model, params)
    batch = llama_cpp.llama_batch_init(args.batch, 0, 1)
    n_vocab = truth.shape[1]

    logits = np.empty(truth.shape, dtype=np.float32)
    at = 0
    for prompt in prompts:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        for start in range(0, len(prompt), args.batch):
            tokens = prompt[start : start + args.batch]
            batch.n_tokens = len(tokens)
            for i, token in enumerate(tokens):
                batch.token[i], batch.pos[i] = token, start + i
                batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, 0, 1
            if llama_cpp.llama_decode(context, batch) != 0:
                raise SystemExit("llama_decode failed")
            for i in range(len(tokens)):
                row = llama_cpp.llama_get_logits_ith(context, i)
                logits[at] = np.ctypeslib.as_array(row, shape=(n_vocab,))
                at += 1
    if args.save:
        np.save(args.save, logits)
    print(kl.line(f"llama.cpp {stem}", kl.compare(truth, logits)))


if __name__ == "__main__":
    main()
