"""The tables of jobs/uplift and jobs/customer_360 from their records, in plain Python with exact fractions.

A function takes the records as `oracle.read_recording` gives them and returns table -> rows, sorted by the table's key.
"""
import collections
import datetime
import decimal
from fractions import Fraction

EPOCH = datetime.datetime(1970, 1, 1)


def rounded(value, places):
    """A fraction as a DECIMAL, half away from zero."""
    if value is None:
        return None
    scaled = abs(Fraction(value)) * 10 ** places
    whole = int(scaled + Fraction(1, 2))
    number = decimal.Decimal(whole).scaleb(-places)
    return -number if value < 0 and whole else number


def money(value):
    return rounded(Fraction(value), 2)


def latest(records, topic):
    """The rows of a topic's table: of each key the last record, unless that is a tombstone."""
    table = {}
    for _, of, _, _, key, value in records:
        if of == topic:
            table.pop(key, None)
            if value is not None:
                table[key] = value
    return table


# ---- jobs/uplift ----------------------------------------------------------------------------------------------------

UPLIFT_TOPICS = ["exposures", "conversions", "user_features"]


def newest_features(records):
    """Of each user the features of the greatest version, since the user was last deleted."""
    table = {}
    for _, topic, _, _, key, value in records:
        if topic != "user_features":
            continue
        if value is None:
            table.pop(key, None)
        elif key not in table or value["version"] >= table[key]["version"]:
            table[key] = value
    return table


def facts_of(records):
    exposures, conversions = latest(records, "exposures"), latest(records, "conversions")
    features, bought = newest_features(records), collections.defaultdict(list)
    for conversion in conversions.values():
        bought[conversion["user_id"]].append(conversion)
    facts = []
    for x in exposures.values():
        u = features.get(x["user_id"], {})
        for b in bought.get(x["user_id"]) or [None]:
            facts.append({
                "fact_id": f"{x['exposure_id']}/{b['conversion_id'] if b else '-'}",
                **{name: x[name] for name in ("user_id", "campaign_id", "channel", "exposure_time", "is_treated")},
                **{name: u.get(name) for name in ("age_group", "region", "historical_purchase_count")},
                "is_converted": 1 if b else 0,
                "order_value": b and b["order_value"],
                "conversion_time": b and b["conversion_time"],
            })
    return sorted(facts, key=lambda f: f["fact_id"]), exposures, conversions


class Arm:
    """What is counted of some facts."""

    def __init__(self, facts):
        self.count = len(facts)
        self.converted = sum(f["is_converted"] for f in facts)
        self.revenue = sum((Fraction(f["order_value"]) for f in facts if f["is_converted"]), Fraction(0))
        self.rate = Fraction(self.converted, self.count) if facts else None
        self.per_user = self.revenue / self.count if facts else None


def grouped(facts, *columns):
    groups = collections.defaultdict(list)
    for fact in facts:
        groups[tuple(fact[c] for c in columns)].append(fact)
    return sorted(groups.items())


def tier(uplift):
    return "HIGH" if uplift > Fraction(1, 2) else "MEDIUM" if uplift > Fraction(1, 5) else "LOW"


def uplift(records):
    facts, exposures, conversions = facts_of(records)
    channels, scores, roi, audiences = [], [], [], []
    for (campaign, channel, treated), members in grouped(facts, "campaign_id", "channel", "is_treated"):
        arm = Arm(members)
        channels.append({
            "campaign_id": campaign, "channel": channel, "is_treated": treated, "user_count": arm.count,
            "converted_count": arm.converted, "cvr": rounded(arm.rate, 4), "avg_order_value": rounded(arm.per_user, 2)})
    for (campaign, channel), members in grouped(facts, "campaign_id", "channel"):
        treated, control = (Arm([f for f in members if f["is_treated"] == arm]) for arm in (1, 0))
        if treated.count and control.count:
            scores.append({
                "campaign_id": campaign, "channel": channel,
                "cvr_treated": rounded(treated.rate, 4), "cvr_control": rounded(control.rate, 4),
                "uplift_cvr": rounded(treated.rate - control.rate, 4),
                "uplift_arpu": rounded(treated.per_user - control.per_user, 2),
                "cnt_treated": treated.count, "cnt_control": control.count,
                "uplift_tier": tier(treated.rate - control.rate)})
    for (channel,), members in grouped(facts, "channel"):
        arm = Arm([f for f in members if f["is_treated"] == 1])
        roi.append({
            "channel": channel, "treated_revenue": money(arm.revenue), "treated_users": arm.count,
            "roi_per_treated_user": rounded(arm.per_user, 2)})
    number = lambda row: int(row["user_id"][1:])
    buyers = {number(c) for c in conversions.values()}
    for (campaign,), members in grouped(exposures.values(), "campaign_id"):
        treated, control = ({number(x) for x in members if x["is_treated"] == arm} for arm in (1, 0))
        audiences.append({
            "campaign_id": campaign, "treated_users": len(treated), "control_users": len(control),
            "treated_and_converted": len(treated & buyers), "control_and_converted": len(control & buyers),
            "in_both_arms": sorted(treated & control), "treated_without_purchase": sorted(treated - buyers)})
    return {"dwd_user_campaign_facts": facts, "dws_channel_uplift": channels, "ads_uplift_score": scores,
            "channel_roi": roi, "campaign_audience": audiences}


# ---- jobs/customer_360 ----------------------------------------------------------------------------------------------

CUSTOMER_TOPICS = ["crm_members", "app_events", "retail_orders"]
MS_PER_DAY = 86_400_000


def time_text(millis):
    at = EPOCH + datetime.timedelta(milliseconds=millis)
    return at.strftime("%Y-%m-%d %H:%M:%S") + (f".{at.microsecond:06}".rstrip("0") if at.microsecond else "")


def members_of(records):
    """The rows of the database's table: what the last envelope of each key left."""
    members = {}
    for _, topic, _, _, key, value in records:
        if topic == "crm_members":
            members.pop(key, None)
            if value is not None and value["after"] is not None:
                members[key] = value["after"]
    return members


def mapping_of(members, events):
    """(id_type, id_value) -> its row. Of what several members or logins say of one id, the smallest or greatest of each column."""
    seen = collections.defaultdict(list)
    one_id = lambda member: "ONE" + member["member_id"][3:]
    for m in members.values():
        since, until = time_text(m["register_date"] * MS_PER_DAY), time_text(m["updated_at"])
        for name in ("member_id", "mobile_hash", "email_hash"):
            seen[name, m[name]].append((one_id(m), "crm", 100, since, until))
    for e in events.values():
        for m in members.values():
            if e["mobile_hash"] is not None and e["mobile_hash"] == m["mobile_hash"]:
                for name, confidence in (("union_id", 95), ("device_id", 90)):
                    seen[name, e[name]].append((one_id(m), e["channel"], confidence, e["event_time"], e["event_time"]))
    rows = {}
    for (id_type, id_value), links in sorted(seen.items()):
        ones, channels, confidences, firsts, lasts = zip(*links)
        rows[id_type, id_value] = {
            "id_type": id_type, "id_value": id_value, "one_id": min(ones), "source_channel": min(channels),
            "confidence": rounded(Fraction(max(confidences), 100), 2), "first_seen": min(firsts), "last_seen": max(lasts)}
    return rows


def purchases_of(events, orders, mapping):
    rows = []
    for e in events.values():
        owner = mapping.get(("union_id", e["union_id"]))
        if e["event_type"] == "purchase" and e["item_id"] is not None and owner:
            rows.append({
                **{"event_id": e["event_id"], "one_id": owner["one_id"]},
                **{name: e[name] for name in ("event_type", "channel", "platform", "item_id", "item_price")},
                "quantity": 1, "revenue": money(e["item_price"]), "event_time": e["event_time"],
                "event_date": e["event_time"][:10], "session_id": e["session_id"]})
    for o in orders.values():
        owner = mapping.get(("member_id", o["member_id"]))
        one_id = owner["one_id"] if owner else o["customer_id"]
        if one_id is not None:
            rows.append({
                "event_id": f"ORT-{o['line_id']}", "one_id": one_id, "event_type": "purchase",
                "channel": "web" if o["member_id"] is None else "store", "platform": "shop", "item_id": o["stock_code"],
                "item_price": o["price"], "quantity": o["quantity"], "revenue": money(Fraction(o["price"]) * o["quantity"]),
                "event_time": o["invoice_date"], "event_date": o["invoice_date"][:10], "session_id": o["invoice"]})
    return sorted(rows, key=lambda r: r["event_id"])


def segment(recency, frequency, monetary):
    if recency <= 200 and frequency >= 2 and monetary >= 300:
        return "Champions"
    if recency <= 600 and frequency >= 2:
        return "Loyal Customers"
    return "At Risk" if recency <= 600 else "Hibernating" if recency <= 2000 else "Lost"


def rfm_of(purchases, today):
    rows = []
    for (one_id,), of in grouped(purchases, "one_id"):
        days = sorted({p["event_date"] for p in of})
        rows.append({
            "one_id": one_id, "recency_days": (today - datetime.date.fromisoformat(days[-1])).days, "frequency": len(days),
            "monetary": sum(p["revenue"] for p in of), "last_purchase_date": days[-1], "first_purchase_date": days[0]})
    return rows


def with_segment(row):
    out = {}
    for name, value in row.items():
        out[name] = value
        if name == "monetary":
            out["rfm_segment"] = segment(row["recency_days"], row["frequency"], value)
    return out


def sets_of(segments, purchases):
    sets = collections.defaultdict(set)
    put = lambda tag, one_id: sets[tag].add(int(one_id[3:])) if one_id.startswith("ONE") else None
    sets["High Value"]
    for s in segments:
        put(s["rfm_segment"], s["one_id"])
        if s["monetary"] >= 300:
            put("High Value", s["one_id"])
    for p in purchases:
        put(f"channel_{p['channel']}", p["one_id"])
    return {tag: sorted(members) for tag, members in sorted(sets.items()) if members or tag == "High Value"}


def packages_of(sets, segments):
    of = lambda tag: set(sets.get(tag, []))
    segment_of = {s["one_id"]: s["rfm_segment"] for s in segments}
    audiences = [
        ("PKG001", "At Risk High Value", "At Risk AND High Value", of("At Risk") & of("High Value")),
        ("PKG002", "Champions in the app", "Champions AND channel_app", of("Champions") & of("channel_app")),
        ("PKG003", "App only", "channel_app AND NOT channel_miniapp", of("channel_app") - of("channel_miniapp"))]
    return [{
        "package_id": package, "package_name": name, "segment_rule": rule, "one_id": f"ONE{n:03}",
        "rfm_segment": segment_of[f"ONE{n:03}"]} for package, name, rule, members in audiences for n in sorted(members)]


def customer_360(records):
    members, events, orders = members_of(records), latest(records, "app_events"), latest(records, "retail_orders")
    mapping = mapping_of(members, events)
    purchases = purchases_of(events, orders, mapping)
    today = (EPOCH + datetime.timedelta(milliseconds=max(r[0] for r in records))).date()
    rfm = rfm_of(purchases, today)
    segments = [with_segment(row) for row in rfm]
    sets = sets_of(segments, purchases)
    return {"dwd_id_mapping": list(mapping.values()), "dwd_user_events": purchases, "dws_user_rfm": rfm,
            "dws_user_segment": segments,
            "ads_user_bitmap": [{"segment_tag": tag, "user_bitmap": members} for tag, members in sets.items()],
            "ads_audience_package": packages_of(sets, segments)}
