//! A JSON schema from anywhere: what it writes, once whole, is JSON.

use kigo::engine::Grammar;

use crate::grammar;

/// One case.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some((written, true)) = grammar::write(Grammar::JsonSchema(&text), grammar::seed(&text)) {
        let read = serde_json::from_str::<serde_json::Value>(&written);
        // A number that no double holds is JSON all the same.
        let read = read.map_or_else(|e| e.to_string().contains("out of range"), |_| true);
        assert!(read, "{text} wrote {written:?}, which is no JSON");
    }
}
