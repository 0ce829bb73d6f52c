-- Customer 360: one customer out of members, devices and cards; how good a customer that is today; and whom to write to.
--
-- ods   crm_members, app_events, retail_orders: the topics as tables
-- dwd   dwd_id_mapping         every known id and whose it is, kept by a continuous MERGE
--       dwd_user_events        every purchase, of app and shop, under one id
-- dws   dws_user_rfm           recency (it moves with the clock), frequency, monetary
--       dws_user_segment       and the segment that follows
-- ads   ads_user_bitmap        a set of customers for each segment, each channel, and high value
--       ads_audience_package   three audiences made of these sets, each exported to a file of ids

-- ODS

-- The members as the shop's database has them: its change stream.
CREATE TABLE crm_members (
  member_id      STRING,
  mobile_hash    STRING,
  email_hash     STRING,
  real_name      STRING,
  gender         STRING,
  birthday       DATE,
  register_date  DATE,
  channel        STRING,
  level          STRING,
  total_points   INT,
  updated_at     TIMESTAMP(3),
  PRIMARY KEY (member_id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic' = 'crm_members',
  'properties.bootstrap.servers' = '${BROKERS:-localhost:9092}',
  'format' = 'debezium-json',
  'debezium-json.timestamp-unit' = 'ms'
);

-- What people do in the app and the mini program. Only a login says who it is, by the hash of the mobile number.
CREATE TABLE app_events (
  event_id     STRING,
  device_id    STRING,
  union_id     STRING,
  mobile_hash  STRING,
  event_type   STRING,
  page_name    STRING,
  item_id      STRING,
  item_price   DECIMAL(10, 2),
  channel      STRING,
  platform     STRING,
  event_time   TIMESTAMP(3),
  session_id   STRING,
  PRIMARY KEY (event_id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic' = 'app_events',
  'properties.bootstrap.servers' = '${BROKERS:-localhost:9092}',
  'format' = 'json'
);

-- Lines of shop orders: of a member who showed the card, of a customer of the web shop, or of nobody known.
CREATE TABLE retail_orders (
  line_id       STRING,
  invoice       STRING,
  stock_code    STRING,
  description   STRING,
  quantity      INT,
  invoice_date  TIMESTAMP(3),
  price         DECIMAL(10, 2),
  customer_id   STRING,
  member_id     STRING,
  country       STRING,
  PRIMARY KEY (line_id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic' = 'retail_orders',
  'properties.bootstrap.servers' = '${BROKERS:-localhost:9092}',
  'format' = 'json'
);

-- DWD

-- MBR017 is ONE017.
CREATE FUNCTION one_id_of(member_id STRING) RETURNS STRING AS 'ONE' || SUBSTR(member_id, 4);

-- What the members and the logins say about ids at this moment. Where two members claim an id it is the older one's.
CREATE VIEW id_link AS
SELECT
  id_type,
  id_value,
  MIN(one_id) AS one_id,
  MIN(source_channel) AS source_channel,
  MAX(confidence) AS confidence,
  MIN(first_seen) AS first_seen,
  MAX(last_seen) AS last_seen
FROM (
  SELECT 'member_id' AS id_type, member_id AS id_value, one_id_of(member_id) AS one_id, 'crm' AS source_channel,
    1.00 AS confidence, CAST(register_date AS TIMESTAMP(3)) AS first_seen, updated_at AS last_seen
  FROM crm_members
  UNION ALL
  SELECT 'mobile_hash', mobile_hash, one_id_of(member_id), 'crm', 1.00, CAST(register_date AS TIMESTAMP(3)), updated_at
  FROM crm_members
  UNION ALL
  SELECT 'email_hash', email_hash, one_id_of(member_id), 'crm', 1.00, CAST(register_date AS TIMESTAMP(3)), updated_at
  FROM crm_members
  UNION ALL
  SELECT 'union_id', e.union_id, one_id_of(c.member_id), e.channel, 0.95, e.event_time AS first_seen, e.event_time AS last_seen
  FROM app_events AS e
  JOIN crm_members AS c ON c.mobile_hash = e.mobile_hash
  UNION ALL
  SELECT 'device_id', e.device_id, one_id_of(c.member_id), e.channel, 0.90, e.event_time AS first_seen, e.event_time AS last_seen
  FROM app_events AS e
  JOIN crm_members AS c ON c.mobile_hash = e.mobile_hash
) AS seen
WHERE id_value IS NOT NULL
GROUP BY id_type, id_value;

-- Once known, an id stays: a MERGE takes what is new or changed and never takes back.
CREATE TABLE dwd_id_mapping (
  id_type         STRING,
  id_value        STRING,
  one_id          STRING,
  source_channel  STRING,
  confidence      DECIMAL(3, 2),
  first_seen      TIMESTAMP(3),
  last_seen       TIMESTAMP(3),
  PRIMARY KEY (id_type, id_value) NOT ENFORCED
);

EXECUTE STATEMENT SET BEGIN
MERGE INTO dwd_id_mapping AS t
USING id_link AS s
ON t.id_type = s.id_type AND t.id_value = s.id_value
WHEN MATCHED THEN UPDATE SET
  one_id = s.one_id,
  source_channel = s.source_channel,
  confidence = s.confidence,
  first_seen = s.first_seen,
  last_seen = s.last_seen
WHEN NOT MATCHED THEN
  INSERT (id_type, id_value, one_id, source_channel, confidence, first_seen, last_seen)
  VALUES (s.id_type, s.id_value, s.one_id, s.source_channel, s.confidence, s.first_seen, s.last_seen);
END;

-- Purchases under one id: of members who are members now, and of customers of the web shop under their number. What nobody
-- can be named for yet comes in when its id becomes known.
CREATE DYNAMIC TABLE dwd_user_events AS
WITH known AS (
  SELECT m.id_type, m.id_value, m.one_id
  FROM dwd_id_mapping AS m
  JOIN crm_members AS c ON one_id_of(c.member_id) = m.one_id
)
SELECT
  e.event_id,
  k.one_id,
  e.event_type,
  e.channel,
  e.platform,
  e.item_id,
  e.item_price,
  1 AS quantity,
  CAST(e.item_price AS DECIMAL(18, 2)) AS revenue,
  e.event_time,
  CAST(e.event_time AS DATE) AS event_date,
  e.session_id
FROM app_events AS e
JOIN known AS k ON k.id_type = 'union_id' AND k.id_value = e.union_id
WHERE e.event_type = 'purchase' AND e.item_id IS NOT NULL
UNION ALL
SELECT
  'ORT-' || o.line_id,
  COALESCE(k.one_id, o.customer_id),
  'purchase',
  IF(o.member_id IS NULL, 'web', 'store'),
  'shop',
  o.stock_code,
  o.price,
  o.quantity,
  CAST(o.price * o.quantity AS DECIMAL(18, 2)),
  o.invoice_date,
  CAST(o.invoice_date AS DATE),
  o.invoice
FROM retail_orders AS o
LEFT JOIN known AS k ON k.id_type = 'member_id' AND k.id_value = o.member_id
WHERE COALESCE(k.one_id, o.customer_id) IS NOT NULL;

-- DWS

CREATE DYNAMIC TABLE dws_user_rfm AS
SELECT
  one_id,
  DATEDIFF(CURRENT_DATE(), MAX(event_date)) AS recency_days,
  COUNT(DISTINCT event_date) AS frequency,
  SUM(revenue) AS monetary,
  MAX(event_date) AS last_purchase_date,
  MIN(event_date) AS first_purchase_date
FROM dwd_user_events
GROUP BY one_id;

CREATE DYNAMIC TABLE dws_user_segment AS
SELECT
  one_id,
  recency_days,
  frequency,
  monetary,
  CASE
    WHEN recency_days > 2000 THEN 'Lost'
    WHEN recency_days > 600 THEN 'Hibernating'
    WHEN frequency < 2 THEN 'At Risk'
    WHEN recency_days <= 200 AND monetary >= 300 THEN 'Champions'
    ELSE 'Loyal Customers'
  END AS rfm_segment,
  last_purchase_date,
  first_purchase_date
FROM dws_user_rfm;

-- ADS

-- Sets of members: ONE017 is 17. A member who changes the segment leaves one set for the other.
CREATE DYNAMIC TABLE ads_user_bitmap AS
SELECT rfm_segment AS segment_tag, GROUP_BITMAP_STATE(CAST(SUBSTR(one_id, 4) AS BIGINT)) AS user_bitmap
FROM dws_user_segment
WHERE one_id LIKE 'ONE%'
GROUP BY rfm_segment
UNION ALL
SELECT 'channel_' || channel, GROUP_BITMAP_STATE(CAST(SUBSTR(one_id, 4) AS BIGINT))
FROM dwd_user_events
WHERE one_id LIKE 'ONE%'
GROUP BY channel
UNION ALL
SELECT 'High Value', GROUP_BITMAP_STATE(CAST(SUBSTR(one_id, 4) AS BIGINT))
FROM dws_user_rfm
WHERE one_id LIKE 'ONE%' AND monetary >= 300;

-- The sets of three campaigns.
CREATE VIEW audience AS
SELECT 'PKG001' AS package_id, 'At Risk High Value' AS package_name, 'At Risk AND High Value' AS segment_rule,
  BITMAP_AND(
    (SELECT user_bitmap FROM ads_user_bitmap WHERE segment_tag = 'At Risk'),
    (SELECT user_bitmap FROM ads_user_bitmap WHERE segment_tag = 'High Value')
  ) AS members
UNION ALL
SELECT 'PKG002', 'Champions in the app', 'Champions AND channel_app',
  BITMAP_AND(
    (SELECT user_bitmap FROM ads_user_bitmap WHERE segment_tag = 'Champions'),
    (SELECT user_bitmap FROM ads_user_bitmap WHERE segment_tag = 'channel_app')
  )
UNION ALL
SELECT 'PKG003', 'App only', 'channel_app AND NOT channel_miniapp',
  BITMAP_ANDNOT(
    (SELECT user_bitmap FROM ads_user_bitmap WHERE segment_tag = 'channel_app'),
    (SELECT user_bitmap FROM ads_user_bitmap WHERE segment_tag = 'channel_miniapp')
  );

CREATE DYNAMIC TABLE ads_audience_package AS
SELECT
  p.package_id,
  p.package_name,
  p.segment_rule,
  p.one_id,
  s.rfm_segment,
  WRITE_TIMESTAMP() AS created_at
FROM (
  SELECT package_id, package_name, segment_rule, 'ONE' || LPAD(CAST(number AS STRING), 3, '0') AS one_id
  FROM audience LATERAL VIEW EXPLODE(BITMAP_TO_ARRAY(members)) ids AS number
) AS p
JOIN dws_user_segment AS s ON s.one_id = p.one_id;

-- The tables leave as changelogs: to topics, and while a recording is replayed to files.
CREATE TABLE sink_id_mapping (
  id_type         STRING,
  id_value        STRING,
  one_id          STRING,
  source_channel  STRING,
  confidence      DECIMAL(3, 2),
  first_seen      TIMESTAMP(3),
  last_seen       TIMESTAMP(3),
  PRIMARY KEY (id_type, id_value) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic' = 'dwd_id_mapping',
  'properties.bootstrap.servers' = '${BROKERS:-localhost:9092}',
  'format' = 'changelog-json',
  'sink.replay.path' = '${OUT:-out}/dwd_id_mapping.jsonl'
);

CREATE TABLE sink_user_events (
  event_id    STRING,
  one_id      STRING,
  event_type  STRING,
  channel     STRING,
  platform    STRING,
  item_id     STRING,
  item_price  DECIMAL(10, 2),
  quantity    INT,
  revenue     DECIMAL(18, 2),
  event_time  TIMESTAMP(3),
  event_date  DATE,
  session_id  STRING,
  PRIMARY KEY (event_id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic' = 'dwd_user_events',
  'properties.bootstrap.servers' = '${BROKERS:-localhost:9092}',
  'format' = 'changelog-json',
  'sink.replay.path' = '${OUT:-out}/dwd_user_events.jsonl'
);

CREATE TABLE sink_user_segment (
  one_id               STRING,
  recency_days         INT,
  frequency            BIGINT,
  monetary             DECIMAL(38, 2),
  rfm_segment          STRING,
  last_purchase_date   DATE,
  first_purchase_date  DATE,
  PRIMARY KEY (one_id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic' = 'dws_user_segment',
  'properties.bootstrap.servers' = '${BROKERS:-localhost:9092}',
  'format' = 'changelog-json',
  'sink.replay.path' = '${OUT:-out}/dws_user_segment.jsonl'
);

CREATE TABLE sink_user_rfm (
  one_id               STRING,
  recency_days         INT,
  frequency            BIGINT,
  monetary             DECIMAL(38, 2),
  last_purchase_date   DATE,
  first_purchase_date  DATE,
  PRIMARY KEY (one_id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic' = 'dws_user_rfm',
  'properties.bootstrap.servers' = '${BROKERS:-localhost:9092}',
  'format' = 'changelog-json',
  'sink.replay.path' = '${OUT:-out}/dws_user_rfm.jsonl'
);

CREATE TABLE sink_user_bitmap (
  segment_tag  STRING,
  user_bitmap  BITMAP,
  PRIMARY KEY (segment_tag) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic' = 'ads_user_bitmap',
  'properties.bootstrap.servers' = '${BROKERS:-localhost:9092}',
  'format' = 'changelog-json',
  'sink.replay.path' = '${OUT:-out}/ads_user_bitmap.jsonl'
);

CREATE TABLE sink_audience_package (
  package_id    STRING,
  package_name  STRING,
  segment_rule  STRING,
  one_id        STRING,
  rfm_segment   STRING,
  created_at    TIMESTAMP_LTZ(3),
  PRIMARY KEY (package_id, one_id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic' = 'ads_audience_package',
  'properties.bootstrap.servers' = '${BROKERS:-localhost:9092}',
  'format' = 'changelog-json',
  'sink.replay.path' = '${OUT:-out}/ads_audience_package.jsonl'
);

INSERT INTO sink_id_mapping SELECT * FROM dwd_id_mapping;
INSERT INTO sink_user_events SELECT * FROM dwd_user_events;
INSERT INTO sink_user_rfm SELECT * FROM dws_user_rfm;
INSERT INTO sink_user_segment SELECT * FROM dws_user_segment;
INSERT INTO sink_user_bitmap SELECT * FROM ads_user_bitmap;
INSERT INTO sink_audience_package SELECT * FROM ads_audience_package;

-- And each audience as a file that holds exactly its members: one id a line, as most mailing tools take it, ..
CREATE TABLE export_at_risk_high_value (one_id STRING, PRIMARY KEY (one_id) NOT ENFORCED)
WITH ('connector' = 'filesystem', 'path' = '${OUT:-out}/packages/PKG001.txt', 'format' = 'raw', 'sink.mode' = 'snapshot');

CREATE TABLE export_champions_in_the_app (one_id STRING, PRIMARY KEY (one_id) NOT ENFORCED)
WITH ('connector' = 'filesystem', 'path' = '${OUT:-out}/packages/PKG002.txt', 'format' = 'raw', 'sink.mode' = 'snapshot');

-- (with the column's name above the ids)
CREATE TABLE export_app_only (one_id STRING, PRIMARY KEY (one_id) NOT ENFORCED)
WITH (
  'connector' = 'filesystem',
  'path' = '${OUT:-out}/packages/PKG003.csv',
  'format' = 'csv',
  'header' = 'true',
  'sink.mode' = 'snapshot'
);

-- .. and all of them as JSON lines.
CREATE TABLE export_packages (package_id STRING, one_id STRING, rfm_segment STRING, PRIMARY KEY (package_id, one_id) NOT ENFORCED)
WITH ('connector' = 'filesystem', 'path' = '${OUT:-out}/packages/all.jsonl', 'format' = 'json', 'sink.mode' = 'snapshot');

INSERT INTO export_at_risk_high_value SELECT one_id FROM ads_audience_package WHERE package_id = 'PKG001';
INSERT INTO export_champions_in_the_app SELECT one_id FROM ads_audience_package WHERE package_id = 'PKG002';
INSERT INTO export_app_only SELECT one_id FROM ads_audience_package WHERE package_id = 'PKG003';
INSERT INTO export_packages SELECT package_id, one_id, rfm_segment FROM ads_audience_package;

-- RESULT

-- How good the customers are.
SELECT rfm_segment, COUNT(*) AS customers, SUM(monetary) AS revenue
FROM dws_user_segment
GROUP BY rfm_segment
ORDER BY customers DESC, rfm_segment;

-- The sets.
SELECT segment_tag, BITMAP_COUNT(user_bitmap) AS members, user_bitmap FROM ads_user_bitmap ORDER BY segment_tag;

-- And whom to write to.
SELECT package_id, package_name, segment_rule, COUNT(*) AS members
FROM ads_audience_package
GROUP BY package_id, package_name, segment_rule
ORDER BY package_id;
