#!/usr/bin/env python3
"""Makes tests/fixtures/tokenizer/continued.json: what transformers' `continue_final_message` makes of published templates.

    make_continued_fixtures.py

Needs what make_template_fixtures.py does, and has a hash of each text, or null where transformers or the template refuses.
"""

import json
import time

import jinja2
import transformers
from transformers.utils.chat_template_utils import _compile_jinja_template, render_jinja_template

from make_template_fixtures import NOW, ROOT, TOOLS, VARIABLES, fnv, say, sources

OUT = ROOT / "tests/fixtures/tokenizer/continued.json"

CONVERSATIONS = {
    "short": ([say("user", "Which?"), say("assistant", "The answer is")], None),
    "space behind": ([say("user", "Which?"), say("assistant", "Sure: ")], None),
    "lines": ([say("system", "Be exact."), say("user", "a"), say("assistant", "b"), say("user", "c"), say("assistant", " d\n\te\n")], None),
    "parts": ([say("user", "a"), say("assistant", [{"type": "text", "text": "One"}, {"type": "text", "text": "two "}])], None),
    "thinking": ([say("user", "a"), say("assistant", "<think>\nx\n</think>\n\ny")], None),
    "tools": ([say("user", "a"), say("assistant", "{\"a\": \"\u00e4")], TOOLS),
    "a call behind": ([say("user", "a"), say("assistant", "so ", tool_calls=[{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}])], TOOLS),
    "empty": ([say("user", "a"), say("assistant", "")], None),
    "user": ([say("user", "a"), say("assistant", "b"), say("user", "And c is ")], None),
}


def render(source, messages, tools):
    template = _compile_jinja_template(source)
    template.environment.globals["strftime_now"] = lambda f: time.strftime(f, time.gmtime(NOW))
    try:
        texts, _ = render_jinja_template([messages], tools=tools, chat_template=source, continue_final_message=True, **VARIABLES)
        return fnv(texts[0])
    except Exception:  # a template may fail in any way
        return None


def main():
    rows = {name: [render(source, m, t) for m, t in CONVERSATIONS.values()] for name, source in sources().items()}
    text = lambda value: None if value is None else json.dumps(value, ensure_ascii=False)
    compact = lambda v: json.dumps(v, ensure_ascii=True, separators=(",", ":"))
    lines = lambda items: ",\n".join(items)
    made_by = {"script": "scripts/make_continued_fixtures.py", "transformers": transformers.__version__, "jinja2": jinja2.__version__}
    conversations = [compact({"name": n, "messages": text(m), "tools": text(t)}) for n, (m, t) in CONVERSATIONS.items()]
    OUT.write_text(f'{{"made_by":{compact(made_by)},"now":{NOW},\n"conversations":[\n{lines(conversations)}\n],\n'
                   f'"templates":{{\n{lines(f"{compact(n)}:{compact(row)}" for n, row in rows.items())}\n}}\n}}\n')
    n_refused = sum(cell is None for row in rows.values() for cell in row)
    print(f"{OUT}: {len(rows)} templates, {sum(map(len, rows.values()))} texts, {n_refused} of them refused")


if __name__ == "__main__":
    main()
