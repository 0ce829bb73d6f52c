//! Jobs against a real Kafka broker.

use rdkafka::Message;

use crate::broker::shared;

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
