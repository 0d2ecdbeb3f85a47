"""Makes tests/fixtures/schemas.json: schemas, JSON texts, and which of the texts are valid by the package jsonschema.

    python scripts/make_schema_fixtures.py

Numbers stay exact on the way: JSON is read with `Decimal` for what is no integer. An instance is a list of texts of one
value, which differ in the order of members or in how a number is written: a constraint has to allow one of them if the
value is valid, and none if it is not. The cases are made by
loops and by a seeded generator.
"""

import decimal
import importlib.metadata
import itertools
import json
import os
import random

import jsonschema
from jsonschema import validators

decimal.getcontext().prec = 1000
OUT = os.path.join(os.path.dirname(__file__), "..", "tests", "fixtures", "schemas.json")
RANDOM = random.Random(20261129)


def load(text: str):
    return json.loads(text, parse_float=decimal.Decimal)


def is_integer(checker, value) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or isinstance(value, decimal.Decimal) and value == value.to_integral_value()


def multiple_of(validator, unit, value, schema):
    if isinstance(value, (int, decimal.Decimal)) and not isinstance(value, bool):
        if decimal.Decimal(value) % decimal.Decimal(unit) != 0:
            yield jsonschema.ValidationError(f"{value} is no multiple of {unit}")


def validator_of(schema):
    cls = validators.validator_for(schema, default=jsonschema.Draft202012Validator) if schema not in (True, False) else jsonschema.Draft202012Validator
    checker = cls.TYPE_CHECKER.redefine("integer", is_integer)
    cls = validators.extend(cls, {"multipleOf": multiple_of}, type_checker=checker)
    return cls(schema, format_checker=cls.FORMAT_CHECKER)


CASES = []


def orders(value) -> list:
    """The value's compact texts with its members, and those of what is directly in it, in each order."""
    def dump(v):
        if isinstance(v, dict):
            parts = [[f"{json.dumps(k, ensure_ascii=False)}:{text}" for text in dump(m)] for k, m in v.items()]
            combined = []
            for perm in itertools.permutations(parts) if len(parts) < 4 else [parts]:
                combined += ["{" + ",".join(choice) + "}" for choice in itertools.product(*perm)]
            return combined[:6]
        if isinstance(v, list):
            return ["[" + ",".join(choice) + "]" for choice in itertools.product(*map(dump, v))][:6]
        if isinstance(v, decimal.Decimal):
            return [f"{v:f}"]
        return [json.dumps(v, ensure_ascii=False)]
    return dump(value)


def case(schema, instances, as_texts=False):
    """A schema, as text or value, and instances, as values or texts."""
    text = schema if isinstance(schema, str) else json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
    validator = validator_of(load(text))
    made = {"schema": text, "valid": [], "invalid": []}
    for instance in instances:
        texts = [instance] if as_texts else orders(instance)
        value = load(texts[0])
        if isinstance(value, decimal.Decimal) and is_integer(None, value):
            texts = texts + [f"{int(value)}"]
        kept = made["valid" if validator.is_valid(value) else "invalid"]
        if texts not in kept:
            kept.append(texts)
    CASES.append(made)


def edges() -> list:
    found = {0, 1, -1, 2, 5, 9, 10, 11, 99, 100, 101, -9, -10, -11, -99, -100, 10**30, -(10**30), 10**30 + 1}
    for power in [53, 63, 64]:
        for sign in [1, -1]:
            found |= {sign * 2**power + d for d in [-1, 0, 1]}
    return sorted(found)


DECIMALS = ["0.0", "0.1", "0.5", "0.50", "0.25", "0.3", "0.30000000000000001", "1.0", "1.05", "1.1", "1.15", "1.5", "1.50",
            "1.9", "1.99", "2.5", "9.99", "10.01", "99.95", "100.5", "-0.1", "-0.5", "-1.05", "-1.5", "-9.99", "-10.01",
            "0.001", "-0.001", "0.000001", "123456789.123456789", "9007199254740992.5", "-9007199254740993.5"]


def case_of_texts(schema, instances):
    case(schema, instances, as_texts=True)


def numbers():
    all_edges = edges()
    texts = [str(n) for n in all_edges] + DECIMALS
    for n in all_edges:
        near = [str(m) for m in range(n - 2, n + 3)] + [str(-n), str(n * 10), f"{n}.5"]
        for schema in [{"const": n}, {"enum": [n, "x", n + 1]}, {"type": "integer", "minimum": n}, {"type": "integer", "maximum": n},
                       {"type": "integer", "exclusiveMinimum": n}, {"type": "number", "exclusiveMaximum": n}, {"type": "number", "minimum": n},
                       {"not": {"const": n}, "type": "integer"}]:
            case_of_texts(schema, near)
    for _ in range(60):
        a, b = sorted(RANDOM.sample(all_edges, 2))
        keys = RANDOM.choice([("minimum", "maximum"), ("exclusiveMinimum", "maximum"), ("minimum", "exclusiveMaximum"), ("exclusiveMinimum", "exclusiveMaximum")])
        kind = RANDOM.choice(["integer", "number"])
        near = {m for n in (a, b) for m in range(n - 1, n + 2)} | {(a + b) // 2}
        case_of_texts({"type": kind, keys[0]: a, keys[1]: b}, [str(m) for m in sorted(near)] + RANDOM.sample(texts, 8))
    for _ in range(120):
        a, b = sorted(RANDOM.sample(DECIMALS, 2), key=decimal.Decimal)
        keys = RANDOM.choice([("minimum", "maximum"), ("exclusiveMinimum", "maximum"), ("minimum", "exclusiveMaximum"), ("exclusiveMinimum", "exclusiveMaximum")])
        kind = RANDOM.choice(["integer", "number", "number"])
        near = [a, b, a + "0", b + "0", a + "1", b + "1", a + "9"]
        if RANDOM.random() < 0.3:
            case_of_texts(f'{{"type":"{kind}","{keys[0]}":{a}}}', RANDOM.sample(DECIMALS, 12) + near)
        else:
            case_of_texts(f'{{"type":"{kind}","{keys[0]}":{a},"{keys[1]}":{b}}}', RANDOM.sample(DECIMALS, 12) + near)
    # Beside ranges of random digits, where a digit's carry is wrong first.
    for _ in range(60):
        def some():
            whole = str(RANDOM.choice([0, RANDOM.randrange(10), RANDOM.randrange(10**3), RANDOM.randrange(10**20)]))
            fraction = "".join(RANDOM.choice("0059") for _ in range(RANDOM.randrange(4)))
            return RANDOM.choice(["", "-"]) + whole + ("." + fraction if fraction else "")
        a, b = sorted([some(), some()], key=decimal.Decimal)
        unit = decimal.Decimal("0.01")
        near = [f"{decimal.Decimal(x) + k * unit * s:f}" for x in (a, b) for k in (-1, 0, 1) for s in (1, 10, 100, 1000)]
        case_of_texts(f'{{"type":"number","minimum":{a},"maximum":{b}}}', near)
        case_of_texts(f'{{"type":"number","exclusiveMinimum":{a},"exclusiveMaximum":{b}}}', near)
    for unit in ["1", "2", "3", "4", "5", "7", "8", "10", "12", "25", "60", "100", "125", "1000", "999", "0.1", "0.01", "0.5", "0.25", "0.05", "0.2",
                 "0.3", "1.5", "2.5", "0.125", "1e3", "1e20", "1e-3", "50", "400", "64"]:
        around = [f"{decimal.Decimal(unit) * k + e:f}" for k in [0, 1, -1, 2, 3, 7, 10, 100, 12345] for e in [0, decimal.Decimal("0.001"), 1]]
        case_of_texts(f'{{"type":"number","multipleOf":{unit}}}', around)
        case_of_texts(f'{{"type":"integer","multipleOf":{unit}}}', around)
        case_of_texts(f'{{"type":"number","multipleOf":{unit},"minimum":-3,"exclusiveMaximum":100}}', around)
    case_of_texts('{"type":"integer","multipleOf":7,"minimum":9007199254740993,"maximum":9007199254741993}', [str(9007199254740992 + i) for i in range(20)])
    case_of_texts('{"type":"integer","allOf":[{"multipleOf":4},{"multipleOf":6}]}', [str(i) for i in range(-26, 26)])
    case_of_texts('{"type":"number","not":{"multipleOf":5}}', ["5", "6", "-10", "0", "5.5", "15", "15.0"])
    case_of_texts('{"type":"number","not":{"type":"integer"}}', ["5", "5.0", "5.5", "-0.5", "0.0", "-3"])
    case_of_texts('{"type":"number","not":{"minimum":3,"maximum":5}}', ["2", "3", "4", "5", "6", "2.999", "5.001", "-7"])
    case_of_texts('{"enum":[1.0,2.50,1e3,-0.0]}', ["1.0", "2.50", "1e3", "-0.0", "3", "2", "25"])
    case_of_texts('{"type":"integer","enum":[1.0,2.5,1e3]}', ["1", "1000", "2", "2.5", "3"])
    case_of_texts('{"const":1,"enum":[1.0,2]}', ["1", "2"])
    for big in ["1e40", "1.7976931348623157e308", "123456789012345678901234567890.5", "-18446744073709551616"]:
        case_of_texts(f'{{"type":"number","maximum":{big}}}', ["5", "-5", "0.5", str(10**40), str(10**40 + 1), str(2 * 10**308), "-18446744073709551617"])
        case_of_texts(f'{{"type":"integer","exclusiveMinimum":{big}}}', ["5", str(10**40), str(10**40 + 1), str(2 * 10**308)])
        case_of_texts(f'{{"const":{big}}}', [big, "5"])


STRINGS = ["", "a", "ab", "abc", "b", "ba", "x1", "ü", "日本語", "😀", "😀😀", 'q"q', "back\\slash", "new\nline", "tab\t", "a/b", "a b", "\u0001", "\u007f",
           "2024-02-29", "2023-02-29", "2023-13-01", "12:34:56Z", "2024-02-29T12:34:56+01:00", "a@b.example", "no mail", "192.168.0.1", "192.168.0.256",
           "::1", "1::2::3", "fe80::1:2", "123e4567-e89b-12d3-a456-426614174000", "example.org", "-bad-.org", "/a~1b", "/a~2", "P1Y2M", "P", "aaaa", "abab"]


def strings():
    for schema in [{"minLength": 1}, {"maxLength": 2}, {"minLength": 2, "maxLength": 3}, {"minLength": 0}, {"maxLength": 0}, {"minLength": 3, "maxLength": 2},
                   {"pattern": "a"}, {"pattern": "^a"}, {"pattern": "b$"}, {"pattern": "^a|b$"}, {"pattern": "^(a|b)+$"}, {"pattern": "^(a|^b)"},
                   {"pattern": "^[^a]*$"}, {"pattern": "\\d"}, {"pattern": "^.{2}$"}, {"pattern": "[\"\\\\]"}, {"pattern": "^[a-zü]+$"},
                   {"pattern": "(ab){2}"}, {"pattern": "\\n"}, {"pattern": "^a.*", "maxLength": 3}, {"pattern": "^$"}, {"pattern": "^a", "not": {"pattern": "b$"}},
                   {"not": {"pattern": "a"}}, {"not": {"const": "a"}}, {"not": {"enum": ["", "ab", "new\nline"]}}, {"not": {"minLength": 2}}, {"not": {"maxLength": 2}},
                   {"enum": ["a", "ab", "new\nline"], "minLength": 2}, {"enum": ["a", "ab", "abc"], "pattern": "c$"}, {"allOf": [{"pattern": "a"}, {"pattern": "b"}]},
                   {"const": "日本語"}, {"const": 'q"q'}, {"const": "\u0001"}, {"pattern": "^[\\x00-\\x1f]$"}, {"pattern": "/"}, {"pattern": " "}]:
        case({"type": "string"} | schema, STRINGS)
        case(schema, STRINGS[:6] + [1, None, [], {}])
    for name in ["date", "ipv4", "ipv6", "uuid", "int32", "int64", "float", "double", "phone-number-of-mine", "password", "binary", "byte", "regex", "email"]:
        case({"type": "string", "format": name}, STRINGS if name != "regex" else STRINGS[:6])
    case({"format": "int64", "type": "integer"}, ["1", "-5", "99999999999999999999"])
    case({"format": "date"}, [1, None, "2024-02-29", "x"])


MEMBERS = [{}, {"a": 1}, {"a": "x"}, {"b": 1}, {"b": "x"}, {"a": 1, "b": 2}, {"a": 1, "b": "x"}, {"a": "x", "b": "y"}, {"c": True}, {"a": 1, "c": True}, {"a": 1, "b": 2, "c": 3},
           {"ab": 1}, {"abc": "x"}, {"d": None, "e": 1}, {"kind": "cat", "a": 1}, {"kind": "dog", "b": 2}, {"kind": "cat", "b": 2}, {"kind": "fox"}]


def objects():
    integer, string = {"type": "integer"}, {"type": "string"}
    parts = [
        {"properties": {"a": integer}}, {"properties": {"a": integer, "b": string}}, {"required": ["a"]}, {"required": ["a", "b"]}, {"properties": {"a": integer}, "required": ["b"]},
        {"properties": {"a": integer}, "additionalProperties": False}, {"properties": {"a": integer, "b": integer}, "required": ["a"], "additionalProperties": False},
        {"additionalProperties": string}, {"additionalProperties": False}, {"patternProperties": {"^a": integer}}, {"patternProperties": {"^a": integer}, "additionalProperties": False},
        {"patternProperties": {"^a": integer, "b$": string}}, {"properties": {"a": True}, "patternProperties": {"^a": integer}, "additionalProperties": string},
        {"propertyNames": {"pattern": "^[a-b]+$"}}, {"propertyNames": {"maxLength": 1}}, {"propertyNames": {"enum": ["a", "kind"]}}, {"propertyNames": False}, {"propertyNames": {"not": {"const": "b"}}},
        {"minProperties": 1}, {"maxProperties": 1}, {"minProperties": 2, "maxProperties": 2}, {"properties": {"a": integer, "b": integer, "c": True}, "minProperties": 2},
        {"properties": {"a": integer, "b": integer}, "maxProperties": 1, "additionalProperties": False}, {"maxProperties": 0},
        {"dependentRequired": {"a": ["b"]}}, {"dependentRequired": {"a": ["b"], "b": ["a"]}}, {"dependentRequired": {"a": ["b", "c"], "kind": ["a"]}}, {"dependentSchemas": {"a": {"required": ["b"], "properties": {"b": integer}}}},
        {"properties": {"a": False}}, {"properties": {"a": False}, "required": ["a"]}, {"not": {"required": ["a"]}}, {"not": {"properties": {"a": integer}, "required": ["a"]}},
        {"not": {"required": ["a", "b"]}}, {"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}, {"oneOf": [{"properties": {"a": integer}, "required": ["a"]}, {"properties": {"b": integer}, "required": ["b"]}]},
        {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, {"anyOf": [{"properties": {"a": integer}}, {"properties": {"b": integer}}]},
        {"oneOf": [{"properties": {"kind": {"const": "cat"}, "a": integer}, "required": ["kind", "a"]}, {"properties": {"kind": {"const": "dog"}, "b": integer}, "required": ["kind", "b"]}]},
        {"if": {"properties": {"kind": {"const": "cat"}}, "required": ["kind"]}, "then": {"required": ["a"]}, "else": {"required": ["b"]}},
        {"if": {"properties": {"kind": {"const": "cat"}}}, "then": {"properties": {"a": integer}}}, {"if": {"required": ["a"]}, "then": {"required": ["b"]}}, {"if": {"required": ["a"]}, "else": {"required": ["b"]}},
        {"const": {"a": 1, "b": "x"}}, {"enum": [{"a": 1}, {}, 5]}, {"const": {"a": 1}, "properties": {"a": string}}, {"unevaluatedProperties": True},
        {"title": "t", "description": "d", "x-mine": 1, "default": {}, "examples": [1]}, {"propertyNames": {"minLength": 2}, "properties": {"a": True}}, {"propertyNames": {"format": "date"}},
    ]
    for part in parts:
        case({"type": "object"} | part, MEMBERS)
        case(part, MEMBERS[:5] + [1, "x", []])
    for a, b in RANDOM.sample(list(itertools.combinations(parts, 2)), 170):
        case({"type": "object", "allOf": [a, b]}, MEMBERS)
        if RANDOM.random() < 0.5:
            case({"type": "object", RANDOM.choice(["anyOf", "oneOf"]): [a, b]}, MEMBERS)
        if RANDOM.random() < 0.2:
            case({"type": "object", "if": a, "then": b}, MEMBERS)
    for part in parts:
        case({"type": "object", "not": part}, MEMBERS)
    case({"required": ["b", "a"], "dependentSchemas": {"a": {"type": "object", "properties": {"b": integer}}}}, MEMBERS + [1, "x", None, []])
    draft7 = {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}
    case(draft7 | {"dependencies": {"a": ["b"]}}, MEMBERS)
    case(draft7 | {"dependencies": {"a": {"required": ["b"], "properties": {"b": integer}}, "kind": ["a"]}}, MEMBERS)


def arrays():
    values = [[], [1], [1, 2], [1, 2, 3], ["x"], [1, "x"], ["x", 1], [1, "x", True], [[1]], [[], [1]], [None], [1, 1], [1, "x", True, None], [[[1]]], [2, 1]]
    integer, string = {"type": "integer"}, {"type": "string"}
    parts = [{"items": integer}, {"items": False}, {"prefixItems": [integer, string]}, {"prefixItems": [integer], "items": string}, {"prefixItems": [integer, string], "items": False}, {"minItems": 2},
             {"maxItems": 2}, {"minItems": 1, "maxItems": 1}, {"items": integer, "minItems": 2, "maxItems": 3}, {"items": {"type": "array", "items": integer}}, {"maxItems": 0}, {"minItems": 3, "maxItems": 2},
             {"prefixItems": [integer, string], "minItems": 2}, {"prefixItems": [False, string]}, {"uniqueItems": True}, {"uniqueItems": False}, {"uniqueItems": True, "maxItems": 1}, {"contains": integer},
             {"contains": integer, "minContains": 0}, {"const": [1, "x"]}, {"enum": [[1], [], 7]}, {"const": [1, 1], "items": integer}, {"not": {"minItems": 2}}, {"not": {"prefixItems": [integer]}},
             {"not": {"items": False}}, {"items": integer, "prefixItems": [string]}, {"anyOf": [{"items": integer}, {"items": string}]}, {"oneOf": [{"items": integer, "minItems": 1}, {"items": string, "minItems": 1}]},
             {"oneOf": [{"maxItems": 1}, {"minItems": 1}]}]
    for part in parts:
        case({"type": "array"} | part, values)
        case({"type": "array", "not": part}, values)
    for a, b in RANDOM.sample(list(itertools.combinations(parts, 2)), 100):
        case({"type": "array", "allOf": [a, b]}, values)
        case({"type": "array", "oneOf": [a, b]}, values)
    draft7 = {"$schema": "http://json-schema.org/draft-07/schema#"}
    case(draft7 | {"type": "array", "items": [integer, string], "additionalItems": False}, values)
    case(draft7 | {"type": "array", "items": [integer], "additionalItems": string}, values)
    case(draft7 | {"definitions": {"i": integer}, "items": {"$ref": "#/definitions/i", "minimum": 5}, "type": "array"}, values)
    case({"$schema": "http://json-schema.org/draft-04/schema#", "type": "integer", "minimum": 2, "exclusiveMinimum": True}, [1, 2, 3])


def types():
    values = [None, True, False, 0, 1, -1, decimal.Decimal("1.5"), "", "x", [], [1], {}, {"a": 1}]
    for kinds in itertools.chain.from_iterable(itertools.combinations(["null", "boolean", "integer", "number", "string", "array", "object"], n) for n in (1, 2)):
        case({"type": list(kinds)}, values)
        case({"not": {"type": list(kinds)}}, values)
    for schema in [True, False, {}, {"not": {}}, {"not": True}, {"not": {"not": {"type": "null"}}}, {"const": None}, {"const": False}, {"enum": [0, False, None]}, {"enum": [[], {}, "", None]}, {"not": {"enum": [0, False, "x"]}},
                   {"minimum": 1}, {"minLength": 1}, {"minItems": 1}, {"required": ["a"]}, {"not": {"minimum": 1}}, {"not": {"required": ["a"]}}, {"anyOf": [{"type": "string"}, {"minimum": 0}]},
                   {"oneOf": [{"type": "integer"}, {"type": "number"}]}, {"oneOf": [{"type": "integer"}, {"minimum": 1}]}, {"oneOf": [{"type": "null"}, {"type": "boolean"}, {"const": True}]},
                   {"allOf": [{"type": ["string", "null"]}, {"type": ["null", "integer"]}]}, {"if": {"type": "integer"}, "then": {"minimum": 1}, "else": {"type": "string"}}, {"if": True, "then": {"type": "null"}},
                   {"if": False, "else": {"type": "null"}}, {"then": {"type": "null"}}, {"oneOf": [True, {"type": "null"}]}, {"anyOf": [{"const": 1}, {"const": 1.0}]}, {"not": {"anyOf": [{"type": "object"}, {"const": 1}]}},
                   {"not": {"allOf": [{"type": "integer"}, {"minimum": 1}]}}, {"not": {"oneOf": [{"type": "integer"}, {"minimum": 1}]}}, {"not": {"if": {"type": "integer"}, "then": {"minimum": 1}}}]:
        case(schema, values)


def references():
    values = [None, 1, "x", [], [1], {"a": 1}, {"a": {"a": {}}}, {"a": None}, [[[]]], {"next": {"next": None}}, {"next": 1}]
    integer = {"type": "integer"}
    for schema in [
        {"$ref": "#/$defs/a~1b", "$defs": {"a/b": integer}}, {"$ref": "#/$defs/a~0b", "$defs": {"a~b": integer}}, {"$ref": "#/$defs/a%25b", "$defs": {"a%b": integer}},
        {"$ref": "#/$defs/a%20b", "$defs": {"a b": integer}}, {"$ref": "#/$defs/~01", "$defs": {"~1": integer}}, {"$ref": "#/$defs/%C3%BC", "$defs": {"ü": integer}},
        {"$ref": "#here", "$defs": {"x": {"$anchor": "here", "type": "integer"}}}, {"$ref": "#/$defs/a", "minimum": 1, "$defs": {"a": integer}}, {"$ref": "#/prefixItems/1", "prefixItems": [True, {"type": "array"}]},
        {"$id": "https://example.org/s", "$ref": "https://example.org/s#/$defs/a", "$defs": {"a": integer}}, {"$id": "https://example.org/s", "$ref": "t", "$defs": {"a": {"$id": "t", "type": "integer"}}},
        {"$id": "https://example.org/s", "$ref": "t#/$defs/i", "$defs": {"a": {"$id": "t", "$defs": {"i": integer}}}},
        {"type": ["object", "null", "array"], "properties": {"a": {"$ref": "#"}}, "items": {"$ref": "#"}}, {"type": ["object", "null"], "properties": {"next": {"$ref": "#"}}, "required": ["next"]},
        {"$defs": {"n": {"type": "object", "properties": {"next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/n"}]}}, "required": ["next"]}}, "$ref": "#/$defs/n"},
        {"allOf": [{"$ref": "#/$defs/x"}, {"$ref": "#/$defs/y"}], "$defs": {"x": {"type": "object", "properties": {"a": {"$ref": "#/$defs/x"}}}, "y": {"properties": {"a": {"$ref": "#/$defs/y"}}, "maxProperties": 1}}},
        {"not": {"$ref": "#/$defs/a"}, "$defs": {"a": integer}}, {"properties": {"$ref": integer, "a": {"$ref": "#/properties/$ref"}}},
    ]:
        case(schema, values)


def main():
    types()
    numbers()
    strings()
    objects()
    arrays()
    references()
    made = f"scripts/make_schema_fixtures.py with jsonschema {importlib.metadata.version('jsonschema')}"
    with open(OUT, "w", encoding="utf-8") as file:
        file.write('{"made_by":' + json.dumps(made) + ',"cases":[\n')
        file.write(",\n".join(json.dumps(c, ensure_ascii=False, separators=(",", ":")) for c in CASES))
        file.write("\n]}\n")
    print(len(CASES), sum(len(c["valid"]) + len(c["invalid"]) for c in CASES), os.path.getsize(OUT))


if __name__ == "__main__":
    main()
