#!/bin/sh
# Runs the Kafka benchmarks against a broker of its own, one line per run.
#
#   benches/kafka/run.sh DATA [WORK]
#
# DATA holds event.ndjson, sale_order.ndjson, customer.ndjson and campaign.ndjson. WORK (default: a temporary folder) takes the
# broker, the recorded topics and the changelogs: about ten times the size of DATA. Needs what tests/servers/kafka.sh needs.
#   EXPECT=hash       fail where an answer differs          PORT=19092
set -eu

data=$1
work=${2:-$(mktemp -d)}
port=${PORT:-19092}
root=$(cd "$(dirname "$0")/../.." && pwd)
bin=${CARGO_TARGET_DIR:-$root/target}/release
brokers=127.0.0.1:$port
cd "$root"
cargo build --release -q -p deltaworks -p deltaworks-benches
mkdir -p "$work"
tests/servers/kafka.sh start "$work/broker" "$port" $$
trap 'tests/servers/kafka.sh stop "$work/broker"' EXIT

lines() { wc -l <"$1"; }
produce() { # topic, key, timestamp
  "$bin/kafka_rates" --brokers "$brokers" --topic "$1" produce "$data/$1.ndjson" --key "$2" ${3:+--timestamp "$3"} | sed "s/^/$1 /"
}
job() { # label, further options
  label=$1
  shift
  rm -rf "$work/out"
  "$bin/deltaworks" bench "$work/job.sql" --set OUT="$work/out" --set BROKERS="$brokers" --workers 1 --tick-records 10000 "$@" |
    sed "s/^/$label: /"
  "$bin/fold" "$work/out/mart.jsonl" ${EXPECT:+--expect "$EXPECT"} | sed "s/^/$label: /"
}

# The client library alone.
produce event event_id event_ts
produce sale_order order_id order_ts
produce customer customer_id last_purchase_ts
produce campaign id ""
"$bin/kafka_rates" --brokers "$brokers" --topic event consume --records "$(lines "$data/event.ndjson")"

# The same records from the broker and from a recording of it: first_row and the mart.
sed "s/'connector' = 'kafka',/'connector' = 'kafka', 'scan.bounded.mode' = 'latest-offset',/" benches/first_touch/job.sql >"$work/job.sql"
rm -rf "$work/recording"
"$bin/deltaworks" record --brokers "$brokers" --topic event --topic sale_order --topic customer --topic campaign \
  --out "$work/recording" --end
for _ in 1 2 3; do
  job broker
  job recording --replay "$work/recording"
done

# From acknowledgement to changed record.
for topic in latency_event latency_customer latency_mart; do
  printf '{"customer_id":"C0","segment":"gold"}\n' >"$work/one.ndjson"
  [ $topic = latency_customer ] || printf '{"event_id":"0","customer_id":"C0"}\n' >"$work/one.ndjson"
  key=$([ $topic = latency_customer ] && echo customer_id || echo event_id)
  "$bin/kafka_rates" --brokers "$brokers" --topic $topic produce "$work/one.ndjson" --key "$key" >"$work/last"
done
"$bin/deltaworks" run benches/kafka/latency.sql --set BROKERS="$brokers" --workers 1 &
job=$!
sleep 5
"$bin/kafka_latency" --brokers "$brokers"
kill -INT $job
wait $job
