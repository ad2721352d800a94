//! The one way by which a type of ours is read from JSON and written to it. It refuses keys that occur
//! twice (two readers of one document could otherwise see two contents), depth beyond serde_json's 128,
//! and more values than [`VALUES`]. It knows no type and no signature.
//!
//! What is read becomes a tree first, and a type is made of that: so there is one reader for every type
//! in the agent's binary, and not one for each source of bytes. Texts and keys of the tree are borrowed
//! from the bytes, so that a long list of files costs little more than its bytes.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a shape that was not asked for is told as a mismatch, whichever it is"
)]

use std::{borrow::Cow, cell::Cell, collections::BTreeSet, fmt, vec};

use serde::{
    Serialize,
    de::{
        DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, MapAccess,
        SeqAccess, Unexpected, VariantAccess, Visitor,
    },
    forward_to_deserialize_any,
};
use serde_json::{Error, Number};

/// The most values in one document: a manifest with as many files as its bytes have room for has a
/// tenth of them.
pub const VALUES: usize = 1_000_000;

/// Keys of one table up to which they are simply compared with each other.
const FEW: usize = 16;

/// Reads a value.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    let left = Cell::new(VALUES);
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let node = Builder { left: &left }.deserialize(&mut reader)?;
    reader.end()?;
    T::deserialize(node)
}

/// Writes a value, without space.
pub fn write<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    Ok(serde_json::to_value(value)?.to_string().into_bytes())
}

/// Writes a value for people too, with a line for each field and one line break at the end.
pub fn write_pretty<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    Ok(format!("{:#}\n", serde_json::to_value(value)?).into_bytes())
}

/// The fields of a table that says in one of them what it is.
pub struct Tagged<'de>(Node<'de>);

impl<'de> Tagged<'de> {
    /// Takes a table's word under `tag` and leaves the other fields.
    pub fn take<D: Deserializer<'de>>(
        deserializer: D,
        tag: &'static str,
    ) -> Result<(String, Self), D::Error> {
        let left = Cell::new(VALUES);
        let node = Builder { left: &left }.deserialize(deserializer)?;
        Self::split(node, tag).map_err(D::Error::custom)
    }

    fn split(node: Node<'de>, tag: &'static str) -> Result<(String, Self), Error> {
        let Node::Table(mut table) = node else { return Err(node.mismatch(&"a table")) };
        let Some(at) = table.iter().position(|(key, _)| key == tag) else {
            return Err(Error::missing_field(tag));
        };
        match table.remove(at) {
            (_, Node::Text(word)) => Ok((word.into_owned(), Self(Node::Table(table)))),
            (_, other) => Err(inside(tag, &other.mismatch(&"a string"))),
        }
    }

    /// Reads the other fields.
    pub fn read<T: DeserializeOwned>(self) -> Result<T, Error> {
        T::deserialize(self.0)
    }
}

/// A value of any form.
enum Node<'a> {
    Null,
    Flag(bool),
    Number(Number),
    Text(Cow<'a, str>),
    List(Vec<Self>),
    Table(Vec<(Cow<'a, str>, Self)>),
}

/// Builds a tree, counting down what is left of the bound.
#[derive(Clone, Copy)]
struct Builder<'c> {
    left: &'c Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for Builder<'_> {
    type Value = Node<'de>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Node<'de>, D::Error> {
        let Some(left) = self.left.get().checked_sub(1) else {
            return Err(D::Error::custom(format_args!("more than {VALUES} values")));
        };
        self.left.set(left);
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Builder<'_> {
    type Value = Node<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node<'de>, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node<'de>, E> {
        Ok(Node::Flag(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node<'de>, E> {
        Ok(Node::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node<'de>, E> {
        Ok(Node::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Node<'de>, E> {
        Number::from_f64(value).map(Node::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Node<'de>, E> {
        Ok(Node::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node<'de>, E> {
        Ok(Node::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<Node<'de>, E> {
        Ok(Node::Text(Cow::Owned(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node<'de>, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node<'de>, A::Error> {
        let mut table: Vec<(Cow<'de, str>, Node<'de>)> = Vec::new();
        let mut many = BTreeSet::new();
        while let Some(Key(key)) = entries.next_key_seed(Key(Cow::Borrowed("")))? {
            if table.len() == FEW {
                many.extend(table.iter().map(|(known, _)| known.clone()));
            }
            let twice = if table.len() < FEW {
                table.iter().any(|(known, _)| *known == key)
            } else {
                !many.insert(key.clone())
            };
            if twice {
                return Err(A::Error::custom(format_args!("key `{key}` occurs twice")));
            }
            table.push((key, entries.next_value_seed(self)?));
        }
        Ok(Node::Table(table))
    }
}

/// A key of a table, borrowed where it has no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Key<'de>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Key<'de>, D::Error> {
        reader.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = Key<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
        Ok(Key(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Key<'de>, E> {
        Ok(Key(Cow::Owned(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<Key<'de>, E> {
        Ok(Key(Cow::Owned(text)))
    }
}

impl Node<'_> {
    fn number<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Self::Number(number) = &self else { return Err(self.mismatch(&visitor)) };
        match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(number), _, _) => visitor.visit_u64(number),
            (None, Some(number), _) => visitor.visit_i64(number),
            (None, None, number) => visitor.visit_f64(number.unwrap_or(f64::NAN)),
        }
    }

    fn text<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Node::Text(text) => visitor.visit_string(text.into_owned()),
            other => Err(other.mismatch(&visitor)),
        }
    }

    fn list<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Node::List(list) = self else { return Err(self.mismatch(&visitor)) };
        let mut items = Items(list.into_iter());
        let value = visitor.visit_seq(&mut items)?;
        match items.0.len() {
            0 => Ok(value),
            more => Err(Error::custom(format_args!("{more} items too many"))),
        }
    }

    fn table<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Node::Table(table) = self else { return Err(self.mismatch(&visitor)) };
        visitor.visit_map(Entries { rest: table.into_iter(), value: None })
    }

    /// In the words of serde: what was found, and what was expected.
    fn mismatch(&self, expected: &dyn serde::de::Expected) -> Error {
        let found = match self {
            Node::Null => Unexpected::Other("null"),
            Node::Flag(flag) => Unexpected::Bool(*flag),
            Node::Number(number) => match number.as_u64() {
                Some(number) => Unexpected::Unsigned(number),
                None => Unexpected::Other("number"),
            },
            Node::Text(text) => Unexpected::Str(text),
            Node::List(_) => Unexpected::Seq,
            Node::Table(_) => Unexpected::Map,
        };
        Error::invalid_type(found, expected)
    }
}

/// One method of a deserializer for each form that is asked for.
macro_rules! read_as {
    ($($form:ident: $($method:ident)*;)*) => { $($(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.$form(visitor)
        }
    )*)* };
}

impl<'de> Deserializer<'de> for Node<'_> {
    type Error = Error;

    read_as! {
        number: deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_i8
            deserialize_i16 deserialize_i32 deserialize_i64 deserialize_f32 deserialize_f64;
        text: deserialize_str deserialize_string deserialize_char;
        list: deserialize_seq;
        table: deserialize_map;
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Node::Null => visitor.visit_unit(),
            Node::Flag(flag) => visitor.visit_bool(flag),
            Node::Number(_) => self.number(visitor),
            Node::Text(_) => self.text(visitor),
            Node::List(_) => self.list(visitor),
            Node::Table(_) => self.table(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Node::Flag(flag) => visitor.visit_bool(flag),
            other => Err(other.mismatch(&visitor)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Node::Null => visitor.visit_none(),
            some => visitor.visit_some(some),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Node::Null => visitor.visit_unit(),
            other => Err(other.mismatch(&visitor)),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.list(visitor)
    }

    /// A struct is a table: never a list of its fields' values, as serde_json has it besides.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.table(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self {
            Node::Text(word) => visitor.visit_enum(Variant { word: word.into_owned(), of: None }),
            Node::Table(table) => {
                let mut entries = table.into_iter();
                let (Some((word, of)), None) = (entries.next(), entries.next()) else {
                    return Err(Error::custom("expected a table with one key"));
                };
                visitor.visit_enum(Variant { word: word.into_owned(), of: Some(of) })
            }
            other => Err(other.mismatch(&visitor)),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        i128 u128 bytes byte_buf unit_struct tuple_struct identifier
    }
}

/// The items of a list.
struct Items<'a>(vec::IntoIter<Node<'a>>);

impl<'de> SeqAccess<'de> for &mut Items<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        self.0.next().map(|item| seed.deserialize(item)).transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

/// The entries of a table.
struct Entries<'a> {
    rest: vec::IntoIter<(Cow<'a, str>, Node<'a>)>,
    /// The key that was read last, and its value.
    value: Option<(String, Node<'a>)>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let Some((key, value)) = self.rest.next() else { return Ok(None) };
        let key = key.into_owned();
        self.value = Some((key.clone(), value));
        seed.deserialize(Name(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Some((key, value)) = self.value.take() else {
            return Err(Error::custom("a value was asked for before its key"));
        };
        seed.deserialize(value).map_err(|error| inside(&key, &error))
    }
}

/// Says in which field something is wrong, where serde names none.
fn inside(key: &str, error: &Error) -> Error {
    Error::custom(format_args!("`{key}`: {error}"))
}

/// A key, as text or as the number that it spells.
struct Name(String);

impl Name {
    fn number<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match (self.0.parse(), self.0.parse()) {
            (Ok(number), _) => visitor.visit_u64(number),
            (Err(_), Ok(number)) => visitor.visit_i64(number),
            (Err(_), Err(_)) => Err(Error::invalid_type(Unexpected::Str(&self.0), &visitor)),
        }
    }

    fn text<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_string(self.0)
    }
}

impl<'de> Deserializer<'de> for Name {
    type Error = Error;

    read_as! {
        number: deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_i8
            deserialize_i16 deserialize_i32 deserialize_i64;
        text: deserialize_any deserialize_str deserialize_string deserialize_char
            deserialize_identifier deserialize_ignored_any;
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_enum(Variant { word: self.0, of: None })
    }

    forward_to_deserialize_any! {
        bool i128 u128 f32 f64 bytes byte_buf option unit unit_struct seq tuple tuple_struct map
        struct
    }
}

/// A variant of an enum: its word alone, or with what it holds.
struct Variant<'a> {
    word: String,
    of: Option<Node<'a>>,
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(mut self, seed: V) -> Result<(V::Value, Self), Error> {
        let word = std::mem::take(&mut self.word);
        Ok((seed.deserialize(Name(word))?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        match self.of {
            None | Some(Node::Null) => Ok(()),
            Some(other) => Err(other.mismatch(&"a variant that holds nothing")),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self.of.unwrap_or(Node::Null))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.of.unwrap_or(Node::Null).list(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.of.unwrap_or(Node::Null).table(visitor)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Thing {
        name: String,
        #[serde(default)]
        size: Option<u32>,
        kind: Kind,
        #[serde(default)]
        by_number: BTreeMap<u64, Vec<i8>>,
        #[serde(default)]
        by_day: BTreeMap<i64, u32>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Kind {
        Plain,
        Pair(u8, bool),
        With { text: String },
        Of(Box<Self>),
    }

    #[test]
    fn every_form_is_read_as_serde_json_reads_it() {
        for text in [
            r#"{"name":"a","kind":"plain"}"#,
            r#"{"name":"\u00e9\n","size":null,"kind":{"pair":[7,true]},"extra":[1,{"x":null}]}"#,
            r#"{"name":"","size":4294967295,"kind":{"with":{"text":"t"}},"by_number":{"3":[-1,2]}}"#,
            r#"{"name":"a","kind":{"of":{"of":"plain"}},"by_number":{"18446744073709551615":[]}}"#,
            r#"{"name":"a","kind":"plain","by_day":{"20778":1,"-3":2,"-9223372036854775808":3}}"#,
        ] {
            let ours: Thing = read(text.as_bytes()).expect(text);
            assert_eq!(ours, serde_json::from_str::<Thing>(text).expect(text));
        }
        let any = r#"{"a":[1,-2,1.5,"x",true,null,{}]}"#;
        let ours: Value = read(any.as_bytes()).expect("a value");
        assert_eq!(ours, serde_json::from_str::<Value>(any).expect("a value"));
    }

    #[test]
    fn what_has_another_form_is_refused_and_the_field_named() {
        for (text, named) in [
            (r#"{"name":1,"kind":"plain"}"#, "`name`: invalid type"),
            (r#"{"name":"a","size":-1,"kind":"plain"}"#, "`size`"),
            (r#"{"name":"a","size":4294967296,"kind":"plain"}"#, "`size`"),
            (r#"{"name":"a","size":1.5,"kind":"plain"}"#, "`size`"),
            (r#"{"name":"a","kind":"round"}"#, "`kind`: unknown variant `round`"),
            (r#"{"name":"a","kind":{"pair":[1]}}"#, "`kind`"),
            (r#"{"name":"a","kind":{"pair":[1,true,2]}}"#, "`kind`"),
            (r#"{"name":"a","kind":{"plain":1}}"#, "`kind`"),
            (r#"{"name":"a","kind":{"plain":null,"of":1}}"#, "`kind`"),
            (r#"{"name":"a","kind":"plain","by_number":{"x":[]}}"#, "`by_number`"),
            (r#"{"name":"a","kind":"plain","by_number":{"-1":[]}}"#, "`by_number`"),
            (r#"{"name":"a","kind":"plain","by_day":{"9223372036854775808":1}}"#, "`by_day`"),
            (r#"{"kind":"plain"}"#, "missing field `name`"),
            (r#"["a",null,"plain"]"#, "invalid type: sequence"),
        ] {
            let error = read::<Thing>(text.as_bytes()).expect_err(text).to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
    }

    #[test]
    fn a_key_that_occurs_twice_is_refused_in_small_and_large_tables() {
        let twice = r#"{"name":"a","kind":"plain","name":"b"}"#;
        assert!(read::<Thing>(twice.as_bytes()).is_err());
        assert!(read::<Value>(br#"[{"a":1,"\u0061":2}]"#).is_err());
        let many = |last: usize| {
            let fields: Vec<String> =
                (0..40).chain([last]).map(|n| format!("\"k{n}\":{n}")).collect();
            format!("{{{}}}", fields.join(","))
        };
        assert!(read::<Value>(many(40).as_bytes()).is_ok());
        for last in [0, FEW - 1, FEW, 39] {
            assert!(read::<Value>(many(last).as_bytes()).is_err(), "{last}");
        }
    }

    #[test]
    fn floods_depth_and_trailing_bytes_are_refused() {
        let flood = format!("[{}0]", "0,".repeat(VALUES));
        assert!(read::<Value>(flood.as_bytes()).is_err());
        let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
        assert!(read::<Value>(&deep).is_err());
        assert!(read::<Value>(b"{} {}").is_err());
        assert!(read::<Value>(b"\"\xff\"").is_err());
    }

    #[test]
    fn what_is_written_is_read_again() {
        let value = json!({"b": [1, {"c": null}], "a": "x"});
        for bytes in [write(&value).expect("written"), write_pretty(&value).expect("written")] {
            assert_eq!(read::<Value>(&bytes).expect("read"), value);
        }
    }
}
