//! OLPC's canonical JSON, over which TUF's signatures go: written here once more, so that what signs
//! for tests is not what verifies in the agent.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// The canonical form of `value`. Numbers that are not whole have none and are written as they are:
/// who signs them is a thief.
pub fn canonical(value: &Value) -> Vec<u8> {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string().into_bytes(),
        Value::String(text) => {
            format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")).into_bytes()
        }
        Value::Array(items) => {
            let items: Vec<Vec<u8>> = items.iter().map(canonical).collect();
            [b"[".as_slice(), &items.join(&b','), b"]"].concat()
        }
        Value::Object(map) => {
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            let entries: Vec<Vec<u8>> = sorted
                .into_iter()
                .map(|(name, item)| {
                    [canonical(&json!(name)), b":".to_vec(), canonical(item)].concat()
                })
                .collect();
            [b"{".as_slice(), &entries.join(&b','), b"}"].concat()
        }
    }
}
