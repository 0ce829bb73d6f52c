-- Members of segments as bitmaps, and how many any two of three segments have together: what one member more costs. The rows
-- are made by members.py.
--
--   deltaworks bench benches/segments/job.sql --set DATA=DIR --single 2000 --workers 1

CREATE TABLE member (
  segment  STRING,
  user_id  BIGINT
) WITH (
  'connector' = 'filesystem',
  'path' = '${DATA}/member.csv',
  'format' = 'csv',
  'table.retain' = 'none'
);

CREATE DYNAMIC TABLE segments AS
SELECT segment, GROUP_BITMAP_STATE(user_id) AS members
FROM member
GROUP BY segment;

CREATE DYNAMIC TABLE buyers_and_openers AS
SELECT
  BITMAP_COUNT(BITMAP_AND(a.members, b.members))    AS both_segments,
  BITMAP_COUNT(BITMAP_OR(a.members, b.members))     AS any_segment,
  BITMAP_COUNT(BITMAP_ANDNOT(a.members, b.members)) AS buyers_only
FROM segments AS a, segments AS b
WHERE a.segment = 'buyers' AND b.segment = 'openers';

CREATE DYNAMIC TABLE overlaps AS
SELECT a.segment AS one, b.segment AS other, BITMAP_AND_CARDINALITY(a.members, b.members) AS members
FROM segments AS a JOIN segments AS b ON a.segment < b.segment;

SELECT * FROM buyers_and_openers;
SELECT * FROM overlaps;
