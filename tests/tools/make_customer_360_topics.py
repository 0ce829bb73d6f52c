#!/usr/bin/env python3
"""Makes the recorded topics of jobs/customer_360: a shop with members from 2020 to June 2026, seeded, the same bytes at
every run.

    make_customer_360_topics.py OUT             the topics, OUT/<topic>/<partition>.jsonl

Members MBR001 .. MBR024 live at random; MBR031 .. MBR041 each tell one story (jobs/customer_360/README.md). Record timestamps
are times of arrival: they never go back within a partition, and no two records share one. Times of events and orders do.
"""
import datetime
import random
import sys

from recording import Cents, Recording

MIN, HOUR, DAY = 60_000, 3_600_000, 86_400_000
START = 1_577_836_800_000  # 2020-01-01 00:00:00 UTC
END = 1_780_704_000_000  # 2026-06-06 00:00:00 UTC
SEED = 20260606
ITEMS = [("SKU001", 8_990), ("SKU002", 19_900), ("SKU003", 35_000), ("SKU004", 5_990), ("SKU005", 1_290), ("SKU006", 7_500)]
STOCK = [("85048", "GLASS BALL LIGHTS", 695), ("22111", "HOT WATER BOTTLE", 345), ("22423", "CAKESTAND 3 TIER", 1_275),
         ("84970L", "T-LIGHT HOLDER", 125), ("84029E", "TREE TOP STAR", 165)]


def text(ts):
    return datetime.datetime.fromtimestamp(ts / 1000, datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


class Shop(Recording):
    def __init__(self):
        super().__init__({"app_events": 2, "retail_orders": 2})
        self.members, self.events, self.lines = {}, 0, 0

    def member(self, number, at, level="bronze", points=0, email=None, mobile=None, channel="online"):
        """A member as the database has it now: an insert, or an update of what was there."""
        key, before = f"MBR{number:03}", self.members.get(number)
        after = dict(member_id=key, mobile_hash=mobile or f"hash_mobile_{number:03}", email_hash=email or f"hash_email_{number:03}",
                     real_name=f"Member {number}", gender="FM"[number % 2], birthday=(7_000 + 37 * number),
                     register_date=before["register_date"] if before else at // DAY, channel=channel, level=level,
                     total_points=points, updated_at=at)
        self.members[number] = after
        self.put(at + 700, "crm_members", key, dict(before=before, after=after, op="u" if before else "c", ts_ms=at))

    def leaves(self, number, at):
        before = self.members.pop(number)
        key = before["member_id"]
        self.put(at + 700, "crm_members", key, dict(before=before, after=None, op="d", ts_ms=at))
        self.put(at + 701, "crm_members", key, None)

    def event(self, union, kind, channel, ts, item=None, mobile=None, device=None, arrived=None, event_id=None, price=None):
        self.events += 1
        key = event_id or f"EVT{self.events:04}"
        sku, cents = item or (None, None)
        value = dict(event_id=key, device_id=device or union.replace("union", "DEV"), union_id=union, mobile_hash=mobile,
                     event_type=kind, page_name={"login": "account", "purchase": "checkout"}.get(kind, "product"), item_id=sku,
                     item_price=None if cents is None else Cents(price or cents), channel=channel,
                     platform="wechat" if channel == "miniapp" else "ios", event_time=text(ts), session_id=f"sess_{self.events:04}")
        self.put(ts + 600 if arrived is None else arrived, "app_events", key, value)
        return key

    def login(self, number, channel, ts, union=None, **more):
        self.event(union or f"union_{number:03}", "login", channel, ts, mobile=f"hash_mobile_{number:03}", **more)

    def buys(self, number, channel, ts, item, union=None, **more):
        return self.event(union or f"union_{number:03}", "purchase", channel, ts, item, **more)

    def order(self, ts, lines, customer=None, member=None, arrived=None):
        invoice = f"{600_000 + self.lines}"
        for (code, name, cents), quantity in lines:
            self.lines += 1
            key = f"{invoice}-{code}"
            value = dict(line_id=key, invoice=invoice, stock_code=code, description=name, quantity=quantity, invoice_date=text(ts),
                         price=Cents(cents), customer_id=customer, member_id=member and f"MBR{member:03}", country="United Kingdom")
            self.put(ts + 400 if arrived is None else arrived, "retail_orders", key, value)
        return invoice


def day_time(rng, first, last):
    return rng.randrange(first // 1000, last // 1000) * 1000


def random_life(shop, rng):
    for n in range(1, 25):
        joined = day_time(rng, START, START + 900 * DAY)
        gone = min(END - DAY, joined + rng.randrange(60 * DAY, 2_300 * DAY))
        shop.member(n, joined, rng.choice(["bronze", "silver"]), rng.randrange(900), channel=rng.choice(["offline", "online"]))
        if rng.random() < 0.3:
            shop.member(n, joined + 50 * DAY, "gold", 2_500, email=f"hash_email_{n:03}_new")
        channels = rng.sample(["app", "miniapp"], rng.randint(1, 2))
        shop.login(n, channels[0], joined + rng.randrange(HOUR, 30 * DAY))
        for _ in range(rng.randint(1, 5)):
            ts = day_time(rng, joined, gone)
            late = rng.randrange(HOUR, 90 * HOUR) if rng.random() < 0.2 else 600
            shop.buys(n, rng.choice(channels), ts, rng.choice(ITEMS), arrived=ts + late)
        if rng.random() < 0.5:
            shop.order(day_time(rng, joined, gone), [(s, rng.randint(1, 24)) for s in rng.sample(STOCK, 2)], member=n)
        if rng.random() < 0.5:
            shop.event(f"union_{n:03}", "add_cart", channels[0], day_time(rng, joined, gone), rng.choice(ITEMS))
    for customer in ("CUS013085", "CUS013748", "CUS014085", "CUS012583"):
        for _ in range(rng.randint(1, 3)):
            lines = [(s, rng.randint(1, 24)) for s in rng.sample(STOCK, rng.randint(1, 3))]
            shop.order(day_time(rng, START, END - DAY), lines, customer=customer)


def stories(shop):
    first = START + 1_900 * DAY  # 2025-03-15
    for n in range(31, 42):
        shop.member(n, first + n * MIN, "silver", 100)
    late = END - 20 * DAY
    # 31: bought long before anybody knew who it is; the login comes later.
    shop.buys(31, "app", first + DAY, ITEMS[2])
    shop.buys(31, "app", first + 2 * DAY, ITEMS[0])
    shop.login(31, "app", late)
    # 32: two phones and the mini program, one member.
    shop.login(32, "app", first + DAY)
    shop.login(32, "miniapp", first + DAY, union="union_032b")
    shop.buys(32, "app", late, ITEMS[1])
    shop.buys(32, "miniapp", late + DAY, ITEMS[1], union="union_032b")
    # 33: leaves; the purchases leave every table with the member.
    shop.login(33, "app", first + DAY)
    shop.buys(33, "app", late, ITEMS[2])
    shop.leaves(33, END - 10 * DAY)
    # 34: At Risk and High Value, until the second day of buying comes in late.
    shop.login(34, "app", first + DAY)
    shop.buys(34, "app", late, ITEMS[2])
    shop.buys(34, "app", late - 5 * DAY, ITEMS[4], arrived=END - 3 * DAY)
    # 35: a purchase that is withdrawn takes the member out of High Value.
    shop.login(35, "miniapp", first + DAY)
    shop.buys(35, "miniapp", late, ITEMS[3])
    gone = shop.buys(35, "miniapp", late + DAY, ITEMS[2])
    shop.put(END - 4 * DAY, "app_events", gone, None)
    # 36: a price that was wrong and is corrected puts the member into High Value.
    shop.login(36, "app", first + DAY)
    wrong = shop.buys(36, "app", late, ITEMS[2], price=3_500)
    shop.buys(36, "app", late, ITEMS[2], arrived=END - 2 * DAY, event_id=wrong)
    # 37: buys with the card in the shop, and sends most of it back.
    shop.order(late, [(STOCK[2], 40)], member=37)
    shop.order(late + 2 * DAY, [(STOCK[2], -30)], member=37)
    # 38 and 39 share a phone: what is bought in its app is the older member's.
    shop.login(38, "app", first + DAY)
    shop.login(39, "app", first + 2 * DAY, union="union_038")
    shop.buys(38, "app", late, ITEMS[0])
    # 40: 600 days after the last purchase a member hibernates; the day comes with the clock.
    shop.login(40, "app", first)
    shop.buys(40, "app", END - 601 * DAY, ITEMS[2])
    # 41: At Risk and High Value, and stays so.
    shop.login(41, "miniapp", first)
    shop.buys(41, "miniapp", late, ITEMS[2])
    # A device that nobody logged in on, an order line without anybody, and a purchase without an item count for nobody.
    shop.event("union_099", "purchase", "app", late, ITEMS[5])
    shop.order(late, [(STOCK[0], 3)])
    shop.event("union_036", "purchase", "app", late + DAY)


def redelivered(shop, rng):
    """Some records arrive twice, as they were. None that was changed in between."""
    keys = [key for _, _, key, _ in shop.records]
    for at, topic, key, value in rng.sample([r for r in shop.records if keys.count(r[2]) == 1], 12):
        shop.put(min(at + rng.randrange(MIN, 40 * DAY), END - HOUR), topic, key, value)


def main():
    rng, shop = random.Random(SEED), Shop()
    random_life(shop, rng)
    stories(shop)
    redelivered(shop, rng)
    # The last to arrive: it says how late it is.
    shop.event("union_001", "view", "app", END + 9 * HOUR)
    shop.write(sys.argv[1])


if __name__ == "__main__":
    main()
