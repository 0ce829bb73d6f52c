"""Makes the rows of job.sql: two segments of many ids, one of few, in random order; the last rows enter the first segment.

    python3 benches/segments/members.py DIR [IDS] [RANGE] [LAST]
"""

import random
import sys
from pathlib import Path

folder = Path(sys.argv[1])
ids, limit, last = (int(text) for text in (sys.argv[2:] + ["10000000", "20000000", "5000"][len(sys.argv) - 2 :])[:3])
random.seed(42)
everyone = list(range(1, limit + 1))
random.shuffle(everyone)
buyers, entering = everyone[:ids], everyone[ids : ids + last]
openers = random.sample(range(1, limit + 1), ids)
folder.mkdir(parents=True, exist_ok=True)
with open(folder / "member.csv", "w", encoding="utf-8") as rows:
    for buyer, opener in zip(buyers, openers):
        rows.write(f"buyers,{buyer}\nopeners,{opener}\n")
    rows.writelines(f"callers,{user}\n" for user in openers[:1000])
    rows.writelines(f"buyers,{user}\n" for user in entering)
