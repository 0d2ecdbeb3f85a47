"""Uses a running server as the `openai` client's own examples do: serve_openai.py URL MODEL API_KEY [PART...].

Prints a line for each part that holds, and ends with status 1 at the first that does not. `calls` wants a model whose
template has tools, and runs where it is named.
"""

import json
import sys
import threading
import time
import urllib.request

import openai
from pydantic import BaseModel

URL, MODEL, KEY = sys.argv[1:4]
client = openai.OpenAI(base_url=URL, api_key=KEY, max_retries=0, timeout=120)
CAPITAL = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get current temperature for a given location.",
        "parameters": {
            "type": "object",
            "properties": {"location": {"type": "string", "description": "City and country, e.g. Bogotá, Colombia"}},
            "required": ["location"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}


def metric(name):
    request = urllib.request.Request(URL.replace("/v1", "/metrics"), headers={"Authorization": f"Bearer {KEY}"})
    for line in urllib.request.urlopen(request).read().decode().splitlines():
        if line.startswith(name + " "):
            return float(line.split()[1])
    raise KeyError(name)


def pages_held():
    return metric("kigo_cache_pages_used") - metric("kigo_cache_pages_retained")


def chat():
    answer = client.chat.completions.create(model=MODEL, messages=CAPITAL, temperature=0, max_completion_tokens=32)
    choice = answer.choices[0]
    assert "Paris" in choice.message.content and choice.message.role == "assistant", answer
    assert choice.finish_reason == "stop" and answer.object == "chat.completion" and answer.id.startswith("chatcmpl-")
    used = answer.usage
    assert used.prompt_tokens > 5 and 0 < used.completion_tokens <= 32, used
    assert used.total_tokens == used.prompt_tokens + used.completion_tokens
    parts = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "Hello"}]}]
    cut = client.chat.completions.create(model=MODEL, messages=parts, temperature=0, max_tokens=2)
    assert cut.choices[0].finish_reason == "length" and cut.usage.completion_tokens == 2, cut


def streaming():
    whole = client.chat.completions.create(model=MODEL, messages=CAPITAL, temperature=0, max_tokens=24, seed=-1)
    stream = client.chat.completions.create(
        model=MODEL, messages=CAPITAL, temperature=0, max_tokens=24, stream=True, stream_options={"include_usage": True}
    )
    text, reason, used, n = "", None, None, 0
    for chunk in stream:
        used = chunk.usage or used
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reason = choice.finish_reason or reason
            n += 1
    assert (text, reason) == (whole.choices[0].message.content, whole.choices[0].finish_reason) and n > 4, text
    assert used.completion_tokens == whole.usage.completion_tokens


def several():
    how = dict(model=MODEL, messages=CAPITAL, n=3, seed=7, temperature=1.5, max_tokens=12)
    first, again = (client.chat.completions.create(**how) for _ in range(2))
    texts = [choice.message.content for choice in first.choices]
    assert texts == [choice.message.content for choice in again.choices] and len(set(texts)) > 1, texts
    parts = ["", "", ""]
    for chunk in client.chat.completions.create(**how, stream=True):
        for choice in chunk.choices:
            parts[choice.index] += choice.delta.content or ""
    assert parts == texts, (parts, texts)
    stopped = client.chat.completions.create(model=MODEL, messages=CAPITAL, temperature=0, max_tokens=32, stop=["France"])
    assert stopped.choices[0].message.content == "The capital of ", stopped
    assert stopped.choices[0].finish_reason == "stop"


class Step(BaseModel):
    explanation: str
    output: str


class MathReasoning(BaseModel):
    steps: list[Step]
    final_answer: str


def structured():
    short = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}, "people": {"type": "integer", "maximum": 9999999}}}
    short |= {"required": ["city", "people"], "additionalProperties": False}
    how = {"type": "json_schema", "json_schema": {"name": "city", "schema": short, "strict": True}}
    answer = client.chat.completions.create(model=MODEL, messages=CAPITAL, response_format=how, temperature=0, max_tokens=64)
    value = json.loads(answer.choices[0].message.content)
    assert set(value) == {"city", "people"} and isinstance(value["people"], int), value
    free = client.chat.completions.create(
        model=MODEL, messages=CAPITAL, response_format={"type": "json_object"}, temperature=0, max_tokens=200
    )
    assert free.choices[0].message.content.startswith("{"), free
    # The client's own way, with a class; it may run into the limit, and says so.
    messages = [{"role": "system", "content": "You are a helpful math tutor."}, {"role": "user", "content": "solve x + 7 = 30"}]
    try:
        parsed = client.chat.completions.parse(
            model=MODEL, messages=messages, response_format=MathReasoning, temperature=0, max_tokens=300
        )
        assert isinstance(parsed.choices[0].message.parsed, MathReasoning)
    except openai.LengthFinishReasonError:
        pass


def logprobs():
    answer = client.chat.completions.create(
        model=MODEL, messages=CAPITAL, temperature=0, max_tokens=6, logprobs=True, top_logprobs=3
    )
    tokens = answer.choices[0].logprobs.content
    assert "".join(t.token for t in tokens) == answer.choices[0].message.content, answer
    for token in tokens:
        assert len(token.top_logprobs) == 3 and token.top_logprobs[0].logprob >= token.logprob and token.logprob <= 0
        assert token.token == token.top_logprobs[0].token and bytes(token.bytes).decode() == token.token
    older = client.completions.create(model=MODEL, prompt="One, two, three,", temperature=0, max_tokens=4, logprobs=2)
    assert len(older.choices[0].logprobs.tokens) == 4 and len(older.choices[0].logprobs.top_logprobs[0]) == 2
    assert "".join(older.choices[0].logprobs.tokens) == older.choices[0].text


def completions():
    answer = client.completions.create(model=MODEL, prompt=["The capital of France is", "One, two,"], temperature=0, max_tokens=5)
    assert "Paris" in answer.choices[0].text and "three" in answer.choices[1].text, answer
    assert [choice.index for choice in answer.choices] == [0, 1]
    text = "".join(
        chunk.choices[0].text
        for chunk in client.completions.create(
            model=MODEL, prompt="The capital of France is", temperature=0, max_tokens=5, stream=True, echo=True
        )
    )
    assert text == "The capital of France is" + answer.choices[0].text, text


def embeddings():
    texts = ["The cat sat on the mat.", "A cat is sitting on a rug."]
    pair = client.embeddings.create(model=MODEL, input=texts)
    plain = client.embeddings.create(model=MODEL, input=texts[0], encoding_format="float")
    a, b = (e.embedding for e in pair.data)
    assert len(a) == len(b) and max(abs(x - y) for x, y in zip(a, plain.data[0].embedding)) < 1e-6
    assert abs(sum(x * x for x in a) - 1) < 1e-4 and pair.usage.prompt_tokens > 8


def refused(status, name, call):
    try:
        call()
    except openai.APIStatusError as e:
        assert e.status_code == status and (name is None or e.body["param"] == name), (e.status_code, e.body)
        return
    raise AssertionError(f"not refused: {status} {name}")


def errors():
    create = client.chat.completions.create
    refused(404, "model", lambda: create(model="gpt-0", messages=CAPITAL))
    refused(400, "temperature", lambda: create(model=MODEL, messages=CAPITAL, temperature=3))
    refused(400, "top_logprobs", lambda: create(model=MODEL, messages=CAPITAL, top_logprobs=3))
    refused(400, "n", lambda: create(model=MODEL, messages=CAPITAL, n=0))
    refused(400, "messages", lambda: create(model=MODEL, messages=[]))
    refused(400, "messages[0].role", lambda: create(model=MODEL, messages=[{"role": "nobody", "content": "x"}]))
    refused(400, "logit_bias", lambda: create(model=MODEL, messages=CAPITAL, logit_bias={"x": 1}))
    refused(400, "response_format", lambda: create(model=MODEL, messages=CAPITAL, response_format={
        "type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nothing"}}}))
    long = [{"role": "user", "content": "word " * 40000}]
    refused(400, "messages", lambda: create(model=MODEL, messages=long))
    wrong = openai.OpenAI(base_url=URL, api_key="wrong", max_retries=0)
    refused(401, None, lambda: wrong.models.list())
    name = client.models.list().data[0].id
    assert client.models.retrieve(name).id == name


def tools():
    # An answer may call, or not; the conversation with a call and its result goes on.
    first = client.chat.completions.create(model=MODEL, messages=CAPITAL, tools=[WEATHER], temperature=0, max_tokens=48)
    message = first.choices[0].message
    assert message.content or message.tool_calls, first
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"location": "Paris, France"}'}}
    messages = [
        {"role": "user", "content": "What is the weather like in Paris today?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "14 degrees"},
    ]
    end = client.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER], temperature=0, max_tokens=32)
    assert end.choices[0].message.content, end


class Weather(BaseModel):
    city: str
    country: str


def calls():
    messages = [{"role": "user", "content": "What is the weather like in Paris today?"}]
    how = dict(model=MODEL, messages=messages, tools=[WEATHER], temperature=0, max_tokens=80)
    named = {"type": "function", "function": {"name": "get_weather"}}
    for choice in ["required", named]:
        answer = client.chat.completions.create(**how, tool_choice=choice).choices[0]
        (call,) = answer.message.tool_calls
        assert answer.finish_reason == "tool_calls" and call.function.name == "get_weather", answer
        assert list(json.loads(call.function.arguments)) == ["location"], call
    pieces, ids, reason = "", [], None
    for chunk in client.chat.completions.create(**how, tool_choice="required", stream=True):
        reason = chunk.choices[0].finish_reason or reason
        for delta in chunk.choices[0].delta.tool_calls or []:
            ids += [delta.id] if delta.id else []
            pieces += delta.function.arguments or ""
    assert (pieces, len(ids), reason) == (call.function.arguments, 1, "tool_calls"), (pieces, ids, reason)
    result = {"role": "tool", "tool_call_id": call.id, "content": "14 degrees"}
    end = client.chat.completions.create(**how | {"messages": [*messages, answer.message, result]}, tool_choice="none")
    assert end.choices[0].message.content and not end.choices[0].message.tool_calls, end
    tool = openai.pydantic_function_tool(Weather)
    parsed = client.chat.completions.parse(**how | {"tools": [tool]}, tool_choice="required")
    assert parsed.choices[0].message.tool_calls[0].function.parsed_arguments.city, parsed
    refused(400, "tool_choice", lambda: client.chat.completions.create(**how, tool_choice={"type": "function", "function": {"name": "x"}}))


def concurrent():
    how = dict(model=MODEL, messages=CAPITAL, temperature=0, max_tokens=8)
    alone = client.chat.completions.create(**how).choices[0].message.content
    texts = []
    ask = lambda: texts.append(client.chat.completions.create(**how).choices[0].message.content)
    threads = [threading.Thread(target=ask) for _ in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert texts == [alone] * 8, texts


def disconnect():
    before = metric("kigo_disconnects_total")
    stream = client.chat.completions.create(
        model=MODEL, messages=CAPITAL, temperature=1, stream=True, max_tokens=4000, logit_bias={str(i): -100 for i in range(3)}
    )
    for _, _ in zip(range(3), stream):
        pass
    assert pages_held() > 0
    stream.close()
    begin = time.monotonic()
    while pages_held() > 0:
        assert time.monotonic() - begin < 2, "the pages of a client that has gone are still in use"
        time.sleep(0.005)
    assert metric("kigo_disconnects_total") == before + 1 and metric("kigo_requests_in_flight") == 0
    return f"{(time.monotonic() - begin) * 1e3:.0f} ms"


PARTS = [chat, streaming, several, structured, logprobs, completions, embeddings, errors, tools, concurrent, disconnect]
for part in [globals()[name] for name in sys.argv[4:]] or PARTS:
    started = time.monotonic()
    said = part()
    print(f"{part.__name__}: {time.monotonic() - started:.2f} s{': ' + said if said else ''}", flush=True)
