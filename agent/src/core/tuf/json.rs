//! Reads metadata as JSON within bounds, and writes the canonical form that signatures cover.
//!
//! It refuses duplicate keys (two readers of one document could otherwise see two contents), depth
//! beyond serde_json's 128, and more values than [`VALUES_LIMIT`]. The canonical form is OLPC's:
//! sorted keys, no space, only `"` and `\` escaped, whole numbers only; unknown fields stay in it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Most values in one document. A targets file of the longest kind allowed has about 200,000; a
/// hostile one of the same length could have 2.5 million, at 30 to 70 bytes of memory each.
pub(super) const VALUES_LIMIT: usize = 250_000;

/// Why bytes are not a document, in serde_json's words.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, String> {
    let left = Cell::new(VALUES_LIMIT);
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { left: &left }.deserialize(&mut reader).map_err(|e| e.to_string())?;
    reader.end().map_err(|e| e.to_string())?;
    Ok(value)
}

/// The bytes that a signature over `value` covers; nothing if it holds a number that is not whole,
/// for which there is no canonical form.
pub(super) fn canonical(value: &Value) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    write(value, &mut out)?;
    Some(out)
}

fn write(value: &Value, out: &mut Vec<u8>) -> Option<()> {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => {
            if !(number.is_u64() || number.is_i64()) {
                return None;
            }
            out.extend_from_slice(number.to_string().as_bytes());
        }
        Value::String(text) => write_string(text, out),
        Value::Array(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write(item, out)?;
            }
            out.push(b']');
        }
        Value::Object(map) => {
            // Sorted here and not by the map's own order, which a feature of serde_json can change.
            let mut sorted: BTreeMap<&String, &Value> = BTreeMap::new();
            sorted.extend(map);
            out.push(b'{');
            for (i, (name, item)) in sorted.into_iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_string(name, out);
                out.push(b':');
                write(item, out)?;
            }
            out.push(b'}');
        }
    }
    Some(())
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for &byte in text.as_bytes() {
        if byte == b'"' || byte == b'\\' {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// Builds a value, counting down what is left of the bound.
#[derive(Clone, Copy)]
struct Strict<'a> {
    left: &'a Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        let Some(left) = self.left.get().checked_sub(1) else {
            return Err(D::Error::custom(format_args!("more than {VALUES_LIMIT} values")));
        };
        self.left.set(left);
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(self)?;
            if map.contains_key(&name) {
                return Err(A::Error::custom(format_args!("key {name:?} occurs twice")));
            }
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canonical_form_sorts_keys_drops_space_and_escapes_only_quote_and_backslash() {
        let text = br#" { "b" : [ 1, -2, true, null ], "a" : "x\"y\\z\n\u00e9" , "B": {} } "#;
        let value = parse(text).expect("valid");
        let canonical = canonical(&value).expect("whole numbers");
        let want = "{\"B\":{},\"a\":\"x\\\"y\\\\z\n\u{e9}\",\"b\":[1,-2,true,null]}";
        assert_eq!(String::from_utf8_lossy(&canonical), want);
    }

    #[test]
    fn duplicate_keys_are_refused_at_any_depth() {
        assert!(parse(br#"{"a":1,"a":1}"#).is_err());
        assert!(parse(br#"[{"x":{"a":1,"b":2,"a":3}}]"#).is_err());
        assert!(parse(br#"{"a":1,"\u0061":2}"#).is_err());
    }

    #[test]
    fn numbers_that_are_not_whole_or_do_not_fit_have_no_canonical_form() {
        for text in ["1.5", "1e3", "18446744073709551616", "-0"] {
            let value = parse(text.as_bytes()).expect("JSON as such");
            assert_eq!(canonical(&value), None, "{text}");
        }
        let value = parse(b"18446744073709551615").expect("valid");
        assert_eq!(canonical(&value).expect("fits"), b"18446744073709551615");
        assert!(parse(b"1e999").is_err());
    }

    #[test]
    fn deep_nesting_and_floods_of_values_are_refused() {
        let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
        assert!(parse(&deep).is_err());
        let flood = format!("[{}0]", "0,".repeat(VALUES_LIMIT));
        assert!(parse(flood.as_bytes()).is_err());
    }

    #[test]
    fn trailing_bytes_and_invalid_utf8_are_refused() {
        assert!(parse(b"{} {}").is_err());
        assert!(parse(b"\"\xff\"").is_err());
        assert!(parse(b"\"\\ud800\"").is_err());
        assert!(parse(b"").is_err());
    }
}
