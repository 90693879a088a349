//! A number of bytes as a user writes it: `1Mi`, `512Mi`, `1048576`.
//!
//! Kubernetes' `M` is 10^6 and Alluxio's `MB` is 2^20; whoever mixes them splits a cache. So only
//! the units on which both agree are accepted, here and in the schema's rule.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

/// The longest text: 15 digits and a unit, with room; it also bounds the cost of the CEL rules.
pub(crate) const MAX_TEXT: usize = 20;

/// A number of bytes: an integer, or a text of digits with an optional `Ki`, `Mi`, `Gi` or `Ti`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct ByteQuantity(String);

/// Why a text is not a number of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuantityError {
    text: String,
}

impl ByteQuantity {
    /// Keeps the text as it was written; [`Self::bytes`] says whether it is one.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number of bytes.
    pub fn bytes(&self) -> Result<u64, QuantityError> {
        let error = || QuantityError {
            text: self.0.clone(),
        };
        let digits = self
            .0
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(self.0.len());
        let (number, unit) = self.0.split_at(digits);
        let shift = match unit {
            "" => 0,
            "Ki" => 10,
            "Mi" => 20,
            "Gi" => 30,
            "Ti" => 40,
            _ => return Err(error()),
        };
        let number: u64 = number.parse().map_err(|_| error())?;
        number.checked_mul(1 << shift).ok_or_else(error)
    }
}

impl fmt::Display for ByteQuantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for QuantityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is not a number of bytes: write an integer or use the units Ki, Mi, Gi, Ti, \
             such as 1Mi (not 1MB)",
            self.text
        )
    }
}

impl std::error::Error for QuantityError {}

impl<'de> Deserialize<'de> for ByteQuantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IntOrString;

        impl serde::de::Visitor<'_> for IntOrString {
            type Value = ByteQuantity;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes such as 1048576 or 1Mi")
            }

            fn visit_str<E>(self, text: &str) -> Result<ByteQuantity, E> {
                Ok(ByteQuantity(text.to_owned()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<ByteQuantity, E> {
                Ok(ByteQuantity(number.to_string()))
            }

            fn visit_i64<E>(self, number: i64) -> Result<ByteQuantity, E> {
                Ok(ByteQuantity(number.to_string()))
            }
        }

        deserializer.deserialize_any(IntOrString)
    }
}

impl JsonSchema for ByteQuantity {
    fn schema_name() -> Cow<'static, str> {
        "ByteQuantity".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-kubernetes-int-or-string": true, "maxLength": MAX_TEXT })
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use super::*;

    #[test]
    fn binary_units_and_plain_numbers_are_bytes() {
        for (text, bytes) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("64Ki", 65_536),
            ("2Ti", 2 << 40),
        ] {
            assert_eq!(ByteQuantity::new(text).bytes(), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn units_with_two_meanings_are_refused() {
        for text in ["", "1MB", "1M", "1.5Gi", "-1", "Mi", "99999999999Ti"] {
            let error = ByteQuantity::new(text).bytes().unwrap_err().to_string();
            assert!(error.contains("not 1MB"), "{text}: {error}");
        }
    }

    #[test]
    fn a_number_in_yaml_is_read_like_a_text() {
        let number: ByteQuantity = serde_yaml::from_str("1048576").unwrap();
        let text: ByteQuantity = serde_yaml::from_str("1Mi").unwrap();
        assert_eq!(number.bytes(), text.bytes());
    }
}
