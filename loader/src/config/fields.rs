//! What a section's type tells about its keys: their names, and which of them are text.

use serde::de::value::{Error, StrDeserializer};
use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, MapAccess, Visitor};
use serde::{Deserializer, forward_to_deserialize_any};

/// The way in which a key is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// As text or a path.
    Text,
    /// As text or a path that may be absent.
    OptionalText,
    /// As anything else.
    Other,
}

/// Returns the field names of a struct, as its derived `Deserialize` announces them; empty for any other type.
pub(super) fn fields_of<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut fields: &'static [&'static str] = &[];
    // It always fails, by design: the names were seen before it did.
    let _ = T::deserialize(Names(&mut fields));
    fields
}

/// Returns how the derived `Deserialize` of a struct reads the field `name`.
pub(super) fn kind_of<T: DeserializeOwned>(name: &'static str) -> Kind {
    let mut kind = Kind::Other;
    // It always fails, by design: the field was asked for before it did.
    let _ = T::deserialize(Probe {
        name,
        kind: &mut kind,
    });
    kind
}

fn done<T>() -> Result<T, Error> {
    Err(Error::custom("only the type is looked at"))
}

/// A deserializer that writes down which fields it is asked for.
struct Names<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Names<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        done()
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        *self.0 = fields;
        done()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// A deserializer, and a map, of one field whose reading it watches.
struct Probe<'a> {
    name: &'static str,
    kind: &'a mut Kind,
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        done()
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_map(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

impl<'de> MapAccess<'de> for Probe<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        seed.deserialize(StrDeserializer::new(self.name)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(Watch {
            kind: self.kind,
            text: Kind::Text,
        })
    }
}

/// A deserializer of the value, which fails once it is clear what is wanted.
struct Watch<'a> {
    kind: &'a mut Kind,
    /// What it is if it is text.
    text: Kind,
}

impl<'de> Deserializer<'de> for Watch<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        done()
    }

    fn deserialize_str<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        *self.kind = self.text;
        done()
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(Watch {
            text: Kind::OptionalText,
            ..self
        })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    #[serde(default)]
    #[derive(Default)]
    #[allow(dead_code)] // only its type is looked at
    struct Section {
        name: String,
        place: PathBuf,
        hint: Option<String>,
        other: Option<PathBuf>,
        number: u64,
        limit: Option<u64>,
        range: [f64; 2],
    }

    #[test]
    fn a_type_tells_its_keys_and_which_are_text() {
        let kinds = fields_of::<Section>()
            .iter()
            .map(|name| kind_of::<Section>(name));
        use Kind::{OptionalText, Other, Text};
        assert_eq!(
            Vec::from_iter(kinds),
            [Text, Text, OptionalText, OptionalText, Other, Other, Other]
        );
        assert_eq!(fields_of::<u64>(), [""; 0]);
        assert_eq!(kind_of::<String>("name"), Other);
    }
}
