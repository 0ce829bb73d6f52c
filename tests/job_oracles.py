"""The tables of jobs/uplift and jobs/customer_360 from their records, in plain Python with exact fractions.

A function takes the records as `oracle.read_recording` gives them and returns table -> rows, sorted by the table's key.
"""
import collections
import decimal
from fractions import Fraction


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
