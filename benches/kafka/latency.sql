-- The latency benchmark: every event, as it arrives first, beside its customer, into a topic with a record per event.
--
--   deltaworks run benches/kafka/latency.sql --set BROKERS=localhost:9092 --workers 1

CREATE TABLE event (
  event_id     STRING,
  customer_id  STRING,
  event_type   STRING,
  event_ts     BIGINT,
  PRIMARY KEY (event_id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic' = 'latency_event',
  'properties.bootstrap.servers' = '${BROKERS:-localhost:9092}',
  'properties.fetch.wait.max.ms' = '5',
  'scan.startup.mode' = 'latest-offset',
  'format' = 'json',
  'table.merge-engine' = 'first_row'
);

CREATE TABLE customer (
  customer_id  STRING,
  segment      STRING,
  PRIMARY KEY (customer_id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic' = 'latency_customer',
  'properties.bootstrap.servers' = '${BROKERS:-localhost:9092}',
  'format' = 'json'
);

CREATE TABLE mart (
  event_id     STRING,
  customer_id  STRING,
  event_type   STRING,
  segment      STRING,
  PRIMARY KEY (event_id) NOT ENFORCED
) WITH (
  'connector' = 'upsert-kafka',
  'topic' = 'latency_mart',
  'properties.bootstrap.servers' = '${BROKERS:-localhost:9092}',
  'properties.linger.ms' = '1',
  'key.format' = 'json',
  'value.format' = 'json'
);

INSERT INTO mart
SELECT e.event_id, e.customer_id, e.event_type, c.segment
FROM event AS e
LEFT JOIN customer AS c ON c.customer_id = e.customer_id;
