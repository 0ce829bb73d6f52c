-- The retail benchmark: the 1,067,371 lines of Online Retail II (UCI Machine Learning Repository) from Parquet to recency, frequency
-- and money per customer, segments, sets of customers and three audiences, exact at every tick.
--
--   deltaworks run benches/retail/job.sql --set DATA=online_retail_II.parquet --set OUT=DIR --workers 1 --clock 2011-12-10

CREATE TABLE online_retail (
  quantity       INT,
  invoicedate    TIMESTAMP,
  price          DOUBLE,
  "Customer ID"  STRING
) WITH (
  'connector' = 'filesystem',
  'path' = '${DATA}',
  'format' = 'parquet'
);

CREATE VIEW dwd_user_events AS
SELECT
  "Customer ID" AS one_id,
  CAST(ROUND(price * quantity, 2) AS DECIMAL(18, 2)) AS revenue,
  CAST(invoicedate AS DATE) AS event_date
FROM online_retail
WHERE "Customer ID" IS NOT NULL;

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
  END AS rfm_segment
FROM dws_user_rfm;

CREATE DYNAMIC TABLE ads_user_bitmap AS
SELECT rfm_segment AS segment_tag, GROUP_BITMAP_STATE(CAST(one_id AS BIGINT)) AS user_bitmap
FROM dws_user_segment
GROUP BY rfm_segment
UNION ALL
SELECT 'High Value', GROUP_BITMAP_STATE(CAST(one_id AS BIGINT))
FROM dws_user_rfm
WHERE monetary >= 300;

CREATE DYNAMIC TABLE ads_audience_size AS
SELECT
  a.segment_tag AS package_id,
  BITMAP_COUNT(BITMAP_AND(a.user_bitmap, b.user_bitmap)) AS high_value,
  BITMAP_COUNT(BITMAP_ANDNOT(a.user_bitmap, b.user_bitmap)) AS others
FROM ads_user_bitmap AS a
JOIN ads_user_bitmap AS b ON b.segment_tag = 'High Value'
WHERE a.segment_tag <> 'High Value';

CREATE TABLE segment (
  one_id         STRING,
  recency_days   BIGINT,
  frequency      BIGINT,
  monetary       DECIMAL(38, 2),
  rfm_segment    STRING,
  PRIMARY KEY (one_id) NOT ENFORCED
) WITH (
  'connector' = 'filesystem',
  'path' = '${OUT:-out}/segment.jsonl',
  'format' = 'changelog-json'
);

CREATE TABLE audience (
  package_id  STRING,
  high_value  BIGINT,
  others      BIGINT,
  PRIMARY KEY (package_id) NOT ENFORCED
) WITH (
  'connector' = 'filesystem',
  'path' = '${OUT:-out}/audience.jsonl',
  'format' = 'changelog-json'
);

INSERT INTO segment SELECT one_id, recency_days, frequency, monetary, rfm_segment FROM dws_user_segment;
INSERT INTO audience SELECT package_id, high_value, others FROM ads_audience_size;

SELECT COUNT(*) AS customers, SUM(frequency) AS days, SUM(monetary) AS money, SUM(recency_days) AS recency FROM dws_user_rfm;
SELECT package_id, high_value, others FROM ads_audience_size ORDER BY package_id;
