#!/usr/bin/env python3
"""Writes tests/fixtures/dequant.gguf: random blocks of every quantized type and what the reference makes of them.

Reference: `gguf.quants.dequantize` of the `gguf` package (made with gguf 0.19.0, numpy 2.4.6); it has none of Q1_0 and Q2_0, whose
formulas here are those of ggml-quants.c. For each type T there is a tensor "T" of [2, 256] elements as stored ([6, 256] where the
values are exact), and "T.f32" with its values. The stored bytes are random, so every bit pattern
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
from gguf.gguf_writer import TensorInfo
from gguf.quants import dequantize

# Byte offsets of the f16 scales in a block.
HALVES = {
    T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0],
    T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208],
    T.IQ4_NL: [0], T.IQ4_XS: [0], T.MXFP4: [], T.NVFP4: [], T.IQ3_S: [0], T.IQ3_XXS: [0], T.IQ2_S: [0], T.IQ2_XS: [0],
    T.IQ2_XXS: [0], T.IQ1_S: [0], T.IQ1_M: None, T.TQ1_0: [52], T.TQ2_0: [64], "Q2_0": [0], "Q1_0": [0],
}
# Those that this package does not know: their numbers, elements and bytes a block.
LATER = {"Q2_0": (42, 64, 18), "Q1_0": (41, 128, 18)}
# The types whose values are products of so few bits that they are exact, and so the same in any order.
EXACT = list(HALVES)[10:]
# Zero, the least subnormal and the largest f16, and a negative one.
EXTREME = np.array([0x0000, 0x0001, 0x7bff, 0xfbff], dtype=np.uint16)
COLS = 256


def stored(rng, ty):
    """Random stored bytes of [rows, COLS] elements."""
    rows = 6 if ty in EXACT else 2
    if ty in (T.F32, T.F16, T.BF16):
        values = rng.standard_normal((rows, COLS)).astype(np.float32)
        if ty == T.F32:
            return values.view(np.uint8)
        if ty == T.F16:
            return values.astype(np.float16).view(np.uint8)
        return (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    block, size = LATER[ty][1:] if ty in LATER else GGML_QUANT_SIZES[ty]
    blocks = rng.integers(0, 256, (rows * COLS // block, size), dtype=np.uint8)
    for at in [None] if HALVES[ty] is None else HALVES[ty]:
        halves = rng.uniform(-0.1, 0.1, len(blocks)).astype(np.float16).view(np.uint16)
        if ty in EXACT:
            n = min(len(blocks), len(EXTREME))
            halves[len(blocks) - n:] = EXTREME[rng.permutation(len(EXTREME))[:n]]
        if at is None:  # IQ1_M: four bits of it at the top of each of four numbers
            for i, byte in enumerate([49, 51, 53, 55]):
                blocks[:, byte] = blocks[:, byte] & 15 | (halves >> 4 * i & 15) << 4
        else:
            blocks[:, at:at + 2] = halves.view(np.uint8).reshape(-1, 2)
    if ty == T.NVFP4:
        blocks[:2] = np.hstack([[[0, 1, 7, 8], [0x7e, 0x7f, 0x80, 0xff]], blocks[:2, 4:]])
    if ty == T.MXFP4:
        blocks[:, 0] = [0, 1, 2, 251, *rng.integers(0, 252, len(blocks) - 4)]
    return blocks.reshape(rows, -1)


def values_of(data, ty):
    """What stored bytes mean."""
    if ty not in LATER:
        return dequantize(data, ty).astype(np.float32)
    blocks = data.reshape(-1, 18)
    d, q = blocks[:, :2].copy().view(np.float16).astype(np.float32), blocks[:, 2:]
    if ty == "Q1_0":
        return d * (2 * np.unpackbits(q, axis=1, bitorder="little").astype(np.float32) - 1)
    fields = q[:, :, None] >> np.array([0, 2, 4, 6], dtype=np.uint8) & 3
    return d * (fields.reshape(len(blocks), -1).astype(np.float32) - 1)


def main():
    path = pathlib.Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "dequant.gguf"
    versions = " ".join(f"{p} {importlib.metadata.version(p)}" for p in ("gguf", "numpy"))
    rng = np.random.default_rng(1)
    writer = GGUFWriter(path, "none")
    writer.add_string("fixture.made_by", f"scripts/make_dequant_fixture.py with {versions}")
    for ty in [T.F32, T.F16, T.BF16, *HALVES]:
        data = stored(rng, ty)
        name = ty if ty in LATER else ty.name
        if ty in LATER:
            writer.tensors[-1][name] = TensorInfo((len(data), COLS), LATER[ty][0], data.size, data)
        else:
            writer.add_tensor(name, data, raw_dtype=ty)
        writer.add_tensor(f"{name}.f32", values_of(data, ty).reshape(-1, COLS))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{path}: {path.stat().st_size} bytes, {versions}")


if __name__ == "__main__":
    main()
