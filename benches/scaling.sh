#!/usr/bin/env bash
# Measures updates over threads, batch sizes and model sizes, and prints the table of docs/performance.md.
# Takes about a quarter of an hour on two cores, and a few minutes more for each doubling of them: benches/scaling.sh [path to the binary]
set -euo pipefail
dreamer=${1:-target/release/dreamer}
json=$(mktemp)
trap 'rm -f "$json"' EXIT

row() { # configuration flags
  "$dreamer" bench "$@" --json "$json" >/dev/null
  value() { sed -n "s/^ *\"$1\": \"\{0,1\}\([^\",]*\)\"\{0,1\},*$/\1/p" "$json" | head -1; }
  awk -v size="$(value size)" -v obs="$(value obs)" -v batch="$(value batch_size)" -v threads="$(value threads)" \
    -v ms="$(value update_ms_min)" -v gflop="$(value gflop)" -v share="$(value share_of_peak)" -v rss="$(value rss_mb)" \
    'BEGIN { printf "| %s | %s | %d | %d | %.0f | %.0f | %.0f | %.0f %% | %.2f |\n",
             size, obs, batch, threads, ms, batch * 64000 / ms, gflop, 100 * share, rss / 1000 }'
}

# 1, 2, 4, ... and all
threads_list=$(for ((n = 1; n < $(nproc); n *= 2)); do echo $n; done; nproc)

echo "| size | obs | batch | threads | ms per update | replayed steps per second | GFLOP | share of peak | GB |"
echo "|---|---|---|---|---|---|---|---|---|"
for threads in $threads_list; do
  for batch in 4 16 64; do
    for obs in image vector; do
      row --configs size1m --obs $obs --batch_size $batch --threads "$threads" --updates 5
    done
  done
done
for threads in $threads_list; do
  for batch in 4 16; do
    for obs in image vector; do
      row --configs size12m --obs $obs --batch_size $batch --threads "$threads" --updates 2
    done
  done
done
for size in size25m size50m; do
  for obs in image vector; do row --configs $size --obs $obs --updates 1; done
done
