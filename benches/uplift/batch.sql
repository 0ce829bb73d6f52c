-- The uplift benchmark recomputed from nothing: the tables, each filled from DATA/<table>.ndjson or .parquet, then the query.
CREATE TABLE exposure (
  user_id        VARCHAR,
  campaign_id    VARCHAR,
  channel        VARCHAR,
  exposure_time  TIMESTAMP,
  is_treated     INTEGER
);

CREATE TABLE conversion (
  user_id          VARCHAR,
  conversion_time  TIMESTAMP,
  order_value      DECIMAL(10, 2)
);

CREATE TABLE user_feature (
  user_id                    VARCHAR,
  age_group                  VARCHAR,
  region                     VARCHAR,
  historical_purchase_count  INTEGER
);

SELECT
  campaign_id, channel, is_treated,
  COUNT(*) AS user_count,
  SUM(is_converted) AS converted_count,
  CAST(SUM(CASE WHEN is_converted = 1 THEN order_value ELSE 0 END) * 100 AS BIGINT) AS revenue_cents
FROM (
  SELECT
    e.user_id, e.campaign_id, e.channel, e.is_treated,
    f.age_group, f.region,
    CASE WHEN c.user_id IS NOT NULL THEN 1 ELSE 0 END AS is_converted,
    c.order_value
  FROM exposure AS e
  LEFT JOIN user_feature AS f ON f.user_id = e.user_id
  LEFT JOIN conversion AS c ON c.user_id = e.user_id
) AS facts
GROUP BY campaign_id, channel, is_treated
