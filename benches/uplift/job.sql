-- The uplift benchmark: per campaign and channel, treated and not, how many were exposed, how many of them converted and for how
-- much, exact at every tick, over plain files of JSON lines merged by their times.
--
--   deltaworks run benches/uplift/job.sql --set DATA=DIR --set OUT=DIR --workers 1

CREATE TABLE exposure (
  user_id        STRING,
  campaign_id    STRING,
  channel        STRING,
  exposure_time  TIMESTAMP,
  is_treated     INT
) WITH (
  'connector' = 'filesystem',
  'path' = '${DATA}/exposure.ndjson',
  'format' = 'json',
  'scan.timestamp-column' = 'exposure_time'
);

CREATE TABLE conversion (
  user_id          STRING,
  conversion_time  TIMESTAMP,
  order_value      DECIMAL(10, 2)
) WITH (
  'connector' = 'filesystem',
  'path' = '${DATA}/conversion.ndjson',
  'format' = 'json',
  'scan.timestamp-column' = 'conversion_time'
);

CREATE TABLE user_feature (
  user_id                    STRING,
  age_group                  STRING,
  region                     STRING,
  historical_purchase_count  INT
) WITH (
  'connector' = 'filesystem',
  'path' = '${DATA}/user_feature.ndjson',
  'format' = 'json'
);

-- A conversion counts for each exposure of its user.
CREATE VIEW facts AS
SELECT
  e.user_id, e.campaign_id, e.channel, e.is_treated,
  f.age_group, f.region,
  CASE WHEN c.user_id IS NOT NULL THEN 1 ELSE 0 END AS is_converted,
  c.order_value
FROM exposure AS e
LEFT JOIN user_feature AS f ON f.user_id = e.user_id
LEFT JOIN conversion AS c ON c.user_id = e.user_id;

CREATE TABLE channel_uplift (
  campaign_id      STRING,
  channel          STRING,
  is_treated       INT,
  user_count       BIGINT,
  converted_count  BIGINT,
  revenue_cents    BIGINT,
  PRIMARY KEY (campaign_id, channel, is_treated) NOT ENFORCED
) WITH (
  'connector' = 'filesystem',
  'path' = '${OUT:-out}/channel_uplift.jsonl',
  'format' = 'changelog-json'
);

INSERT INTO channel_uplift
SELECT
  campaign_id, channel, is_treated,
  COUNT(*) AS user_count,
  SUM(is_converted) AS converted_count,
  CAST(SUM(CASE WHEN is_converted = 1 THEN order_value ELSE 0 END) * 100 AS BIGINT) AS revenue_cents
FROM facts
GROUP BY campaign_id, channel, is_treated;
