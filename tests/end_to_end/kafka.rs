//! Jobs against a real Kafka broker: what they read, where they begin and end, and what happens when the broker does not answer.

use std::path::Path;

use rdkafka::Message;

use crate::broker::{Broker, Sender, shared};
use crate::jobs::rows;
use crate::program::{Run, Running, deltaworks, repository, script, shell, wait_for};

const JSON: &str = "'format' = 'json'";
/// So that a job ends.
const BOUNDED: &str = "'format' = 'json', 'scan.bounded.mode' = 'latest-offset'";

/// A table of ids and numbers on a topic.
fn table(broker: &Broker, name: &str, topic: &str, options: &str) -> String {
    let address = broker.address();
    format!(
        "CREATE TABLE {name} (id STRING, n INT, at TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL, PRIMARY KEY (id)) \
         WITH ('connector' = 'kafka', 'topic' = '{topic}', 'properties.bootstrap.servers' = '{address}', {options});\n"
    )
}
/// Sends `id: n` as JSON, the id as key.
fn send(sender: &Sender, topic: &str, partition: i32, id: &str, n: i64) {
    let value = format!("{{\"id\":\"{id}\",\"n\":{n}}}");
    sender.send(topic, partition, Some(n), Some(id.as_bytes()), Some(value.as_bytes()));
}
/// Runs a script that ends by itself; its result sets.
fn ends(sql: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let run = script(folder.path(), sql, &[]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    run.stdout.lines().map(str::to_string).collect()
}
/// A script whose only result set is of these rows.
fn selects(sql: &str, rows: &str) {
    assert_eq!(ends(sql), [rows], "{sql}");
}

#[test]
fn what_is_produced_is_read() {
    let Some(broker) = shared() else { return };
    broker.create_topic("read", 2);
    let sender = broker.producer();
    let large = vec![b'x'; 1 << 20];
    sender.send("read", 1, Some(5), Some(b"k"), None);
    sender.send("read", 0, Some(7), None, Some(&large));
    sender.flush();
    let messages = broker.read("read");
    assert_eq!(messages.len(), 2);
    assert_eq!((messages[0].timestamp().to_millis(), messages[0].payload()), (Some(7), Some(large.as_slice())));
    assert_eq!((messages[1].key(), messages[1].payload(), messages[1].offset()), (Some(b"k".as_slice()), None, 0));
}

/// Runs a job with its clock in its records; everything it writes to files goes to `out`.
fn run_job(out: &Path, job: &str, arguments: &[&str]) {
    let set = format!("OUT={}", out.display());
    let mut all = vec!["run", job, "--set", &set, "--clock", "replay"];
    all.extend(arguments);
    let run = deltaworks(out, &all);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
}

/// The jobs as they are in production: an ordinary producer fills their topics, ordinary consumers read what they write.
#[test]
fn a_job_gives_live_what_its_recording_gives() {
    let Some(broker) = shared() else { return };
    let tables = [
        ("first_touch", &["mart_order_first_touch", "mart_order_first_touch_frozen"][..]),
        (
            "uplift",
            &["dwd_user_campaign_facts", "dws_channel_uplift", "ads_uplift_score", "channel_roi", "campaign_audience"],
        ),
        (
            "customer_360",
            &[
                "dwd_id_mapping",
                "dwd_user_events",
                "dws_user_segment",
                "dws_user_rfm",
                "ads_user_bitmap",
                "ads_audience_package",
            ],
        ),
    ];
    for (name, tables) in tables {
        let job = repository("jobs").join(name);
        broker.produce_recording(&job.join("topics"), |topic| format!("{name}.{topic}"));
        let sql = std::fs::read_to_string(job.join("job.sql")).unwrap();
        let sql = sql.replace("'topic' = '", &format!("'scan.bounded.mode' = 'latest-offset', 'topic' = '{name}."));
        let topics = job.join("topics").display().to_string();
        // Ticks of 20 records decide what the frozen tables hold: the backlog comes in the same order and the same ticks.
        for ticks in ["8192", "20"] {
            let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
            let [live, replayed] = folders.each_ref().map(tempfile::TempDir::path);
            let sink = |table: &str| format!("{name}.{ticks}.{table}");
            let sql = tables.iter().fold(sql.clone(), |sql, table| {
                broker.create_topic(&sink(table), 1);
                sql.replace(&format!("'{name}.{table}'"), &format!("'{}'", sink(table)))
            });
            std::fs::write(live.join("job.sql"), sql).unwrap();
            let brokers = format!("BROKERS={}", broker.address());
            run_job(live, "job.sql", &["--set", &brokers, "--tick-records", ticks]);
            run_job(replayed, job.to_str().unwrap(), &["--replay", &topics, "--tick-records", ticks]);
            for table in tables {
                let file = format!("{table}.jsonl");
                std::fs::write(live.join(&file), broker.lines(&sink(table))).unwrap();
                let [live, replayed] = [live, replayed].map(|folder| written(&folder.join(&file)));
                assert!(!live.is_empty(), "{name} {table}");
                assert_eq!(live, replayed, "{name} {table}, ticks of {ticks}");
            }
        }
        let first = format!("{name}.8192.{}", tables[0]);
        assert_eq!(broker.console(&first), broker.lines(&first));
    }
}
/// The final rows of a changelog, without the time at which they were written.
fn written(path: &Path) -> Vec<String> {
    let bare = |row: String| match row.find(",\"_tech_write_ts\":") {
        Some(at) => format!("{}}}", &row[..at]),
        None => row,
    };
    rows(path).into_iter().map(bare).collect()
}

#[test]
fn tombstones_delete_and_bad_records_are_dead_letters() {
    let Some(broker) = shared() else { return };
    broker.create_topic("letters", 1);
    let sender = broker.producer();
    send(&sender, "letters", 0, "a", 1);
    send(&sender, "letters", 0, "b", 2);
    sender.send("letters", 0, Some(3), Some(b"c"), Some(b"{\"id\":\"c\",\"n\":\"three\"}"));
    sender.send("letters", 0, Some(4), Some(b"a"), None);
    sender.send("letters", 0, Some(5), Some(b"d"), Some(b"no json"));
    sender.flush();
    let letters = "SELECT source, \"partition\", position, field FROM e$errors ORDER BY position";
    let results = ends(&format!("{}SELECT id, n FROM e; {letters}; SHOW SOURCES", table(broker, "e", "letters", BOUNDED)));
    let bad = [("2", "\"n\""), ("4", "null")].map(|(position, field)| {
        format!("{{\"source\":\"letters\",\"partition\":0,\"position\":{position},\"field\":{field}}}")
    });
    assert_eq!(results[..2], ["[{\"id\":\"b\",\"n\":2}]".to_string(), format!("[{}]", bad.join(","))]);
    let source =
        "\"source\":\"letters\",\"partition\":0,\"records\":5,\"next_offset\":5,\"state\":\"ended\",\"lag\":0,\"note\":null";
    assert!(results[2].contains(source), "{}", results[2]);
    let upsert =
        table(broker, "e", "letters", &format!("{BOUNDED}, 'key.format' = 'raw'")).replace("'kafka'", "'upsert-kafka'");
    selects(&format!("{upsert}SELECT id, n FROM e"), "[{\"id\":\"b\",\"n\":2}]");
    let keyless = upsert.replace(", PRIMARY KEY (id)", "");
    let run = script(tempfile::tempdir().unwrap().path(), &keyless, &[]);
    assert!(run.stderr.contains("\"upsert-kafka\" needs a key"), "{}", run.stderr);
}

#[test]
fn reading_begins_and_ends_where_it_is_told_to() {
    let Some(broker) = shared() else { return };
    broker.create_topic("scan", 2);
    let sender = broker.producer();
    for n in 0..6 {
        send(&sender, "scan", 0, &format!("p{n}"), 10 * n + 10);
        send(&sender, "scan", 1, &format!("q{n}"), 10 * n + 15);
    }
    sender.flush();
    let ids = |options: &str| {
        let sql = table(broker, "e", "scan", &format!("{JSON}, {options}"));
        ends(&format!("{sql}SELECT STRING_AGG(id, ' ' ORDER BY id) AS ids, COUNT(*) AS n FROM e")).concat()
    };
    let bounded = "'scan.bounded.mode' = 'latest-offset'";
    let group = "'properties.group.id' = 'scan-group', 'scan.startup.mode' = 'group-offsets'";
    let cases = [
        (bounded.to_string(), "p0 p1 p2 p3 p4 p5 q0 q1 q2 q3 q4 q5"),
        (format!("{bounded}, 'scan.startup.mode' = 'timestamp', 'scan.startup.timestamp-millis' = '45'"), "p4 p5 q3 q4 q5"),
        (
            format!(
                "{bounded}, 'scan.startup.mode' = 'specific-offsets', \
                 'scan.startup.specific-offsets' = 'partition:0,offset:4;partition:1,offset:5'"
            ),
            "p4 p5 q5",
        ),
        ("'scan.bounded.mode' = 'timestamp', 'scan.bounded.timestamp-millis' = '25'".to_string(), "p0 p1 q0"),
        (
            "'scan.bounded.mode' = 'specific-offsets', 'scan.bounded.specific-offsets' = 'partition:0,offset:1;partition:1,offset:2'"
                .to_string(),
            "p0 q0 q1",
        ),
        (format!("{bounded}, 'properties.auto.offset.reset' = 'earliest', {group}"), "p0 p1 p2 p3 p4 p5 q0 q1 q2 q3 q4 q5"),
    ];
    for (options, expected) in cases {
        let n = expected.split(' ').count();
        assert_eq!(ids(&options), format!("[{{\"ids\":\"{expected}\",\"n\":{n}}}]"), "{options}");
    }
    // The run before committed how far it came.
    assert_eq!(ids(&format!("{bounded}, {group}")), "[{\"ids\":null,\"n\":0}]");
    assert_eq!(ids(&format!("{bounded}, 'scan.startup.mode' = 'latest-offset'")), "[{\"ids\":null,\"n\":0}]");
    let unknown = "'scan.startup.mode' = 'group-offsets', 'properties.group.id' = 'nobody'";
    fails(
        &table(broker, "e", "scan", &format!("{JSON}, {unknown}")),
        "group \"nobody\" has no committed offset of topic \"scan\"",
    );
}

#[test]
fn several_topics_are_one_table() {
    let Some(broker) = shared() else { return };
    for (n, topic) in ["many-eu", "many-us", "many-asia"].into_iter().enumerate() {
        broker.create_topic(topic, 1);
        let sender = broker.producer();
        send(&sender, topic, 0, topic, n as i64);
        sender.flush();
    }
    let select = "SELECT STRING_AGG(id, ' ' ORDER BY id) AS ids FROM e";
    let list = table(broker, "e", "many-eu;many-us", BOUNDED);
    selects(&format!("{list}{select}"), "[{\"ids\":\"many-eu many-us\"}]");
    let pattern = list.replace("'topic' = 'many-eu;many-us'", "'topic-pattern' = 'many-(eu|asia)'");
    selects(&format!("{pattern}{select}"), "[{\"ids\":\"many-asia many-eu\"}]");
}

/// Runs a script that fails with a message at its table.
fn fails(table: &str, message: &str) -> Run {
    let folder = tempfile::tempdir().unwrap();
    let run = script(folder.path(), &format!("\n{table} SELECT * FROM e"), &[]);
    assert_eq!(run.code, Some(1), "{table}\n{}", run.stderr);
    let error = run.stderr.lines().find(|line| line.starts_with("error: job.sql:2:1: ")).unwrap_or_default();
    assert!(error.contains(message), "{message}\n{}", run.stderr);
    assert!(run.stderr.contains("\n  help: "), "{}", run.stderr);
    run
}

#[test]
fn what_cannot_be_read_fails_with_its_reason() {
    let Some(broker) = shared() else { return };
    broker.create_topic("there", 1);
    let run = fails(&table(broker, "e", "not-there", JSON), "topic \"not-there\" does not exist");
    assert!(run.stderr.contains("there"), "{}", run.stderr);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let nobody = table(broker, "e", "there", JSON).replace(&broker.address(), &free);
    fails(&nobody, "Connection refused");
    fails(&table(broker, "e", "there", &format!("{JSON}, 'properties.fetch.min.byte' = '1'")), "fetch.min.byte");
    let protocol = format!("{JSON}, 'properties.security.protocol' = 'SSL'");
    fails(&table(broker, "e", "there", &protocol), "SSL");
}

#[test]
fn a_login_is_let_in_or_refused() {
    let Some(broker) = shared() else { return };
    broker.create_topic("secret", 1);
    let sender = broker.producer();
    send(&sender, "secret", 0, "a", 1);
    sender.flush();
    for (mechanism, module) in [("PLAIN", "plain.PlainLoginModule"), ("SCRAM-SHA-256", "scram.ScramLoginModule")] {
        let options = |password: &str| {
            format!(
                "{BOUNDED}, 'properties.security.protocol' = 'SASL_PLAINTEXT', 'properties.sasl.mechanism' = '{mechanism}', \
                 'properties.sasl.jaas.config' = 'org.apache.kafka.common.security.{module} required username=\"deltaworks\" \
                 password=\"{password}\";'"
            )
        };
        let sasl = |password: &str| {
            table(broker, "e", "secret", &options(password)).replace(&broker.address(), &broker.sasl_address())
        };
        selects(&format!("{}SELECT id, n FROM e", sasl("tide")), "[{\"id\":\"a\",\"n\":1}]");
        let run = fails(&sasl("hush-hush"), "refused the connection");
        assert!(!run.stderr.contains("hush-hush"), "{}", run.stderr);
    }
}

#[test]
fn tls_wants_certificates_on_both_sides() {
    let Some(broker) = shared() else { return };
    broker.create_topic("tls", 1);
    let sender = broker.producer();
    send(&sender, "tls", 0, "a", 1);
    sender.flush();
    let [trusted, own] = ["ca.pem", "client.p12"].map(|name| broker.file(name).display().to_string());
    let trust = format!("'properties.ssl.truststore.location' = '{trusted}', 'properties.ssl.truststore.type' = 'PEM'");
    let at = |address: &str, options: &str| {
        table(broker, "e", "tls", &format!("{BOUNDED}, {options}")).replace(&broker.address(), address)
    };
    let select = |table: String| selects(&format!("{table}SELECT id, n FROM e"), "[{\"id\":\"a\",\"n\":1}]");
    let mutual = |trust: &str, password: &str| {
        let own = format!("'properties.ssl.keystore.location' = '{own}', 'properties.ssl.keystore.password' = '{password}'");
        at(&broker.tls_address(), &format!("'properties.security.protocol' = 'SSL', {trust}, {own}"))
    };
    select(mutual(&trust, "harbour"));
    fails(&mutual(&trust, "quay"), "ssl.keystore.location");
    // The broker's certificate vouches for itself: no authority of the system knows it.
    fails(&mutual("'properties.ssl.endpoint.identification.algorithm' = ''", "harbour"), "certificate verify failed");
    fails(&at(&broker.tls_address(), &format!("'properties.security.protocol' = 'SSL', {trust}")), "ertificate");
    let plain = "org.apache.kafka.common.security.plain.PlainLoginModule required username=\"deltaworks\"";
    let login = |trust: &str, password: &str| {
        let jaas = format!("'properties.sasl.jaas.config' = '{plain} password=\"{password}\";'");
        let protocol = "'properties.security.protocol' = 'SASL_SSL', 'properties.sasl.mechanism' = 'PLAIN'";
        at(&broker.sasl_tls_address(), &format!("{protocol}, {jaas}, {trust}"))
    };
    select(login(&trust, "tide"));
    fails(&login(&trust, "ebb"), "refused the connection");
    // Plain text to a listener of TLS.
    fails(&at(&broker.tls_address(), JSON).replace(&format!("{BOUNDED}, "), ""), "Kafka");
}

#[test]
fn a_statement_sees_what_had_arrived() {
    let Some(broker) = shared() else { return };
    broker.create_topic("present", 3);
    let sender = broker.producer();
    for n in 0..3000 {
        send(&sender, "present", n % 3, &format!("{n}"), n.into());
    }
    sender.flush();
    // Without an end: a SELECT has what was there, and the shell goes on.
    let folder = tempfile::tempdir().unwrap();
    let create = table(broker, "e", "present", JSON);
    let total = "CREATE DYNAMIC TABLE total AS SELECT COUNT(*) AS n FROM e";
    let run = shell(folder.path(), &format!("{create}\n{total};\nSELECT n FROM total;\nREFRESH total;\nSHOW SOURCES;\n"));
    assert!(run.stdout.contains("[{\"n\":3000}]"), "{}\n{}", run.stdout, run.stderr);
    assert!(run.stdout.contains("\"next_offset\":1000,\"state\":\"reading\",\"lag\":0"), "{}", run.stdout);
}

/// A running count of a topic, written to `total.jsonl`.
fn counting(broker: &Broker, topic: &str, options: &str) -> String {
    format!(
        "{}CREATE TABLE total (one INT, n BIGINT, s BIGINT, PRIMARY KEY (one)) \
         WITH ('connector' = 'filesystem', 'path' = 'total.jsonl', 'format' = 'changelog-json');
         INSERT INTO total SELECT 1, COUNT(*), SUM(n) FROM e;",
        table(broker, "e", topic, options)
    )
}
fn total(n: i64, s: i64) -> String {
    format!("\"n\":{n},\"s\":{s}}}")
}

#[test]
fn a_new_partition_and_a_topic_made_anew_are_read_while_a_job_runs() {
    let Some(broker) = shared() else { return };
    broker.create_topic("grows", 1);
    let sender = broker.producer();
    send(&sender, "grows", 0, "a", 1);
    sender.flush();
    let folder = tempfile::tempdir().unwrap();
    let discovery = "'scan.topic-partition-discovery.interval' = '1 s'";
    let running = Running::start(folder.path(), &counting(broker, "grows", &format!("{JSON}, {discovery}")));
    let out = folder.path().join("total.jsonl");
    wait_for(&out, &total(1, 1));
    broker.grow_topic("grows", 2);
    let sender = broker.producer();
    send(&sender, "grows", 1, "b", 2);
    sender.flush();
    wait_for(&out, &total(2, 3));
    broker.delete_topic("grows");
    wait_for(&folder.path().join("said.txt"), "topic \"grows\" is not there any more");
    broker.create_topic("grows", 2);
    let sender = broker.producer();
    send(&sender, "grows", 0, "c", 4);
    send(&sender, "grows", 1, "d", 8);
    sender.flush();
    wait_for(&out, &total(4, 15));
    let (code, said) = running.stop();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.matches("has a new partition 1").count(), 1, "{said}");
    assert!(said.contains("was made anew"), "{said}");
}

#[test]
fn nothing_is_lost_and_nothing_comes_twice_when_the_broker_crashes() {
    let Some(_) = shared() else { return };
    let Some(broker) = Broker::start() else { return };
    broker.create_topic("crash", 2);
    let folder = tempfile::tempdir().unwrap();
    // Without a key every record is a row: one that came twice would count.
    let sql = counting(&broker, "crash", JSON)
        .replace(", PRIMARY KEY (id)) WITH ('connector' = 'kafka'", ") WITH ('connector' = 'kafka'");
    let sender = broker.producer();
    let mut sum = 0;
    let mut send_some = |from: i64, to: i64| {
        for n in from..to {
            send(&sender, "crash", (n % 2) as i32, &format!("{n}"), n);
            sum += n;
        }
        sender.flush();
        total(to, sum)
    };
    let expected = send_some(0, 20_000);
    let running = Running::start(folder.path(), &sql);
    let out = folder.path().join("total.jsonl");
    wait_for(&out, &expected);
    for round in 1..=2 {
        broker.kill();
        std::thread::sleep(std::time::Duration::from_secs(3));
        broker.restart();
        let expected = send_some(round * 20_000, (round + 1) * 20_000);
        wait_for(&out, &expected);
    }
    let (code, said) = running.stop();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.matches("does not answer").count(), 2, "{said}");
    assert_eq!(said.matches("answers again").count(), 2, "{said}");
}

#[test]
fn large_records_are_read() {
    let Some(broker) = shared() else { return };
    broker.create_topic("large", 1);
    let sender = broker.producer();
    for n in 0..40 {
        let value = format!("{{\"id\":\"{n}\",\"n\":{n},\"pad\":\"{}\"}}", "x".repeat(1 << 20));
        sender.send("large", 0, Some(n), None, Some(value.as_bytes()));
    }
    sender.flush();
    let sql = table(broker, "e", "large", BOUNDED).replace("n INT,", "n INT, pad STRING,");
    selects(&format!("{sql}SELECT COUNT(*) AS n, MIN(LENGTH(pad)) AS least FROM e"), "[{\"n\":40,\"least\":1048576}]");
}
