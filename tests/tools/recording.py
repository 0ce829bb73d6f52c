"""Recorded topics: collects records, and writes them in order of arrival, the same bytes at every run."""
import json
import os
import zlib


class Cents(int):
    """An amount of money that is written with its two decimals."""


class Recording:
    """Records as (arrival, topic, key, value). `partitions` names the topics that have more than one."""

    def __init__(self, partitions=None):
        self.records, self.partitions = [], partitions or {}

    def put(self, at, topic, key, value):
        self.records.append((at, topic, key, value))

    def split(self):
        """Returns (topic, partition) -> records in order of arrival; no two records of the recording share a timestamp."""
        out, last = {}, 0
        for at, topic, key, value in sorted(self.records, key=lambda r: r[0]):
            last = max(at, last + 1)
            partition = zlib.crc32(key.encode()) % self.partitions.get(topic, 1)
            out.setdefault((topic, partition), []).append((last, key, value))
        return out

    def write(self, out):
        for (topic, partition), records in sorted(self.split().items()):
            os.makedirs(os.path.join(out, topic), exist_ok=True)
            with open(os.path.join(out, topic, f"{partition}.jsonl"), "w", encoding="utf-8") as f:
                for offset, (at, key, value) in enumerate(records):
                    f.write(f'{{"offset":{offset},"timestamp":{at},"key":{json.dumps(key)},"value":{json_text(value)}}}\n')


def json_text(value):
    if isinstance(value, Cents):
        return f"{'-' if value < 0 else ''}{abs(value) // 100}.{abs(value) % 100:02}"
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{json_text(v)}" for name, v in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)
