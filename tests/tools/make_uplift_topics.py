#!/usr/bin/env python3
"""Makes the recorded topics of jobs/uplift: three campaigns of May 2026, seeded, the same bytes at every run.

    make_uplift_topics.py OUT             the topics, OUT/<topic>/<partition>.jsonl

Users U001 .. U060 live at random; U071 .. U079 each tell one story (STORIES in jobs/uplift/README.md). Record timestamps are
times of arrival: they never go back within a partition, and no two records share one. Exposure and conversion times do go back.
"""
import datetime
import random
import sys

from recording import Cents, Recording

MIN, HOUR, DAY = 60_000, 3_600_000, 86_400_000
START = 1_777_593_600_000  # 2026-05-01 00:00:00 UTC
SEED = 20260502

CHANNELS = {"CMP001": ["wechat", "douyin"], "CMP002": ["search", "display"], "CMP003": ["email"]}
# How likely a user buys: treated, not treated.
CHANCES = {"wechat": (0.8, 0.1), "douyin": (0.6, 0.3), "search": (0.5, 0.4), "display": (0.7, 0.35), "email": (0.4, 0.45)}
AGES = ["18-24", "25-34", "35-44", "45-54", None]
REGIONS = ["north", "south", "east", "west"]


def text(ts):
    return datetime.datetime.fromtimestamp(ts / 1000, datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


class Campaigns(Recording):
    def exposure(self, number, user, campaign, channel, ts, treated, arrived=None):
        key = f"exp-{number}"
        value = dict(exposure_id=key, user_id=user, campaign_id=campaign, channel=channel, exposure_time=text(ts),
                     is_treated=treated)
        self.put(ts + 500 if arrived is None else arrived, "exposures", key, value)

    def conversion(self, number, user, ts, cents, arrived=None):
        key = f"cnv-{number}"
        value = dict(conversion_id=key, user_id=user, conversion_time=text(ts), order_value=Cents(cents))
        self.put(ts + 900 if arrived is None else arrived, "conversions", key, value)

    def features(self, user, version, age, region, purchases, arrived):
        value = dict(user_id=user, version=version, age_group=age, region=region, historical_purchase_count=purchases)
        self.put(arrived, "user_features", user, value)


def random_life(rec, rng):
    conversions = 0
    for n in range(1, 61):
        user, campaign = f"U{n:03}", rng.choice(list(CHANNELS))
        channel, treated = rng.choice(CHANNELS[campaign]), rng.randint(0, 1)
        ts = START + rng.randrange(9 * HOUR, 12 * HOUR) // 1000 * 1000
        late = 0 if rng.random() < 0.85 else rng.randrange(5 * MIN, 20 * HOUR)
        rec.exposure(f"{n:03}", user, campaign, channel, ts, treated, ts + 500 + late)
        if rng.random() < 0.9:
            rec.features(user, 1, rng.choice(AGES), rng.choice(REGIONS), rng.randrange(0, 20), START + rng.randrange(8 * HOUR))
        if rng.random() < CHANCES[channel][1 - treated]:
            conversions += 1
            bought = ts + rng.randrange(10 * MIN, 30 * HOUR) // 1000 * 1000
            late = 0 if rng.random() < 0.8 else rng.randrange(1 * HOUR, 48 * HOUR)
            rec.conversion(f"{conversions:03}", user, bought, rng.randrange(900, 50_000), bought + 900 + late)
    # Features come again, newer; and two of those newer ones are overtaken by an older version.
    for n in rng.sample(range(1, 61), 8):
        rec.features(f"U{n:03}", 3, "25-34", rng.choice(REGIONS), rng.randrange(20, 30), START + 2 * DAY + n * MIN)
        if n % 2:
            rec.features(f"U{n:03}", 2, "55+", "nowhere", 99, START + 3 * DAY + n * MIN)


def stories(rec):
    T = START + 10 * HOUR
    # U071: the conversion arrives before the exposure.
    rec.conversion("101", "U071", T + HOUR, 12_000, T)
    rec.exposure("101", "U071", "CMP001", "wechat", T, 1, T + 2 * HOUR)
    # U072: one conversion, exposures to two campaigns: it counts for both.
    rec.exposure("102", "U072", "CMP001", "douyin", T, 1)
    rec.exposure("103", "U072", "CMP002", "search", T + MIN, 0)
    rec.conversion("102", "U072", T + 2 * HOUR, 8_050)
    # U073: two conversions for one exposure: two rows.
    rec.exposure("104", "U073", "CMP002", "display", T, 1)
    rec.conversion("103", "U073", T + HOUR, 3_333)
    rec.conversion("104", "U073", T + 5 * HOUR, 6_667)
    # U074: the purchase is sent back.
    rec.exposure("105", "U074", "CMP003", "email", T, 0)
    rec.conversion("105", "U074", T + HOUR, 45_000)
    rec.put(T + 2 * DAY, "conversions", "cnv-105", None)
    # U075: the amount is corrected.
    rec.exposure("106", "U075", "CMP003", "email", T, 1)
    rec.conversion("106", "U075", T + HOUR, 99_900)
    rec.conversion("106", "U075", T + HOUR, 9_990, T + DAY)
    # U076: the experiment's arm was recorded wrongly, and is corrected.
    rec.exposure("107", "U076", "CMP001", "wechat", T, 0)
    rec.conversion("107", "U076", T + HOUR, 7_000)
    rec.exposure("107", "U076", "CMP001", "wechat", T, 1, T + 3 * DAY)
    # U077: an exposure to the same campaign on two channels, once in each arm.
    rec.exposure("108", "U077", "CMP002", "search", T, 1)
    rec.exposure("109", "U077", "CMP002", "display", T + MIN, 0)
    rec.conversion("108", "U077", T + HOUR, 5_000)
    # U078: an exposure that never was.
    rec.exposure("110", "U078", "CMP003", "email", T, 1)
    rec.put(T + 3 * HOUR, "exposures", "exp-110", None)
    rec.conversion("109", "U078", T + HOUR, 1_000)
    # U079: a bought-in channel with one arm only has no score.
    rec.exposure("111", "U079", "CMP003", "partner", T, 1)
    rec.features("U079", 1, "18-24", "west", 0, T)
    rec.put(T + DAY, "user_features", "U079", None)


def redelivered(rec, rng):
    """Some records arrive twice, as they were. None that was changed in between."""
    changed = {key for _, _, key, value in rec.records if value is None}
    keys = [key for _, _, key, _ in rec.records]
    single = [r for r in rec.records if r[2] not in changed and keys.count(r[2]) == 1]
    for at, topic, key, value in rng.sample(single, 12):
        rec.put(at + rng.randrange(MIN, 40 * HOUR), topic, key, value)


def main():
    rng, rec = random.Random(SEED), Campaigns({"exposures": 2})
    random_life(rec, rng)
    stories(rec)
    redelivered(rec, rng)
    rec.write(sys.argv[1])


if __name__ == "__main__":
    main()
