-- The first-touch benchmark over plain files of JSON lines, as they are: merged by the times in them, campaigns first. The query
-- is that of job.sql.
--
--   deltaworks run benches/first_touch/job_files.sql --set DATA=DIR --set OUT=DIR --workers 1

-- A second version of an event_id is ignored; deletes are too, as is the default of first_row.
CREATE TABLE event (
  event_id     STRING,
  customer_id  STRING,
  event_type   STRING,
  campaign_id  STRING,
  event_ts     BIGINT,
  PRIMARY KEY (event_id) NOT ENFORCED
) WITH (
  'connector' = 'filesystem',
  'path' = '${DATA}/event.ndjson',
  'format' = 'json',
  'scan.timestamp-column' = 'event_ts',
  'table.merge-engine' = 'first_row'
);

CREATE TABLE sale_order (
  order_id      STRING,
  customer_id   STRING,
  total_amount  DECIMAL(10, 2),
  order_ts      BIGINT,
  PRIMARY KEY (order_id) NOT ENFORCED
) WITH (
  'connector' = 'filesystem',
  'path' = '${DATA}/sale_order.ndjson',
  'format' = 'json',
  'scan.timestamp-column' = 'order_ts'
);

CREATE TABLE customer (
  customer_id          STRING,
  email                STRING,
  phone                STRING,
  segment              STRING,
  acquisition_channel  STRING,
  country              STRING,
  opt_in               BOOLEAN,
  last_purchase_ts     BIGINT,
  PRIMARY KEY (customer_id) NOT ENFORCED
) WITH (
  'connector' = 'filesystem',
  'path' = '${DATA}/customer.ndjson',
  'format' = 'json',
  'scan.timestamp-column' = 'last_purchase_ts'
);

CREATE TABLE campaign (
  id    INT,
  name  STRING,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'filesystem',
  'path' = '${DATA}/campaign.ndjson',
  'format' = 'json'
);

-- Of two events at the same millisecond the smaller event_id is the first. An order without an event stays, with NULLs.
CREATE VIEW order_first_touch AS
SELECT order_id, customer_id, total_amount, order_ts, event_id, event_type, campaign_id, event_ts
FROM (
  SELECT
    o.order_id, o.customer_id, o.total_amount, o.order_ts,
    e.event_id, e.event_type, e.campaign_id, e.event_ts,
    ROW_NUMBER() OVER (PARTITION BY o.order_id ORDER BY e.event_ts, e.event_id) AS touch
  FROM sale_order AS o
  LEFT JOIN event AS e
    ON e.customer_id = o.customer_id
    AND e.event_ts BETWEEN o.order_ts - 604800000 AND o.order_ts
) AS touches
WHERE touch = 1;

CREATE TABLE mart (
  order_id             STRING,
  customer_id          STRING,
  order_ts             BIGINT,
  cents                BIGINT,
  segment              STRING,
  acquisition_channel  STRING,
  event_id             STRING,
  event_ts             BIGINT,
  event_type           STRING,
  campaign_name        STRING,
  delta                BIGINT,
  PRIMARY KEY (order_id) NOT ENFORCED
) WITH (
  'connector' = 'filesystem',
  'path' = '${OUT:-out}/mart.jsonl',
  'format' = 'changelog-json'
);

INSERT INTO mart
SELECT
  t.order_id,
  t.customer_id,
  t.order_ts,
  CAST(t.total_amount * 100 AS BIGINT) AS cents,
  c.segment,
  c.acquisition_channel,
  t.event_id,
  t.event_ts,
  t.event_type,
  k.name AS campaign_name,
  t.order_ts - t.event_ts AS delta
FROM order_first_touch AS t
LEFT JOIN customer AS c ON c.customer_id = t.customer_id
LEFT JOIN campaign AS k ON k.id = CAST(t.campaign_id AS INT);
