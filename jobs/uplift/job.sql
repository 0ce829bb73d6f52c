-- Uplift: what a campaign changed, channel by channel, against the users it left alone.
--
-- ods   the three topics as tables
-- dwd   dwd_user_campaign_facts   every exposure, with its user's features and conversions
-- dws   dws_channel_uplift        both arms of every campaign and channel
-- ads   ads_uplift_score          what the campaign changed, with a tier
--       channel_roi               what a treated user brought in
--       campaign_audience         who is in which arm and who bought, as bitmaps, and how they meet

-- ODS

-- An exposure, with the arm of the experiment that the user is in: 1 treated, 0 left alone.
CREATE TABLE exposures (
  exposure_id    STRING,
  user_id        STRING,
  campaign_id    STRING,
  channel        STRING,
  exposure_time  TIMESTAMP(3),
  is_treated     INT,
  PRIMARY KEY (exposure_id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic' = 'exposures',
  'properties.bootstrap.servers' = '${BROKERS:-localhost:9092}',
  'format' = 'json'
);

CREATE TABLE conversions (
  conversion_id    STRING,
  user_id          STRING,
  conversion_time  TIMESTAMP(3),
  order_value      DECIMAL(10, 2),
  PRIMARY KEY (conversion_id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic' = 'conversions',
  'properties.bootstrap.servers' = '${BROKERS:-localhost:9092}',
  'format' = 'json'
);

-- The newest version of a user's features counts, in whatever order the versions arrive.
CREATE TABLE user_features (
  user_id                    STRING,
  version                    BIGINT,
  age_group                  STRING,
  region                     STRING,
  historical_purchase_count  INT,
  PRIMARY KEY (user_id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic' = 'user_features',
  'properties.bootstrap.servers' = '${BROKERS:-localhost:9092}',
  'format' = 'json',
  'table.merge-engine' = 'versioned',
  'table.merge-engine.versioned.ver-column' = 'version'
);

-- DWD

-- A conversion counts for every exposure of its user, before or after it, in any campaign; two conversions make two rows.
CREATE DYNAMIC TABLE dwd_user_campaign_facts AS
SELECT
  x.exposure_id || '/' || COALESCE(b.conversion_id, '-') AS fact_id,
  x.user_id,
  x.campaign_id,
  x.channel,
  x.exposure_time,
  x.is_treated,
  u.age_group,
  u.region,
  u.historical_purchase_count,
  IF(b.conversion_id IS NULL, 0, 1) AS is_converted,
  b.order_value,
  b.conversion_time
FROM exposures AS x
LEFT JOIN user_features AS u ON u.user_id = x.user_id
LEFT JOIN conversions AS b ON b.user_id = x.user_id;

-- DWS

CREATE DYNAMIC TABLE dws_channel_uplift AS
SELECT
  campaign_id,
  channel,
  is_treated,
  COUNT(*) AS user_count,
  SUM(is_converted) AS converted_count,
  ROUND(CAST(SUM(is_converted) AS DECIMAL(18, 6)) / COUNT(*), 4) AS cvr,
  ROUND(SUM(COALESCE(order_value, 0)) / COUNT(*), 2) AS avg_order_value
FROM dwd_user_campaign_facts
GROUP BY campaign_id, channel, is_treated;

-- ADS

-- A channel has a score once both of its arms have somebody in them.
CREATE DYNAMIC TABLE ads_uplift_score AS
SELECT
  campaign_id,
  channel,
  ROUND(cvr_treated, 4) AS cvr_treated,
  ROUND(cvr_control, 4) AS cvr_control,
  ROUND(cvr_treated - cvr_control, 4) AS uplift_cvr,
  ROUND(arpu_treated - arpu_control, 2) AS uplift_arpu,
  cnt_treated,
  cnt_control,
  CASE
    WHEN cvr_treated - cvr_control > 0.5 THEN 'HIGH'
    WHEN cvr_treated - cvr_control > 0.2 THEN 'MEDIUM'
    ELSE 'LOW'
  END AS uplift_tier
FROM (
  SELECT
    campaign_id,
    channel,
    COUNT(*) FILTER (WHERE is_treated = 1) AS cnt_treated,
    COUNT(*) FILTER (WHERE is_treated = 0) AS cnt_control,
    CAST(SUM(is_converted) FILTER (WHERE is_treated = 1) AS DECIMAL(18, 6))
      / COUNT(*) FILTER (WHERE is_treated = 1) AS cvr_treated,
    CAST(SUM(is_converted) FILTER (WHERE is_treated = 0) AS DECIMAL(18, 6))
      / COUNT(*) FILTER (WHERE is_treated = 0) AS cvr_control,
    SUM(COALESCE(order_value, 0)) FILTER (WHERE is_treated = 1)
      / COUNT(*) FILTER (WHERE is_treated = 1) AS arpu_treated,
    SUM(COALESCE(order_value, 0)) FILTER (WHERE is_treated = 0)
      / COUNT(*) FILTER (WHERE is_treated = 0) AS arpu_control
  FROM dwd_user_campaign_facts
  GROUP BY campaign_id, channel
) AS arms
WHERE cnt_treated > 0 AND cnt_control > 0;

CREATE DYNAMIC TABLE channel_roi AS
SELECT
  channel,
  COALESCE(SUM(order_value) FILTER (WHERE is_treated = 1), 0) AS treated_revenue,
  COUNT(*) FILTER (WHERE is_treated = 1) AS treated_users,
  ROUND(
    COALESCE(SUM(order_value) FILTER (WHERE is_treated = 1), 0) / NULLIF(COUNT(*) FILTER (WHERE is_treated = 1), 0), 2
  ) AS roi_per_treated_user
FROM dwd_user_campaign_facts
GROUP BY channel;

-- Users as sets: U017 is 17. A user counts once, however often he was exposed or bought.
CREATE DYNAMIC TABLE campaign_bitmap AS
SELECT
  campaign_id,
  GROUP_BITMAP_STATE(CASE WHEN is_treated = 1 THEN CAST(SUBSTR(user_id, 2) AS BIGINT) END) AS treated,
  GROUP_BITMAP_STATE(CASE WHEN is_treated = 0 THEN CAST(SUBSTR(user_id, 2) AS BIGINT) END) AS control
FROM exposures
GROUP BY campaign_id;

CREATE DYNAMIC TABLE buyer_bitmap AS
SELECT GROUP_BITMAP_STATE(CAST(SUBSTR(user_id, 2) AS BIGINT)) AS buyers
FROM conversions;

CREATE DYNAMIC TABLE campaign_audience AS
SELECT
  c.campaign_id,
  BITMAP_COUNT(c.treated) AS treated_users,
  BITMAP_COUNT(c.control) AS control_users,
  BITMAP_AND_CARDINALITY(c.treated, b.buyers) AS treated_and_converted,
  BITMAP_AND_CARDINALITY(c.control, b.buyers) AS control_and_converted,
  BITMAP_AND(c.treated, c.control) AS in_both_arms,
  BITMAP_ANDNOT(c.treated, b.buyers) AS treated_without_purchase
FROM campaign_bitmap AS c
CROSS JOIN buyer_bitmap AS b;

-- All of them leave as changelogs: to topics, and while a recording is replayed to files.
CREATE TABLE sink_user_campaign_facts (
  fact_id                    STRING,
  user_id                    STRING,
  campaign_id                STRING,
  channel                    STRING,
  exposure_time              TIMESTAMP(3),
  is_treated                 INT,
  age_group                  STRING,
  region                     STRING,
  historical_purchase_count  INT,
  is_converted               INT,
  order_value                DECIMAL(10, 2),
  conversion_time            TIMESTAMP(3),
  PRIMARY KEY (fact_id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic' = 'dwd_user_campaign_facts',
  'properties.bootstrap.servers' = '${BROKERS:-localhost:9092}',
  'format' = 'changelog-json',
  'sink.replay.path' = '${OUT:-out}/dwd_user_campaign_facts.jsonl'
);

CREATE TABLE sink_channel_uplift (
  campaign_id      STRING,
  channel          STRING,
  is_treated       INT,
  user_count       BIGINT,
  converted_count  BIGINT,
  cvr              DECIMAL(18, 4),
  avg_order_value  DECIMAL(18, 2),
  PRIMARY KEY (campaign_id, channel, is_treated) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic' = 'dws_channel_uplift',
  'properties.bootstrap.servers' = '${BROKERS:-localhost:9092}',
  'format' = 'changelog-json',
  'sink.replay.path' = '${OUT:-out}/dws_channel_uplift.jsonl'
);

CREATE TABLE sink_uplift_score (
  campaign_id  STRING,
  channel      STRING,
  cvr_treated  DECIMAL(18, 4),
  cvr_control  DECIMAL(18, 4),
  uplift_cvr   DECIMAL(18, 4),
  uplift_arpu  DECIMAL(18, 2),
  cnt_treated  BIGINT,
  cnt_control  BIGINT,
  uplift_tier  STRING,
  PRIMARY KEY (campaign_id, channel) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic' = 'ads_uplift_score',
  'properties.bootstrap.servers' = '${BROKERS:-localhost:9092}',
  'format' = 'changelog-json',
  'sink.replay.path' = '${OUT:-out}/ads_uplift_score.jsonl'
);

CREATE TABLE sink_channel_roi (
  channel               STRING,
  treated_revenue       DECIMAL(18, 2),
  treated_users         BIGINT,
  roi_per_treated_user  DECIMAL(18, 2),
  PRIMARY KEY (channel) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic' = 'channel_roi',
  'properties.bootstrap.servers' = '${BROKERS:-localhost:9092}',
  'format' = 'changelog-json',
  'sink.replay.path' = '${OUT:-out}/channel_roi.jsonl'
);

CREATE TABLE sink_campaign_audience (
  campaign_id               STRING,
  treated_users             BIGINT,
  control_users             BIGINT,
  treated_and_converted     BIGINT,
  control_and_converted     BIGINT,
  in_both_arms              BITMAP,
  treated_without_purchase  BITMAP,
  PRIMARY KEY (campaign_id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic' = 'campaign_audience',
  'properties.bootstrap.servers' = '${BROKERS:-localhost:9092}',
  'format' = 'changelog-json',
  'sink.replay.path' = '${OUT:-out}/campaign_audience.jsonl'
);

INSERT INTO sink_user_campaign_facts SELECT * FROM dwd_user_campaign_facts;
INSERT INTO sink_channel_uplift SELECT * FROM dws_channel_uplift;
INSERT INTO sink_uplift_score SELECT * FROM ads_uplift_score;
INSERT INTO sink_channel_roi SELECT * FROM channel_roi;
INSERT INTO sink_campaign_audience SELECT * FROM campaign_audience;

-- RESULT

-- What each campaign changed.
SELECT campaign_id, channel, cvr_treated, cvr_control, uplift_cvr, uplift_arpu, uplift_tier AS tier
FROM ads_uplift_score
ORDER BY uplift_cvr DESC, campaign_id, channel;

-- What a treated user brought in.
SELECT * FROM channel_roi ORDER BY roi_per_treated_user DESC, channel;

-- And who was reached.
SELECT campaign_id, treated_users, control_users, treated_and_converted, control_and_converted, in_both_arms
FROM campaign_audience
ORDER BY campaign_id;
