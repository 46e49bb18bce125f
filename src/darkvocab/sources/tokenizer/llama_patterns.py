r"""Patterns by which llama.cpp cuts a text before BPE, by `tokenizer.ggml.pre`, for the regex engine of `tokenizers`.

They are those of llama.cpp's `src/llama-vocab.cpp`, one after the other on what the one before has cut. What its code
does with them is written into them:

- where it has code for a pattern (`src/unicode.cpp`), the pattern says what the code does: a number takes the text
  before it along (`GROUPS`), Kimi's letters are letters alone;
- \p{Lu}, \p{Ll} and so on are all letters to it;
- \s, but no range of characters, holds white space beyond ASCII; `$` is the end of the text, \d and \b are ASCII;
- its tables are Unicode 15.1, of which the engine has 16.0.
"""

from __future__ import annotations

import re

CONTRACTION = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
SIGNS = r" ?[^\s\p{L}\p{N}]+"
SPACES = r"\s+(?!\S)|\s+"
TAIL = rf"{SIGNS}[\r\n]*|\s*[\r\n]+|{SPACES}"
SLASHED = rf"{SIGNS}[\r\n/]*|\s*[\r\n]+|{SPACES}"

GPT2 = rf"'s|'t|'re|'ve|'m|'ll|'d| ?\p{{L}}+| ?\p{{N}}+|{SIGNS}|{SPACES}"
QWEN2 = rf"{CONTRACTION}|{WORD}|\p{{N}}|{TAIL}"
LLAMA3 = rf"{CONTRACTION}|{WORD}|\p{{N}}{{1,3}}|{TAIL}"
CASCADE = "|".join(rf"\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4, "1,2"))
LETTERED = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
DEEPSEEK3 = rf"{LETTERED}| ?[\p{{P}}\p{{S}}]+[\r\n]*|\s*[\r\n]+|{SPACES}"
MARKED = r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]"
CASED = rf"{MARKED}*[\p{{L}}\p{{M}}]+{CONTRACTION}?|{MARKED}+[\p{{L}}\p{{M}}]*{CONTRACTION}?"
GROUPS = r"\P{N}*\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))"  # digits by three from the right
NO_SENTENCE = r" ?[^(\s|.,!?…。，、।۔،)]+"
LINES = r"[^\n]+|[\n]+"
CJK = r"[一-龥぀-ゟ゠-ヿ]+"
HAN = "一-\u9fff㐀-\u4dbf\U00020000-\U0002a6df\U0002a700-\U0002ebef\uf900-\ufaff\U0002f800-\U0002fa1f"


def _cased(letter: str, after: str = "") -> str:
    """Words that change from capitals to small letters at most once, as far as ASCII goes."""
    upper, lower = (rf"((?={letter})([^{case}]))" for case in ("a-z", "A-Z"))
    return "|".join(rf"[^\r\n\p{{L}}\p{{N}}]?{upper}{m}{lower}{n}{after}" for m, n in ("*+", "+*"))


LATIN = (
    "A-Za-z\u00b5À-ÖØ-öø-ƺƼ-ƿ\u01c4-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-\u03f5Ϸ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗ"
    "ὙὛὝὟ-\u1f7dᾀ-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌῐ-\u1fd3ῖ-\u1fdbῠ-Ῥῲ-ῴῶ-ῼ\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124"
    "\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149ⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿ\ufb00"
    "-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
)
EAST = r"[一-龥ࠀ-一가-퟿&&\S]+"

PATTERNS: dict[str, tuple[str, ...]] = {
    "default": (r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"),
    "gpt-2": (GPT2,),
    "starcoder": (r"\p{N}", GPT2),
    "falcon": (r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"),
    "llama-bpe": (LLAMA3,),
    "qwen2": (QWEN2,),
    "qwen35": (rf"{CONTRACTION}|{MARKED}+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|{SPACES}",),
    "jais-2": (rf"{CONTRACTION}|{WORD}|\p{{N}}{{1,3}}|{SIGNS}[\r\n]*|\s*[\r\n]+|{CASCADE}|\s{{1}}",),
    "deepseek-llm": (
        *(r"[\r\n]", rf"\s?[{LATIN}]+", r"\s?[!-/:-~！-／：-～‘-‟、-。]+"),
        *(r"\s+\z", EAST, r"\p{N}+"),
    ),
    "deepseek-coder": (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", EAST, r"\p{N}"),
    "deepseek-v3": (r"\p{N}{1,3}", CJK, DEEPSEEK3),
    "spark2_5": (r"\p{N}{1,3}", CJK, rf"{LETTERED}| ?[\p{{P}}\p{{S}}]+|[\r\n]|{SPACES}", r"\p{N}"),
    "youtu": (
        rf"[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|{CJK}",
        rf"{CASED}|\p{{N}}|{SLASHED}",
    ),
    "tiny_aya": (GROUPS, rf"{CASED}|\p{{N}}{{1,3}}|{SLASHED}"),
    "poro-chat": (NO_SENTENCE,),
    "viking": (NO_SENTENCE, r"\p{N}"),
    "tekken": (_cased(r"[\p{L}]") + rf"|\p{{N}}|{SLASHED}",),
    "gpt-4o": (_cased(r"[\p{L}]", f"{CONTRACTION}?") + rf"|\p{{N}}{{1,3}}|{SLASHED}",),
    "granite-embed-multi-97m": (_cased(r"[\p{L}\p{M}]", f"{CONTRACTION}?") + rf"|\p{{N}}{{1,3}}|{SLASHED}",),
    "chameleon": (
        *("<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", r"([\t\n]|    |  )"),
        *(r"\p{N}", r"[\p{P}!-/:-@\[-`{-~]", GPT2),
    ),
    "kimi-k2": (rf"[{HAN}]+|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}&&[^{HAN}]]+{CONTRACTION}?|\p{{N}}{{1,3}}|{TAIL}",),
    "superbpe": (r"\p{N}+", "(?=([0-9]{3})+(?![0-9]))"),
    "bailingmoe": (rf"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|{WORD}|\p{{N}}|{SIGNS}[\r\n]*|\s*[\r\n]|{SPACES}",),
    "seed-coder": (rf"{CONTRACTION}|{WORD}|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|\s*[\r\n]+|{SPACES}",),
    "ufakzeka": (rf"{WORD}|\p{{N}}|{TAIL}",),
    "afmoe": (
        GROUPS,
        "[一-\u9fff㐀-\u4dbf\u8c48-\ufaff぀-ゟ゠-ヿ･-ﾟ⼀-\u2fdfเ-\u0e7f\u0e80-\u0effក-\u17ffက-႟ꩠ-ꩿꧠ-\ua9ff가-\ud7afᄀ-ᇿ]+",
        DEEPSEEK3,
    ),
    "laguna": (LINES, QWEN2),
    "exaone-moe": (
        rf"{CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}"
        rf"|{SIGNS}[\r\n/]?|\s*[\r\n]|{SPACES}",
    ),
    "minicpm5": (r"\p{N}{1,3}", rf"{CONTRACTION}|{WORD}|\p{{N}}+|{TAIL}"),
    "gemma4": (LINES,),
    "whitespace": (r"\S+",),
}
# Further names of the same patterns.
ALSO = {
    "gpt-2": "phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert jina-v1-en jina-v2-code "
    "roberta-bpe mpt olmo jais trillion granite-docling exaone4",
    "starcoder": "refact command-r smollm codeshell exaone minerva-7b mellum2",
    "llama-bpe": "llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano dbrx smaug-bpe glm4 chatglm-bpe",
    "qwen2": "deepseek-r1-qwen kormo f2llmv2 stablelm2 hunyuan solar-open megrez grok-2",
    "deepseek-v3": "hunyuan-dense joyai-llm hy_v4",
    "poro-chat": "bloom gpt3-finnish",
    "gpt-4o": "llama4 kanana2 talkie minimax-m2",
    "tiny_aya": "cohere2moe",
    "bailingmoe": "bailingmoe2 llada-moe",
    "gemma4": "granite-embed-multi-311m sarvam-moe",
}
PATTERN_OF = {name: name for name in PATTERNS} | {name: of for of, names in ALSO.items() for name in names.split()}
# These look a whole word up before they merge its characters.
WHOLE_WORDS_FIRST = frozenset(
    "minicpm5 llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano youtu tekken "
    "granite-embed-multi-97m".split()
)
RAW = frozenset(("gemma4", "whitespace"))  # whose pieces are written in UTF-8, not in GPT-2's alphabet

# Code points that the engine knows and llama.cpp does not: those of Unicode 16.0, and what was unassigned between them.
NEW = (
    "897 1b4e-1b4f 1b7f 1c89-1c8a 2427-2429 31e4-31e5 a7cb-a7cd a7da-a7dc 105c0-105f3 10d40-10d8f 10ec2-10efc "
    "11380-113e2 116d0-116e3 11bc0-11bf9 11f5a 13460-143fa 16100-16139 16d40-16d79 18cff 1cc00-1ceb3 1e5d0-1e5ff "
    "1f8b2-1f8c1 1fa89-1fa8f 1fabe 1fac6 1fadc-1fadf 1fae9 1fbcb-1fbef"
)
NEW_RANGES = re.sub(r"[0-9a-f]+", r"\\x{\g<0>}", NEW).replace(" ", "")


def of_15_1(pattern: str) -> str:
    r"""Return a pattern whose \p{L}, \p{N} and so on hold what Unicode 15.1 has; \p{Lu} and so on are \p{L}."""
    return re.sub(r"\\([pP])\{([A-Z])[a-z]?\}", _class, pattern)


def _class(match: re.Match[str]) -> str:
    held = rf"\p{{{match[2]}}}&&[^{NEW_RANGES}]"
    return f"[{held}]" if match[1] == "p" else f"[^{held}]"
