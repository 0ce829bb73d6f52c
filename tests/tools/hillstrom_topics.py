#!/usr/bin/env python3
"""Turns Hillstrom's e-mail experiment (hillstrom.csv.gz) into topics of jobs/uplift.

    hillstrom_topics.py CSV OUT visit|conversion

A customer's number is its line. A campaign is a mailing, `mens` or `womens`; those who got no mail are the control of both, so
each of them has two exposures. What the third argument names is the conversion, worth what the customer spent.
"""
import csv
import gzip
import json
import os
import sys

MAILS = {"Mens E-Mail": "mens", "Womens E-Mail": "womens"}


def main():
    source, out, outcome = sys.argv[1:]
    files = {}
    for topic in ("exposures", "conversions", "user_features"):
        os.makedirs(os.path.join(out, topic))
        files[topic] = [open(os.path.join(out, topic, "0.jsonl"), "w", encoding="utf-8"), 0]

    def put(topic, key, value):
        file, offset = files[topic]
        record = dict(offset=offset, timestamp=1_205_971_200_000 + offset, key=key, value=value)
        file.write(json.dumps(record) + "\n")
        files[topic][1] += 1

    with gzip.open(source, "rt", encoding="utf-8", newline="") as rows:
        for number, row in enumerate(csv.DictReader(rows), 1):
            user, mail = f"U{number}", MAILS.get(row["segment"])
            for campaign in [mail] if mail else sorted(MAILS.values()):
                put("exposures", f"{user}-{campaign}", dict(
                    exposure_id=f"{user}-{campaign}", user_id=user, campaign_id=campaign, channel="email",
                    exposure_time="2008-03-20 00:00:00", is_treated=int(mail is not None)))
            if row[outcome] == "1":
                put("conversions", user, dict(
                    conversion_id=user, user_id=user, conversion_time="2008-03-27 00:00:00", order_value=float(row["spend"])))
    for file, _ in files.values():
        file.close()


if __name__ == "__main__":
    main()
