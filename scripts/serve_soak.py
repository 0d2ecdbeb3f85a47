#!/usr/bin/env python3
"""Many clients at once against a running server, for a while: serve_soak.py URL MODEL [--clients 64] [--seconds 120].

Each client asks one of some questions, streamed or not, and compares the answer with the one that the question got alone;
one request in ten is given up in the middle. Prints requests, tokens and the process's memory every ten seconds, and ends
with status 1 if an answer was lost or another.
"""

import argparse
import http.client
import json
import random
import threading
import time
import urllib.parse

parser = argparse.ArgumentParser()
parser.add_argument("url")
parser.add_argument("model")
parser.add_argument("--clients", type=int, default=64)
parser.add_argument("--seconds", type=float, default=120)
parser.add_argument("--tokens", type=int, default=24)
arguments = parser.parse_args()
address = urllib.parse.urlparse(arguments.url).netloc
TOPICS = ["gravity", "rivers", "bread", "the moon", "glass", "music", "winter", "copper", "bees", "paper", "salt", "wind"]
lock = threading.Lock()
counts = {"answered": 0, "given up": 0, "tokens": 0}
wrong = []


def body(topic, stream):
    message = {"role": "user", "content": f"Tell me about {topic}."}
    return json.dumps(
        {"model": arguments.model, "messages": [message], "max_tokens": arguments.tokens, "temperature": 0, "stream": stream}
    )


def post(connection, topic, stream):
    connection.request("POST", "/v1/chat/completions", body(topic, stream), {"Content-Type": "application/json"})
    return connection.getresponse()


def ask(connection, topic, stream, give_up=False):
    """The answer's text; nothing where it was given up."""
    response = post(connection, topic, stream)
    if response.status != 200:
        raise RuntimeError(f"{response.status} {response.read()[:200]}")
    if not stream:
        answer = json.loads(response.read())
        return answer["choices"][0]["message"]["content"]
    text, done = "", False
    for line in response:
        if give_up and text:
            return None
        if line.startswith(b"data: [DONE]"):
            done = True
        elif line.startswith(b"data: "):
            event = json.loads(line[6:])
            if "error" in event:
                raise RuntimeError(event)
            text += event["choices"][0]["delta"].get("content") or ""
    if not done:
        raise RuntimeError("the stream broke off")
    return text


def client(seed, until, expected):
    choose = random.Random(seed)
    connection = http.client.HTTPConnection(address, timeout=300)
    while time.monotonic() < until:
        topic, stream = choose.choice(TOPICS), choose.random() < 0.5
        give_up = stream and choose.random() < 0.2
        try:
            text = ask(connection, topic, stream, give_up)
        except Exception as error:  # whatever it is, an answer was lost
            with lock:
                wrong.append(f"{topic}: {error!r}")
            connection.close()
            continue
        if text is None:
            connection.close()
        with lock:
            counts["given up" if text is None else "answered"] += 1
            if text is not None and text != expected[topic]:
                wrong.append(f"{topic}: {text!r} is not {expected[topic]!r}")


def figures():
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return {line.split()[0]: float(line.split()[1]) for line in lines if not line.startswith("#")}


def shown(seconds):
    now = figures()
    print(
        f"{seconds:5.0f} s: {counts['answered']} answered, {counts['given up']} given up, {len(wrong)} wrong; "
        f"{now['kigo_generated_tokens_total']:.0f} tokens, {now['process_resident_memory_bytes'] / 2**20:.1f} MiB, "
        f"{now['kigo_cache_pages_used']:.0f} pages, {now['kigo_sequences_running']:.0f} running",
        flush=True,
    )


alone = http.client.HTTPConnection(address, timeout=300)
expected = {topic: ask(alone, topic, False) for topic in TOPICS}
alone.close()
begin = time.monotonic()
shown(0)
threads = [
    threading.Thread(target=client, args=(seed, begin + arguments.seconds, expected)) for seed in range(arguments.clients)
]
for thread in threads:
    thread.start()
while any(thread.is_alive() for thread in threads):
    time.sleep(10)
    shown(time.monotonic() - begin)
for line in wrong[:20]:
    print(line)
raise SystemExit(1 if wrong else 0)
