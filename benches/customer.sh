#!/bin/sh
# Runs the RFM, uplift and retail benchmarks and what they are compared with, one line per run.
#
#   benches/customer.sh DATA [RETAIL]
#
# DATA holds user_event.ndjson, exposure.ndjson, conversion.ndjson and user_feature.ndjson; RETAIL, a folder, online_retail_II.parquet.
#   EXPECT_RFM=hash EXPECT_UPLIFT=hash EXPECT_RETAIL=hash   fail where an answer differs
#   REPEAT=n          runs of each, default 1               ONLY=.. run only what contains this, e.g. ONLY=rfm
#   PYTHON=python3    a Python with the package duckdb; without it DuckDB is left out, and that is said
set -eu

data=$1
retail=${2:-}
root=$(cd "$(dirname "$0")/.." && pwd)
bin=${CARGO_TARGET_DIR:-$root/target}/release
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$root"
cargo build --release -q -p deltaworks -p deltaworks-benches
python=${PYTHON:-python3}
"$python" -c 'import duckdb' 2>/dev/null || { echo "$python has no package duckdb: DuckDB is left out" >&2; python=; }

wanted() {
  case $1 in *"${ONLY:-}"*) return 0 ;; *) return 1 ;; esac
}

# The peers: label, folder of the benchmark, folder of the data, expected hash.
peers() {
  for _ in $(seq "${REPEAT:-1}"); do
    "$bin/datafusion_batch" "benches/$2/batch.sql" "$3" ${4:+--expect "$4"} | sed "s/^/$1 /"
    [ -z "$python" ] || "$python" benches/peers/duckdb_batch.py "benches/$2/batch.sql" "$3" ${4:+"$4"} | sed "s/^/$1 /"
  done
}

# The SQL job: label, folder of the benchmark, data, changelog, expected hash, further options.
job() {
  label=$1 folder=$2 input=$3 changelog=$4 expected=$5
  shift 5
  for _ in $(seq "${REPEAT:-1}"); do
    "$bin/deltaworks" bench "benches/$folder/job.sql" --set DATA="$input" --set OUT="$work" --workers 1 --tick-records 10000 \
      "$@" | sed "s/^/$label deltaworks: /"
    "$bin/fold" "$work/$changelog.jsonl" ${expected:+--expect "$expected"} | sed "s/^/$label deltaworks: /"
  done
}

if wanted rfm; then
  peers rfm rfm "$data" "${EXPECT_RFM:-}"
  job rfm rfm "$data" rfm "${EXPECT_RFM:-}" --clock 2026-03-02
  job rfm_single rfm "$data" rfm "${EXPECT_RFM:-}" --clock 2026-03-02 --single 3000
  # Days that pass over 1,000,000 customers of two purchases each.
  mkdir "$work/million"
  awk 'BEGIN { for (i = 0; i < 2000000; i++) printf "{\"event_id\":\"e%d\",\"one_id\":\"ONE%08d\",\"event_type\":\"purchase\"," \
    "\"channel\":\"app\",\"item_id\":\"i1\",\"revenue\":%d.50,\"event_time\":\"2026-01-%02d 10:00:00\"}\n", \
    i, i * 7919 % 1000000, i % 90, 1 + i % 31 }' >"$work/million/user_event.ndjson"
  job rfm_days rfm "$work/million" rfm "" --clock 2026-03-02 --days 10
fi
if wanted uplift; then
  peers uplift uplift "$data" "${EXPECT_UPLIFT:-}"
  job uplift uplift "$data" channel_uplift "${EXPECT_UPLIFT:-}"
  job uplift_single uplift "$data" channel_uplift "${EXPECT_UPLIFT:-}" --single 3000
fi
if wanted retail && [ -n "$retail" ]; then
  peers retail retail "$retail" "${EXPECT_RETAIL:-}"
  job retail retail "$retail/online_retail_II.parquet" segment "${EXPECT_RETAIL:-}" --clock 2011-12-10
fi
