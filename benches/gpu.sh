#!/usr/bin/env bash
# Tests and times everything on an NVIDIA GPU in one go, within nine minutes, and prints a table.
#
#   benches/gpu.sh build    where Rust is: puts the programs into target/gpu, for a machine that has none
#   benches/gpu.sh          where the GPU is, in the root of the repository; builds first where Rust is
set -euo pipefail
cd "$(dirname "$0")/.."
programs=target/gpu

# The path of the test program that cargo builds for the library of a package.
test_program() {
  cargo test --release -p "$1" --lib --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1
}

build() {
  mkdir -p "$programs"
  cargo build --release
  cp target/release/dreamer "$programs/dreamer"
  cp "$(test_program engine)" "$programs/engine-tests"
  cp "$(test_program dreamer-agent)" "$programs/agent-tests"
}

if [ "${1:-}" = build ]; then
  build
  ls -l "$programs"
  exit
fi
if command -v cargo >/dev/null; then build; fi
if [ ! -x "$programs/dreamer" ]; then
  echo "there is no $programs/dreamer and no cargo to build it; run benches/gpu.sh build where Rust is" >&2
  exit 1
fi
out=${OUT:-$programs}
export DREAMER_REQUIRE_GPU=1

echo "== devices"
"$programs/dreamer" devices
if ! "$programs/dreamer" devices | grep -q '^cuda:0'; then
  echo "there is no GPU here; nothing was tested or timed" >&2
  exit 1
fi

failed=0
echo "== operations against float64"
"$programs/engine-tests" --test-threads 4 2>&1 | tee "$out/engine-tests.log" | grep -vE ' ok$' || failed=1
echo "== official numbers"
"$programs/agent-tests" golden --include-ignored --nocapture 2>&1 | tee "$out/agent-tests.log" | grep -E 'worst|off by|^test ' ||
  failed=1

echo "== speed"
for size in size1m size12m size50m size200m; do
  for obs in vector image; do
    timeout 90 "$programs/dreamer" bench --device cuda --configs "$size" --obs "$obs" --updates 10 \
      --json "$out/$size-$obs.json" || { echo "$size $obs failed"; failed=1; }
  done
done
echo "== memory"
nvidia-smi --query-gpu=name,driver_version,memory.used,memory.total --format=csv || true
exit $failed
