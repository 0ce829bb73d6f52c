-- First-touch attribution: for each order, the event that brought its customer in.
--
-- bronze   the four topics as tables
-- silver   the first touch of every order; the first event of every customer
-- gold     mart_order_first_touch         exact: always the answer a query over all that has arrived would give
--          mart_order_first_touch_frozen  as of arrival: decided when the order arrives, never revised
--
-- All times in the topics are epoch milliseconds. 604800000 ms are the 7 days; both ends of the window count.

-- BRONZE

-- An event is what it was when it first arrived: a second version of an event_id is ignored, redelivered or not.
-- Deletes are allowed (an event that is withdrawn leaves the table), which first_row would otherwise ignore.
CREATE TABLE event (
  event_id     STRING,
  customer_id  STRING,
  event_type   STRING,
  campaign_id  STRING,
  event_ts     BIGINT,
  arrived_at   TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL,
  PRIMARY KEY (event_id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic' = 'event',
  'properties.bootstrap.servers' = '${BROKERS:-localhost:9092}',
  'format' = 'json',
  'table.merge-engine' = 'first_row',
  'table.delete.behavior' = 'allow'
);

CREATE TABLE sale_order (
  order_id      STRING,
  customer_id   STRING,
  total_amount  DECIMAL(10, 2),
  order_ts      BIGINT,
  PRIMARY KEY (order_id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic' = 'sale_order',
  'properties.bootstrap.servers' = '${BROKERS:-localhost:9092}',
  'format' = 'json'
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
  'connector' = 'kafka',
  'topic' = 'customer',
  'properties.bootstrap.servers' = '${BROKERS:-localhost:9092}',
  'format' = 'json'
);

CREATE TABLE campaign (
  id    INT,
  name  STRING,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic' = 'campaign',
  'properties.bootstrap.servers' = '${BROKERS:-localhost:9092}',
  'format' = 'json'
);

-- SILVER

-- Every order with the earliest event of its customer in the 7 days up to it. Of two events at the same millisecond the
-- smaller event_id is the first. An order without such an event stays, with NULLs.
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

-- The first event of each customer, by arrival. Rows of one tick are taken in row order, so arrived_at stands right behind
-- the key. Deletes are ignored, as is first_row's default: what was first by arrival stays first.
CREATE TABLE customer_first_event (
  customer_id  STRING,
  arrived_at   TIMESTAMP_LTZ(3),
  event_id     STRING,
  event_type   STRING,
  campaign_id  STRING,
  event_ts     BIGINT,
  PRIMARY KEY (customer_id) NOT ENFORCED
) WITH ('table.merge-engine' = 'first_row');

INSERT INTO customer_first_event
SELECT customer_id, arrived_at, event_id, event_type, campaign_id, event_ts
FROM event
WHERE customer_id IS NOT NULL;

-- Customer and first event together. Both sides are tables keyed by customer_id, so the delta join needs no state of its own.
CREATE TABLE customer_first_touch (
  customer_id          STRING,
  segment              STRING,
  acquisition_channel  STRING,
  event_id             STRING,
  event_type           STRING,
  campaign_id          STRING,
  event_ts             BIGINT,
  PRIMARY KEY (customer_id) NOT ENFORCED
) WITH ('table.merge-engine' = 'last_row');

INSERT INTO customer_first_touch
SELECT /*+ DELTA_JOIN */
  c.customer_id, c.segment, c.acquisition_channel, f.event_id, f.event_type, f.campaign_id, f.event_ts
FROM customer AS c
JOIN customer_first_event AS f ON f.customer_id = c.customer_id;

-- GOLD

-- Exact. A late or withdrawn event, and a late, changed or deleted order, customer or campaign, revises it.
CREATE MATERIALIZED TABLE mart_order_first_touch
FRESHNESS = INTERVAL '1' MINUTE
AS
SELECT
  t.order_id,
  t.customer_id,
  CAST(TO_TIMESTAMP_LTZ(t.order_ts, 3) AS TIMESTAMP(3)) AS order_timestamp,
  t.total_amount,
  c.segment AS customer_segment,
  c.acquisition_channel AS customer_acquisition_channel,
  t.event_id AS first_touch_event_id,
  CAST(TO_TIMESTAMP_LTZ(t.event_ts, 3) AS TIMESTAMP(3)) AS first_touch_timestamp,
  t.event_type AS first_touch_event_type,
  k.name AS first_touch_campaign_name,
  CAST(TO_TIMESTAMP_LTZ(t.order_ts, 3) AS TIMESTAMP(3)) - CAST(TO_TIMESTAMP_LTZ(t.event_ts, 3) AS TIMESTAMP(3))
    AS delta_first_touch_to_order,
  WRITE_TIMESTAMP() AS _tech_write_ts
FROM order_first_touch AS t
LEFT JOIN customer AS c ON c.customer_id = t.customer_id
LEFT JOIN campaign AS k ON k.id = CAST(t.campaign_id AS INT);

-- Frozen. An order looks up its customer's first touch when it arrives and keeps it if it lies in the 7 days before the
-- order. What arrives afterwards changes nothing; only a change of the order itself looks up again.
CREATE TABLE mart_order_first_touch_frozen (
  order_id                      STRING,
  customer_id                   STRING,
  order_timestamp               TIMESTAMP(3),
  total_amount                  DECIMAL(10, 2),
  customer_segment              STRING,
  customer_acquisition_channel  STRING,
  first_touch_event_id          STRING,
  first_touch_timestamp         TIMESTAMP(3),
  first_touch_event_type        STRING,
  first_touch_campaign_name     STRING,
  delta_first_touch_to_order    INTERVAL DAY TO SECOND,
  _tech_write_ts                TIMESTAMP_LTZ(3),
  PRIMARY KEY (order_id) NOT ENFORCED
) WITH ('table.merge-engine' = 'last_row');

INSERT INTO mart_order_first_touch_frozen
SELECT
  t.order_id,
  t.customer_id,
  CAST(TO_TIMESTAMP_LTZ(t.order_ts, 3) AS TIMESTAMP(3)) AS order_timestamp,
  t.total_amount,
  t.segment,
  t.acquisition_channel,
  t.event_id,
  CAST(TO_TIMESTAMP_LTZ(t.event_ts, 3) AS TIMESTAMP(3)) AS first_touch_timestamp,
  t.event_type,
  k.name,
  CAST(TO_TIMESTAMP_LTZ(t.order_ts, 3) AS TIMESTAMP(3)) - CAST(TO_TIMESTAMP_LTZ(t.event_ts, 3) AS TIMESTAMP(3))
    AS delta_first_touch_to_order,
  WRITE_TIMESTAMP() AS _tech_write_ts
FROM (
  SELECT
    o.order_id, o.customer_id, o.total_amount, o.order_ts, f.segment, f.acquisition_channel,
    CASE WHEN f.event_ts BETWEEN o.order_ts - 604800000 AND o.order_ts THEN f.event_id END AS event_id,
    CASE WHEN f.event_ts BETWEEN o.order_ts - 604800000 AND o.order_ts THEN f.event_type END AS event_type,
    CASE WHEN f.event_ts BETWEEN o.order_ts - 604800000 AND o.order_ts THEN CAST(f.campaign_id AS INT) END AS campaign_id,
    CASE WHEN f.event_ts BETWEEN o.order_ts - 604800000 AND o.order_ts THEN f.event_ts END AS event_ts
  FROM sale_order AS o
  LEFT JOIN customer_first_touch FOR SYSTEM_TIME AS OF PROCTIME() AS f ON f.customer_id = o.customer_id
) AS t
LEFT JOIN campaign FOR SYSTEM_TIME AS OF PROCTIME() AS k ON k.id = t.campaign_id;

-- Both marts leave as changelogs: to topics, and while a recording is replayed to files.
CREATE TABLE sink_order_first_touch (
  order_id                      STRING,
  customer_id                   STRING,
  order_timestamp               TIMESTAMP(3),
  total_amount                  DECIMAL(10, 2),
  customer_segment              STRING,
  customer_acquisition_channel  STRING,
  first_touch_event_id          STRING,
  first_touch_timestamp         TIMESTAMP(3),
  first_touch_event_type        STRING,
  first_touch_campaign_name     STRING,
  delta_first_touch_to_order    INTERVAL DAY TO SECOND,
  _tech_write_ts                TIMESTAMP_LTZ(3),
  PRIMARY KEY (order_id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic' = 'mart_order_first_touch',
  'properties.bootstrap.servers' = '${BROKERS:-localhost:9092}',
  'format' = 'changelog-json',
  'sink.replay.path' = '${OUT:-out}/mart_order_first_touch.jsonl'
);

CREATE TABLE sink_order_first_touch_frozen (
  order_id                      STRING,
  customer_id                   STRING,
  order_timestamp               TIMESTAMP(3),
  total_amount                  DECIMAL(10, 2),
  customer_segment              STRING,
  customer_acquisition_channel  STRING,
  first_touch_event_id          STRING,
  first_touch_timestamp         TIMESTAMP(3),
  first_touch_event_type        STRING,
  first_touch_campaign_name     STRING,
  delta_first_touch_to_order    INTERVAL DAY TO SECOND,
  _tech_write_ts                TIMESTAMP_LTZ(3),
  PRIMARY KEY (order_id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic' = 'mart_order_first_touch_frozen',
  'properties.bootstrap.servers' = '${BROKERS:-localhost:9092}',
  'format' = 'changelog-json',
  'sink.replay.path' = '${OUT:-out}/mart_order_first_touch_frozen.jsonl'
);

INSERT INTO sink_order_first_touch SELECT * FROM mart_order_first_touch;
INSERT INTO sink_order_first_touch_frozen SELECT * FROM mart_order_first_touch_frozen;

-- RESULT

-- For each order, what brought its customer in.
SELECT
  order_id, customer_id, order_timestamp, total_amount,
  first_touch_event_type AS touch, first_touch_campaign_name AS campaign, delta_first_touch_to_order AS before_order
FROM mart_order_first_touch
ORDER BY order_id
LIMIT 20;

-- And what each campaign brought in.
SELECT
  CASE
    WHEN first_touch_event_id IS NULL THEN '(no touch)'
    ELSE COALESCE(first_touch_campaign_name, '(no campaign)')
  END AS campaign,
  COUNT(*) AS orders,
  SUM(total_amount) AS revenue
FROM mart_order_first_touch
GROUP BY 1
ORDER BY revenue DESC, campaign;
