#!/usr/bin/env python3
"""Writes tests/fixtures/dequant.gguf: random blocks of every quantized type and what the reference makes of them.

Reference: `gguf.quants.dequantize` of the `gguf` package (made with gguf 0.19.0, numpy 2.4.6). For each type T there is a
tensor "T" of [2, 256] elements as stored, and "T.f32" with its values. The stored bytes are random, so every bit pattern
of scales and quants occurs; only the f16 scales are kept in a sane range, with zero and the smallest and the largest ones
among those of the types whose values are products alone, and MXFP4's exponents below what overflows.

    python3 -m pip install gguf==0.19.0 numpy
    python3 scripts/make_dequant_fixture.py
"""

import importlib.metadata
import pathlib

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import GGUFWriter
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize

# Byte offsets of the f16 scales in a block.
HALVES = {
    T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0],
    T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208],
    T.IQ4_NL: [0], T.IQ4_XS: [0], T.MXFP4: [],
}
# The types whose values are products of so few bits that they are exact, and so the same in any order.
EXACT = [T.IQ4_NL, T.IQ4_XS, T.MXFP4]
# Zero, the least subnormal and the largest f16, and a negative one.
EXTREME = np.array([0x0000, 0x0001, 0x7bff, 0xfbff], dtype=np.uint16)
ROWS, COLS = 2, 256


def stored(rng, ty):
    """Random stored bytes of [ROWS, COLS] elements."""
    if ty in (T.F32, T.F16, T.BF16):
        values = rng.standard_normal((ROWS, COLS)).astype(np.float32)
        if ty == T.F32:
            return values.view(np.uint8)
        if ty == T.F16:
            return values.astype(np.float16).view(np.uint8)
        return (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    block, size = GGML_QUANT_SIZES[ty]
    blocks = rng.integers(0, 256, (ROWS * COLS // block, size), dtype=np.uint8)
    for at in HALVES[ty]:
        halves = rng.uniform(-0.1, 0.1, len(blocks)).astype(np.float16).view(np.uint16)
        if ty in EXACT:
            n = min(len(blocks), len(EXTREME))
            halves[len(blocks) - n:] = EXTREME[rng.permutation(len(EXTREME))[:n]]
        blocks[:, at:at + 2] = halves.view(np.uint8).reshape(-1, 2)
    if ty == T.MXFP4:
        blocks[:, 0] = [0, 1, 2, 251, *rng.integers(0, 252, len(blocks) - 4)]
    return blocks.reshape(ROWS, -1)


def main():
    path = pathlib.Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "dequant.gguf"
    versions = " ".join(f"{p} {importlib.metadata.version(p)}" for p in ("gguf", "numpy"))
    rng = np.random.default_rng(1)
    writer = GGUFWriter(path, "none")
    writer.add_string("fixture.made_by", f"scripts/make_dequant_fixture.py with {versions}")
    for ty in [T.F32, T.F16, T.BF16, *HALVES]:
        data = stored(rng, ty)
        writer.add_tensor(ty.name, data, raw_dtype=ty)
        values = dequantize(data, ty).astype(np.float32).reshape(ROWS, COLS)
        writer.add_tensor(f"{ty.name}.f32", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{path}: {path.stat().st_size} bytes, {versions}")


if __name__ == "__main__":
    main()
