#!/bin/sh
# Runs the first-touch benchmark and everything it is compared with, one line per run.
#
#   benches/first_touch/run.sh DATA [WORK]
#
# DATA holds event.ndjson, sale_order.ndjson, customer.ndjson and campaign.ndjson. WORK (default: a temporary folder) takes
# the recorded topics and the changelogs: about seven times the size of DATA.
#   EXPECT=hash       fail where an answer differs          SQL=0   leave the SQL job out
#   REPEAT=n          runs of each, default 1               ONLY=.. run only what contains this, e.g. ONLY=sql
set -eu

data=$1
work=${2:-$(mktemp -d)}
root=$(cd "$(dirname "$0")/../.." && pwd)
bin=${CARGO_TARGET_DIR:-$root/target}/release
cd "$root"
cargo build --release -q -p deltaworks-benches
[ "${SQL:-1}" = 0 ] || cargo build --release -q -p deltaworks
mkdir -p "$work"
records=$(cat "$data"/event.ndjson "$data"/sale_order.ndjson "$data"/customer.ndjson "$data"/campaign.ndjson | wc -l)

wanted() {
  case $1 in *"${ONLY:-}"*) return 0 ;; *) return 1 ;; esac
}

# A program that measures itself: label, program, arguments.
own() {
  wanted "$1" || return 0
  label=$1 program=$2
  shift 2
  for _ in $(seq "${REPEAT:-1}"); do
    "$bin/$program" "$@" >"$work/last"
    sed "s/^[a-z_]*:/$label:/" "$work/last"
    check
  done
}

# The SQL job: label, topics, further options.
sql() {
  wanted "$1" && [ "${SQL:-1}" != 0 ] || return 0
  label=$1 topics=$2
  shift 2
  for _ in $(seq "${REPEAT:-1}"); do
    "$bin/measure" --label "$label" --records "$records" -- \
      "$bin/deltaworks" run benches/first_touch/job.sql --replay "$topics" --set OUT="$work/out" "$@"
    "$bin/fold" "$work/out/mart.jsonl" >"$work/last"
    sed "s/^/$label: /" "$work/last"
    check
  done
}

# The SQL job over the files as they are: label, further options.
files() {
  wanted "$1" && [ "${SQL:-1}" != 0 ] || return 0
  label=$1
  shift
  for _ in $(seq "${REPEAT:-1}"); do
    "$bin/measure" --label "$label" --records "$records" -- \
      "$bin/deltaworks" run benches/first_touch/job_files.sql --set DATA="$data" --set OUT="$work/out" "$@"
    "$bin/fold" "$work/out/mart.jsonl" >"$work/last"
    sed "s/^/$label: /" "$work/last"
    check
  done
}

# Fails where the run before gave an answer, and not the expected one.
check() {
  if [ -n "${EXPECT:-}" ] && grep -q answer= "$work/last" && ! grep -q "answer=$EXPECT" "$work/last"; then
    echo "the answer is not $EXPECT" >&2
    exit 1
  fi
}

convert() {
  [ -d "$1" ] || { folder=$1; shift; "$bin/convert" "$data" "$folder" "$@" >/dev/null; }
}
convert "$work/topics"
convert "$work/topics_orders_first" --orders-first
convert "$work/topics_4" --partitions 4

own parse_only parse_only "$data"
own plain_differential plain_differential "$data" --out "$work/plain.jsonl"
own by_hand by_hand_rows "$data" --out "$work/hand.jsonl"
own by_hand_ticks_1000 by_hand_rows "$data" --out "$work/hand.jsonl" --tick 1000
own by_hand_orders_first by_hand_rows "$data" --out "$work/hand.jsonl" --orders-first
own by_hand_topics by_hand_rows "$work/topics" --replay --out "$work/hand.jsonl"
own by_hand_workers_2 by_hand_rows "$data" --out "$work/hand.jsonl" --workers 2
files sql_files --workers 1 --tick-records 10000
files sql_files_ticks_1000 --workers 1 --tick-records 1000
files sql_files_workers_2 --workers 2 --tick-records 10000
sql sql "$work/topics" --workers 1 --tick-records 10000
sql sql_ticks_1000 "$work/topics" --workers 1 --tick-records 1000
sql sql_orders_first "$work/topics_orders_first" --workers 1 --tick-records 10000
sql sql_partitions_4 "$work/topics_4" --workers 1 --tick-records 10000
sql sql_workers_2 "$work/topics_4" --workers 2 --tick-records 10000
if wanted sql_single && [ "${SQL:-1}" != 0 ]; then
  "$bin/deltaworks" bench benches/first_touch/job_files.sql --set DATA="$data" --set OUT="$work/out" --workers 1 \
    --tick-records 10000 --single 3000 | sed 's/^/sql_single: /'
fi
