//! The CPU backend: quantized rows through integer dot products on its own threads.
