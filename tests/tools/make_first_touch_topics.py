#!/usr/bin/env python3
"""Makes the recorded topics of jobs/first_touch: a small shop in May 2026, seeded, the same bytes at every run.

    make_first_touch_topics.py OUT             the topics, OUT/<topic>/<partition>.jsonl
    make_first_touch_topics.py OUT --redeliver    the same, with messages delivered twice

Customers C-01 .. C-12 live a random life; C-13 .. C-25 each tell one story (STORIES below), so that every rule of the job
has an order that shows it. Record timestamps are arrival times: they never go back within a partition and no two records
of the recording share one, so the order of arrival is the order of the timestamps. Event times do go back.

--redeliver repeats blocks of 7 records, in their order, with their timestamps and new offsets: what a consumer sees whose
position was not committed before a restart. Every table must come out the same.
"""
import argparse
import json
import os
import random
import zlib

MIN, HOUR, DAY = 60_000, 3_600_000, 86_400_000
START = 1_777_593_600_000  # 2026-05-01 00:00:00 UTC
SEED = 20260501

CAMPAIGNS = ["Spring Sale", "Mother's Day", "Newsletter May", "Search Brand", "Search Generic", "Social Retargeting",
             "Loyalty Week", "Referral Bonus"]
SEGMENTS = ["new", "bronze", "silver", "gold"]
CHANNELS = ["organic", "paid_search", "social", "email", "referral"]
COUNTRIES = ["NL", "BE", "DE", "FR"]
TYPES = ["view", "click", "visit", "open", "add_to_cart"]


class Recording:
    """Collects records as (arrival, topic, key, value) and writes them out in order of arrival."""

    def __init__(self):
        self.records = []

    def put(self, at, topic, key, value):
        self.records.append((at, topic, key, value))

    def event(self, event_id, customer, kind, campaign, ts, arrived=None):
        value = dict(event_id=event_id, customer_id=customer, event_type=kind, campaign_id=campaign, event_ts=ts)
        self.put(ts + 800 if arrived is None else arrived, "event", event_id, value)

    def order(self, order_id, customer, cents, ts, arrived=None):
        value = dict(order_id=order_id, customer_id=customer, total_amount=Cents(cents), order_ts=ts)
        self.put(ts + 300 if arrived is None else arrived, "sale_order", order_id, value)

    def customer(self, number, segment, channel, country, at, opt_in=True, last_purchase=None):
        key = customer_id(number)
        value = dict(customer_id=key, email=f"c{number:02}@example.org", phone=f"+31 20 555 01{number:02}", segment=segment,
                     acquisition_channel=channel, country=country, opt_in=opt_in, last_purchase_ts=last_purchase)
        self.put(at, "customer", key, value)

    def campaign(self, number, name, at):
        self.put(at, "campaign", str(number), dict(id=number, name=name))

    def partitions(self):
        """Returns (topic, partition) -> records, each with its own timestamp."""
        out, last = {}, 0
        for at, topic, key, value in sorted(self.records, key=lambda r: r[0]):
            last = max(at, last + 1)  # no two records share a timestamp
            partition = zlib.crc32(key.encode()) % 2 if topic == "event" else 0
            out.setdefault((topic, partition), []).append((last, key, value))
        return out


class Cents(int):
    """An amount of money that is written with its two decimals."""


def customer_id(number):
    return f"C-{number:02}"


def json_text(value):
    if value is None:
        return "null"
    parts = []
    for name, v in value.items():
        text = f"{v // 100}.{v % 100:02}" if isinstance(v, Cents) else json.dumps(v, ensure_ascii=False)
        parts.append(f'"{name}":{text}')
    return "{" + ",".join(parts) + "}"


def random_life(rec, rng):
    """C-01 .. C-12: visits over three weeks, orders now and then, a delivery that is sometimes late."""
    number = 0
    for c in range(1, 13):
        times = sorted(START + rng.randrange(0, 21 * DAY) // 1000 * 1000 for _ in range(rng.randint(17, 28)))
        for ts in times:
            number += 1
            late = rng.random()
            delay = rng.randrange(200, 4_000) if late < 0.85 else rng.randrange(5 * MIN, 9 * HOUR)
            campaign = str(rng.choice([1, 2, 3, 4, 5, 6, 7, 8, 3, 3])) if rng.random() < 0.75 else None
            rec.event(f"ev-{number:04}", customer_id(c), rng.choice(TYPES), campaign, ts, ts + delay)
    order = 0
    for c in range(1, 13):
        for _ in range(rng.randint(2, 5)):
            order += 1
            ts = START + rng.randrange(1 * DAY, 21 * DAY) // 1000 * 1000
            delay = rng.randrange(100, 2_000) if rng.random() < 0.9 else rng.randrange(1 * HOUR, 30 * HOUR)
            rec.order(f"SO-{1000 + order}", customer_id(c), rng.randrange(499, 25_000), ts, ts + delay)
    return number


def redelivered_events(rec, rng):
    """Some events of the random part arrive twice: as they were, or with other content, which must be ignored."""
    events = [r for r in rec.records if r[1] == "event"]
    for n, (at, _, key, value) in enumerate(rng.sample(events, 12)):
        value = dict(value)
        if n % 2:
            value["event_type"] = "corrected"
            value["event_ts"] -= 2 * DAY
        rec.put(at + rng.randrange(1 * MIN, 2 * DAY), "event", key, value)


def customers(rec, rng):
    """Every customer but C-25 is known before the first event; C-21 only after its order."""
    for c in range(1, 25):
        at = START - 1 * DAY + c * MIN
        if c == 21:
            at = START + 12 * DAY
        rec.customer(c, rng.choice(SEGMENTS), rng.choice(CHANNELS), rng.choice(COUNTRIES), at, rng.random() < 0.7)
    rec.customer(3, "gold", "email", "NL", START + 9 * DAY, True, START + 8 * DAY)   # rises
    rec.customer(3, "gold", "email", "NL", START + 10 * DAY, False, START + 8 * DAY)  # changes what the mart does not show
    rec.customer(9, "silver", "referral", "BE", START + 15 * DAY, True, START + 14 * DAY)
    rec.customer(9, "bronze", "referral", "BE", START + 16 * DAY, True, START + 14 * DAY)  # and falls again
    rec.put(START + 17 * DAY, "customer", customer_id(7), None)   # asks to be forgotten
    rec.put(START + 5 * DAY, "customer", customer_id(8), None)    # is deleted by mistake ..
    rec.customer(8, "bronze", "social", "DE", START + 6 * DAY)    # .. and comes back


def campaigns(rec):
    """Seven campaigns before the first event, the eighth after its first event; one is renamed. 99 never comes."""
    for n, name in enumerate(CAMPAIGNS[:7], start=1):
        rec.campaign(n, name, START - 2 * DAY + n * MIN)
    rec.campaign(8, CAMPAIGNS[7], START + 11 * DAY)
    rec.campaign(2, "Mother's Day 2026", START + 7 * DAY)


def stories(rec):
    """C-13 .. C-25, one rule each. T is the time of the order."""
    T = START + 10 * DAY + 12 * HOUR

    # C-13, both ends of the window count: exactly 7 days before is the touch of SO-1301, exactly at the order that of SO-1302.
    rec.event("ev-1301", "C-13", "click", "1", T - 7 * DAY)
    rec.event("ev-1302", "C-13", "view", None, T - 1 * DAY)
    rec.order("SO-1301", "C-13", 4_990, T)
    rec.event("ev-1303", "C-13", "add_to_cart", None, T + 8 * DAY)
    rec.order("SO-1302", "C-13", 1_250, T + 8 * DAY)

    # C-14, one millisecond outside, on both sides: no touch.
    rec.event("ev-1401", "C-14", "click", "1", T - 7 * DAY - 1)
    rec.event("ev-1402", "C-14", "click", "4", T + 1)
    rec.order("SO-1401", "C-14", 9_900, T)

    # C-15, two events at one millisecond: the smaller event_id, although it arrives later.
    rec.event("ev-1502", "C-15", "click", "5", T - 2 * DAY, T - 2 * DAY + 1_000)
    rec.event("ev-1501", "C-15", "open", "3", T - 2 * DAY, T - 2 * DAY + 9 * MIN)
    rec.order("SO-1501", "C-15", 3_300, T)

    # C-16, a late event: it happened before the known touch and arrives a day after the order.
    rec.event("ev-1602", "C-16", "click", "4", T - 1 * DAY)
    rec.order("SO-1601", "C-16", 12_000, T)
    rec.event("ev-1601", "C-16", "open", "3", T - 5 * DAY, T + 1 * DAY)

    # C-17, the touch is withdrawn after the order: the next one takes its place. The second order loses its only one.
    rec.event("ev-1701", "C-17", "click", "6", T - 3 * DAY)
    rec.event("ev-1702", "C-17", "visit", None, T - 2 * DAY)
    rec.order("SO-1701", "C-17", 2_599, T)
    rec.put(T + 1 * DAY, "event", "ev-1701", None)
    rec.event("ev-1703", "C-17", "click", "6", T + 9 * DAY)
    rec.order("SO-1702", "C-17", 899, T + 9 * DAY + 1 * HOUR)
    rec.put(T + 9 * DAY + 2 * HOUR, "event", "ev-1703", None)

    # C-18, came in long ago; the touch of the order is a newer event, the first by arrival is outside its 7 days.
    rec.event("ev-1801", "C-18", "click", "1", T - 9 * DAY)
    rec.event("ev-1802", "C-18", "click", "7", T - 1 * DAY)
    rec.order("SO-1801", "C-18", 7_450, T)

    # C-19, never seen before its order.
    rec.order("SO-1901", "C-19", 1_999, T)

    # C-20, the order is corrected (amount, then time: the window moves, the touch with it) and another one cancelled.
    rec.event("ev-2001", "C-20", "click", "2", T - 6 * DAY)
    rec.event("ev-2002", "C-20", "click", "5", T - 1 * DAY)
    rec.order("SO-2001", "C-20", 5_000, T)
    rec.order("SO-2001", "C-20", 4_500, T, T + 1 * HOUR)
    rec.order("SO-2001", "C-20", 4_500, T + 3 * DAY, T + 3 * DAY)
    rec.order("SO-2002", "C-20", 66_600, T + 2 * HOUR)
    rec.put(T + 1 * DAY, "sale_order", "SO-2002", None)

    # C-21, the order arrives before its customer does.
    rec.event("ev-2101", "C-21", "click", "4", T - 4 * HOUR)
    rec.order("SO-2101", "C-21", 8_880, T)

    # C-22, campaigns: 8 arrives after its event, 99 never, "organic" is no number. A campaign_id without a campaign is no name.
    rec.event("ev-2201", "C-22", "click", "8", START + 2 * DAY)
    rec.order("SO-2201", "C-22", 1_500, START + 3 * DAY)
    rec.event("ev-2202", "C-22", "click", "99", START + 10 * DAY)
    rec.order("SO-2202", "C-22", 1_600, START + 11 * DAY)
    rec.event("ev-2203", "C-22", "visit", "organic", START + 18 * DAY)
    rec.order("SO-2203", "C-22", 1_700, START + 19 * DAY)

    # C-23, an event comes back with other content, twice: the first version counts. Then an order delivered twice.
    rec.event("ev-2301", "C-23", "open", "3", T - 3 * DAY)
    rec.event("ev-2301", "C-23", "click", "4", T - 6 * DAY, T - 3 * DAY + 1 * HOUR)
    rec.event("ev-2301", "C-24", "click", "5", T - 6 * DAY, T - 2 * DAY)
    rec.order("SO-2301", "C-23", 2_020, T)
    rec.order("SO-2301", "C-23", 2_020, T, T + 5 * MIN)

    # C-24, an event is withdrawn and sent again: what comes after a delete is a first version again.
    rec.event("ev-2401", "C-24", "click", "6", T - 5 * DAY)
    rec.put(T - 4 * DAY, "event", "ev-2401", None)
    rec.event("ev-2401", "C-24", "open", "3", T - 2 * DAY, T - 2 * DAY + 1 * MIN)
    rec.order("SO-2401", "C-24", 3_141, T)

    # C-25 orders and clicks, but nobody ever tells who it is; and there are events and an order without a customer.
    rec.event("ev-2501", "C-25", "click", "2", T - 2 * DAY)
    rec.order("SO-2501", "C-25", 6_400, T)
    rec.event("ev-2502", None, "visit", "1", T - 1 * HOUR)
    rec.event("ev-2503", None, "visit", None, T - 30 * MIN)
    rec.order("SO-2502", None, 500, T)


def write(partitions, out, redeliver):
    for (topic, partition), records in sorted(partitions.items()):
        if redeliver:
            blocks = [records[i:i + 7] for i in range(0, len(records), 7)]
            records = [r for block in blocks for r in block + block]
        os.makedirs(os.path.join(out, topic), exist_ok=True)
        with open(os.path.join(out, topic, f"{partition}.jsonl"), "w", encoding="utf-8") as f:
            for offset, (timestamp, key, value) in enumerate(records):
                f.write(f'{{"offset":{offset},"timestamp":{timestamp},"key":{json.dumps(key)},"value":{json_text(value)}}}\n')


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("out")
    args.add_argument("--redeliver", action="store_true")
    args = args.parse_args()
    rng, rec = random.Random(SEED), Recording()
    random_life(rec, rng)
    redelivered_events(rec, rng)
    customers(rec, rng)
    campaigns(rec)
    stories(rec)
    write(rec.partitions(), args.out, args.redeliver)


if __name__ == "__main__":
    main()
