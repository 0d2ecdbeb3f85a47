//! The server of `examples-c/serve`, over plain sockets with a tiny model; with SmolLM2 through the `openai` client.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::examples::{page_bytes, tiny};
use crate::native::programs::{examples, folder, real_model, refuse, run, succeed};
use crate::native::root;
use serde_json::{Value, json};

/// A server that ends with the test.
struct Server {
    child: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> Option<PathBuf> {
    let path = examples().join("serve");
    if path.is_file() {
        return Some(path);
    }
    println!("skipped: serve is not built: no libcpp-httplib-dev 0.11 or nlohmann-json3-dev");
    None
}

/// Its first line has the port.
fn start(model: &str, args: &[&str]) -> Option<Server> {
    let mut command = Command::new(program()?);
    command.args(["-m", model, "--port", "0", "-t", "2", "--alias", "tiny"]).args(args);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("serve starts");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("piped");
    BufReader::new(stdout).read_line(&mut line).expect("a line");
    let port = line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split('/').next()?.parse().ok());
    Some(Server { child, port: port.unwrap_or_else(|| panic!("no port: {line:?}")) })
}

impl Server {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the server listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        stream
    }

    /// Sends bytes and reads until the server closes.
    fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        let _ = stream.write_all(bytes); // it may answer and close before all is sent
        let mut out = Vec::new();
        match stream.read_to_end(&mut out) {
            Err(e) if e.kind() != ErrorKind::ConnectionReset => panic!("{e}: {:?}", String::from_utf8_lossy(&out)),
            _ => String::from_utf8_lossy(&out).into_owned(),
        }
    }

    fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n{headers}\r\n",
            body.len()
        );
        parts(&self.raw(&[head.as_bytes(), body.as_bytes()].concat()))
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, body) = self.send("POST", path, "", &body.to_string());
        (status, serde_json::from_str(&body).unwrap_or_else(|e| panic!("{e}: {body}")))
    }

    /// Sends a chat's request, whose answer is to be read from the connection.
    fn begin(&self, body: &Value) -> TcpStream {
        let (body, mut stream) = (body.to_string(), self.connect());
        let head = "POST /v1/chat/completions HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: ";
        stream.write_all(format!("{head}{}\r\n\r\n{body}", body.len()).as_bytes()).expect("taken");
        stream
    }

    fn figure(&self, name: &str) -> f64 {
        let (status, body) = self.send("GET", "/metrics", "", "");
        assert_eq!(status, 200);
        let line = body.lines().find(|line| line.split(' ').next() == Some(name));
        line.and_then(|l| l.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("{name}:\n{body}"))
    }

    fn end(mut self, signal: &str) -> Option<i32> {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().expect("kill is there");
        assert!(sent.success());
        self.child.wait().expect("it ends").code()
    }
}

/// The status and the body of an answer.
fn parts(answer: &str) -> (u16, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {answer:?}"));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("no status: {head}"));
    (status, body.to_owned())
}

fn chat(content: &str, more: &Value) -> Value {
    let mut body = json!({"model": "tiny", "max_tokens": 12, "temperature": 0,
        "messages": [{"role": "user", "content": content}]});
    for (key, value) in more.as_object().expect("an object") {
        body[key] = value.clone();
    }
    body
}

/// Fields of a request whose answer no token ends.
fn endless(max_tokens: usize) -> Value {
    json!({"max_tokens": max_tokens, "logit_bias": {"509": -100, "510": -100, "511": -100}})
}

fn said(answer: &Value) -> &str {
    answer["choices"][0]["message"]["content"].as_str().unwrap_or_else(|| panic!("{answer}"))
}

#[test]
fn what_is_wrong_is_named_with_the_right_status() {
    let Some(server) = start(tiny(), &[]) else { return };
    let of = |more: Value| chat("hello", &more);
    let cases: Vec<(&str, Value, u16, Option<&str>)> = vec![
        ("chat/completions", of(json!({"model": "other"})), 404, Some("model")),
        ("chat/completions", of(json!({"model": null})), 400, Some("model")),
        ("chat/completions", of(json!({"messages": "x"})), 400, Some("messages")),
        ("chat/completions", of(json!({"messages": [{"role": "user"}]})), 400, Some("messages[0].content")),
        ("chat/completions", of(json!({"messages": [{"role": "x", "content": ""}]})), 400, Some("messages[0].role")),
        ("chat/completions", of(json!({"max_tokens": 0})), 400, Some("max_tokens")),
        ("chat/completions", of(json!({"max_completion_tokens": 1.5})), 400, Some("max_completion_tokens")),
        ("chat/completions", of(json!({"temperature": "hot"})), 400, Some("temperature")),
        ("chat/completions", of(json!({"top_p": -0.1})), 400, Some("top_p")),
        ("chat/completions", of(json!({"presence_penalty": 3})), 400, Some("presence_penalty")),
        ("chat/completions", of(json!({"seed": 0.5})), 400, Some("seed")),
        ("chat/completions", of(json!({"n": 17})), 400, Some("n")),
        ("chat/completions", of(json!({"stop": ["a", ""]})), 400, Some("stop")),
        ("chat/completions", of(json!({"stop": 7})), 400, Some("stop")),
        ("chat/completions", of(json!({"stream": "yes"})), 400, Some("stream")),
        ("chat/completions", of(json!({"stream_options": {}})), 400, Some("stream_options")),
        ("chat/completions", of(json!({"logit_bias": {"512": 1}})), 400, Some("logit_bias")),
        ("chat/completions", of(json!({"logit_bias": {"5": 101}})), 400, Some("logit_bias.5")),
        ("chat/completions", of(json!({"top_logprobs": 21, "logprobs": true})), 400, Some("top_logprobs")),
        ("chat/completions", of(json!({"response_format": {"type": "xml"}})), 400, Some("response_format.type")),
        ("chat/completions", of(json!({"grammar": "root ::= a"})), 400, Some("grammar")),
        ("chat/completions", of(json!({"grammar": ["x"]})), 400, Some("grammar")),
        ("chat/completions", of(json!({"grammar": GBNF, "json_schema": {}})), 400, Some("grammar")),
        (
            "chat/completions",
            of(json!({"grammar": GBNF, "response_format": {"type": "json_object"}})),
            400,
            Some("grammar"),
        ),
        ("chat/completions", of(json!({"grammar": GBNF, "tools": [tool()]})), 400, Some("grammar")),
        ("chat/completions", of(json!({"json_schema": "x"})), 400, Some("json_schema")),
        ("completions", json!({"model": "tiny", "prompt": "x", "grammar": "root"}), 400, Some("grammar")),
        ("completions", json!({"model": "tiny", "prompt": "x", "json_schema": {"type": 1}}), 400, Some("json_schema")),
        ("chat/completions", of(json!({"tools": [{"type": "x"}]})), 400, Some("tools")),
        ("chat/completions", of(json!({"tool_choice": {"function": {"name": "x"}}})), 400, Some("tool_choice")),
        ("chat/completions", of(json!({"functions": []})), 400, Some("functions")),
        ("completions", json!({"model": "tiny"}), 400, Some("prompt")),
        ("completions", json!({"model": "tiny", "prompt": [1, 512]}), 400, Some("prompt")),
        ("completions", json!({"model": "tiny", "prompt": "x", "suffix": "y"}), 400, Some("suffix")),
        ("embeddings", json!({"model": "tiny", "input": []}), 400, Some("input")),
        ("embeddings", json!({"model": "tiny", "input": "x", "encoding_format": "x"}), 400, Some("encoding_format")),
        ("embeddings", json!({"model": "tiny", "input": "x", "dimensions": 7}), 400, Some("dimensions")),
        ("nothing", json!({}), 404, None),
    ];
    for (path, body, status, param) in cases {
        let (got, answer) = server.post(&format!("/v1/{path}"), &body);
        let error = &answer["error"];
        assert!(error["message"].is_string() && error["type"].is_string(), "{path} {body}: {answer}");
        assert_eq!((got, error["param"].as_str()), (status, param), "{path} {body}: {answer}");
    }
    let too_long = server.post("/v1/completions", &json!({"model": "tiny", "prompt": vec![5; 65_536]})).1;
    assert_eq!(too_long["error"]["code"], "context_length_exceeded");
    let deep = format!("{}{}", "[".repeat(40_000), "]".repeat(40_000));
    assert_eq!(server.send("POST", "/v1/completions", "", &deep).0, 400);
    let wide: String = (0..2000).map(|i| format!("\"{i}\": 1,")).collect();
    assert_eq!(server.send("POST", "/v1/completions", "", &format!("{{{wide}\"a\": 1}}")).0, 400);
    let plain = server.raw(b"POST /v1/completions HTTP/1.1\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}");
    assert_eq!(parts(&plain).0, 415);
    assert_eq!(server.send("POST", "/v1/completions", "Content-Encoding: gzip\r\n", "{}").0, 415);
    assert_eq!(server.end("-TERM"), Some(0));
}

/// A grammar of llama.cpp's, and whether a text is of it.
const GBNF: &str = "root ::= [0-9]{3} \"-\" tail\ntail ::= [xyz]{2}";

fn is_of_gbnf(text: &str) -> bool {
    let b = text.as_bytes();
    b.len() == 6 && b[..3].iter().all(u8::is_ascii_digit) && b[3] == b'-' && b[4..].iter().all(|c| b"xyz".contains(c))
}

fn tool() -> Value {
    json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}})
}

#[test]
fn answers_are_held_to_the_request_s_grammar_or_schema() {
    let Some(server) = start(tiny(), &[]) else { return };
    for seed in 0..8 {
        let how = json!({"grammar": GBNF, "temperature": 1.5, "seed": seed});
        let (status, answer) = server.post("/v1/chat/completions", &chat("hello", &how));
        assert!(status == 200 && is_of_gbnf(said(&answer)), "{answer}");
        let mut how = json!({"model": "tiny", "prompt": "once", "temperature": 1.5, "seed": seed, "grammar": GBNF});
        let text = server.post("/v1/completions", &how).1["choices"][0]["text"].clone();
        assert!(text.as_str().is_some_and(is_of_gbnf), "{text}");
        how["grammar"] = json!("");
        how["json_schema"] = json!({"enum": ["red", 12]});
        let text = server.post("/v1/completions", &how).1["choices"][0]["text"].clone();
        assert!(["\"red\"", "12"].contains(&text.as_str().unwrap_or_default()), "{text}");
        let how = json!({"response_format": {"type": "json_object", "schema": {"const": {"a": 1}}}, "seed": seed});
        let (status, answer) = server.post("/v1/chat/completions", &chat("hello", &how));
        assert!(status == 200 && said(&answer) == "{\"a\":1}", "{answer}");
    }
    assert_eq!(server.end("-TERM"), Some(0));
}

#[test]
fn no_malformed_request_kills_it() {
    let Some(server) = start(tiny(), &["--receive-timeout", "1", "--max-tokens", "4"]) else { return };
    let whole = chat(
        "hello \u{1f600}",
        &json!({"max_tokens": 2, "stream": true, "stop": ["x"], "logprobs": true, "top_logprobs": 2,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "integer"}}}}),
    )
    .to_string()
    .into_bytes();
    let pieces: [&[u8]; 12] = [
        b"\"",
        b"{",
        b"]",
        b"null",
        b"1e999",
        b"-0",
        b"\\ud800",
        b"\xff\xfe",
        b"\0",
        b"[[[[",
        b"\":\"",
        b"99999999999999999999",
    ];
    let mut seed = 1_u64;
    let mut random = |n: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % n
    };
    for round in 0..400 {
        let mut body = whole.clone();
        for _ in 0..=random(3) {
            let at = random(body.len());
            match random(4) {
                0 => body.truncate(at.max(1)),
                1 => drop(body.splice(at..at, pieces[random(pieces.len())].iter().copied())),
                2 => body[at] = random(256) as u8,
                _ => drop(body.drain(at..(at + random(20)).min(body.len()))),
            }
            if body.is_empty() {
                body.push(b'{');
            }
        }
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let (status, answer) = parts(&server.raw(&[head.as_bytes(), &body].concat()));
        let text = String::from_utf8_lossy(&body);
        assert!([200, 400, 404].contains(&status), "{round}: {status} {answer}\n{text}");
    }
    // What is no HTTP, or stops in the middle.
    for bytes in [
        &b"\0\0\0\0\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"POST /v1/completions HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{",
    ] {
        let answer = server.raw(bytes);
        assert!(!answer.starts_with("HTTP/1.1 2"), "{:?}: {answer}", String::from_utf8_lossy(bytes));
    }
    assert_eq!(server.send("GET", "/health", "", "").0, 200);
    assert_eq!(server.figure("kigo_requests_in_flight"), 0.0);
    assert_eq!(server.end("-INT"), Some(0));
}

#[test]
fn limits_hold() {
    let options = ["--max-body", "2000", "--connections", "4", "--receive-timeout", "1", "--api-key", "secret"];
    let Some(server) = start(tiny(), &options) else { return };
    let key = "Authorization: Bearer secret\r\n";
    let body = chat("x", &json!({})).to_string();
    assert_eq!(server.send("POST", "/v1/chat/completions", key, &body).0, 200);
    for wrong in
        ["", "Authorization: Bearer secre\r\n", "Authorization: Bearer secret2\r\n", "Authorization: secret\r\n"]
    {
        assert_eq!(server.send("POST", "/v1/chat/completions", wrong, &body).0, 401, "{wrong}");
    }
    assert_eq!(server.send("GET", "/v1/models", "", "").0, 401);
    assert_eq!(server.send("GET", "/health", "", "").0, 200);
    // Announced, and not.
    assert_eq!(server.send("POST", "/v1/chat/completions", key, &" ".repeat(2001)).0, 413);
    let chunk = format!("400\r\n{}\r\n", " ".repeat(0x400)).repeat(16);
    let head = "POST /v1/chat/completions HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n";
    assert_eq!(parts(&server.raw(format!("{head}{key}\r\n{chunk}0\r\n\r\n").as_bytes())).0, 413);
    // A head without an end, in size and in time.
    let began = Instant::now();
    let endless = server.raw(format!("GET /health HTTP/1.1\r\n{}", "X-A: b\r\n".repeat(100_000)).as_bytes());
    assert!(!endless.contains(" 200 "), "{endless}");
    assert!(!server.raw(b"GET /health HTTP/1.1\r\nX").contains(" 200 "));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    // The fifth connection is told so, and is let in when another has gone.
    let health = || parts(&server.raw(b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n")).0;
    // Where the machine is busy those before may not have gone, or these not have come.
    let full = || {
        let open: Vec<TcpStream> = (0..4).map(|_| server.connect()).collect();
        std::thread::sleep(Duration::from_millis(100));
        (health() == 503).then_some(open)
    };
    let mut open = (0..10).find_map(|_| full()).expect("a fifth connection was served each time");
    open.pop();
    let began = Instant::now();
    while health() != 200 {
        assert!(began.elapsed() < Duration::from_secs(5), "no place is given back");
    }
}

#[test]
fn a_client_that_goes_away_gives_its_pages_back() {
    let Some(server) = start(tiny(), &["--prefix-cache", "off"]) else { return };
    let silent = endless(60_000);
    let mut streamed = silent.clone();
    streamed["stream"] = json!(true);
    let prompt = "a long prompt ".repeat(3000);
    let mut late = streamed.clone();
    late["n"] = json!(3);
    // In the middle of a stream, of an answer in one piece, of a prompt, of three answers.
    for (i, (content, more)) in
        [("a", &streamed), ("b", &silent), (&*prompt, &streamed), ("c", &late)].into_iter().enumerate()
    {
        let stream = server.begin(&chat(content, more));
        let began = Instant::now();
        while server.figure("kigo_cache_pages_used") == 0.0 {
            assert!(began.elapsed() < Duration::from_secs(20), "it does not begin");
        }
        drop(stream);
        let began = Instant::now();
        while server.figure("kigo_cache_pages_used") != 0.0 {
            assert!(began.elapsed() < Duration::from_secs(3), "{i}: pages of nobody's are in use");
        }
        while server.figure("kigo_requests_in_flight") != 0.0 {
            assert!(began.elapsed() < Duration::from_secs(3), "{i}: a request of nobody's goes on");
        }
        assert_eq!(server.figure("kigo_disconnects_total"), i as f64 + 1.0);
    }
}

#[test]
fn sequences_wait_for_places_and_for_pages() {
    let Some(roomy) = start(tiny(), &[]) else { return };
    let question = |i: usize| {
        let mut more = endless(150);
        (more["temperature"], more["seed"]) = (json!(1.1), json!(i));
        (more["logprobs"], more["n"]) = (json!(i.is_multiple_of(2)), json!(1 + i % 2));
        chat(&format!("{i} {}", "word ".repeat(10 * i)), &more)
    };
    let texts = |answer: &Value| -> Vec<String> {
        let choices = answer["choices"].as_array().unwrap_or_else(|| panic!("{answer}"));
        choices.iter().map(|c| c["message"]["content"].as_str().expect("a text").to_owned()).collect()
    };
    let alone: Vec<_> = (0..6).map(|i| texts(&roomy.post("/v1/chat/completions", &question(i)).1)).collect();
    drop(roomy);
    // Pages for two of them or so, and places for four.
    let page = page_bytes();
    let cache = (10 * page).to_string();
    let Some(small) = start(tiny(), &["--cache", &cache, "--parallel", "4"]) else { return };
    let at_once = || {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..6)
                .map(|i| {
                    let (small, question) = (&small, question(i));
                    scope.spawn(move || small.post("/v1/chat/completions", &question))
                })
                .collect();
            for (i, thread) in threads.into_iter().enumerate() {
                let (status, answer) = thread.join().expect("no panic");
                assert_eq!((status, texts(&answer)), (200, alone[i].clone()), "{i}: {answer}");
            }
        });
        small.figure("kigo_sequences_recomputed_total") > 0.0
    };
    // How many come at the same time is the machine's business.
    assert!((0..10).any(|_| at_once()), "there was room for all");
    // One that can never fit says so.
    let (status, answer) = small.post("/v1/chat/completions", &chat(&"word ".repeat(2000), &json!({})));
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("context_length_exceeded")), "{answer}");
    // Nobody may wait.
    drop(small);
    let Some(busy) = start(tiny(), &["--parallel", "1", "--queue", "0", "--timeout", "1"]) else { return };
    std::thread::scope(|scope| {
        let long = scope.spawn(|| busy.post("/v1/chat/completions", &chat("a", &endless(60_000))));
        while busy.figure("kigo_sequences_running") == 0.0 {}
        assert_eq!(busy.post("/v1/chat/completions", &chat("b", &json!({}))).0, 429);
        // The first takes longer than it may.
        let (status, answer) = long.join().expect("no panic");
        assert_eq!((status, &answer["error"]["code"]), (503, &json!("timeout")), "{answer}");
    });
}

#[test]
fn a_signal_lets_answers_end() {
    let Some(server) = start(tiny(), &[]) else { return };
    let _idle = server.connect();
    let mut stream = server.begin(&chat("a", &endless(400)));
    while server.figure("kigo_requests_in_flight") == 0.0 {}
    let answer = std::thread::spawn(move || {
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        text
    });
    assert_eq!(server.end("-TERM"), Some(0));
    let (status, body) = parts(&answer.join().expect("no panic"));
    let answer: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((status, &answer["usage"]["completion_tokens"]), (200, &json!(400)));
    assert!(!said(&answer).is_empty());
}

#[test]
fn serve_tells_its_options_and_refuses_wrong_ones() {
    let Some(program) = program() else { return };
    assert!(succeed(Command::new(&program).arg("--help"), "").starts_with("usage: serve -m FILE"));
    assert_eq!(
        succeed(Command::new(&program).arg("--version"), ""),
        concat!("serve (kigo) ", env!("CARGO_PKG_VERSION"), "\n")
    );
    for (args, wanted) in [
        (&["-m", "x", "--port", "70000"][..], "--port: needs a whole number from 0 to 65535, not 70000"),
        (&["--temp", "3"], "--temp: needs a number from 0 to 2, not 3"),
        (&["--fast"], "--fast: is not an option"),
        (&[], "-m: is missing"),
        (&["--api-key", ""], "--api-key: is empty"),
        (&["--prefix-cache", "on"], "--prefix-cache: needs a whole number from 0 to 8796093022207, not on"),
    ] {
        let stderr = refuse(Command::new(&program).args(args), 2);
        assert!(stderr.contains(wanted) && stderr.contains("usage: serve"), "{args:?}: {stderr}");
    }
    assert!(refuse(Command::new(&program).args(["-m", "/no/such.gguf", "--port", "0"]), 1).contains("/no/such.gguf"));
}

#[test]
fn what_requests_begin_with_is_kept_and_counted() {
    let cache = (64 * crate::examples::page_bytes()).to_string();
    let question = chat(&"word ".repeat(80), &json!({"max_tokens": 3}));
    for (args, keeps) in
        [(&["--cache", &cache][..], true), (&["--prefix-cache", "off"], false), (&["--prefix-cache", "1"], true)]
    {
        let Some(server) = start(tiny(), args) else { return };
        let cached = |_| {
            let (status, answer) = server.post("/v1/chat/completions", &question);
            assert_eq!(status, 200, "{answer}");
            answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a number")
        };
        let cached = [0, 1].map(cached);
        assert!(cached[0] == 0 && (cached[1] >= 64) == keeps, "{args:?}: {cached:?}");
        assert_eq!(server.figure("kigo_tokens_reused_total"), cached[1] as f64);
        assert_eq!(server.figure("kigo_cache_pages_retained") > 0.0, keeps);
        let of = |name: &str| server.figure(name);
        assert!(of("kigo_tokens_decoded_total") <= 6.0 && of("kigo_tokens_prefilled_total") >= 64.0);
        let computed = of("kigo_tokens_prefilled_total") + of("kigo_tokens_decoded_total");
        assert_eq!(of("kigo_pass_tokens_total"), computed);
        assert_eq!((of("kigo_sessions"), of("kigo_sessions_waiting"), of("kigo_sessions_running")), (0.0, 0.0, 0.0));
        assert!(of("kigo_pass_seconds_total") > 0.0 && of("kigo_call_failures_total{kind=\"other\"}") == 0.0);
    }
}

/// A python with the `openai` client, in the target folder.
fn python_with_openai() -> Option<PathBuf> {
    const CLIENT: &str = "openai==3.57.0";
    let venv = folder("serve-venv");
    let python = venv.join("bin/python");
    let there = |python: &PathBuf| {
        python.is_file() && run(Command::new(python).args(["-c", "import openai"]), "").status.success()
    };
    if !there(&python) {
        let made = run(Command::new("python3").args(["-m", "venv"]).arg(&venv), "");
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", CLIENT];
        let got = made.status.success() && run(Command::new(&python).args(pip), "").status.success();
        if !got || !there(&python) {
            println!("skipped: pip cannot install {CLIENT}");
            return None;
        }
    }
    Some(python)
}

/// Runs parts of the client's examples, all but `calls` if none is named.
fn use_client(python: &PathBuf, file: &str, parts: &[&str]) {
    let Some(model) = real_model(file) else { return };
    let Some(server) = start(model.to_str().expect("UTF-8"), &["--api-key", "secret"]) else { return };
    let mut script = Command::new(python);
    script.arg(root().join("tests/c/serve_openai.py")).arg(format!("http://127.0.0.1:{}/v1", server.port));
    println!("{}", succeed(script.args(["tiny", "secret"]).args(parts), ""));
    assert_eq!(server.end("-TERM"), Some(0));
}

#[test]
fn the_openai_client_s_examples_run() {
    if program().is_none() {
        return;
    }
    let Some(python) = python_with_openai() else { return };
    use_client(&python, "SmolLM2-135M-Instruct-Q4_1.gguf", &[]);
    use_client(&python, "Qwen2.5-Coder-0.5B-Instruct-Q4_K_M.gguf", &["calls"]);
}
