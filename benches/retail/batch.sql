-- The retail benchmark recomputed from nothing, up to the segments: the table, filled from DATA/online_retail_II.parquet, then the
-- query.
CREATE TABLE "online_retail_II" (
  "Invoice"      VARCHAR,
  "StockCode"    VARCHAR,
  "Description"  VARCHAR,
  "Quantity"     INTEGER,
  "InvoiceDate"  TIMESTAMP,
  "Price"        DOUBLE,
  "Customer ID"  VARCHAR,
  "Country"      VARCHAR
);

SELECT
  one_id, recency_days, frequency, monetary,
  CASE
    WHEN recency_days > 2000 THEN 'Lost'
    WHEN recency_days > 600 THEN 'Hibernating'
    WHEN frequency < 2 THEN 'At Risk'
    WHEN recency_days <= 200 AND monetary >= 300 THEN 'Champions'
    ELSE 'Loyal Customers'
  END AS rfm_segment
FROM (
  SELECT
    one_id,
    CAST((date_part('epoch', CAST('2011-12-10' AS DATE)) - date_part('epoch', MAX(event_date))) / 86400 AS BIGINT) AS recency_days,
    COUNT(DISTINCT event_date) AS frequency,
    CAST(SUM(revenue) AS DECIMAL(38, 2)) AS monetary
  FROM (
    SELECT
      "Customer ID" AS one_id,
      CAST(ROUND("Price" * "Quantity", 2) AS DECIMAL(18, 2)) AS revenue,
      CAST("InvoiceDate" AS DATE) AS event_date
    FROM "online_retail_II"
    WHERE "Customer ID" IS NOT NULL
  ) AS events
  GROUP BY one_id
) AS rfm
