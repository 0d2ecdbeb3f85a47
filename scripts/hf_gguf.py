"""Between a GGUF file and a Hugging Face transformers model in f32: names, layouts and hyperparameters.

`save(model, arch, path, ...)` writes a file the way the usual converter does: rows of q and k in pairs of neighbours where the
architecture turns such, Gemma's norm weights plus one, Llama 3's rope scaling as a `rope_freqs` tensor, GPT-NeoX's rows of q, k and v
one after the other. `load(path)` makes a transformers model from a file, its weights dequantized by the `gguf` package; what
configuration it has is read from the file for qwen2, qwen3, llama and gemma3, and has to be given for others.

Written against transformers 5.24.0, torch 2.15.0, gguf 0.19.0, numpy 2.4.6.
"""

import math
import re
import types

import gguf
import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType as Q

import hf_experts
import hf_mamba
import hf_newer
import hf_recurrent

MODEL_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "model.final_layernorm": "output_norm",
    "lm_head": "output",
    "gpt_neox.embed_in": "token_embd",
    "gpt_neox.final_layer_norm": "output_norm",
    "embed_out": "output",
    "model.embedding_norm": "token_embd_norm",
}
LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.query_layernorm": "attn_q_norm",
    "self_attn.key_layernorm": "attn_k_norm",
    "self_attn.dense": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
    "attention.query_key_value": "attn_qkv",
    "attention.dense": "attn_output",
    "mlp.dense_h_to_4h": "ffn_up",
    "mlp.dense_4h_to_h": "ffn_down",
} | hf_experts.LAYER_NAMES | hf_newer.LAYER_NAMES | hf_recurrent.LAYER_NAMES
POST_NORMS = {"post_attention_layernorm": "post_attention_norm", "post_feedforward_layernorm": "post_ffw_norm"}
# What an architecture calls otherwise.
OWN_NAMES = {
    "gemma2": POST_NORMS | {"pre_feedforward_layernorm": "ffn_norm"},
    "gemma3": POST_NORMS | {"pre_feedforward_layernorm": "ffn_norm"},
    "olmo2": POST_NORMS,
    "exaone4": POST_NORMS,
    "glm4": {"post_self_attn_layernorm": "post_attention_norm", "post_mlp_layernorm": "post_ffw_norm"},
    "seed_oss": {"post_attention_layernorm": "post_attention_norm"},
    "glm4moe": {"post_attention_layernorm": "post_attention_norm"},
    "gpt-oss": {"post_attention_layernorm": "post_attention_norm"},
    "gemma4": POST_NORMS | {"pre_feedforward_layernorm": "ffn_norm"},
} | {arch: {"post_attention_layernorm": "post_attention_norm"} for arch in hf_recurrent.DELTA}
# Those whose rows of q and k the converter reorders; ernie4_5, with experts too, glm4 and cohere2 turn neighbours from the start.
NEIGHBOURS = ("llama", "smollm3", "mistral3", "granite", "arcee", "internlm2", "granitemoe", "granitehybrid")
NORM_PLUS_ONE = ("gemma", "gemma2", "gemma3", *hf_recurrent.DELTA)
LAYER_NORM = ("starcoder2", "phi2", "gptneox", "stablelm", "cohere2")
# Text models that transformers has without a matrix of logits.
TEXT_MODELS = {
    "Qwen2VLTextConfig": transformers.Qwen2VLTextModel,
    "Qwen2_5_VLTextConfig": transformers.Qwen2_5_VLTextModel,
    "Qwen3VLTextConfig": transformers.Qwen3VLTextModel,
    "Qwen3VLMoeTextConfig": transformers.Qwen3VLMoeTextModel,
}
GEMMA_LAYERS_PER_GLOBAL = 6  # every sixth layer attends to everything; not a key of the file
GEMMA_LOCAL_ROPE_BASE = 10000.0  # not a key of the file


class TextModel(torch.nn.Module):
    """The text's part of a model that also sees, with the matrix of its logits: what transformers has for other models."""

    def __init__(self, kind, config):
        super().__init__()
        self.config = config
        self.model = kind(config)
        self.lm_head = torch.nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    @property
    def base_model(self):
        return self.model

    def forward(self, ids):
        return types.SimpleNamespace(logits=self.lm_head(self.model(ids).last_hidden_state))


def model_of(config):
    """A model in f32 of a configuration, of random weights."""
    kind = TEXT_MODELS.get(type(config).__name__)
    if kind is None:
        return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    return TextModel(kind, config).float().eval()


def gguf_name(arch: str, hf_name: str) -> str:
    """The name in the file of a transformers parameter."""
    name, kind = hf_name.rsplit(".", 1)
    names = MODEL_NAMES | hf_newer.MODEL_NAMES
    if name in names:
        return f"{names[name]}.{kind}"
    layer, name = re.fullmatch(r"(?:model|gpt_neox)\.layers\.(\d+)\.(.+)", name).groups()
    return f"blk.{layer}.{(LAYER_NAMES | OWN_NAMES.get(arch, {}))[name]}.{kind}"


def pair_neighbours(w: np.ndarray, n_heads: int) -> np.ndarray:
    """Rows `i` and `i + head_dim / 2` of each head become rows `2i` and `2i + 1`."""
    return w.reshape(n_heads, 2, w.shape[0] // n_heads // 2, -1).swapaxes(1, 2).reshape(w.shape)


def pair_halves(w: np.ndarray, n_heads: int) -> np.ndarray:
    """The inverse of `pair_neighbours`."""
    return w.reshape(n_heads, w.shape[0] // n_heads // 2, 2, -1).swapaxes(1, 2).reshape(w.shape)


def rows_of(arch: str, name: str, w: np.ndarray, n_heads: int, n_kv_heads: int, to_file: bool) -> np.ndarray:
    """A tensor in the file's layout (`to_file`) or in transformers'."""
    if arch in NEIGHBOURS and re.search(r"attn_[qk]\.(weight|bias)$", name):
        heads = n_heads if ".attn_q." in name else n_kv_heads
        return pair_neighbours(w, heads) if to_file else pair_halves(w, heads)
    if arch in NORM_PLUS_ONE and name.endswith("norm.weight"):
        one = np.float32(1.0)
        return w + one if to_file else w - one
    if arch == "gptneox" and ".attn_qkv." in name:
        # Head by head q, k and v; in the file all heads' q, then k, then v.
        shape = (n_heads, 3) if to_file else (3, n_heads)
        return w.reshape(*shape, w.shape[0] // n_heads // 3, -1).swapaxes(0, 1).reshape(w.shape)
    return w


def llama3_rope_factors(rope: dict, head_dim: int) -> np.ndarray:
    """What Llama 3's rope scaling divides each pair's frequency by: [head_dim / 2]."""
    low = rope["original_max_position_embeddings"] / rope["low_freq_factor"]
    high = rope["original_max_position_embeddings"] / rope["high_freq_factor"]
    factors = []
    for i in range(0, head_dim, 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (i / head_dim)
        if wavelength < high:
            factors.append(1.0)
        elif wavelength > low:
            factors.append(rope["factor"])
        else:
            turns = rope["original_max_position_embeddings"] / wavelength
            smooth = (turns - rope["low_freq_factor"]) / (rope["high_freq_factor"] - rope["low_freq_factor"])
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, dtype=np.float32)


def add_rope(w: gguf.GGUFWriter, rope: dict, head_dim: int, always: bool) -> None:
    """The keys of a rope; its dimensions only where they are not the head's, or `always`."""
    w.add_rope_freq_base(rope["rope_theta"])
    partial = rope.get("partial_rotary_factor", 1.0)
    if always or partial != 1.0:
        w.add_rope_dimension_count(int(head_dim * partial))
    if "mrope_section" in rope:
        w.add_rope_dimension_sections(rope["mrope_section"] + [0])
    if rope["rope_type"] == "linear":
        w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        w.add_rope_scaling_factor(rope["factor"])
    elif rope["rope_type"] == "yarn":
        w.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        w.add_rope_scaling_factor(rope["factor"])
        w.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        for key, add in (
            ("beta_fast", w.add_rope_scaling_yarn_beta_fast),
            ("beta_slow", w.add_rope_scaling_yarn_beta_slow),
            ("attention_factor", w.add_rope_scaling_yarn_attn_factor),
            ("mscale_all_dim", w.add_rope_scaling_yarn_log_mul),
            ("llama_4_scaling_beta", w.add_attn_temperature_scale),
        ):
            if rope.get(key) is not None:
                add(rope[key])


def add_long_rope(w: gguf.GGUFWriter, rope: dict, n_ctx: int) -> None:
    """The keys of LongRoPE; its factors are tensors."""
    original = rope["original_max_position_embeddings"]
    w.add_rope_scaling_orig_ctx_len(original)
    growth = max(n_ctx / original, 1.0)
    w.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(growth) / math.log(original)))


def add_own(w: gguf.GGUFWriter, arch: str, c) -> None:
    """The keys that some architectures have."""
    if arch in ("gemma2", "gemma3") and c.final_logit_softcapping:
        w.add_final_logit_softcapping(c.final_logit_softcapping)
    if arch == "gemma2" and c.attn_logit_softcapping:
        w.add_attn_logit_softcapping(c.attn_logit_softcapping)
    if getattr(c, "sliding_window", None) and not arch.startswith("qwen"):
        w.add_sliding_window(c.sliding_window)
        if arch in ("olmo2", "exaone4"):
            w.add_sliding_window_pattern([kind == "sliding_attention" for kind in c.layer_types])
    if arch in ("granite", "granitemoe", "granitehybrid"):
        w.add_attention_scale(c.attention_multiplier)
        w.add_embedding_scale(c.embedding_multiplier)
        w.add_residual_scale(c.residual_multiplier)
        w.add_logit_scale(c.logits_scaling)
    if arch == "cohere2":
        w.add_logit_scale(c.logit_scale)
    if arch == "gptneox":
        w.add_parallel_residual(c.use_parallel_residual)


def heads_of(arch: str, c) -> tuple:
    """`(elements of a head, key heads)`, of layers that are all alike."""
    if arch == "gemma4":
        return None, None
    head_dim = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    return head_dim, getattr(c, "num_key_value_heads", c.num_attention_heads)


def save(model, arch: str, path: str, matrix_type: Q, tokens: list, token_types: list, merges: list, split=True) -> None:
    """Writes `model` with `matrix_type` (F32 or F16) matrices and a byte-level vocabulary; `split`: see `hf_newer.parts`."""
    c = model.config
    head_dim, n_kv_heads = heads_of(arch, c)
    w = gguf.GGUFWriter(path, arch)
    w.add_name(f"tiny random {arch}")
    w.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if matrix_type == Q.F16 else gguf.LlamaFileType.ALL_F32)
    w.add_vocab_size(c.vocab_size)
    w.add_context_length(c.max_position_embeddings)
    w.add_embedding_length(c.hidden_size)
    w.add_block_count(c.num_hidden_layers)
    widths = hf_newer.widths(arch, c) or hf_mamba.widths(arch, c) or getattr(c, "intermediate_size", None)
    if widths is not None:
        w.add_feed_forward_length(widths)
    w.add_head_count(c.num_attention_heads)
    if arch not in hf_newer.OWN_HEADS:
        w.add_head_count_kv(hf_mamba.n_kv_heads(arch, c) or hf_recurrent.n_kv_heads(arch, c))
    if arch in LAYER_NORM or arch in hf_mamba.NEMOTRON:
        keys = ("layer_norm_eps", "norm_epsilon", "layer_norm_epsilon")
        w.add_layer_norm_eps(next(getattr(c, k) for k in keys if hasattr(c, k)))
    else:
        w.add_layer_norm_rms_eps(c.norm_eps if arch in hf_recurrent.LFM2 else c.rms_norm_eps)
    if arch in hf_newer.OWN_HEADS:
        hf_newer.add_keys(w, arch, c, split)
    elif arch in ("qwen3", "gemma3") or head_dim * c.num_attention_heads != c.hidden_size:
        w.add_key_length(head_dim)
        w.add_value_length(head_dim)
    rope = getattr(c, "rope_parameters", {"rope_type": "none"})
    rope = rope.get("full_attention", rope)
    if arch == "deepseek2" and "mscale_all_dim" in rope:
        # As converters write it.
        rope = rope | {"mscale_all_dim": 0.1 * rope["mscale_all_dim"]}
    if arch != "gemma4" and rope["rope_type"] != "none":
        add_rope(w, rope, head_dim, always=arch in ("llama", "deepseek2"))
    if rope["rope_type"] == "longrope":
        add_long_rope(w, rope, c.max_position_embeddings)
    add_own(w, arch, c)
    hf_experts.add_keys(w, arch, c)
    hf_recurrent.add_keys(w, arch, c)
    hf_mamba.add_keys(w, arch, c)

    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("default")
    w.add_token_list(tokens)
    w.add_token_types(token_types)
    w.add_token_merges(merges)
    w.add_bos_token_id(c.vocab_size - 2)
    w.add_eos_token_id(c.vocab_size - 1)
    w.add_add_bos_token(False)

    if rope["rope_type"] == "llama3":
        w.add_tensor("rope_freqs.weight", llama3_rope_factors(rope, head_dim))
    if rope["rope_type"] == "longrope":
        for length in ("long", "short"):
            w.add_tensor(f"rope_factors_{length}.weight", np.array(rope[f"{length}_factor"], dtype=np.float32))
    for name, data in hf_newer.more_tensors(arch, c):
        w.add_tensor(name, data)
    for hf_name, tensor in model.state_dict().items():
        if hf_name == "lm_head.weight" and c.tie_word_embeddings:
            continue
        data = tensor.detach().numpy().astype(np.float32)
        names = hf_experts.parts(arch, hf_name)
        if hf_newer.parts(arch, hf_name, split):
            names = hf_newer.parts(arch, hf_name, split)
            cuts = hf_newer.cut(names, c, data)
        elif hf_mamba.parts(arch, hf_name, c):
            names = hf_mamba.parts(arch, hf_name, c)
            cuts = hf_mamba.cut(arch, names, data, c)
        elif names:
            cuts = hf_experts.cut(arch, names, data)
        elif names := hf_recurrent.parts(hf_name):
            cuts = hf_recurrent.cut(arch, names, data, c)
        else:
            names = [gguf_name(arch, hf_name)]
            cuts = [rows_of(arch, names[0], data, c.num_attention_heads, n_kv_heads, to_file=True)]
        for name, data in zip(names, cuts):
            if name.endswith("ffn_gate_inp_shexp.weight"):
                data = data.reshape(-1)
            if name.endswith("shortconv.conv.weight"):
                data = data[:, 0]
            # Routers, convolutions and biases stay as they are, as converters leave them.
            whole = ("ffn_gate_inp.weight", "shortconv.conv.weight", "ssm_conv1d.weight")
            is_matrix = data.ndim >= 2 and name.endswith(".weight") and not name.endswith((*whole, "norm.weight"))
            data = np.ascontiguousarray(data)
            w.add_tensor(name, data.astype(np.float16) if is_matrix and matrix_type == Q.F16 else data)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def config_of(reader: gguf.GGUFReader):
    """`(architecture, transformers configuration)` of a file."""
    def get(key, default=None):
        field = reader.fields.get(key)
        return default if field is None else field.contents()

    arch = get("general.architecture")
    key = lambda name, default=None: get(f"{arch}.{name}", default)
    shapes = {t.name: [int(n) for n in reversed(t.shape)] for t in reader.tensors}
    n_vocab, n_embd = shapes["token_embd.weight"]
    n_heads, n_layers = key("attention.head_count"), key("block_count")
    rope = {"rope_type": "default", "rope_theta": key("rope.freq_base", 10000.0)}
    if key("rope.scaling.type", "none") == "linear":
        rope |= {"rope_type": "linear", "factor": key("rope.scaling.factor")}
    elif key("rope.scaling.type", "none") != "none":
        raise ValueError(f"rope scaling {key('rope.scaling.type')} is not covered")
    common = dict(
        vocab_size=n_vocab,
        hidden_size=n_embd,
        intermediate_size=key("feed_forward_length"),
        num_hidden_layers=n_layers,
        num_attention_heads=n_heads,
        num_key_value_heads=key("attention.head_count_kv", n_heads),
        max_position_embeddings=key("context_length"),
        rms_norm_eps=key("attention.layer_norm_rms_epsilon"),
        tie_word_embeddings="output.weight" not in shapes,
    )
    head_dim = key("attention.key_length", n_embd // n_heads)
    if arch == "qwen2":
        return arch, transformers.Qwen2Config(**common, rope_parameters=rope)
    if arch == "qwen3":
        return arch, transformers.Qwen3Config(**common, head_dim=head_dim, rope_parameters=rope)
    if arch == "llama":
        return arch, transformers.LlamaConfig(**common, head_dim=head_dim, rope_parameters=rope)
    if arch == "gemma3":
        local = {"rope_type": "default", "rope_theta": key("rope.freq_base_swa", GEMMA_LOCAL_ROPE_BASE)}
        return arch, transformers.Gemma3TextConfig(
            **common,
            head_dim=head_dim,
            query_pre_attn_scalar=head_dim,  # of all sizes but 27B
            sliding_window=key("attention.sliding_window"),
            layer_types=[
                "sliding_attention" if (i + 1) % GEMMA_LAYERS_PER_GLOBAL else "full_attention" for i in range(n_layers)
            ],
            rope_parameters={"full_attention": rope, "sliding_attention": local},
            final_logit_softcapping=key("final_logit_softcapping"),
        )
    raise ValueError(f"architecture {arch} is not covered")


def load(path: str, config=None, split=True):
    """A transformers model in f32 from a file's dequantized weights, of the file's configuration or a given one."""
    reader = gguf.GGUFReader(path)
    arch, c = config_of(reader) if config is None else (reader.fields["general.architecture"].contents(), config)
    c._attn_implementation = "eager"
    model = model_of(c)
    tensors = {t.name: t for t in reader.tensors}
    state = {}
    for hf_name, parameter in model.state_dict().items():
        dequantized = lambda t: gguf.dequantize(t.data, t.tensor_type).astype(np.float32)
        names = hf_newer.parts(arch, hf_name, split)
        if names:
            data = hf_newer.joined(names, c, [dequantized(tensors[name]) for name in names], parameter.shape)
            state[hf_name] = torch.from_numpy(np.array(data))
            continue
        names = hf_mamba.parts(arch, hf_name, c)
        if names:
            if names[0] == "output.weight" and names[0] not in tensors:
                names = ["token_embd.weight"]
            data = hf_mamba.joined(arch, names, [dequantized(tensors[name]) for name in names], c, parameter.shape)
            state[hf_name] = torch.from_numpy(np.array(data))
            continue
        names = hf_experts.parts(arch, hf_name)
        if names:
            data = hf_experts.joined(arch, [dequantized(tensors[name]) for name in names], parameter.shape)
            state[hf_name] = torch.from_numpy(np.array(data))
            continue
        names = hf_recurrent.parts(hf_name)
        if names:
            data = hf_recurrent.joined(arch, names, [dequantized(tensors[name]) for name in names], c, parameter.shape)
            state[hf_name] = torch.from_numpy(np.array(data))
            continue
        name = gguf_name(arch, hf_name)
        if name == "output.weight" and name not in tensors:
            name = "token_embd.weight"
        data = dequantized(tensors[name]).reshape(parameter.shape)
        n_kv_heads = heads_of(arch, c)[1]
        data = rows_of(arch, name, data, c.num_attention_heads, n_kv_heads, to_file=False)
        state[hf_name] = torch.from_numpy(np.array(data))
    model.load_state_dict(state, strict=True)
    if config is None and "rope_freqs.weight" in tensors:
        factors = torch.from_numpy(np.array(tensors["rope_freqs.weight"].data, dtype=np.float32))
        model.model.rotary_emb.inv_freq.copy_(model.model.rotary_emb.inv_freq / factors)
    return model.eval()
