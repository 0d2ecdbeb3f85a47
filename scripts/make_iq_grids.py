#!/usr/bin/env python3
"""Writes src/gguf/grids.rs and cuda/device/grids.cuh: the code books of the IQ types, by Iwan Kawrakow.

They are data of ggml under the MIT licence (LICENSE-IQ-GRIDS), taken from the `gguf` package, which has them as strings of
hexadecimal digits (made with gguf 0.19.0). An entry is four or eight small values; written is their place in the list of
values that an entry may have, its code, one for each four bits, the first value lowest.

    python3 -m pip install gguf==0.19.0 numpy
    python3 scripts/make_iq_grids.py
"""

import importlib.metadata
import pathlib

import numpy as np
from gguf import quants

ROOT = pathlib.Path(__file__).resolve().parent.parent
BOOKS = [quants.IQ2_XXS, quants.IQ2_XS, quants.IQ2_S, quants.IQ1_S, quants.IQ3_XXS, quants.IQ3_S]

ABOUT = """{c} The code books of the IQ types: data of ggml by Iwan Kawrakow, Copyright (c) 2023-2026 The ggml authors, MIT licence:
{c} LICENSE-IQ-GRIDS. Written by scripts/make_iq_grids.py with gguf {version}; not to be edited.
{c}
{c} An entry is eight values (IQ2, IQ1) or four (IQ3), each as its code, four bits wide, the first value lowest."""


def codes(book):
    """[entries, values] of codes."""
    book.init_grid()
    values = book.grid.reshape(book.grid_shape)
    places = {float(v): i for i, v in enumerate(book.grid_map)}
    return np.vectorize(lambda v: places[float(v)])(values)


def words(book):
    """An entry's codes in a word."""
    return [sum(int(c) << (4 * i) for i, c in enumerate(entry)) for entry in codes(book)]


def lines(book, per_line):
    digits = book.grid_shape[1]
    all_words = [f"0x{w:0{digits}x}" for w in words(book)]
    return ["    " + ", ".join(all_words[i:i + per_line]) + "," for i in range(0, len(all_words), per_line)]


def rust():
    text = [ABOUT.format(c="//!", version=importlib.metadata.version("gguf")), ""]
    for book in BOOKS:
        name, (n, width) = book.qtype.name, book.grid_shape
        values = ", ".join(str(v) for v in book.grid_map)
        text += [f"/// Codes of {values}.", "#[rustfmt::skip]", f"pub const {name}: [u{4 * width}; {n}] = ["]
        text += [*lines(book, 12 if width == 8 else 20), "];", ""]
    return "\n".join(text[:-1]) + "\n"


def cuda():
    """Lists for arrays inside of functions: a variable of the device would have to be known to CUDA's runtime."""
    text = [ABOUT.format(c="//", version=importlib.metadata.version("gguf")), "#pragma once", ""]
    for book in BOOKS:
        body = lines(book, 12 if book.grid_shape[1] == 8 else 18)
        text += ["// Codes of " + ", ".join(str(v) for v in book.grid_map) + ".", f"#define KG_GRID_{book.qtype.name} \\"]
        text += [line + " \\" for line in body[:-1]] + [body[-1].rstrip(","), ""]
    return "\n".join(text[:-1]) + "\n"


def main():
    for path, text in [("src/gguf/grids.rs", rust()), ("cuda/device/grids.cuh", cuda())]:
        (ROOT / path).write_text(text)
        print(path, len(text.splitlines()), "lines")


if __name__ == "__main__":
    main()
