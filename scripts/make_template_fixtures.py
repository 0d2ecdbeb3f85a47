#!/usr/bin/env python3
"""Makes tests/fixtures/tokenizer/templates.json: what transformers' Jinja makes of published templates and of single features.

    make_template_fixtures.py                             writes the fixture
    make_template_fixtures.py --print TEMPLATE CONVERSATION [PROMPT]   prints one expected text (PROMPT: 0 or 1)
    make_template_fixtures.py --compare DIR               shows where the texts in DIR first differ
                                                          (KIGO_TEMPLATES_OUT=DIR cargo test --test api templates:: writes them)

Needs transformers and jinja2. The templates are those that scripts/fetch_vocabularies.py puts into models/templates; they are
not kept here, so the fixture has a hash (FNV-1a, 64 bits) of each expected text, or the words of the error. The conversations
were chosen before the code that they hold was written.
"""

import json
import sys
import time
from pathlib import Path

import jinja2
import transformers
from transformers.utils.chat_template_utils import _compile_jinja_template

from template_snippets import REFUSED, SNIPPETS

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "tests/fixtures/tokenizer/templates.json"
TEMPLATES = ROOT / "models/templates"
NOW = 1_721_952_000  # 2024-07-26, what the test renders at
VARIABLES = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}

# Control tokens of the vocabulary that the test renders with: those that the templates name, and some that they do not.
CONTROL = """<|im_start|> <|im_end|> <think> </think> <tool_call> </tool_call> <tool_response> </tool_response> <|endoftext|> <s> </s>
[INST] [/INST] [SYSTEM_PROMPT] [/SYSTEM_PROMPT] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_CALLS] [TOOL_RESULTS] [/TOOL_RESULTS]
[TOOL_CONTENT] [CALL_ID] [ARGS] [THINK] [/THINK] <|start_header_id|> <|end_header_id|> <|eom_id|> <|python_tag|> <start_of_turn>
<end_of_turn> <bos> <eos> <|START_OF_TURN_TOKEN|> <|END_OF_TURN_TOKEN|> <|USER_TOKEN|> <|CHATBOT_TOKEN|> <|SYSTEM_TOKEN|>
<|START_THINKING|> <|END_THINKING|> <|START_RESPONSE|> <|END_RESPONSE|> <|START_ACTION|> <|END_ACTION|> <|START_TOOL_RESULT|>
<|END_TOOL_RESULT|> <｜begin▁of▁sentence｜> <｜end▁of▁sentence｜> <｜User｜> <｜Assistant｜> <｜tool▁calls▁begin｜> <｜tool▁calls▁end｜>
<｜tool▁call▁begin｜> <｜tool▁call▁end｜> <｜tool▁sep｜> <｜tool▁outputs▁begin｜> <｜tool▁outputs▁end｜> <｜tool▁output▁begin｜>
<｜tool▁output▁end｜> <|start_of_role|> <|end_of_role|> <|end_of_text|> [gMASK] <sop> <|system|> <|user|> <|assistant|> <|observation|>
<|im_system|> <|im_user|> <|im_assistant|> <|im_middle|> <|tool_calls_section_begin|> <|tool_calls_section_end|> <|tool_call_begin|>
<|tool_call_argument_begin|> <|tool_call_end|> <|start|> <|end|> <|message|> <|channel|> <|constrain|> <|return|> <|call|> ]~b] [e~[
]~!b[ <minimax:tool_call> </minimax:tool_call> <seed:bos> <seed:eos> <seed:think> </seed:think> <seed:tool_call> </seed:tool_call>
<|turn> <turn|> <|tool> <tool|> <|tool_call> <tool_call|> <|tool_response> <tool_response|> <|channel> <channel|> <|"|> <|think|>
<|tool_list_start|> <|tool_list_end|> <|tool_call_start|> <|tool_response_start|> <|tool_response_end|> <|begin|> <|content|>
<|tool_start|> <|tool_end|> <|role_sep|> <|message_sep|> <|begin_of_text|> <|eot_id|> <SPECIAL_10> <SPECIAL_11> <SPECIAL_12>""".split()

TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "The weather <now> & \"later\"\nin a city",
     "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "Wien, \u6771\u4eac"},
      "unit": {"type": "string", "enum": ["C", "F"]}, "days": {"type": "integer", "description": "it's 1 to 7"}},
      "required": ["city"]}}},
    {"type": "function", "function": {"name": "book", "description": "Books.", "parameters": {"type": "object", "properties": {
      "people": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "number"}}, "required": ["name"]}},
      "share": {"type": "number", "default": 0.1}}}}},
]


def say(role, content, **more):
    return {"role": role, "content": content, **more}


def call(name, arguments, id):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


THOUGHT = "<think>\nFirst, <b>look</b>.\n</think>\n\nIt is 4."
WIEN = call("get_weather", {"city": "Wien", "days": 3, "exact": True, "at": None, "f": 1.5, "l": [1, "a"], "o": {}}, "call00001")
BOOK = call("book", {"people": [{"name": "x\"y", "age": 1e16}]}, "call00002")

# name: (messages, tools, variables)
CONVERSATIONS = {
    "user": ([say("user", "hi")], None, {}),
    "system": ([say("system", "Be brief."), say("user", "hi")], None, {}),
    "turns": ([say("system", "Be brief."), say("user", "a"), say("assistant", "b"), say("user", "c")], None, {}),
    "many turns": ([say("user" if n % 2 == 0 else "assistant", f"word {n}") for n in range(9)], None, {}),
    "ends with assistant": ([say("user", "a"), say("assistant", "b")], None, {}),
    "empty": ([say("system", ""), say("user", ""), say("assistant", ""), say("user", "")], None, {}),
    "user twice": ([say("user", "a"), say("user", "b")], None, {}),
    "assistant twice": ([say("user", "a"), say("assistant", "b"), say("assistant", "c"), say("user", "d")], None, {}),
    "none": ([], None, {}),
    "only system": ([say("system", "Be brief.")], None, {}),
    "system later": ([say("user", "a"), say("system", "Be brief."), say("user", "b")], None, {}),
    "control words": ([say("system", "<|im_start|>system</s>"), say("user", "[INST] a <|im_end|> </think> b <think> c <|eot_id|>"),
                       say("assistant", "x<end_of_turn>\n</tool_call>"), say("user", "<tool_response>\ny\n</tool_response>")], None, {}),
    "thinking": ([say("user", "2+2"), say("assistant", THOUGHT), say("user", "and 3+3?"), say("assistant", "</think>6")], None, {}),
    "thinking, then user": ([say("user", "2+2"), say("assistant", THOUGHT), say("user", "and 3+3?")], None, {"enable_thinking": False}),
    "reasoning": ([say("user", "2+2"), say("assistant", "4", reasoning_content="\nadd\n"), say("user", "3+3"),
                   say("assistant", "6", reasoning_content="add again", thinking="add again")], None, {"enable_thinking": True}),
    "tools": ([say("system", "s"), say("user", "Wien?")], TOOLS, {}),
    "call and result": ([say("user", "Wien?"), say("assistant", "", tool_calls=[WIEN]),
                         say("tool", "{\"t\": 21}", name="get_weather", tool_call_id="call00001")], TOOLS, {}),
    "call without content": ([say("user", "Wien?"), {"role": "assistant", "tool_calls": [WIEN]},
                              say("tool", "21", name="get_weather", tool_call_id="call00001"), say("assistant", "21 degrees")], TOOLS[:1], {}),
    "two calls": ([say("system", "s"), say("user", "both"),
                   say("assistant", "both:", reasoning_content="two", tool_calls=[WIEN, BOOK]),
                   say("tool", "x", name="get_weather", tool_call_id="call00001"), say("tool", "y\n", name="book", tool_call_id="call00002"),
                   say("assistant", "done"), say("user", "ok")], TOOLS, {"enable_thinking": True}),
    "call of text": ([say("user", "q"), say("assistant", None, tool_calls=[call("book", "{\"id\": 1}", "call00003")]),
                      say("tool", "[1]", name="book", tool_call_id="call00003")], TOOLS[1:], {}),
    "Unicode": ([say("user", "\u00e9 e\u0301 \U0001f600 \u6771\u4eac \u0645\u0631\u062d\u0628\u0627 \u00df\u0130 \u2028\u00a0|"),
                 say("assistant", "\u2581\u03a3\u03a3 \U0001f468\u200d\U0001f469"), say("user", "\u3000x\u00a0")], None, {}),
    "blanks": ([say("system", " \n s \t"), say("user", "\n\n a  b \n"), say("assistant", "\t c \r\n"), say("user", "   ")], None, {}),
    "unknown role": ([say("user", "a"), say("critic", "b"), say("user", "c")], None, {}),
    "developer": ([say("developer", "Be exact."), say("user", "a")], None, {}),
    "parts": ([say("user", [{"type": "text", "text": "a"}, {"type": "text", "text": "b "}]), say("assistant", [{"type": "text", "text": "c"}]),
               say("user", "d")], None, {}),
    "code": ([say("user", "{{ x }} {% raw %} \\n '\"' `<a href=\"b\">` &amp; {# c #}"), say("assistant", "it's \"so\"\\"), say("user", "%s {}")], None, {}),
}


def fnv(text):
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def render(source, messages, tools, variables, prompt):
    """The text, or the error's words."""
    try:
        template = _compile_jinja_template(source)
        template.environment.globals["strftime_now"] = lambda f: time.strftime(f, time.gmtime(NOW))
        context = {**VARIABLES, "documents": None, **variables, "messages": messages, "tools": tools, "add_generation_prompt": prompt}
        return template.render(**context), None
    except Exception as e:  # a template may fail in any way
        # Python tells a line of the code that Jinja made.
        return None, str(e).split(" (<template>")[0]


def sources():
    found = {path.name: path.read_bytes().decode() for path in sorted(TEMPLATES.glob("*.jinja"))}
    if not found:
        sys.exit(f"make_template_fixtures: {TEMPLATES} has no templates (scripts/fetch_vocabularies.py fetches them)")
    return found


def conversations():
    text = lambda value: None if value is None else json.dumps(value, ensure_ascii=False)
    return [{"name": name, "messages": text(m), "tools": text(t), "variables": text(v)} for name, (m, t, v) in CONVERSATIONS.items()]


def write():
    errors, rows = [], {}
    for name, source in sources().items():
        rows[name] = []
        for messages, tools, variables in CONVERSATIONS.values():
            for prompt in (False, True):
                text, error = render(source, messages, tools, variables, prompt)
                if error is None:
                    rows[name].append(fnv(text))
                else:
                    if error not in errors:
                        errors.append(error)
                    rows[name].append(errors.index(error))
    snippets = []
    for source in SNIPPETS:
        messages, tools, variables = CONVERSATIONS["two calls"]
        text, error = render(source, messages, tools, {"x": [1, "a", None], **variables}, True)
        snippets.append([source, text] if error is None else [source, None, error])
    compact = lambda v: json.dumps(v, ensure_ascii=True, separators=(",", ":"))
    made_by = {"script": "scripts/make_template_fixtures.py", "transformers": transformers.__version__, "jinja2": jinja2.__version__}
    lines = lambda items: "[\n" + ",\n".join(map(compact, items)) + "\n]"
    table = "{\n" + ",\n".join(f"{compact(name)}:{compact(row)}" for name, row in rows.items()) + "\n}"
    OUT.write_text(f'{{"made_by":{compact(made_by)},"now":{NOW},"control":{compact(CONTROL)},\n"conversations":{lines(conversations())},\n'
                   f'"errors":{lines(errors)},\n"templates":{table},\n"snippets":{lines(snippets)},\n"refused":{lines(REFUSED)}\n}}\n')
    n_raised = sum(isinstance(cell, int) for row in rows.values() for cell in row)
    print(f"{OUT}: {OUT.stat().st_size} bytes; {len(rows)} templates, {sum(map(len, rows.values()))} cells, {n_raised} of them errors; {len(snippets)} snippets")


def expected(name, conversation, prompt):
    text, error = render(sources()[name], *CONVERSATIONS[conversation], prompt)
    return text if error is None else f"error: {error}"


def compare(directory):
    for path in sorted(Path(directory).iterdir()):
        name, conversation, prompt = path.name.split("+")
        want, got = expected(name, conversation, prompt == "1"), path.read_bytes().decode()
        at = next((i for i, (a, b) in enumerate(zip(want, got)) if a != b), min(len(want), len(got)))
        if want != got:
            print(f"{path.name}, at {at}\n  jinja {want[max(at - 40, 0):at + 80]!r}\n  kigo  {got[max(at - 40, 0):at + 80]!r}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--print"]:
        sys.stdout.write(expected(sys.argv[2], sys.argv[3], sys.argv[4:5] == ["1"]))
    elif sys.argv[1:2] == ["--compare"]:
        compare(sys.argv[2])
    else:
        write()
