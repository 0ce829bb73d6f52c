//! What options become of a client, and what is said when its brokers do not answer or refuse it.

use super::*;

fn connection(properties: &[(&str, &str)]) -> Result<Connection> {
    let all = properties.iter().map(|(name, value)| (format!("properties.{name}"), (*value).to_owned()));
    Connection::from_options(&Options::new(all))
}

#[test]
fn properties_keep_their_names_or_get_those_of_librdkafka() {
    let jaas = "org.apache.kafka.common.security.scram.ScramLoginModule required username=\"u\" password=\"p=q;'\";";
    let all = [
        ("bootstrap.servers", "a:1,b:2"),
        ("group.id", "g"),
        ("sasl.jaas.config", jaas),
        ("ssl.truststore.location", "/ca.pem"),
        ("ssl.truststore.type", "PEM"),
        ("max.request.size", "7"),
        ("ssl.endpoint.identification.algorithm", ""),
        ("enable.auto.commit", "false"),
    ];
    let connection = connection(&all).expect("a connection");
    assert_eq!((connection.brokers(), connection.group()), ("a:1,b:2", Some("g")));
    let expected = [
        ("sasl.username", Some("u")),
        ("sasl.password", Some("p=q;'")),
        ("ssl.ca.location", Some("/ca.pem")),
        ("ssl.truststore.type", None),
        ("message.max.bytes", Some("7")),
        ("ssl.endpoint.identification.algorithm", Some("none")),
        ("sasl.jaas.config", None),
    ];
    for (name, value) in expected {
        assert_eq!(connection.get(name), value, "{name}");
    }
    assert_eq!(connection.producer_config().get("group.id"), None);
    assert_eq!(connection.consumer_config().get("enable.partition.eof"), Some("true"));
    let shown = format!("{connection:?}");
    assert!(shown.contains("a:1,b:2") && !shown.contains("p=q"), "{shown}");
}
#[test]
fn what_cannot_be_is_said_without_secrets() {
    let none = connection(&[]).expect_err("no brokers");
    assert!(none.to_string().starts_with("missing option \"properties.bootstrap.servers\""), "{none}");
    let krb = connection(&[("bootstrap.servers", "a"), ("sasl.jaas.config", "Krb5LoginModule password=\"hush\"")]);
    let krb = krb.expect_err("no such module").to_string();
    assert_eq!(krb, "invalid value \"***\" of option \"properties.sasl.jaas.config\"");
    let commit = connection(&[("bootstrap.servers", "a"), ("enable.auto.commit", "true")]).expect_err("ours");
    assert_eq!(commit.help(), "expected false, which it is without the option too");
    let misspelt = connection(&[("bootstrap.servers", "a"), ("fetch.min.byte", "1")]).expect("checked by the client");
    let made: std::result::Result<BaseConsumer, KafkaError> = misspelt.consumer_config().create();
    let error = misspelt.no_client(&made.err().expect("a property that there is not"));
    assert_eq!(
        error.to_string(),
        "Kafka property \"properties.fetch.min.byte\": no such configuration property: \"fetch.min.byte\""
    );
}
#[test]
fn nobody_at_the_address_is_an_error_within_seconds() {
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let connection = connection(&[("bootstrap.servers", &free.to_string())]).expect("a connection");
    let consumer = connection.consumer_config().create_with_context(Watch::new()).expect("a consumer");
    let error = connect(&connection, &consumer, None).expect_err("nobody is there").to_string();
    assert!(error.starts_with(&format!("could not reach Kafka at \"{free}\": ")), "{error}");
    assert!(error.ends_with("Connection refused"), "{error}");
}
#[test]
fn sasl_needs_no_feature_beside_ssl() {
    for (protocol, mechanism) in [("SASL_SSL", "PLAIN"), ("SASL_PLAINTEXT", "SCRAM-SHA-256"), ("SASL_SSL", "SCRAM-SHA-512")]
    {
        let properties = [
            ("bootstrap.servers", "127.0.0.1:1"),
            ("security.protocol", protocol),
            ("sasl.mechanism", mechanism),
            ("sasl.username", "u"),
            ("sasl.password", "p"),
        ];
        let connection = connection(&properties).expect("a connection");
        let made: std::result::Result<BaseConsumer, KafkaError> = connection.consumer_config().create();
        assert!(made.is_ok(), "{protocol} {mechanism}: {:?}", made.err());
    }
}

#[test]
fn a_login_that_was_cut_off_is_no_refusal() {
    let login = |watch: &Watch, code, reason| {
        watch.error(KafkaError::Global(code), reason);
        watch.login_refused()
    };
    use RDKafkaErrorCode as Code;
    let watch = Watch::new();
    let cut = "b:1/1: SASL PLAIN mechanism handshake failed: Local: Broker transport failure: broker's supported mechanisms: (n/a)";
    assert_eq!(login(&watch, Code::Authentication, cut), None);
    assert_eq!(watch.last_error().as_deref(), Some(cut));
    let wrong = "b:1/1: SASL authentication error: Authentication failed (after 1ms in state AUTH_REQ)";
    assert_eq!(
        login(&watch, Code::Authentication, wrong).as_deref(),
        Some("b:1/1: SASL authentication error: Authentication failed")
    );
    // A certificate is refused at the start; later a broker may go in the middle of it.
    let certificate = "b:1/1: SSL handshake failed: error:0A000086: certificate verify failed";
    assert_eq!(login(&Watch::new(), Code::SSL, certificate).as_deref(), Some(certificate));
    let known = Watch::new();
    known.answered();
    assert_eq!(login(&known, Code::SSL, certificate), None);
}
#[test]
fn the_clients_log_tells_of_topics_made_anew() {
    let watch = Watch::new();
    for line in [
        "[thrd:main]: Topic a changed id from AAAAAAAAAAAAAAAAAAAAAA to lkn1nGCVTJaGTOZiz0lyOQ",
        "[thrd:main]: Topic b changed id from lkn1nGCVTJaGTOZiz0lyOQ to AAAAAAAAAAAAAAAAAAAAAA",
        "[thrd:main]: Topic c [0] Leader 1 Epoch 0",
    ] {
        watch.log(RDKafkaLogLevel::Debug, "METADATA", line);
    }
    assert_eq!(watch.made_anew().into_iter().collect::<Vec<_>>(), ["b"]);
    assert!(watch.made_anew().is_empty());
}
