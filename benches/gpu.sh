#!/usr/bin/env bash
# Tests and times everything on an NVIDIA GPU within nine minutes, and prints a table.
#
#   benches/gpu.sh build        where Rust is: puts the programs into target/gpu, for a machine that has none
#   benches/gpu.sh test         where the GPU is, in the root of the repository: operations and official numbers
#   benches/gpu.sh speed        there: updates and acting of every size that the time allows
#   benches/gpu.sh              both; builds first where Rust is
#
# Logs and figures go to $OUT, or to target/gpu.
set -euo pipefail
cd "$(dirname "$0")/.."
programs=target/gpu
out=${OUT:-$programs}
what=${1:-all}
limit=540 # seconds for everything

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
  { git rev-parse HEAD; git diff HEAD | sha256sum; } >"$programs/REVISION"
}

# Runs a command for at most so many seconds, or until the limit.
within() {
  local seconds=$1 left=$((limit - SECONDS))
  shift
  if [ "$left" -lt 15 ]; then
    echo "left out, as the time is up: $*" >&2
    return 1
  fi
  timeout "$((seconds < left ? seconds : left))" "$@"
}

if [ "$what" = build ]; then
  build
  ls -l "$programs"
  exit
fi
if command -v cargo >/dev/null; then build; fi
if [ ! -x "$programs/dreamer" ]; then
  echo "there is no $programs/dreamer and no cargo to build it; run benches/gpu.sh build where Rust is" >&2
  exit 1
fi
if [ -z "${VIRTUAL_ENV:-}" ] && command -v python3 >/dev/null; then
  VIRTUAL_ENV=$(python3 -c 'import sys; print(sys.prefix)') # where a wheel of NVRTC may be
  export VIRTUAL_ENV
fi
export DREAMER_REQUIRE_GPU=1 CXX=/bin/false # an emulated GPU will not do here

echo "== programs of"
cat "$programs/REVISION"
"$programs/dreamer" devices
if ! "$programs/dreamer" devices | grep -q '^cuda:0'; then
  echo "there is no GPU here; nothing was tested or timed" >&2
  exit 1
fi
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv || true
failed=0

if [ "$what" != speed ]; then
  echo "== operations against float64"
  within 240 "$programs/engine-tests" --skip every_kernel_compiles --test-threads 4 >"$out/engine.log" 2>&1 || failed=1
  grep -vE ' ok$|^$' "$out/engine.log" || true
  echo "== official numbers"
  within 120 "$programs/agent-tests" golden --include-ignored --nocapture >"$out/agent.log" 2>&1 || failed=1
  grep -E 'run on|worst|off by|panicked|^test ' "$out/agent.log" || true
fi

if [ "$what" != test ]; then
  echo "== products and convolutions by tile; * is what is chosen"
  within 120 "$programs/engine-tests" time_of --ignored --nocapture --test-threads 1 >"$out/tiles.log" 2>&1 || failed=1
  grep -F ' * ' "$out/tiles.log" || true
  echo "== speed"
  for case in size1m:10 size12m:10 size50m:3 size200m:3; do
    size=${case%:*}
    nvidia-smi --query-gpu=memory.used --format=csv,noheader --loop-ms=200 >"$out/memory-$size.log" 2>/dev/null &
    sampler=$!
    within 120 "$programs/dreamer" bench --device cuda --configs "$size" --obs vector,image --updates "${case#*:}" \
      --json "$out/$size.json" || { echo "$size failed"; failed=1; }
    kill "$sampler" 2>/dev/null || true
    echo "$size: at most $(sort -n "$out/memory-$size.log" 2>/dev/null | tail -1) of device memory"
  done
  rm -f "$out"/memory-*.log
fi
exit $failed
