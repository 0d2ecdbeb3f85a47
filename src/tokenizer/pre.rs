//! The pre-tokenizers by their names in `tokenizer.ggml.pre`: which expressions cut a text, and what goes with them.
//!
//! An expression is that of the models' own `tokenizer.json` or, where that is not public, of the name's definition in
//! llama.cpp, without the look-ahead of `\s+(?!\S)|\s+` (see [`Space`]). A name that means what another does is one word here.

use super::cut::{Cut, Rest, Space};

/// What names of pre-tokenizers mean.
pub(super) struct Pre {
    pub names: &'static [&'static str],
    /// Each cuts the pieces of the one before.
    pub cuts: &'static [Cut],
    /// Whether the model's tokenizer composes characters (NFC) first.
    pub nfc: bool,
    /// Whether a word that is a token is that token, whatever the merges would make of it.
    pub ignore_merges: bool,
    /// Whether a text begins with the begin token if the file does not say.
    pub add_bos: bool,
    /// Whether words are text in which a mark stands for each space, and no bytes.
    pub is_text: bool,
}

/// The pre-tokenizer of a file that names none: an older converter left it out, and llama.cpp takes this one.
pub(super) const DEFAULT: &str = "default";
/// That of `tokenizer.ggml.model` "gemma4".
pub(super) const GEMMA4: &str = "gemma4";

macro_rules! contraction {
    () => {
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    };
}
macro_rules! upper {
    () => {
        r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}"
    };
}
macro_rules! lower {
    () => {
        r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
    };
}
/// Words of capitals and small letters, both but for `$not`, with `$after` behind them.
macro_rules! cased {
    ($not:expr, $after:expr) => {
        concat!(
            r"[^\r\n\p{L}\p{N}]?[",
            upper!(),
            $not,
            "]*[",
            lower!(),
            $not,
            "]+",
            $after,
            r"|[^\r\n\p{L}\p{N}]?[",
            upper!(),
            $not,
            "]+[",
            lower!(),
            $not,
            "]*",
            $after,
        )
    };
}
/// Qwen2's words, with `$number` for its digits.
macro_rules! words {
    ($number:expr) => {
        concat!(r"[^\r\n\p{L}\p{N}]?\p{L}+|", $number, r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+")
    };
}

const DIGIT: Cut = Cut::Matches(r"\p{N}", Space::Whole);
const DIGITS_3: Cut = Cut::Matches(r"\p{N}{1,3}", Space::Whole);
const LINES: Cut = Cut::Matches(r"\n+", Space::Whole);
const LINE_BREAK: Cut = Cut::Matches(r"[\r\n]", Space::Whole);
const CJK: Cut = Cut::Matches(r"[\u{800}-\u{9FA5}\u{AC00}-\u{D7FF}]+", Space::Whole);
const CJK_KANA: Cut = Cut::Matches(r"[\u{4E00}-\u{9FA5}\u{3040}-\u{30FF}]+", Space::Whole);

const GPT2: Cut = Cut::Matches(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+", Space::GivesBack);
/// A run of digits is cut into threes.
const LLAMA3: Cut = Cut::Matches(concat!(contraction!(), "|", words!(r"\p{N}{1,3}")), Space::GivesBackButLines);
/// Every digit is alone.
const QWEN2: Cut = Cut::Matches(concat!(contraction!(), "|", words!(r"\p{N}")), Space::GivesBackButLines);
/// Qwen2's with marks as letters.
const QWEN35: Cut = Cut::Matches(
    concat!(contraction!(), r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"),
    Space::GivesBackButLines,
);
/// Qwen2's whose punctuation takes no line breaks.
const SEED_CODER: Cut = Cut::Matches(
    concat!(contraction!(), r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s*[\r\n]+|\s+"),
    Space::GivesBackButLines,
);
macro_rules! tekken {
    ($number:expr) => {
        Cut::Matches(
            concat!(cased!("", ""), "|", $number, r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+"),
            Space::GivesBackButLines,
        )
    };
}
const TEKKEN: Cut = tekken!(r"\p{N}");
const GPT4O: Cut = Cut::Matches(
    concat!(cased!("", concat!(contraction!(), "?")), r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+"),
    Space::GivesBackButLines,
);
/// GPT-4o's with every digit alone.
const YOUTU: Cut = Cut::Matches(
    concat!(cased!("", concat!(contraction!(), "?")), r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+"),
    Space::GivesBackButLines,
);
/// GPT-4o's with DeepSeek's punctuation, and numbers cut before.
const FLINT: Cut = Cut::Matches(
    concat!(cased!("", concat!(contraction!(), "?")), r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+"),
    Space::GivesBackButLines,
);
/// Letters with their marks, and one space between them.
const EXAONE_MOE: Cut = Cut::Matches(
    concat!(
        contraction!(),
        r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+"
    ),
    Space::GivesBackButLines,
);
/// Llama 3's with marks and joiners as letters.
const K2_HORIZON: Cut = Cut::Matches(
    concat!(
        contraction!(),
        r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}\u{200C}\u{200D}]+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
    ),
    Space::GivesBackButLines,
);
const KIMI_K2: Cut = Cut::Matches(
    concat!(
        r"\p{Han}+|",
        cased!(r"&&[^\p{Han}]", concat!(contraction!(), "?")),
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
    ),
    Space::GivesBackButLines,
);
const DEEPSEEK_V3: Cut = Cut::Matches(
    concat!(
        r"[!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+",
        r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+"
    ),
    Space::GivesBackButLines,
);
const SPARK: Cut = Cut::Matches(
    concat!(r"[!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+", r"| ?[\p{P}\p{S}]+|[\r\n]|\s+"),
    Space::GivesBack,
);
/// A space and letters that have a case.
const DEEPSEEK_LETTERS: Cut = Cut::Matches(
    concat!(
        r"\s?[",
        r"A-Za-z\u{B5}\u{C0}-\u{D6}\u{D8}-\u{F6}\u{F8}-\u{1BA}\u{1BC}-\u{1BF}\u{1C4}-\u{293}\u{295}-\u{2AF}",
        r"\u{370}-\u{373}\u{376}\u{377}\u{37B}-\u{37D}\u{37F}\u{386}\u{388}-\u{38A}\u{38C}\u{38E}-\u{3A1}",
        r"\u{3A3}-\u{3F5}\u{3F7}-\u{481}\u{48A}-\u{52F}\u{531}-\u{556}\u{10A0}-\u{10C5}\u{13A0}-\u{13F5}",
        r"\u{13F8}-\u{13FD}\u{1C90}-\u{1CBA}\u{1CBD}-\u{1CBF}\u{1D00}-\u{1D2B}\u{1D6B}-\u{1D77}",
        r"\u{1D79}-\u{1D9A}\u{1E00}-\u{1F15}\u{1F18}-\u{1F1D}\u{1F20}-\u{1F45}\u{1F48}-\u{1F4D}",
        r"\u{1F50}-\u{1F57}\u{1F59}\u{1F5B}\u{1F5D}\u{1F5F}-\u{1F7D}\u{1F80}-\u{1FB4}\u{1FB6}-\u{1FBC}\u{1FBE}",
        r"\u{1FC2}-\u{1FC4}\u{1FC6}-\u{1FCC}\u{1FD0}-\u{1FD3}\u{1FD6}-\u{1FDB}\u{1FE0}-\u{1FEC}",
        r"\u{1FF2}-\u{1FF4}\u{1FF6}-\u{1FFC}\u{2102}\u{2107}\u{210A}-\u{2113}\u{2115}\u{2119}-\u{211D}\u{2124}",
        r"\u{2126}\u{2128}\u{212A}-\u{212D}\u{212F}-\u{2134}\u{2139}\u{213C}-\u{213F}\u{2145}-\u{2149}\u{214E}",
        r"\u{2183}\u{2184}\u{2C00}-\u{2C7B}\u{2C7E}-\u{2CE4}\u{2CEB}-\u{2CEE}\u{2CF2}\u{2CF3}\u{A640}-\u{A66D}",
        r"\u{A680}-\u{A69B}\u{A722}-\u{A76F}\u{A771}-\u{A787}\u{A78B}-\u{A78E}\u{AB70}-\u{ABBF}",
        r"\u{FB00}-\u{FB06}\u{FB13}-\u{FB17}\u{FF21}-\u{FF3A}\u{FF41}-\u{FF5A}\u{10400}-\u{1044F}",
        r"\u{104B0}-\u{104D3}\u{104D8}-\u{104FB}\u{10C80}-\u{10CB2}\u{10CC0}-\u{10CF2}\u{118A0}-\u{118DF}",
        r"\u{1E900}-\u{1E943}",
        "]+"
    ),
    Space::Whole,
);
/// The scripts of East and Southeast Asia.
const ASIAN: Cut = Cut::Matches(
    concat!(
        r"[\u{4E00}-\u{9FFF}\u{3400}-\u{4DBF}\u{F900}-\u{FAFF}\u{3040}-\u{30FF}\u{FF65}-\u{FF9F}\u{2F00}-\u{2FDF}",
        r"\u{E40}-\u{E7F}\u{E80}-\u{EFF}\u{1780}-\u{17FF}\u{1000}-\u{109F}\u{AA60}-\u{AA7F}\u{A9E0}-\u{A9FF}",
        r"\u{AC00}-\u{D7AF}\u{1100}-\u{11FF}]+"
    ),
    Space::Whole,
);
const BLOOM: Cut = Cut::Matches(r" ?[^(\s|.,!?\u{2026}\u{3002}\u{FF0C}\u{3001}\u{964}\u{6D4}\u{60C})]+", Space::Whole);

const PLAIN: Pre = Pre { names: &[], cuts: &[], nfc: false, ignore_merges: false, add_bos: false, is_text: false };
const NFC: Pre = Pre { nfc: true, ..PLAIN };

pub(super) const ALL: &[Pre] = &[
    Pre {
        names: &[
            "gpt-2",
            "phi-2",
            "a.x-4.0",
            "exaone4",
            "gigachat",
            "granite-docling",
            "jais",
            "jina-de",
            "jina-es",
            "jina-v1-en",
            "jina-v2-code",
            "jina-v2-de",
            "jina-v2-es",
            "mellum",
            "modern-bert",
            "roberta-bpe",
            "trillion",
        ],
        cuts: &[GPT2],
        ..PLAIN
    },
    // GPT-NeoX's tokenizer.
    Pre { names: &["mpt", "olmo"], cuts: &[GPT2], ..NFC },
    Pre {
        names: &["smollm", "starcoder", "codeshell", "exaone", "mellum2", "minerva-7b", "refact"],
        cuts: &[DIGIT, GPT2],
        ..PLAIN
    },
    Pre { names: &["command-r"], cuts: &[DIGIT, GPT2], ..NFC },
    // Qwen2's vocabulary under other names, which are taken to compose as it does.
    Pre { names: &["qwen2", "deepseek-r1-qwen", "f2llmv2"], cuts: &[QWEN2], ..NFC },
    Pre {
        names: &[
            "kormo",
            "megrez",
            "stablelm2",
            "hunyuan",
            "solar-open",
            "grok-2",
            "bailingmoe",
            "bailingmoe2",
            "llada-moe",
        ],
        cuts: &[QWEN2],
        ..PLAIN
    },
    // transformers' Qwen3_5Tokenizer composes, too; llama.cpp does not, nor do the published ids of the name, which decide here.
    Pre { names: &["qwen35"], cuts: &[QWEN35], ..PLAIN },
    Pre { names: &["exaone-moe"], cuts: &[EXAONE_MOE], ..PLAIN },
    Pre { names: &["k2-horizon"], cuts: &[K2_HORIZON], ..PLAIN },
    Pre { names: &["seed-coder"], cuts: &[SEED_CODER], ..PLAIN },
    Pre { names: &["ufakzeka"], cuts: &[Cut::Matches(words!(r"\p{N}"), Space::GivesBackButLines)], ..PLAIN },
    Pre { names: &["laguna"], cuts: &[LINES, QWEN2], ..PLAIN },
    Pre {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon-h1", "falcon3", "jina-v5-nano", "lfm2", "midm-2.0"],
        cuts: &[LLAMA3],
        ignore_merges: true,
        add_bos: true,
        ..PLAIN
    },
    Pre { names: &["glm4", "glm5"], cuts: &[LLAMA3], ignore_merges: true, ..PLAIN },
    Pre {
        names: &["jais-2"],
        cuts: &[Cut::Matches(concat!(contraction!(), "|", words!(r"\p{N}{1,3}")), Space::Halves)],
        ..PLAIN
    },
    Pre { names: &["chatglm-bpe", "dbrx", "smaug-bpe"], cuts: &[LLAMA3], ..PLAIN },
    Pre {
        names: &["minicpm5"],
        cuts: &[DIGITS_3, Cut::Matches(concat!(contraction!(), "|", words!(r"\p{N}+")), Space::GivesBackButLines)],
        ignore_merges: true,
        ..PLAIN
    },
    // Pixtral has Tekken's vocabulary; the expression in its first `tokenizer.json` was Llama 3's by mistake.
    Pre {
        names: &["tekken", "pixtral", "nemotron-3.5-embed"],
        cuts: &[TEKKEN],
        ignore_merges: true,
        add_bos: true,
        ..PLAIN
    },
    Pre {
        names: &["tekken-num3"],
        cuts: &[tekken!(r"\p{N}+"), Cut::Thousands(r"\p{N}+", Rest::Alone)],
        ignore_merges: true,
        add_bos: true,
        ..PLAIN
    },
    Pre { names: &["gpt-4o", "kanana2", "llama4", "minimax-m2", "talkie"], cuts: &[GPT4O], ..PLAIN },
    Pre {
        names: &["tiny_aya", "cohere2moe"],
        cuts: &[Cut::Thousands(r"\d+[\w\p{N}--\u{200C}\u{200D}]?", Rest::AloneUnlessWord), GPT4O],
        ..PLAIN
    },
    Pre { names: &["flint"], cuts: &[DIGITS_3, CJK_KANA, FLINT], ..PLAIN },
    Pre { names: &["granite-embed-multi-97m"], cuts: &[GPT4O], ignore_merges: true, ..PLAIN },
    Pre {
        names: &["youtu"],
        cuts: &[
            Cut::Matches(
                concat!(
                    r"[\u{AC00}-\u{D7A3}\u{3131}-\u{318E}]+|[\u{FF01}\u{2026}\u{201C}\u{201D}\u{2018}\u{2019}\u{2014}\u{FF1A}\u{FF1B}\u{FF0C}\u{3001}-\u{303F}\u{FE30}-\u{FE4F}]+|[\u{3105}-\u{312F}]+",
                    r"|[\u{4E00}-\u{9FA5}\u{3040}-\u{30FF}]+"
                ),
                Space::Whole,
            ),
            YOUTU,
        ],
        ignore_merges: true,
        ..PLAIN
    },
    Pre { names: &["kimi-k2"], cuts: &[KIMI_K2], ..PLAIN },
    Pre {
        names: &["deepseek-v3", "hunyuan-dense", "hy_v4", "joyai-llm"],
        cuts: &[DIGITS_3, CJK_KANA, DEEPSEEK_V3],
        ..PLAIN
    },
    Pre { names: &["afmoe"], cuts: &[Cut::Thousands(r"\p{N}+", Rest::Alone), ASIAN, DEEPSEEK_V3], ..PLAIN },
    Pre { names: &["spark2_5"], cuts: &[DIGIT, CJK_KANA, SPARK], ..PLAIN },
    Pre {
        names: &["deepseek-coder"],
        cuts: &[
            LINE_BREAK,
            Cut::Matches(r"\s?\p{L}+", Space::Whole),
            Cut::Matches(r"\s?\p{P}+", Space::Whole),
            CJK,
            DIGIT,
        ],
        ..PLAIN
    },
    Pre {
        names: &["deepseek-llm"],
        cuts: &[
            LINE_BREAK,
            DEEPSEEK_LETTERS,
            Cut::Matches(
                r"\s?[!-/:-~\u{FF01}-\u{FF0F}\u{FF1A}-\u{FF5E}\u{2018}-\u{201F}\u{3000}-\u{3002}]+",
                Space::Whole,
            ),
            Cut::Matches(r"\s+$", Space::Whole),
            CJK,
            DIGIT,
        ],
        ..PLAIN
    },
    Pre {
        names: &["chameleon"],
        cuts: &[
            Cut::Matches("<sentinel:[0-9]+>", Space::Whole),
            Cut::Matches("IMGIMG[A-I]{1,4}Z", Space::Whole),
            Cut::Matches(r"[\t\n]|    |  ", Space::Whole),
            DIGIT,
            Cut::Matches(r"[\p{P}!-/:-@\[-`{-~]", Space::Whole),
            GPT2,
        ],
        add_bos: true,
        ..PLAIN
    },
    Pre { names: &["falcon"], cuts: &[Cut::Punctuation, GPT2, Cut::ByteDigits], ..PLAIN },
    Pre { names: &["bloom", "gpt3-finnish", "poro-chat"], cuts: &[BLOOM], ..PLAIN },
    Pre { names: &["viking"], cuts: &[BLOOM, DIGIT], ..PLAIN },
    // SentencePiece's merges by rank, over lines.
    Pre { names: &[GEMMA4, "granite-embed-multi-311m"], cuts: &[LINES], add_bos: true, is_text: true, ..PLAIN },
    Pre { names: &["sarvam-moe", "domyn-small"], cuts: &[LINES], is_text: true, ..PLAIN },
    Pre {
        names: &["superbpe"],
        cuts: &[Cut::Matches(r"\p{N}+", Space::Whole), Cut::Thousands(r"\d+", Rest::Joined)],
        ..PLAIN
    },
    // No model has these: they are llama.cpp's for a file that names none.
    Pre {
        names: &[DEFAULT],
        cuts: &[
            Cut::Matches(r"[\p{P}$+<=>^~|]+", Space::Whole),
            GPT2,
            Cut::Matches(r"\p{N}+", Space::Whole),
            Cut::Matches("[0-9][0-9][0-9]", Space::Whole),
        ],
        ..PLAIN
    },
];
