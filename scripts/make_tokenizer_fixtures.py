#!/usr/bin/env python3
"""Makes tests/fixtures/tokenizer/*.json: what the reference tokenizers and templates give.

    python3 scripts/make_tokenizer_fixtures.py MODELS_DIR

MODELS_DIR holds the GGUF files of `make test`; a file that is not there keeps its fixture as it is. Needs the
packages gguf, jinja2, sentencepiece, tokenizers and transformers; the fixtures name the versions that made them.

References: byte-level vocabularies run on Hugging Face `tokenizers`, put together as in the models' own
tokenizer.json; SentencePiece vocabularies run on Google's `sentencepiece`, with Hugging Face's conversion as a second
witness whose differences are printed. Templates run on transformers' own Jinja environment.
"""

import json
import platform
import random
import re
import struct
import sys
import tempfile
import unicodedata
from pathlib import Path

import gguf
import jinja2
import sentencepiece
import tokenizers
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

OUT = Path(__file__).resolve().parent.parent / "tests/fixtures/tokenizer"
MADE_BY = {
    "script": "scripts/make_tokenizer_fixtures.py",
    "python": platform.python_version(),
    "unicode": unicodedata.unidata_version,
    "tokenizers": tokenizers.__version__,
    "sentencepiece": sentencepiece.__version__,
    "transformers": transformers.__version__,
    "jinja2": jinja2.__version__,
    "gguf": __import__("importlib.metadata").metadata.version("gguf"),
}
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

# ---------------------------------------------------------------------------------------------------------- texts

CRAFTED = [
    "", " ", "  ", "   ", "a", " a", "  a", "a ", "a  ", "a  b", "a   b    c", "\n", "\n\n", "\n\n\n", " \n", "\n ", " \n ",
    "\t", "\t\t", " \t ", "\t\n\t", "a\n", "a\n\n", "a \n b", "a\n  b", "a\r\nb", "a\r\n\r\nb", "\r", "\r\r\n", "a\rb",
    "  \n\n  x", "x\n \n \n y", "x \t\n\r z  ", "    indented", "\tindented", "trailing   ", "tab\there", " " * 33 + "x",
    "\n" * 40, " " * 100, "x" + " " * 64 + "y", "\t" * 35 + "z", "\u00a0", "a\u00a0b", "a\u3000b", "\u3000\u3000x",
    "\u2003wide\u2009thin", "a\u200bb", "\ufeffbom", "line\u2028sep\u2029par", "\u0085next", "\x0b\x0c", "\x1c\x1d\x1e\x1f",
    "Hello, world!", "Hello World", "HELLO", "hElLo", "The quick brown fox jumps over the lazy dog.",
    "It's I'm you're we've they'll he'd don't", "IT'S I'M YOU'RE WE'VE THEY'LL HE'D DON'T", "'s 't 're 've 'm 'll 'd",
    "'S'T'RE'VE'M'LL'D", "'sx 'tx 'llama 'reality", "it\u2019s don\u2019t", "''s", "' s", "it'\u017f", "'\u017fo", "o'clock 'tis",
    "Dr. Smith paid $3.50 (approx. 2.99€) -- on 12/31/1999!", "e.g., i.e., etc...", "(a)[b]{c}<d>", "a_b_c __init__ x->y",
    "!@#$%^&*()_+-=[]{}|;':\",./<>?`~", "...", "?!?!", " . , ;", "--- *** ===", "$+<=>^~|`", "a+b=c", "100%", "#1",
    "C:\\Users\\x\\n", "https://example.com/a?b=c&d=e#f", "me@example.org", "1", "12", "123", "1234", "12345", "123456",
    "1234567890", " 1", " 12", " 1234", "3.14159", "1,000,000", "-42", "0x1F", "1e-9", "2nd 3rd 4th", "v1.2.3", "007",
    "½ ⅓ ²³ Ⅷ ①", "٠١٢٣٤٥٦٧٨٩", "१२३४", "一二三", "𝟘𝟙𝟚", "12 345\n678",
    "def f(x):\n    return x ** 2  # square\n\n\nclass A:\n\tpass\n",
    "for (int i = 0; i < n; ++i) {\n  a[i] += b[i] * 2.0f;\n}\n", "fn main() { println!(\"{:?}\", vec![1, 2, 3]); }",
    "SELECT * FROM t WHERE a='b' AND c>=10;", "<html><body class=\"x\">&nbsp;</body></html>", "<table><tr><td>1</td></tr></table>",
    "{\"a\": [1, 2.5, null, true], \"b\": {\"c\": \"d\\n\"}}", "#include <stdio.h>\nint main(void){return 0;}", "x = y if z else w",
    "\\begin{equation} \\alpha^2 \\end{equation}", "$x_{i}^{2}$",
    "你好，世界！", "今天天气很好。我们去公园吧？", "中文English混合123文字", "繁體中文測試", "こんにちは世界", "カタカナ ｶﾀｶﾅ", "안녕하세요 세계",
    "\u1112\u1161\u11ab\u1100\u1173\u11af", "مرحبا بالعالم", "السَّلَامُ عَلَيْكُمْ", "שלום עולם", "שָׁלוֹם", "Привет, мир!", "Γειά σου Κόσμε", "नमस्ते दुनिया", "สวัสดีชาวโลก",
    "ภาษาไทย", "বাংলা ভাষা", "தமிழ்", "ქართული", "Հայերեն", "አማርኛ", "Tiếng Việt", "Ελληνικά ΣΊΣΥΦΟΣ", "ß ẞ ŉ ǰ", "ﬁ ﬂ ﬀ", "İıIi",
    "naïve café résumé", "nai\u0308ve cafe\u0301", "e\u0301\u0323", "\u0344", "\u212b \u2126", "\u1e9b\u0323", "a\u0300\u0301\u0302\u0303\u0304", "\u0301", " \u0301x",
    "q\u0307\u0323", "\uac00\u11a8", "\u2adc", "\ufb1d", "ᄀᄁᄂ", "👍", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇫🇷", "❤️", "☺☻", "a👍b 👍 c", "👨🏿‍🚀👩🏻‍🔬", "🤦🏼‍♂️!!", "1️⃣",
    "\x00", "\x01\x02\x03", "a\x00b", "\x7f", "\x1b[31mred\x1b[0m", "\x08\x07", "\u0080\u009f", "\u00ad", "\u200e\u200f", "\u202e", "\u2060", "\ufffd",
    "\ufffe", "\uffff", "\ufdd0", "\ue000", "\U000f0000", "\U0010ffff", "\U00010000", "\U0001f600\u0301", "𐍈𐍉", "𝒳𝓎", "𠀀𠀁", "\U00031350", "\U000e0041",
    "\u2581", "a\u2581b", "\u2581\u2581x", "\u0120hello\u010a", "<0x41>", "<0x0A><0xFF>", "<0xZZ>", "[PAD151665]", "[UNK]", "<unk>", "<s>a</s>", "<pad>", "<bos>x<eos>",
    "<|endoftext|>", "<|im_start|>user\nhi<|im_end|>\n", "<|im_start", "|im_end|>", "<|im_end |>", "<start_of_turn>user", "<|eot_id|>", "<think>hm</think>", "<tool_call>{}</tool_call>",
    "a<|im_end|>b", "<<|im_end|>>", "<|im_end|><|im_end|>", "<unused0>", "[multimodal]", "<start_of_image>",
    "antidisestablishmentarianism", "Donaudampfschifffahrtsgesellschaftskapitän", "x" * 200, "ab" * 150, "abc" * 100, "aB3 " * 40, "é" * 90, "中" * 90,
    "🙂" * 40, "=" * 120, "-" * 77, "1" * 100, "!" * 65, ".\n" * 30, "a\n" * 30, " a" * 50,
]


def random_texts(n):
    """Strings of assigned characters, half of them from a few blocks, so that neighbours meet rules."""
    rng = random.Random(20240229)
    ranges = [(0x20, 0x7F), (0x20, 0x7F), (0x00, 0x20), (0xA0, 0x180), (0x300, 0x370), (0x370, 0x590), (0x590, 0x700), (0x900, 0xE00),
              (0x1100, 0x1200), (0x1E00, 0x2070), (0x2070, 0x2C00), (0x3000, 0x3100), (0x4E00, 0x9FFF), (0xAC00, 0xD7A0),
              (0xF900, 0xFB50), (0xFE00, 0x10000), (0x1D400, 0x1D800), (0x1F300, 0x1FB00), (0x20000, 0x2FA20)]
    texts = []
    while len(texts) < n:
        out = ""
        for _ in range(rng.randint(1, 10)):
            kind = rng.random()
            if kind < 0.15:
                out += rng.choice([" ", "  ", "\n", "\t", "\r\n", " \n", "'s", "'LL", "12", "9", "ab", "\u0301", "."])
                continue
            low, high = rng.choice(ranges) if kind < 0.8 else (0, 0x110000)
            char = chr(rng.randrange(low, high))
            if unicodedata.category(char) not in ("Cn", "Cs"):
                out += char
        texts.append(out)
    return texts


TEXTS = CRAFTED + random_texts(300)

# ------------------------------------------------------------------------------------------------------- vocabularies


class Vocab:
    """The tokenizer's part of a GGUF file."""

    def __init__(self, **parts):
        self.__dict__.update(pre=None, scores=[], merges=[], bos=None, eos=None, unk=None, pad=None, add_bos=None,
                             add_eos=None, add_space_prefix=None, chat_template=None)
        self.__dict__.update(parts)

    @staticmethod
    def read(path):
        fields = gguf.GGUFReader(path).fields
        get = lambda key: fields[key].contents() if key in fields else None
        ggml = lambda key: get(f"tokenizer.ggml.{key}")
        return Vocab(model=ggml("model"), pre=ggml("pre"), tokens=ggml("tokens"), scores=ggml("scores") or [], kinds=ggml("token_type"),
                     merges=ggml("merges") or [], bos=ggml("bos_token_id"), eos=ggml("eos_token_id"), unk=ggml("unknown_token_id"),
                     pad=ggml("padding_token_id"), add_bos=ggml("add_bos_token"), add_eos=ggml("add_eos_token"),
                     add_space_prefix=ggml("add_space_prefix"), chat_template=get("tokenizer.chat_template"))

    def of_kind(self, *kinds):
        return [t for t, k in zip(self.tokens, self.kinds) if k in kinds]


LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def pre_tokenizer(name):
    """As in the models' tokenizer.json; `default` as llama.cpp defines it."""
    split = lambda pattern: pre_tokenizers.Split(Regex(pattern), "isolated")
    level = lambda use_regex: pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
    return {
        "gpt-2": lambda: level(True),
        "smollm": lambda: pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), level(True)]),
        "qwen2": lambda: pre_tokenizers.Sequence([split(QWEN2), level(False)]),
        "llama-bpe": lambda: pre_tokenizers.Sequence([split(LLAMA3), level(False)]),
        "default": lambda: pre_tokenizers.Sequence(
            [split(r"[\p{P}$+<=>^~|]+"), split(GPT2), split(r"\p{N}+"), split("[0-9][0-9][0-9]"), level(False)]),
    }[name]()


def add_tokens(tokenizer, vocab):
    pairs = [(t, k) for t, k in zip(vocab.tokens, vocab.kinds) if k in (CONTROL, UNKNOWN, USER_DEFINED)]
    for want in (CONTROL, USER_DEFINED):
        added = [AddedToken(t, special=k != USER_DEFINED, normalized=False) for t, k in pairs if (k == USER_DEFINED) == (want == USER_DEFINED)]
        (tokenizer.add_special_tokens if want == CONTROL else tokenizer.add_tokens)(added)


def byte_level(vocab):
    ids = {t: i for i, t in enumerate(vocab.tokens) if vocab.kinds[i] != UNUSED}
    merges = [tuple(m.split(" ")) for m in vocab.merges]
    tokenizer = Tokenizer(models.BPE(ids, merges, ignore_merges=vocab.pre == "llama-bpe"))
    if vocab.pre == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizer(vocab.pre)
    add_tokens(tokenizer, vocab)

    def encode(text, special):
        tokenizer.encode_special_tokens = not special
        return tokenizer.encode(text, add_special_tokens=False).ids

    return encode


def proto(field, value):
    """One field of a protocol buffer."""
    varint = lambda n: bytes([n]) if n < 128 else bytes([n & 127 | 128]) + varint(n >> 7)
    if isinstance(value, float):
        return varint(field << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return varint(field << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(value)) + value


def sentencepiece_model(vocab, prefix):
    """The vocabulary as sentencepiece's ModelProto (sentencepiece_model.proto)."""
    pieces = b""
    for text, score, kind in zip(vocab.tokens, vocab.scores, vocab.kinds):
        text = text.replace(" ", "\u2581") if kind == USER_DEFINED else text
        pieces += proto(1, proto(1, text) + proto(2, float(score)) + proto(3, kind))
    trainer = proto(3, 2) + proto(35, int(BYTE in vocab.kinds)) + proto(4, len(vocab.tokens))
    for field, name, id in ((40, 45, vocab.unk), (41, 46, vocab.bos), (42, 47, vocab.eos)):
        trainer += proto(field, id) + proto(name, vocab.tokens[id])
    trainer += proto(43, (1 << 64) - 1)  # no padding
    normalizer = proto(1, "identity") + proto(3, int(prefix)) + proto(4, 0) + proto(5, 1)
    return sentencepiece.SentencePieceProcessor(model_proto=pieces + proto(2, trainer) + proto(3, normalizer))


def spm(vocab):
    """sentencepiece; special tokens, which it does not read, are cut out first, and the prefix comes after each."""
    prefix = True if vocab.add_space_prefix is None else vocab.add_space_prefix
    model = sentencepiece_model(vocab, False)
    ids = {t: i for i, t in reversed(list(enumerate(vocab.tokens)))}
    cut = lambda kinds: re.compile("(" + "|".join(map(re.escape, sorted(vocab.of_kind(*kinds), key=len, reverse=True))) + ")")
    plain, all_ = cut((USER_DEFINED,)), cut((USER_DEFINED, CONTROL, UNKNOWN))
    whole = sentencepiece_model(vocab, prefix)

    def encode(text, special):
        out, after = [], True
        for piece in (all_ if special else plain).split(text):
            if not piece:
                continue
            if ids.get(piece) is not None and (all_ if special else plain).fullmatch(piece):
                out.append(ids[piece])
                after = True
            else:
                out += model.encode(("\u2581" if prefix and after else "") + piece)
                after = False
        # Without user-defined tokens in the text sentencepiece itself must say the same.
        if not special and not plain.search(text) and text:
            assert whole.encode(text) == out, (text, whole.encode(text), out)
        return out

    return encode


def hf_spm(vocab):
    """Hugging Face's conversion of a SentencePiece vocabulary (LlamaConverter, GemmaTokenizer)."""
    from transformers.convert_slow_tokenizer import generate_merges

    prefix = True if vocab.add_space_prefix is None else vocab.add_space_prefix
    escaped = [t.replace(" ", "\u2581") if k == USER_DEFINED else t for t, k in zip(vocab.tokens, vocab.kinds)]
    ids = {t: i for i, t in reversed(list(enumerate(escaped)))}
    # sentencepiece gives user-defined pieces the score 0, which is the best; GGUF files do not keep that.
    scores = {t: s if k == NORMAL else 0.0 for t, s, k in zip(escaped, vocab.scores, vocab.kinds) if k in (NORMAL, USER_DEFINED)}
    merges = generate_merges(ids, scores)
    tokenizer = Tokenizer(models.BPE(ids, merges, byte_fallback=True, fuse_unk=True, unk_token=vocab.tokens[vocab.unk]))
    steps = [normalizers.Prepend("\u2581")] if prefix else []
    tokenizer.normalizer = normalizers.Sequence(steps + [normalizers.Replace(" ", "\u2581")])
    add_tokens(tokenizer, Vocab(tokens=escaped, kinds=vocab.kinds))

    def encode(text, special):
        tokenizer.encode_special_tokens = not special
        return tokenizer.encode(text, add_special_tokens=False).ids

    return encode


# ------------------------------------------------------------------------------------------------ trained vocabularies

BYTE_CONTROL = ["<|endoftext|>", "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
                "<|im_start|>", "<|im_end|>"]
BYTE_USER = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<|im_start|>!", "    "]


def corpus():
    from pydoc_data.topics import topics

    return [topics[key] for key in sorted(topics)][:40] + [t for t in CRAFTED if t]


def train_byte_level(name):
    pre = pre_tokenizer(name)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=560, initial_alphabet=alphabet, show_progress=False))
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    # Words that no merge makes: only a model that takes whole words finds them.
    tokens += ["\u0120unreachable", "ignored", "\u010a\u010a\u010a"]
    kinds = [NORMAL] * len(tokens)
    if name == "gpt-2":  # a vocabulary need not have all bytes
        gone = [i for i, t in enumerate(tokens) if t in ("\u0101", "\u00f1")]
        tokens = [t for i, t in enumerate(tokens) if i not in gone]
        kinds = kinds[: len(tokens)]
    tokens += BYTE_CONTROL + BYTE_USER + ["[PAD0]"]
    kinds += [CONTROL] * len(BYTE_CONTROL) + [USER_DEFINED] * len(BYTE_USER) + [UNUSED]
    bos, eos = tokens.index("<|begin_of_text|>"), tokens.index("<|eot_id|>" if name == "llama-bpe" else "<|im_end|>")
    return Vocab(model="gpt2", pre=name, tokens=tokens, kinds=kinds, merges=merges, bos=bos, eos=eos)


def train_spm(bytes_, prefix):
    with tempfile.TemporaryDirectory() as directory:
        text = Path(directory, "corpus.txt")
        text.write_text("\n".join(corpus()).replace("\x00", ""))
        sentencepiece.SentencePieceTrainer.train(
            input=str(text), model_prefix=f"{directory}/m", model_type="bpe", vocab_size=700, byte_fallback=bytes_, character_coverage=0.98,
            normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2, num_threads=1)
        model = sentencepiece.SentencePieceProcessor(model_file=f"{directory}/m.model")
    n = model.get_piece_size()
    tokens, scores = [model.id_to_piece(i) for i in range(n)], [model.get_score(i) for i in range(n)]
    kinds = [UNKNOWN if model.is_unknown(i) else CONTROL if model.is_control(i) else BYTE if model.is_byte(i) else NORMAL for i in range(n)]
    if not bytes_:  # pieces that are made and then taken apart again
        for i in [i for i in range(n) if kinds[i] == NORMAL and len(tokens[i]) in (3, 4)][::3]:
            kinds[i] = UNUSED
    more = [("<bos>", CONTROL), ("<start_of_turn>", CONTROL), ("<end_of_turn>", CONTROL), ("<table>", USER_DEFINED), ("</table>", USER_DEFINED),
            ("\n\n", USER_DEFINED), ("\n\n\n", USER_DEFINED), ("\t\t", USER_DEFINED)]
    if not prefix:  # as Gemma has them; with a prefix the references disagree on what a run of spaces is
        more += [("  ", USER_DEFINED), ("   ", USER_DEFINED)]
    return Vocab(model="llama", tokens=tokens + [t for t, _ in more], scores=scores + [-1000.0] * len(more), kinds=kinds + [k for _, k in more],
                 bos=1, eos=2, unk=0, add_space_prefix=None if prefix else False)


# ----------------------------------------------------------------------------------------------------------- fixtures


def write(name, value):
    """JSON with one element of the outer lists a line."""
    lines = []
    for key, part in {"made_by": MADE_BY, **value}.items():
        compact = lambda v: json.dumps(v, ensure_ascii=True, separators=(",", ":"))
        if isinstance(part, list) and part and isinstance(part[0], (list, dict)):
            part = "[\n" + ",\n".join(compact(v) for v in part) + "\n]"
        else:
            part = compact(part)
        lines.append(f"{json.dumps(key)}:{part}")
    path = OUT / f"{name}.json"
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{path.name}: {path.stat().st_size} bytes")


def special_texts(vocab):
    control = [t for t in vocab.of_kind(CONTROL) if "unused" not in t]
    user = vocab.of_kind(USER_DEFINED)
    unknown = vocab.of_kind(UNKNOWN)
    a, b = control[1 % len(control)], control[-1]
    texts = [t for t in (control + unknown)[:12]] + [f"{a}user\nHi there{b}\n{a}", f"x{a}", f"{b}x", f" {a} x {b} ", a * 3, a[:-1], a[1:], a[:-1] + b, f"{a}\n\n{b}",
             f"it's {a}'s", f"{a}  two  spaces", f"{a[:2]}{a}{a[2:]}", f"12{a}34", f"e\u0301{a}\u0301"]
    for u in [u for u in user if u.strip()][:4]:
        texts += [f"a{u}b", f"{u}{u} {a}{u}", u[:-1], f" {u} "]
    return texts


def tokenizer_fixture(name, vocab, encode, embed, witness=None):
    plain = [encode(text, False) for text in TEXTS]
    cases = []
    bos = [vocab.bos] if (vocab.add_bos if vocab.add_bos is not None else vocab.model == "llama" or vocab.pre == "llama-bpe") else []
    eos = [vocab.eos] if vocab.add_eos else []
    for text in special_texts(vocab):
        for special in (False, True):
            cases.append([text, False, special, encode(text, special)])
    for text in ("", "Hello", " x", "\n\ny"):
        cases.append([text, True, False, bos + encode(text, False) + eos])
    if witness:
        for i, text in enumerate(TEXTS):
            if witness(text, False) != plain[i]:
                print(f"  {name}: the witness differs on {text[:60]!r}: {witness(text, False)[:12]} for {plain[i][:12]}")
    parts = {k: v for k, v in vars(vocab).items() if v is not None and v != []} if embed else {}
    write(name, ({"vocab": parts} if embed else {}) | {"plain": plain, "cases": cases})


# Templates in the constructs of the models' own, in our own words.
LLAMA3_STYLE = """{{- bos_token }}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- endif %}
{#- The first message may be the system's. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Today: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {{- raise_exception("No tools here.") }}
    {%- else %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" + (message.content | tojson) + "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
GEMMA3_STYLE = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '\n\n' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Roles must take turns: user, assistant, user, ...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}
        {%- endfor -%}
    {%- endif -%}
    {{ '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '<start_of_turn>model\n' }}
{%- endif -%}
"""
QWEN3_STYLE = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}{{- tools | tojson }}{{- '<|im_end|>\\n' }}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}{{- tool_call.name }}{%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""
LLAMA2_STYLE = """{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}
{% for message in loop_messages %}
    {% if loop.index0 == 0 and system_message != false %}
        {% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}
    {% else %}
        {% set content = message['content'] %}
    {% endif %}
    {% if message['role'] == 'user' %}
{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}
    {% elif message['role'] == 'assistant' %}
{% generation %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endgeneration %}
    {% endif %}
{% endfor %}
"""

CONVERSATIONS = [
    [["user", "Hello"]],
    [["system", "You are terse."], ["user", "What is 2 + 2?"]],
    [["user", "  padded \n"], ["assistant", "\n\nanswer\n"], ["user", "more?"]],
    [["system", " sys\n"], ["user", "a"], ["assistant", "<think>\nhm, \"a\"?\n</think>\n\nb"], ["user", "c's <b>bold</b> & \u00e9\u4e2d\U0001f600"]],
    [["user", ""], ["assistant", ""], ["user", "x"]],
    [["user", "q"], ["assistant", "calling"], ["tool", "{\"r\": 1}"], ["tool", "<2>"], ["assistant", "done"]],
    [["user", "one"], ["user", "two"]],
    [["assistant", "first"]],
]


def chat_fixture(vocabs):
    from transformers.utils.chat_template_utils import render_jinja_template

    templates = [(name, "", vocabs[name].chat_template) for name in ("smollm2", "qwen2") if name in vocabs]
    templates += [("tiny_llama_bpe", "llama3", LLAMA3_STYLE), ("tiny_spm", "gemma3", GEMMA3_STYLE), ("tiny_qwen2", "qwen3", QWEN3_STYLE), ("tiny_spm", "llama2", LLAMA2_STYLE)]
    cases = []
    for name, style, template in templates:
        vocab = vocabs[name]
        encode = (byte_level if vocab.model == "gpt2" else spm)(vocab)
        names = {n: vocab.tokens[i] for n, i in (("bos_token", vocab.bos), ("eos_token", vocab.eos), ("unk_token", vocab.unk), ("pad_token", vocab.pad)) if i is not None}
        for conversation in CONVERSATIONS:
            for prompt in (False, True):
                messages = [{"role": role, "content": content} for role, content in conversation]
                case = {"vocab": name, "style": style, "messages": conversation, "prompt": prompt}
                try:
                    text = render_jinja_template([messages], chat_template=template, add_generation_prompt=prompt, **names)[0][0]
                    case |= {"text": text, "ids": encode(text, True)}
                except jinja2.exceptions.TemplateError as e:
                    case |= {"error": str(e)}
                cases.append(case)
    write("chat", {"templates": {style: template for _, style, template in templates if style}, "cases": cases})


def main():
    directory = Path(sys.argv[1])
    OUT.mkdir(parents=True, exist_ok=True)
    write("texts", {"texts": TEXTS})
    vocabs = {}
    for name, file in (("smollm2", "SmolLM2-135M-Instruct-Q4_1.gguf"), ("qwen2", "Qwen2.5-Coder-0.5B-Instruct-Q4_K_M.gguf"), ("gemma3", "gemma-3-270m-Q4_K_M.gguf")):
        if not (directory / file).exists():
            print(f"skipped: {file} is not there")
            continue
        vocabs[name] = vocab = Vocab.read(directory / file)
        is_spm = vocab.model == "llama"
        tokenizer_fixture(name, vocab, (spm if is_spm else byte_level)(vocab), False, hf_spm(vocab) if is_spm else None)
    for pre in ("gpt-2", "smollm", "qwen2", "llama-bpe", "default"):
        name = "tiny_" + pre.replace("-", "_")
        vocabs[name] = train_byte_level(pre)
        tokenizer_fixture(name, vocabs[name], byte_level(vocabs[name]), True)
    vocabs["tiny_spm"] = train_spm(True, True)
    tokenizer_fixture("tiny_spm", vocabs["tiny_spm"], spm(vocabs["tiny_spm"]), True, hf_spm(vocabs["tiny_spm"]))
    vocabs["tiny_spm_unk"] = train_spm(False, False)
    tokenizer_fixture("tiny_spm_unk", vocabs["tiny_spm_unk"], spm(vocabs["tiny_spm_unk"]), True)
    chat_fixture(vocabs)


if __name__ == "__main__":
    main()
