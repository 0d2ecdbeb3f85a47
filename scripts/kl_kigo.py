"""Kigo's logits, through its C ABI, beside the reference's.

    python scripts/kl_kigo.py --lib target/release/libkigo.so --model FILE.gguf [--truth DIR] [--device cpu] [--threads N]
                              [--batch N] [--save FILE.npy]

Feeds the token ids of DIR/STEM.tokens.json (kl_truth.py), `--batch` at a time (1), takes the logits after each
batch's last token, and prints kl.py's line over the positions seen. `--save` keeps the logits as .npy.
"""

import argparse
import ctypes as c
import json
import os

import numpy as np

import kl


class EngineOptions(c.Structure):
    """kigo_engine_options up to what is set here; the rest are defaults."""

    _fields_ = [
        ("struct_size", c.c_size_t),
        ("device", c.c_char_p),
        ("device_len", c.c_size_t),
        ("log", c.c_void_p),
        ("log_user_data", c.c_void_p),
        ("memory_cap_bytes", c.c_uint64),
        ("n_threads", c.c_uint32),
        ("log_level", c.c_int32),
    ]


class Kigo:
    """One session of a model; every status is checked."""

    def __init__(self, lib: str, model: str, device: str, n_threads: int):
        self.lib = c.CDLL(os.path.abspath(lib))
        self.lib.kigo_last_error.restype = c.c_char_p
        strlen = c.c_size_t(-1)
        name = device.encode()
        options = EngineOptions(c.sizeof(EngineOptions), name, len(name), None, None, 0, n_threads, 0)
        self.engine, self.model, self.session = c.c_void_p(), c.c_void_p(), c.c_void_p()
        self.call("kigo_engine_create", c.byref(options), c.byref(self.engine))
        self.call("kigo_model_load_file", self.engine, model.encode(), strlen, None, c.byref(self.model))
        self.call("kigo_session_create", self.model, None, c.byref(self.session))

    def call(self, name: str, *args) -> None:
        if getattr(self.lib, name)(*args) != 0:
            raise SystemExit(f"{name}: {self.lib.kigo_last_error().decode()}")

    def restart(self) -> None:
        self.call("kigo_session_truncate", self.session, c.c_size_t(0))

    def feed(self, tokens: list, logits: np.ndarray) -> None:
        """Appends `tokens` and fills `logits`, [n_vocab] f32 contiguous, with those of the last."""
        ids, needed = (c.c_uint32 * len(tokens))(*tokens), c.c_size_t()
        self.call("kigo_session_prefill", self.session, ids, c.c_size_t(len(tokens)))
        buffer = logits.ctypes.data_as(c.POINTER(c.c_float))
        self.call("kigo_session_logits", self.session, buffer, c.c_size_t(len(logits)), c.byref(needed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lib", default="target/release/libkigo.so")
    parser.add_argument("--model", required=True)
    parser.add_argument("--truth", default=os.environ.get("KIGO_TRUTH", "truth"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--save")
    args = parser.parse_args()
    stem = os.path.splitext(os.path.basename(args.model))[0]
    with open(os.path.join(args.truth, f"{stem}.tokens.json")) as f:
        prompts = json.load(f)["prompts"]
    truth = np.load(os.path.join(args.truth, f"{stem}.npy"), mmap_mode="r")

    session = Kigo(args.lib, args.model, args.device, args.threads)
    rows, logits = [], []
    at = 0
    for prompt in prompts:
        session.restart()
        for start in range(0, len(prompt), args.batch):
            tokens = prompt[start : start + args.batch]
            row = np.empty(truth.shape[1], dtype=np.float32)
            session.feed(tokens, row)
            logits.append(row)
            rows.append(at + start + len(tokens) - 1)
        at += len(prompt)
    if args.save:
        np.save(args.save, np.stack(logits))
    print(kl.line(f"Kigo {args.device} {stem}", kl.compare([truth[i] for i in rows], logits)))


if __name__ == "__main__":
    main()
