#!/usr/bin/env python3
"""Makes tests/fixtures/tokenizer/pre.json: the words that every pre-tokenizer of src/tokenizer/pre.rs must cut.

    python3 scripts/make_pretokenizer_fixtures.py

Needs the packages of make_tokenizer_fixtures.py, whose texts are used, with more below. Hugging Face `tokenizers` runs the
expressions as the models' own tokenizer.json have them, look-ahead included (where that is not public: as llama.cpp
defines the name), on a vocabulary in which every two bytes merge, so that nearly any other cut gives other ids: token
256 + r is the pair of bytes that is merged r-th, which is r * 40503 mod 65536, high byte first.
"""

import json

from make_tokenizer_fixtures import GPT2, LLAMA3, MADE_BY, OUT, QWEN2, TEXTS
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
ENDS = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
NO_HAN = r"&&[^\p{Han}]"
CASED = "[^\\r\\n\\p{L}\\p{N}]?[%s]*[%s]+%s|[^\\r\\n\\p{L}\\p{N}]?[%s]+[%s]*%s"
TEKKEN = CASED % (UPPER, LOWER, "", UPPER, LOWER, "") + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + ENDS
GPT4O = CASED % (UPPER, LOWER, CONTRACTION + "?", UPPER, LOWER, CONTRACTION + "?") + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + ENDS
KIMI = (r"[\p{Han}]+|" + CASED % (UPPER + NO_HAN, LOWER + NO_HAN, CONTRACTION + "?", UPPER + NO_HAN, LOWER + NO_HAN, CONTRACTION + "?")
        + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + ENDS)
ASCII_WORD = "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
CASED_LETTERS = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386"
    "\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba"
    "\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d"
    "\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc"
    "\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184"
    "\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf"
    "\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb"
    "\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943")

split = lambda pattern: pre_tokenizers.Split(Regex(pattern), "isolated")
level = lambda use_regex: pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
digits = lambda alone: pre_tokenizers.Digits(individual_digits=alone)
cut = lambda *steps: pre_tokenizers.Sequence([split(s) if isinstance(s, str) else s for s in steps] + [level(False)])
CJK = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
CJK_KANA = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
ASIAN = ("[\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f\u2f00-\u2fdf\u0e40-\u0e7f\u0e80-\u0eff\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f"
         "\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+")
BLOOM = " ?[^(\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+"

# Expressions, whether characters are composed first, and the names of `tokenizer.ggml.pre` that mean them.
PRE = [
    (level(True), False, "gpt-2 phi-2 a.x-4.0 exaone4 gigachat granite-docling jais jina-de jina-es jina-v1-en jina-v2-code jina-v2-de "
                         "jina-v2-es mellum modern-bert roberta-bpe trillion"),
    (level(True), True, "mpt olmo"),
    (pre_tokenizers.Sequence([digits(True), level(True)]), False, "smollm starcoder codeshell exaone mellum2 minerva-7b refact"),
    (pre_tokenizers.Sequence([digits(True), level(True)]), True, "command-r"),
    (cut(QWEN2), True, "qwen2 deepseek-r1-qwen f2llmv2"),
    (cut(QWEN2), False, "kormo megrez stablelm2 hunyuan solar-open grok-2"),
    (cut(r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"), False,
     "bailingmoe bailingmoe2 llada-moe"),
    (cut(CONTRACTION + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*" + ENDS), False, "qwen35"),
    (cut(CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+" + ENDS), False, "seed-coder"),
    (cut(QWEN2.removeprefix(CONTRACTION + "|")), False, "ufakzeka"),
    (cut(r"[^\n]+|[\n]+", QWEN2), False, "laguna"),
    (cut(LLAMA3), False, "llama-bpe llama3 llama-v3 falcon-h1 falcon3 jina-v5-nano lfm2 midm-2.0 glm4 glm5 chatglm-bpe dbrx smaug-bpe"),
    (cut(r"\p{N}{1,3}", LLAMA3.replace("{1,3}", "+")), False, "minicpm5"),
    (cut(TEKKEN), False, "tekken pixtral nemotron-3.5-embed"),
    (cut(TEKKEN.replace(r"|\p{N}|", r"|\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))|\p{N}{1,2}|")), False, "tekken-num3"),
    (cut(r"\d{1,3}(?=(?:\d{3})*\b)", GPT4O), False, "tiny_aya cohere2moe"),
    (cut(r"\p{N}{1,3}", CJK_KANA, GPT4O.split(r"|\p{N}{1,3}|")[0] + r"| ?[\p{P}\p{S}]+[\r\n]*" + ENDS), False, "flint"),
    (cut(LLAMA3.split(r"|\s+(?!")[0] + "".join(r"|\s{%d}(?!\S)" % (1 << n) for n in range(9, 1, -1)) + r"|\s{1,2}(?!\S)|\s{1}"), False, "jais-2"),
    (cut(CONTRACTION + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"), False, "exaone-moe"),
    (cut(CONTRACTION + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}|\p{M}|\x{200C}|\x{200D})+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + ENDS), False, "k2-horizon"),
    (cut("<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", "([\t\n]|    |  )", digits(True), r"[\p{P}!-/:-@\[-`{-~]", GPT2), False, "chameleon"),
    (cut(r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))", ASIAN, ASCII_WORD + r"| ?[\p{P}\p{S}]+[\r\n]*" + ENDS), False, "afmoe"),
    (cut(GPT4O), False, "gpt-4o kanana2 llama4 minimax-m2 talkie granite-embed-multi-97m"),
    (cut("[\uac00-\ud7a3\u3131-\u318e]+|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+|[\u3105-\u312f]+|"
         + CJK_KANA, GPT4O.replace("{1,3}", "")), False, "youtu"),
    (cut(KIMI), False, "kimi-k2"),
    (cut(r"\p{N}{1,3}", CJK_KANA, ASCII_WORD + r"| ?[\p{P}\p{S}]+[\r\n]*" + ENDS), False, "deepseek-v3 hunyuan-dense hy_v4 joyai-llm"),
    (cut(r"\p{N}{1,3}", CJK_KANA, ASCII_WORD + r"| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+", r"\p{N}"), False, "spark2_5"),
    (cut("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK, digits(True)), False, "deepseek-coder"),
    (cut("[\r\n]", f"\\s?[{CASED_LETTERS}]+", "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+", r"\s+$", CJK, digits(True)), False,
     "deepseek-llm"),
    (pre_tokenizers.Sequence([pre_tokenizers.Punctuation("contiguous"), level(True), digits(False), split("[0-9][0-9][0-9]")]), False, "falcon"),
    (cut(BLOOM), False, "bloom gpt3-finnish poro-chat"),
    (cut(BLOOM, digits(True)), False, "viking"),
    (cut(r"\p{N}+", r"(?=(\d{3})+(?!\d))"), False, "superbpe"),
    (cut(r"[\p{P}$+<=>^~|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"), False, "default"),
]

MORE = [
    "HelloWorld helloWorld HELLOworld hELLO HTTPServer iPhone McDonald ΑΒΓαβγ ЖдЖД ǅabc ʰaʰA", "It'S we'RE YOU'LLgo they'd'VE a'm b'M'm", "don'T!Don't",
    "中文ABCdef中文Abc日本語カナかなKana한글Hangul", "漢字とかな交じり文。ﾊﾝｶｸ々〇〆", "ㄅㄆㄇㄈ ㄱㄲㅏ 한국어！…“引”、。", "ไทยABCไทย", "नमस्तेABC क्षत्रिय", "e\u0301E\u0301x\u0301 \u0301a",
    "1 12 123 1234 12345 123456 1234567 12345678", "a1234567b", "1,234,567.8901", "½1234½12", "١٢٣٤٥٦٧ १२३४५", "x²³ 2²³¹¼½¾ ⅷ12345", "12ab345cd6789", "٣٤٥6789",
    "path/to/file//x /// \n a/\nb/\r\n/", "//comment\n\n//next", "!\r\n\r\n?\n x", "...\n\n\n...", " \r\n \r\n x", "a \r\n", "x\n\n\n  y", "  \n\t\n  z", "\n a", "\r a", "a  ",
    "tab\t\tend\t", "a  12", " \t 3  45x", "x   678   ", "$x+y=<z>^w~`|v", "a$b +c <d> =e ^f ~g `h` |i|", "“curly” ‘quotes’ — em – en … «guill»", "！？，。：；（）【】", "#tag @user _id .dot -dash 'quote \"dq", ".abc:def;ghi!jkl",
    "foo_bar.baz(qux)[0]->x::y", "a|b(c|d)e", "(\\s|x).,!?…。，、।۔،) y", " (a) |b| .c ,d !e", "।हिन्दी। ۔اردو، عربی،", "x…y。z，w、v", " \u3000x \u00a0y\u2003z", "\u3000\u3000！x", " ！a ‘b 。c",
    "м and мир 999", "дм 12м", "\u0394\u03b5\u03bb\u1f00\u1f7d\u1fbe\u1fd3\u1fdb\u1ff2", "Ω K Å ℵ ℃ ⅓ ⅰ", "\uab30\ua7a0\ua78c x", "\u0294\u01bb\u01c0 y", "ꓐ ꀀ ᐁ ᚠ ⴰ ߊ", "ა Ა ᲀ", "𐐀𐐨 𞤀𞤢 𐲀𐳀",
    "x\x01y\x02\x03 z", "\x01a \x01", "a\u200db\u200c", "❤️‍🔥 text 👩🏽‍💻code", "$€£¥₿ 10€", "±×÷≠≤ ∑x", "C++ C# F# .NET", "I'm I’m I＇m", "''s '' 's'", "a'b'c",
    "x" + " " * 5 + "y" + " " * 6, " " * 4 + "a" + " " * 3 + "!", "\t" * 600 + "b", "b" + "\u3000" * 513, " " * 512 + "(x)" + " " * 1029, "a\n" + " " * 7 + "\n" + " " * 9 + "b", " " * 2 + "\u00e9", " " * 16, "a" + " " * 17 + "1",
    # White space of several kinds, whose pairs merge otherwise where it is cut.
    *["x" + "".join(" \t\u3000\u2003\u00a0"[(i * i + n) % 5] for i in range(n)) + end for n in (3, 5, 6, 7, 9, 16, 17, 33, 70, 519) for end in ("", "y", "!")],
    "1234abc 1234_x 1234\u0301 1234\u200d5678 1234\u4e2d 12345. 1234'5 a1234 1234\u2167 1234\u00b2 1234\u24b6 1234\u2103 \u0663\u0664\u0665\u0666", "1234567\n12 123456 1,2345", "ab cd  ef\u0301 gh\n ij/ kl//\n\n!\n\n? a\u200db \u0928\u094d\u200d\u092f", "x \u0301y z w1 v",
    "<sentinel:12> IMGIMGABCZ IMGIMGABCDEZ <sentinel:x>  a    b\t\tc", "\u0e01\u0e40\u0e01 \u1780\u1789 \uff76\uff9e \u3131 \u1112\u1161 \ua9e5", "a  123  4567 !12 \n  1234",
    "a\u0a76b\u2e43c \u166dd\u2e43!e \U0001144bf \u0c84\u061dg",
    "The year 2024's 3rd quarter: $1,234,567.89 (≈100%)!", "ONE two Three fOUR", "aAaAaA AAaaAA", "ÀÉÎõü ÀÉ", "ßẞſ ﬁﬀ", "ª º ʼn",
]


def main():
    alphabet = {}
    printable = [b for b in range(256) if chr(b).isprintable() and b not in (0x20, 0xA0, 0xAD)]
    others = iter(range(0x100, 0x200))
    for b in range(256):
        alphabet[b] = chr(b) if b in printable else chr(next(others))
    pairs = [(p >> 8, p & 255) for p in (r * 40503 % 65536 for r in range(65536))]
    vocab = {alphabet[b]: b for b in range(256)}
    vocab |= {alphabet[a] + alphabet[b]: 256 + r for r, (a, b) in enumerate(pairs)}
    assert len(vocab) == 256 + 65536 and set(alphabet.values()) == set(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab, [(alphabet[a], alphabet[b]) for a, b in pairs]))

    texts = list(dict.fromkeys(TEXTS + MORE))
    ids = [[] for _ in texts]  # the different ones of each text
    groups = []
    for pre, nfc, names in PRE:
        tokenizer.pre_tokenizer = pre
        tokenizer.normalizer = normalizers.NFC() if nfc else normalizers.Sequence([])
        which = []
        for text, known in zip(texts, ids):
            found = tokenizer.encode(text, add_special_tokens=False).ids
            if found not in known:
                known.append(found)
            which.append(known.index(found))
        groups.append({"names": names.split(), "which": which})
    unlike = {i: [j for j in range(i) if groups[i]["which"] == groups[j]["which"]] for i in range(len(groups))}
    for i, same in unlike.items():
        print(groups[i]["names"][0], "as", [groups[j]["names"][0] for j in same] if same else "no other")
    compact = lambda v: json.dumps(v, ensure_ascii=True, separators=(",", ":"))
    lines = lambda values: "[\n" + ",\n".join(map(compact, values)) + "\n]"
    made_by = {**MADE_BY, "script": "scripts/make_pretokenizer_fixtures.py"}
    path = OUT / "pre.json"
    path.write_text(f'{{"made_by":{compact(made_by)},\n"texts":{lines(texts)},\n"ids":{lines(ids)},\n"groups":{lines(groups)}}}\n')
    print(f"{path.name}: {path.stat().st_size} bytes, {len(texts)} texts, {len(groups)} expressions, {sum(map(len, ids))} lists of ids")


if __name__ == "__main__":
    main()
