#!/usr/bin/env python3
"""Makes tests/fixtures/tokenizer/chat_json.json: what Jinja gives for conversations in JSON, with tools.

    python3 scripts/make_chat_fixtures.py [DIR]

Needs the package jinja2. The environment is that of transformers' `render_jinja_template`: a sandbox, trim_blocks,
lstrip_blocks, loop controls, `tojson` without HTML escapes, `raise_exception`. The templates are written here, in the
styles of families with tools. With DIR, the templates in it (*.jinja) are rendered too, and go with their texts to
DIR/cases.json, for `KIGO_TEMPLATES=DIR/cases.json cargo test --test api chat:: -- --ignored others`.
"""

import json
import re
import sys
import time
from pathlib import Path

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

OUT = Path(__file__).resolve().parent.parent / "tests/fixtures/tokenizer/chat_json.json"
NOW = 1_721_952_000  # 2024-07-26, what the test renders at

HERMES = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- "# Tools\\n\\nYou are given these in <tools></tools>:\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools>\\nAnswer with <tool_call>{\\"name\\": ..., \\"arguments\\": ...}</tool_call>.<|im_end|>\\n" }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(last=messages | length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages | length - 1) - loop.index0 %}
    {%- if message.role == 'user' and message.content is string and not message.content.startswith('<tool_response>') %}
        {%- set ns.last = index %}
        {%- break %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}{%- set content = message.content %}
    {%- elif message.content %}
        {%- set content %}{% for part in message.content %}{{ part.text if part.type == 'text' else '[' ~ part.type ~ ']' }}{% endfor %}{% endset %}
    {%- else %}{%- set content = '' %}{%- endif %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {%- set reasoning = message.reasoning_content | default('', true) %}
        {{- '<|im_start|>' + message.role + '\\n' }}
        {%- if reasoning and loop.index0 > ns.last %}{{- '<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' }}{%- endif %}
        {{- content }}
        {%- for call in message.tool_calls or [] %}
            {%- if (loop.first and content) or not loop.first %}{{- '\\n' }}{%- endif %}
            {%- if call.function %}{%- set call = call.function %}{%- endif %}
            {{- '<tool_call>\\n{"name": "' }}{{- call.name }}{{- '", "arguments": ' }}
            {%- if call.arguments is string %}{{- call.arguments }}{%- else %}{{- call.arguments | tojson }}{%- endif %}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' + content + '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}
"""

LLAMA = """\
{{- bos_token }}
{%- if not date_string is defined %}{%- set date_string = strftime_now("%d %b %Y") %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}{%- set messages = messages[1:] %}
{%- else %}{%- set system_message = "" %}{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: " + date_string + "\\n\\n" }}
{%- if tools is not none %}
    {{- "Functions:\\n\\n" }}
    {%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}{%- endfor %}
{%- endif %}
{{- system_message + "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls | length == 1 %}{{- raise_exception("one tool call at a time") }}{%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n{"name": "' + call.name + '", "parameters": ' }}
        {{- call.arguments | tojson }}{{- "}<|eot_id|>" }}
    {%- else %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or (message.content is iterable and message.content is not string) %}
            {{- message.content | tojson }}
        {%- else %}{{- message.content }}{%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}
"""

TYPES = """\
{%- macro type_of(p, depth=0) -%}
    {%- if p.type == 'array' -%}{{ type_of(p['items'], depth + 1) }}[]
    {%- elif p.type == 'object' and p.properties -%}
        {{- '{' -}}{%- for k, v in p.properties.items() -%}{{ k }}{{ '?' if k not in (p.required or []) }}: {{ type_of(v, depth + 1) }}{{ ', ' if not loop.last }}{%- endfor -%}{{- '}' -}}
    {%- elif p.enum is defined -%}{{ p.enum | map('tojson') | join(' | ') }}
    {%- elif p.type is iterable and p.type is not string -%}{{ p.type | join(' | ') }}
    {%- else -%}{{ p.type | default('any') }}{%- endif -%}
{%- endmacro -%}
<|im_start|>developer
{%- for tool in tools or [] %}
{%- set f = tool.function %}
type {{ f.name }} = ({% for name, p in (f.parameters.properties or {}) | dictsort %}{{ name }}: {{ type_of(p) }}{% if not loop.last %}, {% endif %}{% endfor %}) => any; // {{ f.description | default('-') | replace('\\n', ' ') }}
{%- else %}none{%- endfor %}<|im_end|>
{%- set ns = namespace(n=0, names=[]) %}
{%- for m in messages | selectattr('role', 'ne', 'system') %}
    {%- set ns.n = ns.n + (m.tool_calls | length if m.tool_calls is defined else 0) %}
    {%- set ns.names = ns.names + [m.role | upper] %}
{%- endfor %}
{{ ns.n }} {{ ns.names | unique | join('+') }} {{ (messages | map(attribute='role') | list)[-2:] | join(',') }}
{%- for m in messages if m.role in ['user', 'tool'] %}
{{ loop.index }}/{{ loop.length }} {{ m.role | title }}: {{ m.content if m.content is string else m.content | tojson }}
{%- endfor %}
"""

TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "The weather <now> & \"later\"\nin a city",
     "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "Wien, \u6771\u4eac"},
      "unit": {"type": "string", "enum": ["C", "F"]}, "days": {"type": ["integer", "null"], "minimum": -1, "maximum": 1e22}},
      "required": ["city"]}}},
    {"type": "function", "function": {"name": "book", "parameters": {"type": "object", "properties": {
      "people": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "number"}}, "required": ["name"]}},
      "id": {"type": "integer", "default": 9007199254740993}, "share": {"type": "number", "default": 0.1}}}}},
]
CALL = lambda name, arguments, id: {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
CONVERSATIONS = [
    ([{"role": "user", "content": "hi"}], None, {}),
    ([{"role": "system", "content": " Be brief. "}, {"role": "user", "content": "How is it in Wien?"}], TOOLS, {}),
    ([{"role": "user", "content": "Wien?"},
      {"role": "assistant", "content": "", "reasoning_content": "\nlook\n", "tool_calls": [CALL("get_weather", {"city": "Wien", "days": 3, "f": 1.0, "t": True, "n": None, "l": [], "o": {}}, "call_1")]},
      {"role": "tool", "tool_call_id": "call_1", "name": "get_weather", "content": "{\"t\": 21}"}], TOOLS, {"enable_thinking": False}),
    ([{"role": "system", "content": "s"}, {"role": "user", "content": "two"},
      {"role": "assistant", "content": "both:", "tool_calls": [CALL("get_weather", {"city": "a"}, "1"), CALL("book", "{\"id\": 1}", "2")]},
      {"role": "tool", "content": "x"}, {"role": "tool", "content": "y\n"}, {"role": "assistant", "content": "done"},
      {"role": "user", "content": "ok \u00e9 \U0001f600 <b>"}], TOOLS, {"date_string": "1 Jan 2030"}),
    ([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]}], None, {}),
    ([{"role": "user", "content": "q"}, {"role": "assistant", "content": None, "tool_calls": [CALL("book", {"people": [{"name": "x", "age": 1e-7}], "id": 2**70}, "1")]},
      {"role": "tool", "content": {"ok": [1, 2.5, {"k": "v"}]}}], TOOLS[1:], {"enable_thinking": True}),
]
NAMES = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}


def refuse(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = refuse
    env.globals["strftime_now"] = lambda f: time.strftime(f, time.gmtime(NOW))
    return env


def render(source, messages, tools, variables, prompt):
    try:
        # transformers' own tag, which renders its body.
        for tag, plain in (("generation", "if true"), ("endgeneration", "endif")):
            source = re.sub(r"\{%([-+]?)\s*" + tag + r"\s*([-+]?)%\}", r"{%\1 " + plain + r" \2%}", source)
        template = environment().from_string(source)
        context = {"documents": None, **NAMES, **variables, "messages": messages, "tools": tools, "add_generation_prompt": prompt}
        return {"text": template.render(**context)}
    except Exception as e:
        return {"error": f"{type(e).__name__}: {e}"}


def cases(templates):
    for name, source in templates.items():
        for messages, tools, variables in CONVERSATIONS:
            for prompt in (False, True):
                text = lambda value: None if value is None else json.dumps(value, ensure_ascii=False)
                yield {"template": name, "messages": text(messages), "tools": text(tools), "variables": text(variables), "prompt": prompt,
                       **render(source, messages, tools, variables, prompt)}


def write(path, templates):
    compact = lambda v: json.dumps(v, ensure_ascii=True, separators=(",", ":"))
    made_by = {"script": "scripts/make_chat_fixtures.py", "jinja2": jinja2.__version__}
    lines = ",\n".join(compact(case) for case in cases(templates))
    path.write_text(f'{{\n"made_by":{compact(made_by)},\n"now":{NOW},\n"templates":{compact(templates)},\n"cases":[\n{lines}\n]\n}}\n')
    print(f"{path}: {path.stat().st_size} bytes")


def main():
    if len(sys.argv) > 1:
        dir = Path(sys.argv[1])
        write(dir / "cases.json", {p.name: p.read_text() for p in sorted(dir.glob("*.jinja"))})
    else:
        write(OUT, {"hermes": HERMES, "llama": LLAMA, "types": TYPES})


main()
