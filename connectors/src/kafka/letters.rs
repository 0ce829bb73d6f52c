//! Dead letters to a topic: what `'errors.topic'` means where a table reads one.
//!
//! A letter is the record as it was: its key and value byte for byte, its timestamp, its headers. Behind those it has headers that
//! say where it is from and why it is there:
//!
//! | header | value, as text |
//! |---|---|
//! | `deltaworks.errors.table` | the table that could not take the record |
//! | `deltaworks.errors.topic`, `.partition`, `.offset` | where the record lies |
//! | `deltaworks.errors.timestamp` | its timestamp in milliseconds since 1970, where it has one |
//! | `deltaworks.errors.field` | the field that is to blame, where one is |
//! | `deltaworks.errors.reason` | why it was rejected |
//!
//! *Guarantee*: at least once, as of a sink (`producer.rs`), and by the table's own connection. *State*: letters under way, at most
//! 128 MiB unless `properties.queue.buffering.max.kbytes` says otherwise.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use serde_json::value::RawValue;

use super::client::Connection;
use super::producer::{LAST, Outgoing};
use super::scan::Topics;
use super::sink::Caller;
use crate::decode::DeadLetter;
use crate::error::Result;
use crate::format::json::{Pairs, unquote};
use crate::options::Options;
use crate::record::NO_TIMESTAMP;

/// The option that names the topic.
pub const ERRORS_TOPIC: &str = "errors.topic";
/// What the headers begin with.
const PREFIX: &str = "deltaworks.errors.";
/// Whatever a topic gave, another should take: the limit is the broker's. A record must fit into the client's queue.
const DEFAULTS: &[(&str, &str)] = &[("message.max.bytes", "100000000"), ("queue.buffering.max.kbytes", "131072")];

/// The topic that a table's dead letters go to; None where it names none.
///
/// # Errors
/// No name of one topic; a topic that the table itself reads.
pub fn errors_topic(options: &Options) -> Result<Option<&str>> {
    let Some(topic) = options.get(ERRORS_TOPIC) else { return Ok(None) };
    if topic.is_empty() || topic.contains([';', ',']) {
        return Err(options.invalid(ERRORS_TOPIC, topic, "one topic"));
    }
    if options.get("errors") == Some("fail") {
        let expected = "nothing beside 'errors' = 'fail': the job ends at the first record that cannot be decoded";
        return Err(options.invalid(ERRORS_TOPIC, topic, expected));
    }
    // What is wrong with the topics that it reads is said when they are read.
    if Topics::from_options(options).is_ok_and(|topics| topics.matches(topic)) {
        let expected = "another topic than the table reads: its dead letters would come back to it for ever";
        return Err(options.invalid(ERRORS_TOPIC, topic, expected));
    }
    Ok(Some(topic))
}

/// A topic that takes dead letters.
pub struct KafkaLetters {
    outgoing: Outgoing,
}

impl KafkaLetters {
    /// Opens the topic for writing.
    ///
    /// # Errors
    /// Within seconds: no broker, a refused login, no such topic.
    pub fn open(connection: &Connection, topic: &str, caller: Caller) -> Result<KafkaLetters> {
        Ok(KafkaLetters { outgoing: Outgoing::open(connection, topic, caller, DEFAULTS)? })
    }
    /// Sends a letter of a table, waiting while brokers are away.
    ///
    /// # Errors
    /// A letter that the topic does not take, this or an earlier one.
    pub fn send(&mut self, table: &str, letter: &DeadLetter) -> Result<()> {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to("");
        (record.key, record.payload) = (letter.key.as_deref(), letter.value.as_deref());
        record.timestamp = (letter.record_ts_ms != NO_TIMESTAMP).then_some(letter.record_ts_ms);
        record.headers = Some(headers(table, letter));
        self.outgoing.send_record(record)
    }
    /// Says whether brokers are away, or back.
    ///
    /// # Errors
    /// A letter that was given up.
    pub fn flush(&mut self) -> Result<()> {
        self.outgoing.check()
    }
    /// Returns once every letter is delivered.
    ///
    /// # Errors
    /// A letter that was given up; nothing moves for minutes.
    pub fn finish(&mut self) -> Result<()> {
        self.outgoing.drain(Some(LAST))
    }
}

fn headers(table: &str, letter: &DeadLetter) -> OwnedHeaders {
    let mut headers = OwnedHeaders::new();
    for (name, value) in record_headers(letter.headers.as_deref().unwrap_or("{}")) {
        headers = headers.insert(Header { key: &name, value: value.as_deref() });
    }
    let timestamp = (letter.record_ts_ms != NO_TIMESTAMP).then(|| letter.record_ts_ms.to_string());
    let why = [
        ("table", Some(table.to_owned())),
        ("topic", Some(letter.source.clone())),
        ("partition", Some(letter.partition.to_string())),
        ("offset", Some(letter.position.to_string())),
        ("timestamp", timestamp),
        ("field", letter.field.clone()),
        ("reason", Some(letter.reason.clone())),
    ];
    for (name, value) in why.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        headers = headers.insert(Header { key: &format!("{PREFIX}{name}"), value: Some(&value) });
    }
    headers
}

/// A header's name and value.
type RecordHeader<'a> = (Cow<'a, str>, Option<Cow<'a, [u8]>>);

/// The headers of a record, as they were before they became JSON: in order, with every name as often as it was there. A value that
/// is not UTF-8 stands there as `{"base64":".."}`.
fn record_headers(json: &str) -> Vec<RecordHeader<'_>> {
    let pairs: Pairs<'_> = serde_json::from_str(json).unwrap_or(Pairs(Vec::new()));
    pairs.0.into_iter().map(|(name, value)| (name, header_value(value))).collect()
}
fn header_value(value: &RawValue) -> Option<Cow<'_, [u8]>> {
    let text = value.get();
    let bytes = |text: Cow<'_, str>| Cow::Owned(text.into_owned().into_bytes());
    match text.as_bytes().first() {
        Some(b'n') => None,
        Some(b'"') => Some(unquote(text).map_or(Cow::Borrowed(text.as_bytes()), bytes)),
        Some(b'{') => Some(base64_value(text).map_or(Cow::Borrowed(text.as_bytes()), Cow::Owned)),
        _ => Some(Cow::Borrowed(text.as_bytes())),
    }
}
fn base64_value(text: &str) -> Option<Vec<u8>> {
    let Pairs(pairs) = serde_json::from_str(text).ok()?;
    match &pairs[..] {
        [(name, value)] if name == "base64" => {
            STANDARD.decode(serde_json::from_str::<Cow<'_, str>>(value.get()).ok()?.as_bytes()).ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::message::Headers;

    fn pairs(headers: &OwnedHeaders) -> Vec<(String, Option<Vec<u8>>)> {
        headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
    }
    fn letter(headers: Option<&str>) -> DeadLetter {
        DeadLetter {
            source: "event".to_owned(),
            partition: 3,
            position: 18,
            record_ts_ms: 5,
            headers: headers.map(str::to_owned),
            field: Some("n".to_owned()),
            reason: "why".to_owned(),
            ..DeadLetter::default()
        }
    }
    /// The headers that were the record's own.
    fn check(json: &str, expected: &[(&str, Option<&[u8]>)]) {
        let found = pairs(&headers("t", &letter(Some(json))));
        let own = found.len() - 7;
        let expected: Vec<_> =
            expected.iter().map(|(name, value)| ((*name).to_owned(), value.map(<[u8]>::to_vec))).collect();
        assert_eq!(found[..own], expected, "{json}");
    }

    #[test]
    fn headers_are_headers_again() {
        check("{}", &[]);
        check(
            r#"{"a":"1","b":null,"a":"2","a":""}"#,
            &[("a", Some(b"1")), ("b", None), ("a", Some(b"2")), ("a", Some(b""))],
        );
        check(r#"{"é\n":"\"ü\"\u0000"}"#, &[("é\n", Some("\"ü\"\0".as_bytes()))]);
        check(r#"{"trace":{"base64":"/wA="},"none":{"base64":""}}"#, &[("trace", Some(b"\xFF\0")), ("none", Some(b""))]);
        // What a recording may hold beside: as it stands.
        check(
            r#"{"a":17,"b":{"c":"d"},"c":{"base64":"?"}}"#,
            &[("a", Some(b"17")), ("b", Some(br#"{"c":"d"}"#)), ("c", Some(br#"{"base64":"?"}"#))],
        );
    }
    #[test]
    fn a_letter_says_where_it_is_from_and_why() {
        let expected = [
            ("table", "t"),
            ("topic", "event"),
            ("partition", "3"),
            ("offset", "18"),
            ("timestamp", "5"),
            ("field", "n"),
            ("reason", "why"),
        ]
        .map(|(name, value)| (format!("deltaworks.errors.{name}"), Some(value.as_bytes().to_vec())));
        assert_eq!(pairs(&headers("t", &letter(None))), expected);
        let bare = DeadLetter { record_ts_ms: NO_TIMESTAMP, field: None, ..letter(None) };
        assert_eq!(pairs(&headers("t", &bare)).len(), 5);
    }
    #[test]
    fn a_topic_that_cannot_be_is_refused() {
        let check = |topic: (&str, &str), errors: (&str, &str), expected: &str| {
            let options = Options::new([("connector", "kafka"), topic, errors, (ERRORS_TOPIC, "dead")]);
            match errors_topic(&options) {
                Ok(topic) => assert_eq!(topic, Some(expected)),
                Err(error) => assert!(error.help().contains(expected), "{}", error.help()),
            }
        };
        check(("topic", "event"), ("format", "json"), "dead");
        check(("topic", "event; dead"), ("format", "json"), "another topic than the table reads");
        check(("topic-pattern", "de.*"), ("format", "json"), "another topic than the table reads");
        check(("topic", "event"), ("errors", "fail"), "nothing beside 'errors' = 'fail'");
        for topic in ["", "a;b", "a,b"] {
            assert!(errors_topic(&Options::new([(ERRORS_TOPIC, topic)])).is_err(), "{topic}");
        }
        assert_eq!(errors_topic(&Options::new([("topic", "t")])).expect("none"), None);
    }
}
