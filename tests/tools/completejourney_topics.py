#!/usr/bin/env python3
"""Turns the public panel "The Complete Journey" into recorded topics for jobs/first_touch.

    completejourney_topics.py PARQUET_FOLDER OUT        writes OUT/<topic>/0.jsonl
    completejourney_topics.py PARQUET_FOLDER OUT --check    and answers the job's question with DuckDB, against the known figures

PARQUET_FOLDER holds transactions, campaigns, campaign_descriptions, coupon_redemptions and demographics as .parquet.

    event       a household received a campaign (at its start date) or redeemed a coupon (00:00 of the day):
                mail-<campaign_id>-<household_id>, redemption-<row number in the file, from 1>
    sale_order  a basket, at its earliest line, with the sum of its sales values
    customer    a household; segment is its income class where the panel knows it
    campaign    a campaign, named by its type and number

Times are read as UTC. Records are written in the order of their times, so a replay merges the topics as it happened; campaigns
and customers stand at the beginning. OUT should lie outside the repository: the data is not ours. Needs `pip install duckdb`.
"""
import argparse
import os
import sys

import duckdb

EVENTS = """
    SELECT 'mail-' || c.campaign_id || '-' || c.household_id AS event_id, c.household_id, 'mail' AS event_type, c.campaign_id,
           epoch_ms(d.start_date) AS event_ts
    FROM '{dir}/campaigns.parquet' AS c JOIN '{dir}/campaign_descriptions.parquet' AS d USING (campaign_id)
    UNION ALL
    SELECT 'redemption-' || (file_row_number + 1), household_id, 'redemption', campaign_id, epoch_ms(redemption_date)
    FROM read_parquet('{dir}/coupon_redemptions.parquet', file_row_number = true)"""

ORDERS = """
    SELECT basket_id, any_value(household_id) AS household_id, CAST(sum(CAST(sales_value AS DECIMAL(18, 2))) AS DECIMAL(18, 2)) AS amount,
           epoch_ms(min(transaction_timestamp)) AS order_ts
    FROM '{dir}/transactions.parquet' GROUP BY basket_id"""

CUSTOMERS = """
    SELECT t.household_id, d.income, max(epoch_ms(transaction_timestamp)) AS last_ts
    FROM '{dir}/transactions.parquet' AS t LEFT JOIN '{dir}/demographics.parquet' AS d USING (household_id)
    GROUP BY ALL"""

# Topic -> a query of (timestamp, key, value as JSON text), in order.
TOPICS = {
    "event": """SELECT event_ts, event_id, '{"event_id":"' || event_id || '","customer_id":"' || household_id || '","event_type":"' || event_type ||
                '","campaign_id":"' || campaign_id || '","event_ts":' || event_ts || '}' FROM event ORDER BY event_ts, event_id""",
    "sale_order": """SELECT order_ts, basket_id, '{"order_id":"' || basket_id || '","customer_id":"' || household_id || '","total_amount":' || amount ||
                ',"order_ts":' || order_ts || '}' FROM sale_order ORDER BY order_ts, basket_id""",
    "customer": """SELECT start, household_id, '{"customer_id":"' || household_id || '","email":null,"phone":null,"segment":' ||
                coalesce('"' || income || '"', 'null') || ',"acquisition_channel":null,"country":"US","opt_in":null,"last_purchase_ts":' || last_ts || '}'
                FROM customer, start ORDER BY household_id""",
    "campaign": """SELECT start, campaign_id, '{"id":' || campaign_id || ',"name":"' || campaign_type || ' ' || campaign_id || '"}'
                FROM campaign, start ORDER BY campaign_id""",
}

FIGURES = {"orders": 155_848, "attributed": 15_899, "revenue": "4596039.58", "attributed_revenue": "555696.81", "households": 1_346,
           "by_mail": 13_264, "by_redemption": 2_635}

FIRST_TOUCH = """
    WITH touch AS (
      SELECT o.basket_id, min((e.event_ts, e.event_id, e.event_type))[3] AS event_type
      FROM sale_order AS o JOIN event AS e USING (household_id)
      WHERE e.event_ts BETWEEN o.order_ts - 604800000 AND o.order_ts
      GROUP BY o.basket_id)
    SELECT count(*), count(event_type), sum(amount), sum(amount) FILTER (WHERE event_type IS NOT NULL),
           count(DISTINCT household_id) FILTER (WHERE event_type IS NOT NULL),
           count(*) FILTER (WHERE event_type = 'mail'), count(*) FILTER (WHERE event_type = 'redemption')
    FROM sale_order LEFT JOIN touch USING (basket_id)"""


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("parquet_folder")
    args.add_argument("out")
    args.add_argument("--check", action="store_true")
    args = args.parse_args()
    db = duckdb.connect()
    campaigns = "SELECT campaign_id, campaign_type FROM '{dir}/campaign_descriptions.parquet'"
    for name, query in (("event", EVENTS), ("sale_order", ORDERS), ("customer", CUSTOMERS), ("campaign", campaigns)):
        db.execute(f"CREATE TABLE {name} AS {query.format(dir=args.parquet_folder)}")
    db.execute("CREATE TABLE start AS SELECT least((SELECT min(event_ts) FROM event), (SELECT min(order_ts) FROM sale_order)) AS start")
    for topic, query in TOPICS.items():
        os.makedirs(os.path.join(args.out, topic), exist_ok=True)
        with open(os.path.join(args.out, topic, "0.jsonl"), "w", encoding="utf-8") as f:
            for offset, (timestamp, key, value) in enumerate(db.execute(query).fetchall()):
                f.write(f'{{"offset":{offset},"timestamp":{timestamp},"key":"{key}","value":{value}}}\n')
        print(f"{topic}: {offset + 1} records", file=sys.stderr)
    if args.check:
        found = dict(zip(FIGURES, db.execute(FIRST_TOUCH).fetchone()))
        for name, known in FIGURES.items():
            print(f"{name}: {found[name]}")
            if str(found[name]) != str(known):
                sys.exit(f"{name} should be {known}")


if __name__ == "__main__":
    main()
