-- The RFM benchmark recomputed from nothing: the tables, each filled from DATA/<table>.ndjson or .parquet, then the query.
CREATE TABLE user_event (
  event_id    VARCHAR,
  one_id      VARCHAR,
  event_type  VARCHAR,
  channel     VARCHAR,
  item_id     VARCHAR,
  revenue     DECIMAL(10, 2),
  event_time  TIMESTAMP
);

SELECT
  one_id,
  CAST((date_part('epoch', CAST('2026-03-02' AS DATE)) - date_part('epoch', MAX(CAST(event_time AS DATE)))) / 86400 AS BIGINT) AS recency_days,
  COUNT(DISTINCT CAST(event_time AS DATE)) AS frequency,
  CAST(SUM(revenue) * 100 AS BIGINT) AS monetary_cents,
  MAX(CAST(event_time AS DATE)) AS last_d,
  MIN(CAST(event_time AS DATE)) AS first_d
FROM user_event
WHERE event_type = 'purchase'
GROUP BY one_id
