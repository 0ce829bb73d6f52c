-- The RFM benchmark: per customer the days since the last purchase, the days with a purchase, and what was spent, exact at every
-- tick, over a plain file of JSON lines. Run it at the clock at which the answers were taken:
--
--   deltaworks run benches/rfm/job.sql --set DATA=DIR --set OUT=DIR --workers 1 --clock '2026-03-02 00:00:00'

CREATE TABLE user_event (
  event_id    STRING,
  one_id      STRING,
  event_type  STRING,
  channel     STRING,
  item_id     STRING,
  revenue     DECIMAL(10, 2),
  event_time  TIMESTAMP
) WITH (
  'connector' = 'filesystem',
  'path' = '${DATA}/user_event.ndjson',
  'format' = 'json'
);

-- Recency follows the clock: a day that passes goes over the customers, not over their events.
CREATE VIEW user_rfm AS
SELECT
  one_id,
  DATEDIFF(CURRENT_DATE(), MAX(CAST(event_time AS DATE))) AS recency_days,
  COUNT(DISTINCT CAST(event_time AS DATE)) AS frequency,
  CAST(SUM(revenue) * 100 AS BIGINT) AS monetary_cents,
  MAX(CAST(event_time AS DATE)) AS last_d,
  MIN(CAST(event_time AS DATE)) AS first_d
FROM user_event
WHERE event_type = 'purchase'
GROUP BY one_id;

CREATE TABLE rfm (
  one_id          STRING,
  recency_days    BIGINT,
  frequency       BIGINT,
  monetary_cents  BIGINT,
  last_d          DATE,
  first_d         DATE,
  PRIMARY KEY (one_id) NOT ENFORCED
) WITH (
  'connector' = 'filesystem',
  'path' = '${OUT:-out}/rfm.jsonl',
  'format' = 'upsert-json'
);

INSERT INTO rfm
SELECT one_id, recency_days, frequency, monetary_cents, last_d, first_d FROM user_rfm;
