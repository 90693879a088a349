//! Query parameters, decoded as an ordinary server does: `%XX` is a byte, `+` is a plus. Pure.

use percent_encoding::percent_decode_str;

use crate::failure::Failure;

/// The decoded parameters of one request; of repeated ones the first counts.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(raw: Option<&str>) -> Result<Self, Failure> {
        let pairs = raw.unwrap_or_default().split('&').filter(|p| !p.is_empty());
        let decoded = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        });
        decoded.collect::<Result<_, _>>().map(Self)
    }

    /// The value, where there is one that is not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found
            .map(|(_, value)| value.as_str())
            .filter(|v| !v.is_empty())
    }

    pub(super) fn required(&self, name: &str) -> Result<&str, Failure> {
        self.get(name).ok_or_else(|| {
            Failure::bad_request(format!("the query parameter `{name}` is missing or empty"))
        })
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Failure> {
        let parse = |text: &str| {
            text.parse().map_err(|_| {
                Failure::bad_request(format!(
                    "the query parameter `{name}` is `{text}`, which is not a whole number of at \
                     least 0"
                ))
            })
        };
        self.get(name).map(parse).transpose()
    }

    /// `true` in any case is true, anything else is false, as Java's `Boolean.parseBoolean` has it.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }
}

fn decode(text: &str) -> Result<String, Failure> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| Failure::bad_request(format!("`{text}` is not UTF-8 after percent-decoding")))
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use super::*;

    fn parse(raw: &str) -> Query {
        Query::parse(Some(raw)).unwrap()
    }

    #[test]
    fn values_are_decoded_and_a_plus_stays_a_plus() {
        let query = parse("path=s3%3A%2F%2Fb%2Fa+b%20c%26&x&y=&=z");
        assert_eq!(query.get("path"), Some("s3://b/a+b c&"));
        assert_eq!((query.get("x"), query.get("y")), (None, None));
        assert!(query.required("nothing").is_err());
    }

    #[test]
    fn numbers_and_flags_are_read_as_alluxio_does() {
        let query = parse("n=12&bad=-1&t=TRUE&f=yes");
        assert_eq!(query.number("n").unwrap(), Some(12));
        assert_eq!(query.number("none").unwrap(), None);
        assert!(query.number("bad").unwrap_err().message.contains("`-1`"));
        assert!(query.flag("t") && !query.flag("f"));
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        assert!(Query::parse(Some("path=%ff")).is_err());
    }
}
