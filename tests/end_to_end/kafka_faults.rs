//! What goes wrong around a job that reads and writes Kafka: topics made anew, consumers and producers that come and go, more
//! than can be taken at once. Nothing is lost, nothing comes twice, and what happened is said.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rdkafka::Message;

use crate::broker::{Broker, Sender, shared};
use crate::program::{Running, script, shell, wait_for};

/// A table of numbers without a key on a topic: a record that came twice would count twice.
fn numbers(broker: &Broker, topic: &str, options: &str) -> String {
    format!(
        "CREATE TABLE e (n BIGINT) WITH ('connector' = 'kafka', 'topic' = '{topic}', 'format' = 'json', \
         'properties.bootstrap.servers' = '{}', 'table.retain' = 'none'{options});\n",
        broker.address()
    )
}
/// A count and a sum of them, written to `total.jsonl`.
fn counting(broker: &Broker, topic: &str, options: &str) -> String {
    let sink = "CREATE TABLE total (one INT, n BIGINT, s DECIMAL(38, 0), PRIMARY KEY (one) NOT ENFORCED)
      WITH ('connector' = 'filesystem', 'path' = 'total.jsonl', 'format' = 'changelog-json');
      INSERT INTO total SELECT 1, COUNT(*), SUM(n) FROM e;";
    numbers(broker, topic, options) + sink
}
/// What the sink says of the numbers 1 to `n`.
fn total(n: i64) -> String {
    format!("\"n\":{n},\"s\":{}}}", n * (n + 1) / 2)
}
/// Sends the numbers of a range, spread over partitions, and waits until they are there.
fn send(sender: &Sender, topic: &str, partitions: i64, numbers: std::ops::RangeInclusive<i64>, pad: &str) {
    for n in numbers {
        let value = format!("{{\"n\":{n}{pad}}}");
        sender.send(topic, (n % partitions) as i32, Some(n), None, Some(value.as_bytes()));
    }
    sender.flush();
}
/// What a process has taken of memory at the most, in MiB.
fn peak_mib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}
fn said(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("said.txt")).unwrap()
}

/// The client goes on in the middle of a topic that was made anew with more records than were read of the old one.
#[test]
fn a_topic_made_anew_at_once_is_read_from_its_beginning() {
    let Some(broker) = shared() else { return };
    broker.create_topic("anew", 2);
    let sender = broker.producer();
    send(&sender, "anew", 2, 1..=10, "");
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path(), &counting(broker, "anew", ""));
    let out = folder.path().join("total.jsonl");
    wait_for(&out, &total(10));
    broker.delete_topic("anew");
    broker.create_topic("anew", 2);
    send(&broker.producer(), "anew", 2, 11..=60, "");
    wait_for(&out, &total(60));
    let (code, said) = running.stop();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("topic \"anew\" partition 0 was made anew"), "{said}");
    assert!(said.contains("topic \"anew\" partition 1 was made anew"), "{said}");
    let last = std::fs::read_to_string(&out).unwrap();
    assert!(last.trim_end().ends_with(&format!("{}}}", total(60))), "{last}");
}

/// A group's members share its partitions out; a job reads all of them, whoever else is in its group.
#[test]
fn others_in_the_group_take_nothing_away() {
    let Some(broker) = shared() else { return };
    broker.create_topic("group", 3);
    let sender = broker.producer();
    send(&sender, "group", 3, 1..=30, "");
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path(), &counting(broker, "group", ", 'properties.group.id' = 'shared-by-others'"));
    let out = folder.path().join("total.jsonl");
    wait_for(&out, &total(30));
    let first = broker.member("shared-by-others", "group");
    let second = broker.member("shared-by-others", "group");
    let refused = "warning: group \"shared-by-others\" does not take the offsets up to which its topics are read";
    let mut sent = 30;
    for _ in 0..100 {
        if said(folder.path()).contains(refused) {
            break;
        }
        send(&sender, "group", 3, sent + 1..=sent + 30, "");
        sent += 30;
        std::thread::sleep(Duration::from_millis(500));
        // Whatever they have: what counts is that they are there.
        while first.poll(Duration::from_millis(1)).is_some() || second.poll(Duration::from_millis(1)).is_some() {}
    }
    drop((first, second));
    send(&sender, "group", 3, sent + 1..=sent + 30, "");
    wait_for(&out, &total(sent + 30));
    let (code, said) = running.stop();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.matches(refused).count(), 1, "{said}");
}

/// A job that does not poll for longer than any session lasts is not a member that could be thrown out.
#[test]
fn a_job_that_stood_still_goes_on_where_it_was() {
    let Some(broker) = shared() else { return };
    broker.create_topic("still", 2);
    let sender = broker.producer();
    send(&sender, "still", 2, 1..=1000, "");
    let folder = tempfile::tempdir().unwrap();
    let group = ", 'properties.group.id' = 'still', 'properties.session.timeout.ms' = '6000'";
    let running = Running::start(folder.path(), &counting(broker, "still", group));
    let out = folder.path().join("total.jsonl");
    wait_for(&out, &total(1000));
    running.signal("STOP");
    send(&sender, "still", 2, 1001..=100_000, "");
    std::thread::sleep(Duration::from_secs(8));
    send(&sender, "still", 2, 100_001..=150_000, "");
    running.signal("CONT");
    wait_for(&out, &total(150_000));
    let (code, said) = running.stop();
    assert_eq!(code, Some(0), "{said}");
}

/// What lies there is read in parts: memory does not grow with the backlog.
#[test]
fn a_backlog_of_a_million_records_takes_bounded_memory() {
    let Some(broker) = shared() else { return };
    broker.create_topic("backlog", 4);
    // 480 MB in all; a source holds about 50 MiB.
    let pad = format!(",\"pad\":\"{}\"", "x".repeat(450));
    send(&broker.producer(), "backlog", 4, 1..=1_000_000, &pad);
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path(), &counting(broker, "backlog", ""));
    wait_for(&folder.path().join("total.jsonl"), &total(1_000_000));
    let peak = peak_mib(running.process());
    let (code, said) = running.stop();
    assert_eq!(code, Some(0), "{said}");
    assert!(peak < 300, "{peak} MiB");
    broker.delete_topic("backlog");
}

/// A producer that dies in the middle of a transaction leaves records that never come to be.
#[test]
fn what_a_dead_producer_left_open_is_never_seen() {
    let Some(broker) = shared() else { return };
    broker.create_topic("left-open", 1);
    let sender = broker.producer();
    send(&sender, "left-open", 1, 1..=10, "");
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path(), &counting(broker, "left-open", ""));
    let out = folder.path().join("total.jsonl");
    wait_for(&out, &total(10));
    broker.transaction("dies", "left-open", b"{\"n\":1000000}").die();
    // Behind the open transaction: read once the broker has ended it, as whoever takes its id over makes it do.
    send(&sender, "left-open", 1, 11..=20, "");
    broker.transaction("dies", "left-open", b"{\"n\":21}").commit().unwrap();
    wait_for(&out, &total(21));
    let (code, said) = running.stop();
    assert_eq!(code, Some(0), "{said}");
}

/// A job that is killed while it writes leaves no half of an epoch, and the next run ends with the same rows.
#[test]
fn a_job_killed_while_it_writes_leaves_whole_epochs() {
    let Some(broker) = shared() else { return };
    broker.create_topic("killed-in", 2);
    broker.create_topic("killed-out", 2);
    let sender = broker.producer();
    send(&sender, "killed-in", 2, 1..=50_000, "");
    let sql = numbers(broker, "killed-in", "")
        + &format!(
            "CREATE TABLE s (k BIGINT, n BIGINT, s DECIMAL(38, 0), PRIMARY KEY (k) NOT ENFORCED) WITH ('connector' = 'upsert-kafka',
               'topic' = 'killed-out', 'properties.bootstrap.servers' = '{}', 'key.format' = 'json', 'value.format' = 'json',
               'sink.delivery-guarantee' = 'exactly-once', 'sink.transactional-id-prefix' = 'killed');
             INSERT INTO s SELECT n % 100, COUNT(*), SUM(n) FROM e GROUP BY n % 100;",
            broker.address()
        );
    let read = || {
        let mut rows = BTreeMap::new();
        for message in broker.read("killed-out") {
            let text = |part: Option<&[u8]>| String::from_utf8(part.unwrap().to_vec()).unwrap();
            rows.insert(text(message.key()), text(message.payload()));
        }
        rows
    };
    for round in 0..3 {
        let folder = tempfile::tempdir().unwrap();
        let running = Running::start(folder.path(), &sql);
        std::thread::sleep(Duration::from_millis(700 + 400 * round));
        running.signal("KILL");
    }
    let folder = tempfile::tempdir().unwrap();
    let bounded = sql.replace("'table.retain'", "'scan.bounded.mode' = 'latest-offset', 'table.retain'");
    let run = script(folder.path(), &bounded, &[]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let rows = read();
    assert_eq!(rows.len(), 100);
    for (key, value) in rows {
        let k: i64 = key.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
        let of_key: Vec<i64> = (1..=50_000).filter(|n| n % 100 == k).collect();
        let (n, s) = (of_key.len(), of_key.iter().sum::<i64>());
        assert_eq!(value, format!("{{\"k\":{k},\"n\":{n},\"s\":{s}}}"));
    }
}

/// The last offset of a topic that is written in transactions is a marker and no record: nobody waits for one.
#[test]
fn a_refresh_does_not_wait_for_markers_of_transactions() {
    let Some(broker) = shared() else { return };
    broker.create_topic("markers", 2);
    broker.transaction("markers", "markers", b"{\"n\":1}").commit().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let total = "CREATE DYNAMIC TABLE total AS SELECT COUNT(*) AS n FROM e;";
    let refresh = "REFRESH DYNAMIC TABLE total; SELECT n FROM total;";
    let sql = numbers(broker, "markers", "") + total + "SELECT n FROM total;" + &refresh.repeat(3);
    let run = shell(folder.path(), &sql);
    assert_eq!(run.stdout, "[{\"n\":1}]\n".repeat(4), "{}", run.stderr);
}

/// A topic that is deleted before all of it was read keeps nobody from the others.
#[test]
fn a_topic_that_goes_in_the_middle_of_its_backlog_is_not_waited_for() {
    let Some(broker) = shared() else { return };
    broker.create_topic("stays", 1);
    broker.create_topic("goes", 1);
    let sender = broker.producer();
    send(&sender, "stays", 1, 1..=10, "");
    send(&sender, "goes", 1, 1..=300_000, &format!(",\"pad\":\"{}\"", "x".repeat(200)));
    let folder = tempfile::tempdir().unwrap();
    let other = numbers(broker, "goes", "").replace("TABLE e ", "TABLE g ");
    let sink = "CREATE TABLE count_of_g (one INT, n BIGINT, PRIMARY KEY (one) NOT ENFORCED)
      WITH ('connector' = 'filesystem', 'path' = 'g.jsonl', 'format' = 'changelog-json');
      INSERT INTO count_of_g SELECT 1, COUNT(*) FROM g;";
    let running = Running::start(folder.path(), &(counting(broker, "stays", "") + &other + sink));
    wait_for(&folder.path().join("g.jsonl"), "+I");
    broker.delete_topic("goes");
    wait_for(&folder.path().join("said.txt"), "topic \"goes\" is not there any more");
    send(&sender, "stays", 1, 11..=20, "");
    wait_for(&folder.path().join("total.jsonl"), &total(20));
    let (code, said) = running.stop();
    assert_eq!(code, Some(0), "{said}");
}

/// What a sink did not take is read again by whoever begins at the group's offsets.
#[test]
fn a_group_is_told_what_sinks_have_and_no_more() {
    let Some(broker) = shared() else { return };
    broker.create_topic("told-in", 1);
    broker.create_topic_with("told-out", 1, &[("max.message.bytes", "2000")]);
    let sender = broker.producer();
    send(&sender, "told-in", 1, 1..=50, "");
    let large = format!("{{\"n\":51,\"pad\":\"{}\"}}", "x".repeat(100_000));
    sender.send("told-in", 0, Some(51), None, Some(large.as_bytes()));
    sender.flush();
    let address = format!("'properties.bootstrap.servers' = '{}'", broker.address());
    let sql = format!(
        "CREATE TABLE e (n BIGINT, pad STRING) WITH ('connector' = 'kafka', 'topic' = 'told-in', 'format' = 'json', {address},
           'properties.group.id' = 'told', 'scan.startup.mode' = 'group-offsets', 'properties.auto.offset.reset' = 'earliest',
           'scan.bounded.mode' = 'latest-offset');
         CREATE TABLE o (n BIGINT, pad STRING) WITH ('connector' = 'kafka', 'topic' = 'told-out', 'format' = 'json', {address});
         INSERT INTO o SELECT n, pad FROM e WHERE n <> ${{BUT}};"
    );
    let folder = tempfile::tempdir().unwrap();
    let run = |but: &str| script(folder.path(), &sql, &["--set", &format!("BUT={but}")]);
    let failed = run("0");
    assert_eq!(failed.code, Some(1), "{}", failed.stderr);
    assert!(failed.stderr.contains("MessageSizeTooLarge"), "{}", failed.stderr);
    // Without the large one everything else comes, and a third run has nothing left.
    assert_eq!(run("51").code, Some(0));
    let numbers: std::collections::BTreeSet<String> = broker.lines("told-out").lines().map(str::to_owned).collect();
    assert_eq!(numbers.len(), 50);
    let before = broker.lines("told-out").len();
    assert_eq!(run("51").code, Some(0));
    assert_eq!(broker.lines("told-out").len(), before);
}

/// A bounded source whose end has not come yet is waited for.
#[test]
fn a_select_waits_for_an_end_that_is_still_to_come() {
    let Some(broker) = shared() else { return };
    broker.create_topic("to-come", 1);
    let sender = broker.producer();
    send(&sender, "to-come", 1, 1..=5, "");
    let bounded = ", 'scan.bounded.mode' = 'specific-offsets', 'scan.bounded.specific-offsets' = 'partition:0,offset:10'";
    let sql = numbers(broker, "to-come", bounded) + "SELECT COUNT(*) AS n, SUM(n) AS s FROM e;";
    let folder = tempfile::tempdir().unwrap();
    let run = std::thread::scope(|scope| {
        let run = scope.spawn(|| script(folder.path(), &sql.replace("'table.retain' = 'none', ", ""), &[]));
        std::thread::sleep(Duration::from_secs(2));
        send(&sender, "to-come", 1, 6..=12, "");
        run.join().unwrap()
    });
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), "[{\"n\":10,\"s\":55}]\n"), "{}", run.stderr);
}

/// The group's offset may lie before everything that the topic still holds.
#[test]
fn an_offset_that_retention_took_is_replaced_as_the_table_says() {
    let Some(broker) = shared() else { return };
    broker.create_topic("taken-away", 1);
    send(&broker.producer(), "taken-away", 1, 1..=20, "");
    broker.commit("late", "taken-away", 3);
    broker.delete_before("taken-away", 10);
    let group = "'properties.group.id' = 'late', 'scan.startup.mode' = 'group-offsets'";
    let select = |options: &str| {
        let table = numbers(broker, "taken-away", &format!(", {group}{options}"))
            .replace("'table.retain' = 'none'", "'errors' = 'fail'");
        script(tempfile::tempdir().unwrap().path(), &(table + "SELECT COUNT(*) AS n FROM e;"), &[])
    };
    let bounded = ", 'scan.bounded.mode' = 'latest-offset'";
    let run = select(&format!("{bounded}, 'properties.auto.offset.reset' = 'earliest'"));
    assert_eq!(run.stdout, "[{\"n\":10}]\n", "{}", run.stderr);
    broker.commit("late", "taken-away", 3);
    let run = select(bounded);
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("at offset 3") && run.stderr.contains("auto.offset.reset"), "{}", run.stderr);
}
