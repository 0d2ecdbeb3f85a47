"""Makes tests/fixtures/gbnf.json: grammars in llama.cpp's format, texts, and how far llama.cpp's own engine takes each.

    python scripts/make_gbnf_fixtures.py LIBLLAMA.so models/grammars

A text is walked at random through the engine, or is one that was and then changed. With it stand how many of its characters are
taken before none may follow, and whether it may end there. Grammars are llama.cpp's samples (models/grammars, by their names), cases of
the format, and random ones; of those that the engine refuses, or fails at, it is said that it does. The engine is called by its C++ names, which are
those of llama.cpp of November 2026 (ggml 0.25.3) as g++ writes them.
"""

import ctypes
import glob
import json
import os
import random
import select
import signal
import sys

FOLDER = os.path.join(os.path.dirname(__file__), "..")
OUT = os.path.join(FOLDER, "tests", "fixtures", "gbnf.json")
RANDOM = random.Random(20261130)
MOST_CHARS = 48
SECONDS = 5  # of a grammar; the engine goes on for ever with some, and ends the process with others
MOST_STACKS = 200  # an engine that goes on with more of them takes too long

# Each about one thing; what is refused is said beside it.
CASES = [
    'root ::= "a" "b" | [c-e]+ # more',
    'root ::= (\n  "x" # first\n  y\n)\ny ::= "1" |\n  "2"\n\n',
    r'root ::= "\x41\u00e4\U0001F600\t\n\r\"\\\[\]\-"',
    r"root ::= [^\x00-\x1f/\]\-] [\]a-] .",
    'root ::= "a"{2} "b"{1,} "c"{0,2} "d"{1,3} "e"{0}',
    'root ::= "a"{,2} "b"',
    'root ::= "ab"* ("c" | )',
    'root ::= | "a"',
    'root ::= ("a" | )+ "b"',
    'root ::= ("a"*)* "b"',
    'root ::= ("a"? "b"?){2,3} "c"',
    'root ::= "abc"{2}',
    'root ::= "abc"+ "x"?',
    "root ::= [abc]{2,} [^abc]",
    "root ::= [a-ce-g]",
    "root ::= [a-]",
    "root ::= [-a]",
    "root ::= [c-a]",
    "root ::= []",
    "root ::= [^]",
    "root ::= [^a] [^\\n]",
    "root ::= [[] []] [\\]]",
    r"root ::= [\x61-\x63]+",
    r'root ::= "\x4"',
    r'root ::= "\q"',
    r'root ::= "\u12"',
    'root ::= "a',
    "root ::= [a",
    'root ::= ("a"',
    'root ::= "a")',
    "root ::= * ",
    'root ::= "a"**',
    'root ::= "a"?+ "b"',
    'root ::= "a"{2}{2}',
    'root ::= "a"{2,1}',
    'root ::= "a"{}',
    'root ::= "a"{,}',
    'root ::= "a"{ 2 , 3 }',
    'root ::= "a" {2}',
    'root ::= "a"\n{2}',
    "root ::= a\n",
    "root ::= a\na ::= b\nb ::= \"x\"",
    'x ::= "a"',
    "",
    "# nothing",
    "root ::=",
    "root ::= \n",
    "root ::= \"a\" |\n \"b\"",
    "root ::= \"a\"\n | \"b\"",
    "root ::= \"a\"\n \"b\"",
    'root ::= "a"\r\nx ::= "b"\r\n',
    'root ::= "a"\nroot ::= "b"',
    'root ::= x "b"\nx ::= "a"\nx ::= "c"',
    'root::="a"',
    'root ::="a"x\nx::="b"',
    'root\t::=\t"a"',
    '  root ::= "a"',
    '\n\n# c\nroot ::= "a" # d',
    'root ::= "a" # d\n# e\nx ::= "b"',
    'root :: = "a"',
    'root : "a"',
    'root = "a"',
    '1root ::= "a"\nroot ::= 1root',
    'my_rule ::= "a"\nroot ::= my_rule',
    'my-rule ::= "a"\nroot ::= my-rule',
    'root ::= "" "a" ""',
    'root ::= ""',
    "root ::= ()",
    'root ::= ("")* "a"',
    'root ::= root "a" | "b"',
    'root ::= x "a"\nx ::= root | "b"',
    'root ::= "a" root | "b"',
    'root ::= x root | "b"\nx ::= "" | "a"',
    'root ::= x "b"\nx ::= x',
    'root ::= "(" root ")" | [a-z]*',
    'root ::= (("a" | "b") ("c" | "d"){2}){1,2}',
    'root ::= "\u00e4\U0001F600" [\u00e0-\u00ff]+ .',
    "root ::= [^\u00e4]",
    "root ::= . . \"\\n\"",
    "root ::= .*",
    "root ::= .",
    'root ::= "a" .* "b"',
    'root ::= [0-9]{3} "-" [xyz]{2}',
    "root ::= 'a'",
    'root ::= "a" & "b"',
    'root ::= "a"; x ::= "b"',
    'root ::= "a" x ::= "b"',
    'root ::= /a/',
    r"root ::= [\n\t\\]+",
    r"root ::= [\d]",
    r'root ::= "\/"',
    "root ::= \"a\nb\"",
    "root ::= [a\nb]",
    'root ::= "int" " "? | [a-z]+ "="',
    'root ::= [a-z]+ [a-y] "z"',
    'root ::= ws "x" ws\nws ::= ([ \\t\\n] ws)?',
    'root ::= "x"{0,} "y"{1}',
    'root ::= "a"{00002}',
    'root ::= "a"{1,99999999999}',
    'root ::= "a"{3000}',
]


class Engine:
    """llama.cpp's, without a vocabulary."""

    def __init__(self, path: str):
        library, pointer = ctypes.CDLL(path), ctypes.c_void_p

        def function(name, result, *arguments):
            found = getattr(library, name)
            found.restype, found.argtypes = result, arguments
            return found

        number, text = ctypes.c_size_t, ctypes.c_char_p
        init = "_Z23llama_grammar_init_implPK11llama_vocabPKcS3_bPS3_mPKim"
        self._init = function(init, pointer, pointer, text, text, ctypes.c_bool, pointer, number, pointer, number)
        self._free = function("_Z23llama_grammar_free_implP13llama_grammar", None, pointer)
        self._accept = function("_Z20llama_grammar_acceptP13llama_grammarj", None, pointer, ctypes.c_uint32)
        self._stacks = function("_Z24llama_grammar_get_stacksP13llama_grammar", pointer, pointer)
        self._clone = function("_Z24llama_grammar_clone_implRK13llama_grammar", pointer, pointer)

    def compile(self, text: str):
        return self._init(None, text.encode(), b"root", False, None, 0, None, 0)

    def free(self, grammar):
        self._free(grammar)

    def clone(self, grammar):
        return self._clone(grammar)

    def state(self, grammar) -> tuple[int, bool]:
        """How many stacks there are, and whether one is empty: a vector of vectors, three pointers each."""
        begin, end = ctypes.cast(self._stacks(grammar), ctypes.POINTER(ctypes.c_size_t))[:2]
        n = (end - begin) // 24
        at = ctypes.cast(begin, ctypes.POINTER(ctypes.c_size_t))
        return n, any(at[3 * i] == at[3 * i + 1] for i in range(n))

    def accept(self, grammar, char: str) -> tuple[int, bool]:
        self._accept(grammar, ord(char))
        return self.state(grammar)

    def taken(self, grammar, text: str):
        """How many characters of a text are taken, and whether it may end there; None: too many stacks."""
        own = self.clone(grammar)
        try:
            n, may_end = self.state(own)
            for i, char in enumerate(text):
                if n > MOST_STACKS:
                    return None
                n, may_end = self.accept(own, char)
                if n == 0:
                    return i, False
            return len(text), may_end
        finally:
            self.free(own)

    def walk(self, grammar, chars: list[str]) -> str:
        """A text of the grammar's beginning, and most often of the grammar."""
        own, text = self.clone(grammar), ""
        while len(text) < MOST_CHARS:
            n, may_end = self.state(own)
            if n > MOST_STACKS or may_end and RANDOM.random() < 0.2:
                break
            for char in RANDOM.sample(chars, len(chars)):
                tried = self.clone(own)
                if self.accept(tried, char)[0] > 0:
                    self.free(own)
                    own, text = tried, text + char
                    break
                self.free(tried)
            else:
                break
        self.free(own)
        return text


def changed(text: str, chars: list[str]) -> str:
    at = RANDOM.randrange(len(text) + 1)
    way = RANDOM.randrange(4)
    if way == 0:
        return text[:at]
    if way == 1:
        return text[:at] + text[at + 1 :]
    return text[:at] + RANDOM.choice(chars) + text[at + (way == 2) :]


def random_part(rules: list[str], depth: int) -> str:
    kind = RANDOM.randrange(8 if depth > 0 else 5)
    if kind < 2:
        part = '"' + "".join(RANDOM.choice("abc") for _ in range(RANDOM.randrange(1, 4))) + '"'
    elif kind < 4:
        part = RANDOM.choice(["[ab]", "[^a]", "[a-c]", "[bc]", "."])
    elif kind == 4:
        part = RANDOM.choice(rules)
    else:
        part = "(" + random_body(rules, depth - 1) + ")"
    # Of what may be empty the engine takes no more than a few at most.
    return part + RANDOM.choice(["", "", "", "?", "*", "+", "{2}", "{1,2}", "{0,2}", "{2,}"] if kind < 4 else ["", "", "?", "{2}"])


def random_body(rules: list[str], depth: int) -> str:
    ways = []
    for _ in range(RANDOM.choice([1, 1, 2, 3])):
        ways.append(" ".join(random_part(rules, depth) for _ in range(RANDOM.choice([1, 1, 2, 2, 3]))))
    return " | ".join(ways)


def random_grammar() -> str:
    rules = ["root", "x", "y"][: RANDOM.randrange(1, 4)]
    return "\n".join(f"{rule} ::= {random_body(rules, 2)}" for rule in rules)


def case(engine: Engine, grammar: str, n_texts: int) -> dict:
    compiled = engine.compile(grammar)
    if not compiled:
        return {"refused": True}
    chars = sorted(set(grammar) | set("abcxyz01 \n\t\"{}[]:,-+.=()é")) if len(grammar) > 200 else sorted(set(grammar) | set("abc xé\n"))
    texts = {""}
    for _ in range(n_texts):
        text = engine.walk(compiled, chars)
        texts.add(text)
        texts.update(changed(text, chars) for _ in range(2))
    found = [(text, engine.taken(compiled, text)) for text in sorted(texts)]
    engine.free(compiled)
    return {"texts": [[text, *outcome] for text, outcome in found if outcome is not None]}


def apart(seed: int, work) -> dict:
    """What `work` gives in a process of its own."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        RANDOM.seed(seed)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        with os.fdopen(write, "w") as out:
            json.dump(work(), out)
        os._exit(0)
    os.close(write)
    text = b""
    while select.select([read], [], [], SECONDS)[0] and (piece := os.read(read, 1 << 16)):
        text += piece
    os.close(read)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    try:
        return json.loads(text)
    except ValueError:
        return {"fails": True}


def main() -> None:
    engine, grammars = Engine(sys.argv[1]), []
    for path in sorted(glob.glob(os.path.join(sys.argv[2], "*.gbnf"))):
        with open(path) as file:
            grammars.append(({"file": os.path.basename(path)}, file.read(), 40))
    grammars += [({"grammar": text}, text, 6) for text in CASES]
    rows = [row | apart(n, lambda: case(engine, text, most)) for n, (row, text, most) in enumerate(grammars)]
    n_refused = 0
    while len(rows) < len(grammars) + 200:
        text = random_grammar()
        row = {"grammar": text} | apart(len(rows) + n_refused, lambda: case(engine, text, 6))
        n_refused += "texts" not in row
        # Rules that begin with themselves, most of them.
        if "texts" in row or n_refused < 20:
            rows.append(row)
    with open(OUT, "w") as out:
        out.write("[\n" + ",\n".join(json.dumps(row, ensure_ascii=True) for row in rows) + "\n]\n")
    n = sum(len(row.get("texts", [])) for row in rows)
    print(f"{len(rows)} grammars, {sum('refused' in row for row in rows)} refused, {sum('fails' in row for row in rows)} failed at, {n} texts, {os.path.getsize(OUT)} bytes")


if __name__ == "__main__":
    main()
