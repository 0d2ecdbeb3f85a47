#!/usr/bin/env python3
"""Makes the fixtures of tests/fixtures/tokenizer for the kinds of vocabularies "gemma4", "bert" and "t5".

    python3 scripts/make_vocabulary_fixtures.py

Needs the packages of make_tokenizer_fixtures.py, whose texts are used, with more below, and the vocabularies that
fetch_vocabularies.py puts into models/vocabularies.

References: Hugging Face `tokenizers`, put together as transformers' classes of these models are (GemmaTokenizer,
BertTokenizer); of unigram models its segmentation of what Google's `sentencepiece` makes of a text's characters, with
sentencepiece's own ids and the whole of Hugging Face's T5 as witnesses whose differences are counted. sentencepiece adds in
f32, which long texts show; Hugging Face's T5 maps characters by grapheme clusters, and cuts at every white space first.
"""

import json
import tempfile
from pathlib import Path

import gguf
import sentencepiece
from make_tokenizer_fixtures import (BYTE, CONTROL, MADE_BY, NORMAL, OUT, TEXTS, UNKNOWN, UNUSED, USER_DEFINED, Vocab, add_tokens, corpus, proto,
                                     re, special_texts, write)
from sentencepiece import sentencepiece_model_pb2 as spm_pb2
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

ROOT = OUT.parent.parent.parent
MADE_BY["script"] = "scripts/make_vocabulary_fixtures.py"
MARK = "\u2581"

MORE = [
    "don't \u00c0\u00c9\u00ee\u00f5\u00fc \u0130stanbul \u1e9e\u00df \u03a3\u0399\u03a3\u03a5\u03a6\u039f\u03a3", "a\u00adb\u200bc\ufeffd", "x\u0000y\ufffdz", "\u037e\u1fef\u2260\u226e", "\u4e2da\u6587b\u3400\U00020000\U0002b820\U0002b920\uf900",
    "\u302e\u302fa\u302f\u302e\u0323b", "a\U0001d165\U0001d16d\U0001d172b", "\u3131\u3133\uac01\u1100\u1161\u11a8", "word" * 25, "word" * 25 + "s", "\u00e9" * 100, "\u00e9" * 101, "e\u0301" * 101, "a" * 99 + " b", "1" * 100 + "!" + "1" * 101,
    "[CLS] a [SEP] b [MASK] [UNK] [PAD] [unused3]", "##ing ing \u2581the a\u2581b a\u2581the \u2581", "foo-bar_baz@qux.com", "\u201cquoted\u201d \u2014 \u00abso\u00bb\u2026", "\u20ac5 \u00a36 +=<>|~^`$", "\u166d\u0a76\u2e43 \u0964\u0965", "\u0941\u0930\u094d \u0e33\u0e48",
    "\uff21\uff22\uff23\uff11\uff12\uff13\uff01", "\u2460\u2461 \u3316\u33a5 \ufdfa \ufb01\ufb02", "A\u0300 \u00c0 \u1e9b\u0323", "\u00a0x\u3000y\u2003z\t\tw\r\n", "\u2581\u2581x \u2581", "  lead and  trail  ", "\u3000\u00a0 ", "a\n\n\n\n\n\n\n\nb\n\n\n\n\n", "\t\t\t\t\tx        y",
    " \n \n x \n\n y\n", "\u6f22\u5b57\u304b\u306a\u4ea4\u3058\u308a\u6587\u3002", "\ud55c\uad6d\uc5b4 \ubb38\uc7a5", "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22", "\U0001f469\u200d\U0001f4bb\U0001f468\U0001f3fd\u200d\U0001f680 \u2764\ufe0f\u200d\U0001f525", "the quick brown fox " * 60, "thequickbrownfox" * 80, "\ufdfa" * 40,
    "x\ufdfay\ufdfa\ufdfa z", "\u0301\u0301x", "return self.value + other.value", "statements and expressions, objects or classes",
]
ALL = list(dict.fromkeys(TEXTS + MORE))


def fixture(name, vocab, encode, embed=True):
    """The ids of all texts, and cases with special tokens, with and without those that are added."""
    bos = vocab.bos if vocab.bos is not None else getattr(vocab, "cls", None)
    eos = getattr(vocab, "sep", None) or vocab.eos
    adds = {"gemma4": (True, False), "bert": (True, True), "t5": (False, True)}[vocab.model]
    begin = [bos] if (adds[0] if vocab.add_bos is None else vocab.add_bos) else []
    end = [eos] if (adds[1] if vocab.add_eos is None else vocab.add_eos) else []
    cases = [[text, False, special, encode(text, special)] for text in special_texts(vocab) for special in (False, True)]
    cases += [[text, True, False, begin + encode(text, False) + end] for text in ("", "Hello", " x", "\n\ny")]
    parts = {k: v for k, v in vars(vocab).items() if v is not None and v != []} if embed else {}
    write(name, ({"vocab": parts} if embed else {}) | {"plain": [encode(text, False) for text in ALL], "cases": cases})


def encoder(tokenizer):
    def encode(text, special):
        tokenizer.encode_special_tokens = not special
        return tokenizer.encode(text, add_special_tokens=False).ids

    return encode


# -------------------------------------------------------------------------------------------------------------- gemma4


def gemma4(vocab):
    ids = {t: i for i, t in reversed(list(enumerate(vocab.tokens)))}
    merges = [tuple(m.split(" ")) for m in vocab.merges]
    tokenizer = Tokenizer(models.BPE(ids, merges, byte_fallback=True, fuse_unk=True, unk_token=vocab.tokens[vocab.unk]))
    tokenizer.normalizer = normalizers.Replace(" ", MARK)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    add_tokens(tokenizer, vocab)
    return encoder(tokenizer)


def train_gemma4(bytes_):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(" ", MARK)
    # As Gemma's merges are: none goes on behind a mark or a line break, but runs do.
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(f"[\n\t]|{MARK}[^{MARK}\n\t]*"), "isolated")
    tokenizer.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=520, limit_alphabet=110, show_progress=False))
    trained = Vocab(tokens=sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get))
    learned = [m if isinstance(m, str) else " ".join(m) for m in json.loads(tokenizer.to_str())["model"]["merges"]]
    control = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|turn>", "<turn|>"]
    user = ["<|tool_call>", "<tool_call|>", "<|tool_response>"]
    tokens = control + user + ([f"<0x{b:02X}>" for b in range(256)] if bytes_ else [])
    kinds = [CONTROL] * 3 + [UNKNOWN] + [CONTROL] * 3 + [USER_DEFINED] * 3 + [BYTE] * (256 if bytes_ else 0)
    runs = [c * n for n in range(1, 7) for c in ("\n", MARK, "\t")]
    tokens += list(dict.fromkeys(runs + trained.tokens))
    kinds += [NORMAL] * (len(tokens) - len(kinds))
    merges = [f"{c * i} {c * (n - i)}" for n in range(6, 1, -1) for i in range(n - 1, 0, -1) for c in ("\n", MARK, "\t")]
    return Vocab(model="gemma4", tokens=tokens, kinds=kinds, merges=merges + [m for m in learned if m not in merges], bos=2, eos=1, unk=3, pad=0, add_space_prefix=False, add_bos=True)


# ---------------------------------------------------------------------------------------------------------------- bert


def bert(vocab, words):
    tokenizer = Tokenizer(models.WordPiece({t: i for i, t in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=getattr(vocab, "lowercase", None) is not False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    add_tokens(tokenizer, vocab)
    return encoder(tokenizer)


def train_bert(lowercase):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(corpus(), trainers.WordPieceTrainer(vocab_size=700, limit_alphabet=250, show_progress=False, special_tokens=special + ["[unused3]"]))
    words = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    # A mark that is a character, inside a word and as one.
    words += [w for w in (f"##{MARK}", MARK, "a", "##a", "b", "##b") if w not in words]
    kinds = [(UNKNOWN if w == "[UNK]" else CONTROL) if w in special else NORMAL for w in words]
    # As converters write them.
    tokens = [w if w.startswith("[") and w.endswith("]") else w[2:] if w.startswith("##") and len(w) > 2 else MARK + w for w in words]
    at = words.index
    return words, Vocab(model="bert", tokens=tokens, kinds=kinds, unk=at("[UNK]"), cls=at("[CLS]"), sep=at("[SEP]"), pad=at("[PAD]"), lowercase=None if lowercase else False)


def bert_chars(vocab, encode):
    """What every character is between two letters, as [first, last, ids]."""
    runs = []
    for c in range(0x110000):
        if 0xD800 <= c < 0xE000:
            continue
        ids = encode(f"a{chr(c)}b", False)
        if runs and runs[-1][2] == ids and c - runs[-1][1] in (1, 0x801):
            runs[-1][1] = c
        else:
            runs.append([c, c, ids])
    write("bert_chars", {"runs": runs})


# ------------------------------------------------------------------------------------------------------------------ t5


def unigram_model(vocab):
    """The vocabulary as sentencepiece's ModelProto; its user-defined tokens are normal ones, which nothing is equal to."""
    pieces = b""
    for i, (text, score, kind) in enumerate(zip(vocab.tokens, vocab.scores, vocab.kinds)):
        text, kind = (f"\ue100{i}", UNUSED) if kind in (USER_DEFINED, UNUSED) else (text, kind)
        pieces += proto(1, proto(1, text) + proto(2, float(score)) + proto(3, kind))
    trainer = proto(3, 1) + proto(35, int(BYTE in vocab.kinds)) + proto(4, len(vocab.tokens))
    for field, name, id in ((40, 45, vocab.unk), (41, 46, vocab.bos), (42, 47, vocab.eos)):
        trainer += proto(field, id if id is not None else (1 << 64) - 1) + (proto(name, vocab.tokens[id]) if id is not None else b"")
    trainer += proto(43, (1 << 64) - 1)
    prefix, squeeze = vocab.add_space_prefix is not False, vocab.remove_extra_whitespaces is not False
    normalizer = proto(1, "own") + proto(2, bytes.fromhex(vocab.charsmap or "")) + proto(3, int(prefix)) + proto(4, int(squeeze)) + proto(5, 1)
    return sentencepiece.SentencePieceProcessor(model_proto=pieces + proto(2, trainer) + proto(3, normalizer))


def unigram(vocab, name):
    model = unigram_model(vocab)
    # Only tokens that texts may have: Hugging Face's model finds any other.
    words = [(t if k == NORMAL else f"\ue100{i}", s if k == NORMAL else 0.0) for i, (t, s, k) in enumerate(zip(vocab.tokens, vocab.scores, vocab.kinds))]
    tokenizer = Tokenizer(models.Unigram(words, unk_id=vocab.unk))
    byte_ids = {int(t[3:5], 16): i for i, (t, k) in enumerate(zip(vocab.tokens, vocab.kinds)) if k == BYTE}
    t5 = Tokenizer(models.Unigram(words, unk_id=vocab.unk))
    if vocab.charsmap:
        t5.normalizer = normalizers.Precompiled(bytes.fromhex(vocab.charsmap))
    t5.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement=MARK, prepend_scheme="always")])
    ids = {t: i for i, t in reversed(list(enumerate(vocab.tokens)))}
    cut = lambda kinds: re.compile("(" + "|".join(map(re.escape, sorted(vocab.of_kind(*kinds) or ["\ue200"], key=len, reverse=True))) + ")")
    plain, all_ = cut((USER_DEFINED,)), cut((USER_DEFINED, CONTROL, UNKNOWN))
    unlike = {"sentencepiece": [], "T5Tokenizer": []}

    def cut_up(text):
        """Its ids; an unknown part is its bytes, which Hugging Face's model would also find where a text has their names."""
        found = tokenizer.encode(text, add_special_tokens=False) if text else None
        parts = list(zip(found.ids, found.offsets)) if found else []
        return sum(([byte_ids[b] for b in text[a:z].encode()] if id == vocab.unk and byte_ids else [id] for id, (a, z) in parts), [])

    def encode(text, special):
        out = []
        for piece in (all_ if special else plain).split(text):
            if (all_ if special else plain).fullmatch(piece):
                out.append(ids[piece])
            elif piece:
                found = cut_up(model.normalize(piece))
                out += found
                for witness, other in (("sentencepiece", model.encode(piece)), ("T5Tokenizer", t5.encode(piece, add_special_tokens=False).ids)):
                    if other != found:
                        unlike[witness].append(piece)
        return out

    encode.report = lambda: print(f"  {name}: the witnesses differ on", {k: len(set(v)) for k, v in unlike.items()}, "pieces, such as", {k: list(dict.fromkeys(t[:12] for t in v))[:6] for k, v in unlike.items()})
    return encode


RULES = {"\uff21": "A", "\uff22": "B", "\uff11": "1", "A\u0300": "\u00c0", "\u00a0": " ", "\u3000": " ", "\t": " ", "\n": " ", "\r": " ", "\u00ad": "", "\u200b": "", "\x01": "", "\ufdfa": "\u0635\u0644\u0649 \u0627\u0644\u0644\u0647 \u0639\u0644\u064a\u0647 \u0648\u0633\u0644\u0645",
         "\u3316": "\u30ad\u30ed\u30e1\u30fc\u30c8\u30eb", "\u2460": "1", "\ufb01": "fi", "\u2026": "...", "abc": "xyz", "ab": "b a", "\u00b4": " \u0301", "e\u0301": "\u00e9", "\u2003": "  "}


def train_unigram(bytes_):
    with tempfile.TemporaryDirectory() as directory:
        text, rules = Path(directory, "corpus.txt"), Path(directory, "rules.tsv")
        text.write_text("\n".join(corpus()).replace("\x00", ""))
        hexes = lambda s: " ".join(f"{ord(c):X}" for c in s)
        rules.write_text("".join(f"{hexes(a)}\t{hexes(b)}\n" for a, b in RULES.items()))
        own = {} if bytes_ else {"normalization_rule_tsv": str(rules)}
        own |= {"normalization_rule_name": "identity", "remove_extra_whitespaces": False} if bytes_ else {}
        sentencepiece.SentencePieceTrainer.train(input=str(text), model_prefix=f"{directory}/m", model_type="unigram", vocab_size=760, byte_fallback=bytes_, character_coverage=0.98, minloglevel=2,
                                                 num_threads=1, unk_id=2, bos_id=-1, eos_id=1, pad_id=0, **own)
        model = spm_pb2.ModelProto()
        model.ParseFromString(Path(f"{directory}/m.model").read_bytes())
    tokens, scores, kinds = [p.piece for p in model.pieces], [p.score for p in model.pieces], [p.type for p in model.pieces]
    for i in [i for i in range(len(kinds)) if kinds[i] == NORMAL and len(tokens[i]) > 3][::9]:
        kinds[i] = UNUSED
    more = [("<extra_id_0>", USER_DEFINED), ("<extra_id_1>", USER_DEFINED), ("<sep>", CONTROL), ("[PAD1]", UNUSED)]
    return Vocab(model="t5", tokens=tokens + [t for t, _ in more], scores=scores + [-1000.0] * len(more), kinds=kinds + [k for _, k in more], unk=2, eos=1, pad=0,
                 add_space_prefix=not bytes_, remove_extra_whitespaces=not bytes_, charsmap=None if bytes_ else model.normalizer_spec.precompiled_charsmap.hex())


def published(name):
    path = ROOT / f"models/vocabularies/ggml-vocab-{name}.gguf"
    fields = gguf.GGUFReader(path).fields
    get = lambda key: fields[f"tokenizer.ggml.{key}"].contents() if f"tokenizer.ggml.{key}" in fields else None
    vocab = Vocab.read(path)
    vocab.charsmap, vocab.remove_extra_whitespaces = bytes(get("precompiled_charsmap") or []).hex(), get("remove_extra_whitespaces")
    return vocab


def main():
    write("vocabulary_texts", {"texts": ALL})
    for name, bytes_ in (("tiny_gemma4", True), ("tiny_gemma4_unk", False)):
        vocab = train_gemma4(bytes_)
        fixture(name, vocab, gemma4(vocab))
    vocab = published("gemma-4")
    fixture("gemma4", vocab, gemma4(vocab), embed=False)
    for name, lowercase in (("tiny_bert", True), ("tiny_bert_cased", False)):
        words, vocab = train_bert(lowercase)
        fixture(name, vocab, bert(vocab, words))
        if lowercase:
            bert_chars(vocab, bert(vocab, words))
    for name, bytes_ in (("tiny_unigram", False), ("tiny_unigram_bytes", True)):
        vocab = train_unigram(bytes_)
        encode = unigram(vocab, name)
        fixture(name, vocab, encode)
        encode.report()
    vocab = published("nomic-bert-moe")
    encode = unigram(vocab, "nomic-bert-moe")
    fixture("nomic_bert_moe", vocab, encode, embed=False)
    encode.report()


if __name__ == "__main__":
    main()
