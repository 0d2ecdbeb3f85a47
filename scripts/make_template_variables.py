"""Makes tests/fixtures/tokenizer/template_variables.json: the variables that each published template reads, as jinja2.meta finds them.

    python scripts/make_template_variables.py     # needs jinja2, and models/templates of scripts/fetch_vocabularies.py
"""

import json
import os

import jinja2.ext
from jinja2 import meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = os.path.dirname(os.path.abspath(__file__))
TEMPLATES = os.path.join(HERE, "..", "models", "templates")
FIXTURE = os.path.join(HERE, "..", "tests", "fixtures", "tokenizer", "template_variables.json")


class Generation(jinja2.ext.Extension):
    """The block that marks what an assistant has said."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_said"), [], [], body).set_lineno(line)

    def _said(self, caller):
        return caller()


def main():
    extensions = [Generation, jinja2.ext.loopcontrols]
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    found = {}
    for name in sorted(os.listdir(TEMPLATES)):
        with open(os.path.join(TEMPLATES, name), encoding="utf8") as f:
            found[name] = sorted(meta.find_undeclared_variables(environment.parse(f.read())))
    with open(FIXTURE, "w", encoding="utf8") as f:
        f.write("{\n" + ",\n".join(f"{json.dumps(name)}: {json.dumps(of)}" for name, of in found.items()) + "\n}\n")


if __name__ == "__main__":
    main()
