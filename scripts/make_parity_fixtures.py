"""Makes tests/fixtures/parity: tiny random models as GGUF files and their logits from transformers in f32.

    python scripts/make_parity_fixtures.py [NAME ...]

The matrices' values are exact in f16, so that the F32 and the F16 file of a model hold the same numbers and one
set of logits serves both. For each model NAME: NAME-f32.gguf and/or NAME-f16.gguf; NAME.json with the token ids, the
positions whose logits are kept, and the versions; NAME.logits, f32 little endian [positions, n_vocab];
NAME.embeddings, f32 little endian [4, n_embd]: of all tokens' last hidden states the mean, the mean divided by its
length, the last, the last divided by its length.

Written with transformers 5.24.0, torch 2.15.0 (CPU), gguf 0.19.0, numpy 2.4.6; the versions used stand in each json.
"""

import importlib.metadata
import json
import math
import os
import sys

import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType as Q

import hf_gguf

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "fixtures", "parity")
# Those whose configuration the file alone gives back.
READABLE = ("qwen2", "qwen3", "llama", "gemma3")
N_TOKENS = 80  # crosses the edge of a cache page (64) and five of gemma's windows (16)
POSITIONS = [0, 1, 14, 15, 16, 17, 63, 64, 79]
MERGES = ["t h", "th e", "i n", "a n", "e r", "o n"]
N_VOCAB = 256 + len(MERGES) + 2

COMMON = dict(vocab_size=N_VOCAB, max_position_embeddings=256, attn_implementation="eager")


def sizes(hidden, ff, layers, heads, kv_heads, head_dim=None, **more) -> dict:
    """A configuration's sizes; a head is `hidden / heads` wide unless given."""
    kv = {} if kv_heads is None else {"num_key_value_heads": kv_heads}
    head = {} if head_dim is None else {"head_dim": head_dim}
    return COMMON | dict(hidden_size=hidden, intermediate_size=ff, num_hidden_layers=layers, num_attention_heads=heads) | kv | head | more


def without(sizes: dict, name: str) -> dict:
    """All but one."""
    return {key: size for key, size in sizes.items() if key != name}


def rope(theta=1e4, kind="default", **more) -> dict:
    return {"rope_type": kind, "rope_theta": theta} | more


def yarn(factor, original, theta=1e4, **more) -> dict:
    return rope(theta, "yarn", factor=factor, original_max_position_embeddings=original) | more


def gemma4(hidden, ff, layers, heads, kv_heads, head, full_head) -> dict:
    """Gemma 4's sizes; layers by letters, S with a window, F without."""
    kinds = [{"S": "sliding_attention", "F": "full_attention"}[kind] for kind in layers]
    ropes = {"full_attention": rope(1e6, "proportional", partial_rotary_factor=0.25), "sliding_attention": rope(1e4)}
    return sizes(hidden, ff, len(layers), heads, kv_heads, head) | dict(
        global_head_dim=full_head, layer_types=kinds, sliding_window=16, rms_norm_eps=1e-6, rope_parameters=ropes)


def by_layer(width) -> dict:
    """Embeddings by layer, of so many elements; 0: none."""
    return dict(hidden_size_per_layer_input=width, vocab_size_per_layer_input=N_VOCAB)


def latent(q_rank, rank, nope, turned, v_dim) -> dict:
    """Sizes of attention over latents."""
    return dict(q_lora_rank=q_rank, kv_lora_rank=rank, qk_nope_head_dim=nope, qk_rope_head_dim=turned, v_head_dim=v_dim)


def nemotron(layers, heads, head_dim, groups, state) -> dict:
    """Nemotron-H's sizes; layers by letters: M Mamba2, * attention, - a feed-forward part, E experts."""
    return dict(hybrid_override_pattern=layers, mamba_num_heads=heads, mamba_head_dim=head_dim, n_groups=groups, ssm_state_size=state,
                time_step_min=1e-9, layer_norm_epsilon=1e-6)


T = transformers
RMS = dict(rms_norm_eps=1e-6)
TIED, UNTIED = dict(tie_word_embeddings=True), dict(tie_word_embeddings=False)
GRANITE = dict(attention_multiplier=0.3, embedding_multiplier=2.0, residual_multiplier=0.7, logits_scaling=0.5)
WINDOWED = ["sliding_attention"] * 3 + ["full_attention"]
# name: (architecture, files, configuration). Head counts, head sizes and widths all differ from each other.
MODELS = {
    "qwen2": ("qwen2", [Q.F32, Q.F16], T.Qwen2Config(
        **sizes(64, 96, 2, 4, 2), **RMS, **TIED, rope_parameters=rope(1e6))),
    "qwen3": ("qwen3", [Q.F16], T.Qwen3Config(
        **sizes(64, 80, 3, 6, 2, 24), **RMS, **UNTIED, rope_parameters=rope(1e6))),
    "llama": ("llama", [Q.F32], T.LlamaConfig(
        **sizes(64, 72, 2, 4, 1), rms_norm_eps=1e-5, **UNTIED, rope_parameters=rope(
            500.0, "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64))),
    "gemma3": ("gemma3", [Q.F16], T.Gemma3TextConfig(
        **sizes(64, 72, 7, 2, 1, 16), query_pre_attn_scalar=16, **RMS, **TIED, sliding_window=16,
        hidden_activation="gelu_pytorch_tanh", final_logit_softcapping=None, rope_parameters={
            "full_attention": rope(1e6, "linear", factor=8.0), "sliding_attention": rope(1e4)})),
    # Of each further architecture two shapes, which differ in what its models do.
    "qwen2-yarn": ("qwen2", [Q.F16], T.Qwen2Config(
        **sizes(48, 56, 2, 2, 1), **RMS, **TIED, rope_parameters=yarn(4.0, 64, 1e6))),
    "llama-yarn": ("llama", [Q.F16], T.LlamaConfig(
        **sizes(48, 40, 2, 3, 1), **RMS, **TIED, rope_parameters=yarn(8.0, 32, beta_fast=16, beta_slow=2))),
    "gemma2": ("gemma2", [Q.F16], T.Gemma2Config(
        **sizes(48, 40, 4, 3, 1, 16), query_pre_attn_scalar=16, **RMS, **TIED, sliding_window=16, attn_logit_softcapping=20.0,
        final_logit_softcapping=6.0, rope_parameters=rope())),
    "gemma2-grouped": ("gemma2", [Q.F16], T.Gemma2Config(
        **sizes(40, 72, 3, 4, 2, 8), query_pre_attn_scalar=8, **RMS, **TIED, sliding_window=33, rope_parameters=rope())),
    "gemma": ("gemma", [Q.F16], T.GemmaConfig(
        **sizes(48, 56, 2, 2, 1, 32), **RMS, **TIED, hidden_act="gelu_pytorch_tanh", rope_parameters=rope())),
    "gemma-grouped": ("gemma", [Q.F16], T.GemmaConfig(
        **sizes(40, 72, 2, 4, 2, 8), **RMS, **TIED, hidden_act="gelu_pytorch_tanh", rope_parameters=rope())),
    "smollm3": ("smollm3", [Q.F16], T.SmolLM3Config(
        **sizes(40, 48, 5, 5, 1), **RMS, **TIED, pad_token_id=0, rope_parameters=rope(5e6))),
    "smollm3-grouped": ("smollm3", [Q.F16], T.SmolLM3Config(
        **sizes(32, 56, 4, 4, 2), **RMS, **UNTIED, pad_token_id=0, rope_parameters=rope())),
    "mistral3": ("mistral3", [Q.F16], T.Ministral3Config(
        **sizes(32, 40, 2, 4, 2, 24), **RMS, **UNTIED, sliding_window=None, rope_parameters=yarn(
            16.0, 32, 1e6, beta_fast=32.0, beta_slow=1.0, mscale=1.0, mscale_all_dim=1.0, llama_4_scaling_beta=0.1))),
    "mistral3-plain": ("mistral3", [Q.F16], T.MistralConfig(
        **sizes(40, 56, 2, 5, 1, 16), **RMS, **TIED, sliding_window=None, rope_parameters=rope(1e6))),
    "phi3": ("phi3", [Q.F16], T.Phi3Config(
        **sizes(48, 40, 2, 3, 1), **RMS, **UNTIED, pad_token_id=0, sliding_window=20, rope_parameters=rope())),
    "phi3-partial": ("phi3", [Q.F16], T.Phi3Config(
        **sizes(48, 56, 2, 2, 2), **RMS, **TIED, pad_token_id=0, sliding_window=None,
        rope_parameters=rope(partial_rotary_factor=0.75))),
    # Within the original context, where the short factors are, and beyond it.
    "phi3-longrope": ("phi3", [Q.F16], T.Phi3Config(
        **sizes(32, 40, 2, 2, 2), **RMS, **TIED, pad_token_id=0, sliding_window=None, original_max_position_embeddings=128, rope_parameters=rope(
            1e4, "longrope", partial_rotary_factor=0.75, original_max_position_embeddings=128,
            short_factor=[1.0, 1.1, 1.2, 1.4, 1.7, 2.1], long_factor=[1.0, 2.0, 5.0, 11.0, 20.0, 40.0]))),
    "phi3-longrope-long": ("phi3", [Q.F16], T.Phi3Config(
        **sizes(32, 40, 2, 2, 2), **RMS, **TIED, pad_token_id=0, sliding_window=None, original_max_position_embeddings=64,
        rope_parameters=rope(1e4, "longrope", original_max_position_embeddings=64, short_factor=[1.0] * 8,
                             long_factor=[1.0, 1.5, 2.0, 5.0, 11.0, 20.0, 30.0, 40.0]))),
    "granite": ("granite", [Q.F16], T.GraniteConfig(
        **sizes(48, 40, 2, 3, 1), **RMS, **TIED, attention_multiplier=0.11, embedding_multiplier=6.0, residual_multiplier=0.4,
        logits_scaling=3.0, rope_parameters=rope())),
    "granite-grouped": ("granite", [Q.F16], T.GraniteConfig(
        **sizes(32, 56, 2, 4, 2), **RMS, **UNTIED, attention_multiplier=0.3, embedding_multiplier=2.0, residual_multiplier=0.7,
        logits_scaling=0.5, rope_parameters=rope(1e6))),
    "seed_oss": ("seed_oss", [Q.F16], T.SeedOssConfig(
        **sizes(32, 40, 2, 4, 2, 24), **RMS, **UNTIED, attention_bias=True, attention_out_bias=False, rope_parameters=rope(1e7))),
    "seed_oss-plain": ("seed_oss", [Q.F16], T.SeedOssConfig(
        **sizes(40, 56, 2, 5, 1, 8), **RMS, **TIED, attention_bias=False, attention_out_bias=False, rope_parameters=rope())),
    "ernie4_5": ("ernie4_5", [Q.F16], T.Ernie4_5Config(
        **sizes(40, 48, 2, 4, 2, 16), **RMS, **TIED, use_bias=False, rope_parameters=rope(5e5))),
    "ernie4_5-grouped": ("ernie4_5", [Q.F16], T.Ernie4_5Config(
        **sizes(40, 56, 2, 5, 1, 16), **RMS, **UNTIED, use_bias=False, rope_parameters=rope())),
    "hunyuan-dense": ("hunyuan-dense", [Q.F16], T.HunYuanDenseV1Config(
        **sizes(40, 48, 2, 4, 2, 16), **RMS, **TIED, rope_parameters=rope(1.1e7))),
    "hunyuan-dense-grouped": ("hunyuan-dense", [Q.F16], T.HunYuanDenseV1Config(
        **sizes(40, 56, 2, 5, 1, 8), **RMS, **UNTIED, rope_parameters=rope())),
    "arcee": ("arcee", [Q.F16], T.ArceeConfig(
        **sizes(40, 56, 2, 5, 1), **RMS, **UNTIED, rope_parameters=yarn(20.0, 32))),
    "arcee-plain": ("arcee", [Q.F16], T.ArceeConfig(
        **sizes(32, 56, 2, 4, 2), **RMS, **TIED, rope_parameters=rope())),
    "olmo2": ("olmo2", [Q.F16], T.Olmo2Config(
        **sizes(40, 48, 2, 5, 5), **RMS, **UNTIED, rope_parameters=rope(5e5))),
    "olmo3": ("olmo2", [Q.F16], T.Olmo3Config(
        **sizes(32, 56, 4, 4, 2), **RMS, **UNTIED, sliding_window=16, layer_types=WINDOWED,
        rope_parameters={"full_attention": yarn(8.0, 64, 5e5), "sliding_attention": rope(5e5)})),
    "exaone4": ("exaone4", [Q.F16], T.Exaone4Config(
        **sizes(32, 40, 4, 4, 2), **RMS, **UNTIED, sliding_window=16, sliding_window_pattern=4, layer_types=WINDOWED,
        rope_parameters=rope(1e6))),
    "exaone4-plain": ("exaone4", [Q.F16], T.Exaone4Config(
        **sizes(48, 56, 2, 3, 1), **RMS, **TIED, sliding_window=None, layer_types=["full_attention"] * 2, rope_parameters=rope(
            1e6, "llama3", factor=16.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64))),
    "glm4": ("glm4", [Q.F16], T.Glm4Config(
        **sizes(32, 40, 2, 4, 2, 24), **RMS, **UNTIED, attention_bias=True, pad_token_id=0,
        rope_parameters=rope(partial_rotary_factor=0.5))),
    "glm4-plain": ("glm4", [Q.F16], T.Glm4Config(
        **sizes(40, 56, 2, 5, 1, 16), **RMS, **TIED, attention_bias=False, pad_token_id=0,
        rope_parameters=rope(partial_rotary_factor=0.5))),
    # transformers has no InternLM 2; its converter makes a llama of it, whose rows are named and laid out as llama's.
    "internlm2": ("internlm2", [Q.F16], T.LlamaConfig(
        **sizes(48, 40, 2, 3, 1), **RMS, **UNTIED, rope_parameters=rope(1e6, "linear", factor=2.0))),
    "internlm2-grouped": ("internlm2", [Q.F16], T.LlamaConfig(
        **sizes(32, 56, 2, 4, 2), **RMS, **UNTIED, rope_parameters=rope(1e6))),
    "starcoder2": ("starcoder2", [Q.F16], T.Starcoder2Config(
        **sizes(48, 72, 2, 3, 1), **TIED, sliding_window=20, rope_parameters=rope(1e6))),
    "starcoder2-grouped": ("starcoder2", [Q.F16], T.Starcoder2Config(
        **sizes(32, 56, 2, 4, 2), **UNTIED, sliding_window=None, rope_parameters=rope(1e5))),
    "phi2": ("phi2", [Q.F16], T.PhiConfig(
        **sizes(40, 56, 2, 5, 5), **UNTIED, rope_parameters=rope(partial_rotary_factor=0.5))),
    "phi2-other": ("phi2", [Q.F16], T.PhiConfig(
        **sizes(32, 40, 2, 2, 2), **UNTIED, rope_parameters=rope(partial_rotary_factor=0.25))),
    "gptneox": ("gptneox", [Q.F16], T.GPTNeoXConfig(
        **sizes(40, 56, 2, 5, None), **UNTIED, use_parallel_residual=True, rope_parameters=rope(partial_rotary_factor=0.5))),
    "gptneox-sequential": ("gptneox", [Q.F16], T.GPTNeoXConfig(
        **sizes(32, 40, 2, 2, None), **UNTIED, use_parallel_residual=False, rope_parameters=rope(partial_rotary_factor=0.5))),
    "stablelm": ("stablelm", [Q.F16], T.StableLmConfig(
        **sizes(40, 48, 2, 5, 1), **UNTIED, use_qkv_bias=True, rope_parameters=rope(partial_rotary_factor=0.25))),
    "stablelm-parallel": ("stablelm", [Q.F16], T.StableLmConfig(
        **sizes(32, 56, 2, 4, 2), **UNTIED, use_parallel_residual=True, rope_parameters=rope(partial_rotary_factor=0.5))),
    "cohere2": ("cohere2", [Q.F16], T.Cohere2Config(
        **sizes(32, 40, 4, 4, 2), **TIED, pad_token_id=0, logit_scale=0.3, sliding_window=16, layer_types=WINDOWED,
        rope_parameters=rope(5e4))),
    "cohere2-other": ("cohere2", [Q.F16], T.Cohere2Config(
        **sizes(32, 40, 5, 4, 1), **TIED, pad_token_id=0, logit_scale=2.0, sliding_window=33,
        layer_types=WINDOWED + ["sliding_attention"], rope_parameters=rope())),
    # Experts: odd numbers of them, of which one, two or more are used.
    "qwen3moe": ("qwen3moe", [Q.F16], T.Qwen3MoeConfig(
        **sizes(32, 40, 2, 4, 2, 16), **RMS, **UNTIED, num_experts=7, num_experts_per_tok=2, moe_intermediate_size=24,
        norm_topk_prob=True, rope_parameters=rope(1e6))),
    "qwen3moe-one": ("qwen3moe", [Q.F32], T.Qwen3MoeConfig(
        **sizes(32, 40, 2, 4, 1, 8), **RMS, **TIED, num_experts=5, num_experts_per_tok=1, moe_intermediate_size=16,
        norm_topk_prob=True, rope_parameters=rope())),
    "qwen2moe": ("qwen2moe", [Q.F16], T.Qwen2MoeConfig(
        **sizes(32, 40, 2, 4, 2), **RMS, **UNTIED, num_experts=5, num_experts_per_tok=4, moe_intermediate_size=16,
        shared_expert_intermediate_size=40, rope_parameters=rope(1e6))),
    "mixtral": ("llama", [Q.F16], T.MixtralConfig(
        **sizes(32, 40, 2, 4, 1), **RMS, **UNTIED, num_local_experts=4, num_experts_per_tok=2, rope_parameters=rope(1e6))),
    "olmoe": ("olmoe", [Q.F16], T.OlmoeConfig(
        **sizes(32, 16, 2, 4, 4), **RMS, **UNTIED, num_experts=9, num_experts_per_tok=4, rope_parameters=rope())),
    "granitemoe": ("granitemoe", [Q.F16], T.GraniteMoeConfig(
        **sizes(32, 24, 2, 4, 2), **RMS, **TIED, num_local_experts=5, num_experts_per_tok=2, attention_multiplier=0.2,
        embedding_multiplier=6.0, residual_multiplier=0.4, logits_scaling=3.0, rope_parameters=rope())),
    "granitemoe-shared": ("granitemoe", [Q.F16], T.GraniteMoeSharedConfig(
        **sizes(40, 24, 2, 5, 1), **RMS, **TIED, num_local_experts=6, num_experts_per_tok=1, shared_intermediate_size=32,
        attention_multiplier=0.3, embedding_multiplier=2.0, residual_multiplier=0.7, logits_scaling=0.5, rope_parameters=rope())),
    "ernie4_5-moe": ("ernie4_5-moe", [Q.F16], T.Ernie4_5_MoeConfig(
        **sizes(32, 40, 3, 4, 2), **RMS, **TIED, pad_token_id=0, moe_num_experts=7, moe_k=2, moe_intermediate_size=24,
        moe_num_shared_experts=2, moe_layer_start_index=1, moe_layer_interval=1, use_bias=False, rope_parameters=rope(5e5))),
    "ernie4_5-moe-plain": ("ernie4_5-moe", [Q.F16], T.Ernie4_5_MoeConfig(
        **sizes(40, 48, 2, 5, 1), **RMS, **UNTIED, pad_token_id=0, moe_num_experts=5, moe_k=1, moe_intermediate_size=32,
        moe_num_shared_experts=0, moe_layer_start_index=0, moe_layer_interval=2, use_bias=False, rope_parameters=rope())),
    "glm4moe": ("glm4moe", [Q.F16], T.Glm4MoeConfig(
        **sizes(32, 40, 3, 4, 2, 16), **RMS, **UNTIED, pad_token_id=0, n_routed_experts=6, num_experts_per_tok=2,
        moe_intermediate_size=16, n_shared_experts=1, n_group=3, topk_group=2, first_k_dense_replace=1, routed_scaling_factor=1.8,
        norm_topk_prob=True, use_qk_norm=True, attention_bias=True, rope_parameters=rope(partial_rotary_factor=0.5))),
    "glm4moe-plain": ("glm4moe", [Q.F16], T.Glm4MoeConfig(
        **sizes(40, 48, 2, 5, 1, 8), **RMS, **TIED, pad_token_id=0, n_routed_experts=5, num_experts_per_tok=4,
        moe_intermediate_size=16, n_shared_experts=2, n_group=1, topk_group=1, first_k_dense_replace=0, routed_scaling_factor=0.7,
        norm_topk_prob=False, use_qk_norm=False, attention_bias=False, rope_parameters=rope(partial_rotary_factor=0.5))),
    # YaRN's borders in whole pairs, as a file means them.
    "gpt-oss": ("gpt-oss", [Q.F16], T.GptOssConfig(
        **sizes(32, 24, 2, 4, 2, 16), rms_norm_eps=1e-5, **UNTIED, pad_token_id=0, num_local_experts=5, num_experts_per_tok=2,
        sliding_window=16, rope_parameters=yarn(32.0, 16, 1.5e5, truncate=True))),
    "gpt-oss-all": ("gpt-oss", [Q.F16], T.GptOssConfig(
        **sizes(40, 32, 2, 5, 1, 8), rms_norm_eps=1e-5, **UNTIED, pad_token_id=0, num_local_experts=4, num_experts_per_tok=4,
        sliding_window=33, rope_parameters=yarn(4.0, 64, 1.5e5, truncate=True))),
    # The text's part of models that see: all sections of their ropes have the position of the token.
    "qwen2vl": ("qwen2vl", [Q.F16], T.Qwen2VLTextConfig(
        **sizes(64, 72, 2, 4, 2), **RMS, **UNTIED, rope_parameters=rope(1e6, mrope_section=[2, 3, 3]))),
    "qwen2vl-grouped": ("qwen2vl", [Q.F16], T.Qwen2_5_VLTextConfig(
        **sizes(40, 56, 2, 5, 1), **RMS, **TIED, rope_parameters=rope(mrope_section=[1, 1, 2]))),
    "qwen3vl": ("qwen3vl", [Q.F16], T.Qwen3VLTextConfig(
        **sizes(32, 40, 2, 4, 2, 24), **RMS, **UNTIED, rope_parameters=rope(5e6, mrope_section=[4, 4, 4], mrope_interleaved=True))),
    "qwen3vl-grouped": ("qwen3vl", [Q.F16], T.Qwen3VLTextConfig(
        **sizes(40, 56, 2, 5, 1, 16), **RMS, **TIED, rope_parameters=rope(mrope_section=[2, 3, 3], mrope_interleaved=True))),
    "qwen3vlmoe": ("qwen3vlmoe", [Q.F16], T.Qwen3VLMoeTextConfig(
        **sizes(32, 40, 2, 4, 2, 16), **RMS, **UNTIED, num_experts=7, num_experts_per_tok=2, moe_intermediate_size=24,
        rope_parameters=rope(5e6, mrope_section=[2, 3, 3], mrope_interleaved=True))),
    "qwen3vlmoe-one": ("qwen3vlmoe", [Q.F16], T.Qwen3VLMoeTextConfig(
        **sizes(32, 40, 2, 4, 1, 8), **RMS, **TIED, num_experts=5, num_experts_per_tok=1, moe_intermediate_size=16,
        rope_parameters=rope(mrope_section=[1, 1, 2], mrope_interleaved=True))),
    # Gemma 4's shapes: layers that share keys and values and embeddings by layer; keys that are values; experts side by side.
    "gemma4-e2b": ("gemma4", [Q.F16], T.Gemma4TextConfig(
        **gemma4(48, 40, "SSFSSF", 4, 1, 16, 32), num_kv_shared_layers=3, use_double_wide_mlp=True, **by_layer(8),
        final_logit_softcapping=30.0)),
    "gemma4-e4b": ("gemma4", [Q.F32], T.Gemma4TextConfig(
        **gemma4(40, 56, "SFSF", 5, 1, 8, 24), num_kv_shared_layers=2, **by_layer(16), final_logit_softcapping=6.0)),
    "gemma4-31b": ("gemma4", [Q.F16], T.Gemma4TextConfig(
        **gemma4(40, 56, "SSSF", 4, 4, 8, 24), attention_k_eq_v=True, num_global_key_value_heads=2, **by_layer(0),
        final_logit_softcapping=30.0)),
    "gemma4-26b-a4b": ("gemma4", [Q.F16], T.Gemma4TextConfig(
        **gemma4(32, 40, "SF", 4, 2, 16, 16), attention_k_eq_v=True, num_global_key_value_heads=1, **by_layer(0),
        enable_moe_block=True, num_experts=7, top_k_experts=2, moe_intermediate_size=24)),
    # Latents: with one matrix of queries and YaRN, in the layout of older files, and chosen by sigmoids, in groups too.
    "deepseek2-lite": ("deepseek2", [Q.F16], T.DeepseekV2Config(
        **sizes(48, 40, 3, 4, 4), **RMS, **UNTIED, **latent(None, 32, 16, 8, 24), n_routed_experts=6, num_experts_per_tok=2,
        moe_intermediate_size=16, n_shared_experts=2, first_k_dense_replace=1, routed_scaling_factor=1.0, pad_token_id=0,
        rope_parameters=yarn(10.0, 64, mscale=0.707, mscale_all_dim=0.707, beta_fast=32, beta_slow=1))),
    "deepseek2-unsplit": ("deepseek2", [Q.F16], T.DeepseekV2Config(
        **sizes(40, 56, 2, 5, 5), **RMS, **UNTIED, **latent(16, 24, 24, 16, 8), n_routed_experts=5, num_experts_per_tok=3,
        moe_intermediate_size=24, n_shared_experts=1, first_k_dense_replace=0, routed_scaling_factor=2.5, pad_token_id=0,
        rope_parameters=rope())),
    "glm-flash": ("deepseek2", [Q.F16], T.Glm4MoeLiteConfig(
        **sizes(40, 48, 3, 5, 5), **RMS, **UNTIED, **latent(24, 16, 8, 16, 32), n_routed_experts=5, num_experts_per_tok=2,
        moe_intermediate_size=16, n_shared_experts=1, n_group=1, topk_group=1, routed_scaling_factor=1.8, norm_topk_prob=True,
        pad_token_id=0, rope_parameters=rope(1e6))),
    "glm-flash-groups": ("deepseek2", [Q.F32], T.Glm4MoeLiteConfig(
        **sizes(32, 40, 2, 4, 4), **RMS, **UNTIED, **latent(None, 40, 24, 8, 16), n_routed_experts=9, num_experts_per_tok=3,
        moe_intermediate_size=24, n_shared_experts=2, n_group=3, topk_group=2, routed_scaling_factor=0.7, norm_topk_prob=False,
        pad_token_id=0, rope_parameters=rope())),
    # Layers with a state: of DeltaNets more value heads than key heads, and as many.
    "lfm2": ("lfm2", [Q.F16], T.Lfm2Config(
        **sizes(40, 56, 4, 5, 1), norm_eps=1e-5, **TIED, conv_L_cache=3, block_auto_adjust_ff_dim=False,
        layer_types=["conv", "conv", "full_attention", "conv"], rope_parameters=rope(1e6))),
    "lfm2-other": ("lfm2", [Q.F16], T.Lfm2Config(
        **sizes(32, 48, 3, 4, 2), norm_eps=1e-5, **UNTIED, conv_L_cache=5, block_auto_adjust_ff_dim=False,
        layer_types=["full_attention", "conv", "full_attention"], rope_parameters=rope())),
    "lfm2moe": ("lfm2moe", [Q.F16], T.Lfm2MoeConfig(
        **sizes(32, 40, 3, 4, 2), norm_eps=1e-5, **TIED, conv_L_cache=3, num_experts=7, num_experts_per_tok=2,
        moe_intermediate_size=24, num_dense_layers=1, layer_types=["conv", "full_attention", "conv"], rope_parameters=rope(1e6))),
    "lfm2moe-plain": ("lfm2moe", [Q.F16], T.Lfm2MoeConfig(
        **sizes(40, 48, 2, 5, 1), norm_eps=1e-5, **UNTIED, conv_L_cache=4, num_experts=5, num_experts_per_tok=1,
        moe_intermediate_size=16, num_dense_layers=0, use_expert_bias=False, routed_scaling_factor=1.5,
        layer_types=["conv", "full_attention"], rope_parameters=rope())),
    "qwen35": ("qwen35", [Q.F16], T.Qwen3_5TextConfig(
        **sizes(32, 40, 4, 4, 2, 16), **RMS, **UNTIED, linear_num_key_heads=2, linear_num_value_heads=6, linear_key_head_dim=16,
        linear_value_head_dim=16, rope_parameters=rope(1e7, partial_rotary_factor=0.25))),
    "qwen35-even": ("qwen35", [Q.F16], T.Qwen3_5TextConfig(
        **sizes(40, 56, 3, 5, 1, 24), **RMS, **TIED, linear_num_key_heads=3, linear_num_value_heads=3, linear_key_head_dim=24,
        linear_value_head_dim=32, linear_conv_kernel_dim=3, layer_types=["linear_attention", "full_attention", "linear_attention"],
        rope_parameters=rope(1e6, partial_rotary_factor=0.5))),
    "qwen3next": ("qwen3next", [Q.F16], T.Qwen3NextConfig(
        **sizes(32, 40, 4, 4, 2, 16), **RMS, **UNTIED, linear_num_key_heads=2, linear_num_value_heads=6, linear_key_head_dim=16,
        linear_value_head_dim=16, num_experts=7, num_experts_per_tok=2, moe_intermediate_size=24, shared_expert_intermediate_size=40,
        rope_parameters=rope(1e7, partial_rotary_factor=0.25))),
    "qwen3next-even": ("qwen3next", [Q.F16], T.Qwen3NextConfig(
        **sizes(40, 48, 2, 5, 1, 24), **RMS, **TIED, linear_num_key_heads=3, linear_num_value_heads=3, linear_key_head_dim=16,
        linear_value_head_dim=16, num_experts=5, num_experts_per_tok=1, moe_intermediate_size=16, shared_expert_intermediate_size=24,
        layer_types=["linear_attention", "full_attention"], rope_parameters=rope(1e6, partial_rotary_factor=0.5))),
    "qwen35moe": ("qwen35moe", [Q.F16], T.Qwen3_5MoeTextConfig(
        **without(sizes(32, 0, 3, 4, 2, 16), "intermediate_size"), **RMS, **UNTIED, linear_num_key_heads=2, linear_num_value_heads=4,
        linear_key_head_dim=16, linear_value_head_dim=16, num_experts=6, num_experts_per_tok=2, moe_intermediate_size=24,
        shared_expert_intermediate_size=32, layer_types=["linear_attention", "full_attention", "linear_attention"],
        rope_parameters=rope(1e7, partial_rotary_factor=0.25))),
    "qwen35moe-even": ("qwen35moe", [Q.F16], T.Qwen3_5MoeTextConfig(
        **without(sizes(40, 0, 2, 5, 1, 8), "intermediate_size"), **RMS, **TIED, linear_num_key_heads=2, linear_num_value_heads=2,
        linear_key_head_dim=16, linear_value_head_dim=16, num_experts=5, num_experts_per_tok=1, moe_intermediate_size=16,
        shared_expert_intermediate_size=24, layer_types=["linear_attention", "full_attention"],
        rope_parameters=rope(1e6, partial_rotary_factor=0.5))),
    # Mamba2: groups of heads or one, with and without a norm and a bias, widths that fill no vector, multipliers that are powers of two.
    "granitehybrid": ("granitehybrid", [Q.F16], T.GraniteMoeHybridConfig(
        **sizes(32, 24, 3, 4, 2), **RMS, **UNTIED, **GRANITE, mamba_n_heads=4, mamba_n_groups=2, mamba_d_state=12, num_local_experts=7,
        num_experts_per_tok=2, shared_intermediate_size=40, layer_types=["linear_attention", "full_attention", "linear_attention"],
        position_embedding_type=None, rope_parameters=rope())),
    "granitehybrid-dense": ("granitehybrid", [Q.F16], T.GraniteMoeHybridConfig(
        **sizes(40, 56, 3, 5, 1), **RMS, **TIED, **GRANITE, mamba_expand=3, mamba_n_heads=10, mamba_n_groups=5, mamba_d_state=9,
        mamba_d_conv=3, mamba_conv_bias=False, num_local_experts=0, num_experts_per_tok=0, shared_intermediate_size=56,
        layer_types=["linear_attention", "linear_attention", "full_attention"], position_embedding_type="rope",
        rope_parameters=rope(1e6))),
    "falcon-h1": ("falcon-h1", [Q.F16], T.FalconH1Config(
        **sizes(32, 40, 2, 4, 2, 24), **RMS, **UNTIED, mamba_d_ssm=60, mamba_n_heads=6, mamba_n_groups=2, mamba_d_state=10,
        mamba_rms_norm=False, embedding_multiplier=4.0, lm_head_multiplier=0.5, key_multiplier=0.5, attention_in_multiplier=2.0,
        attention_out_multiplier=0.5, ssm_in_multiplier=2.0, ssm_out_multiplier=0.25, ssm_multipliers=[0.5, 1.0, 2.0, 0.25, 0.5],
        mlp_multipliers=[2.0, 0.5], rope_parameters=rope(1e11))),
    "falcon-h1-norm": ("falcon-h1", [Q.F16], T.FalconH1Config(
        **sizes(40, 56, 2, 5, 1, 8), **RMS, **TIED, mamba_d_ssm=84, mamba_n_heads=7, mamba_n_groups=1, mamba_d_state=17, mamba_d_conv=3,
        mamba_conv_bias=False, mamba_rms_norm=True, mamba_norm_before_gate=False, rope_parameters=rope(1e5))),
    # transformers bounds time steps from below in prompts and not in steps; llama.cpp does not.
    "nemotron_h": ("nemotron_h", [Q.F16], T.NemotronHConfig(
        **without(sizes(32, 40, 5, 4, 2, 24), "num_hidden_layers"), **UNTIED, **nemotron("M-*-M", 6, 10, 3, 12))),
    "nemotron_h-other": ("nemotron_h", [Q.F16], T.NemotronHConfig(
        **without(sizes(40, 56, 4, 5, 1, 16), "num_hidden_layers"), **UNTIED, **nemotron("*M-M", 5, 16, 1, 9), conv_kernel=3,
        use_conv_bias=False)),
    "nemotron_h_moe": ("nemotron_h_moe", [Q.F16], T.NemotronHConfig(
        **without(sizes(32, 40, 4, 4, 2, 16), "num_hidden_layers"), **UNTIED, **nemotron("ME*E", 4, 12, 2, 16), n_routed_experts=7,
        num_experts_per_tok=2, moe_intermediate_size=24, moe_shared_expert_intermediate_size=40)),
    "nemotron_h_moe-plain": ("nemotron_h_moe", [Q.F16], T.NemotronHConfig(
        **without(sizes(40, 48, 3, 5, 1, 8), "num_hidden_layers"), **UNTIED, **nemotron("M*E", 8, 8, 4, 6), n_routed_experts=5,
        num_experts_per_tok=1, moe_intermediate_size=16, moe_shared_expert_intermediate_size=24, norm_topk_prob=False,
        routed_scaling_factor=2.5)),
}
# How far a router's input may be off, as a share of its size, without another choice of experts: far beyond what rounding does.
DECIDED = 5e-3


def byte_alphabet() -> list:
    """The characters that stand for the 256 bytes in a byte-level vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    chars = {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}
    return [chars[b] for b in range(256)]


def randomize(model, arch: str, gain: float, generator: torch.Generator) -> None:
    """Weights that keep every stage's outputs near one, so that an error anywhere reaches the logits."""
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if name.endswith(("bias", "sinks")):
            p.data = (0.5 if "correction" not in name else 0.1) * noise
        elif "norm" in name or name.endswith(("router.scale", "per_expert_scale")):
            plus_one = arch in hf_gguf.NORM_PLUS_ONE and "linear_attn" not in name
            p.data = 0.2 * noise + (0.0 if plus_one else 1.0)
            if arch == "gemma4" and "q_norm" in name:
                # Scores are not scaled otherwise.
                p.data /= math.sqrt(p.shape[0])
        elif "embed_tokens" in name or "embed_in" in name:
            p.data = (0.3 * noise).half().float()
        else:
            # What is stacked is by expert; of gpt-oss it is transposed.
            fan_in = p.shape[1] if arch == "gpt-oss" or p.ndim == 2 else p.shape[-1]
            p.data = (gain / math.sqrt(fan_in) * noise).half().float()
    for name, b in model.named_buffers():
        if name.endswith(("e_score_correction_bias", "expert_bias")):
            b.copy_(0.1 * torch.randn(b.shape, generator=generator))
        elif name.endswith("layer_scalar"):
            b.copy_(0.7 + 0.1 * torch.randn(b.shape, generator=generator))


def is_decided(model, ids: torch.Tensor) -> bool:
    """Whether no router is close to another choice for any of the tokens: transformers' own sum would settle it otherwise."""
    seen, hooks = [], []
    for module in model.modules():
        if type(module).__name__.lower().endswith("router"):
            hooks.append(module.register_forward_hook(lambda m, args, out: seen.append((m, args))))
    model(ids)
    for hook in hooks:
        hook.remove()
    noise = torch.Generator().manual_seed(0)
    choice = lambda router, x, more: next(t for t in router(x, *more) if not t.is_floating_point()).sort(dim=-1).values
    for router, (x, *more) in seen:
        x = x.detach().reshape(-1, x.shape[-1])
        size = DECIDED * x.square().mean(-1, keepdim=True).sqrt()
        for _ in range(8):
            if not torch.equal(choice(router, x, more), choice(router, x + size * torch.randn(x.shape, generator=noise), more)):
                return False
    return True


def draw(model, arch: str, gain: float, seed: int) -> torch.Tensor:
    """Random weights, and token ids; of models with experts the first that are decided."""
    for attempt in range(1000):
        generator = torch.Generator().manual_seed(seed + 1000 * attempt)
        randomize(model, arch, gain, generator)
        ids = torch.randint(0, N_VOCAB, (1, N_TOKENS), generator=generator)
        with torch.no_grad():
            if is_decided(model, ids):
                return ids
    raise SystemExit(f"{arch}: every draw is close to a tie")


def main() -> None:
    os.makedirs(OUT, exist_ok=True)
    torch.use_deterministic_algorithms(True)
    versions = {p: importlib.metadata.version(p) for p in ("transformers", "torch", "gguf", "numpy")}
    tokens = byte_alphabet() + [m.replace(" ", "") for m in MERGES] + ["<|bos|>", "<|eos|>"]
    token_types = [1] * (N_VOCAB - 2) + [3, 3]
    chosen = sys.argv[1:] or list(MODELS)
    for seed, (name, (arch, types, config)) in enumerate(MODELS.items()):
        if name not in chosen:
            continue
        model = hf_gguf.model_of(config)
        # Scores that differ more spread what rounding does to narrow models beyond the bounds of the tests.
        ids = draw(model, arch, 1.5 if name in READABLE else 1.2, seed)
        with torch.no_grad():
            logits = model(ids).logits[0, POSITIONS].numpy()
            states = model.base_model(ids).last_hidden_state[0].double()
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
            path, split = os.path.join(OUT, file), not name.endswith("-unsplit")
            hf_gguf.save(model, arch, path, t, tokens, token_types, MERGES, split)
            # The file, read back into transformers, gives the same logits: the two directions agree.
            with torch.no_grad():
                again = hf_gguf.load(path, None if name in READABLE else config, split)(ids).logits[0, POSITIONS].numpy()
            scale = np.sqrt(np.mean(logits**2))
            print(f"{file}: {os.path.getsize(path)} bytes, logits rms {scale:.3f}, top gap median "
                  f"{np.median(np.diff(np.sort(logits)[:, -2:])):.2f}, read back max error {np.abs(again - logits).max() / scale:.1e}")


if __name__ == "__main__":
    main()
