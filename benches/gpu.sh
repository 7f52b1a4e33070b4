#!/usr/bin/env bash
# Tests and times everything on an NVIDIA GPU within a time limit, and prints a table.
#
#   benches/gpu.sh build        where Rust is: puts the programs into target/gpu, for a machine that has none, and, where NVRTC
#                               is, compiled kernels (for Hopper and its version of CUDA; DREAMER_ARCH=80 and so on for others)
#   benches/gpu.sh test         where the GPU is, in the root of the repository: operations, official numbers, and recorded
#                               updates and acting against those that are computed as they come
#   benches/gpu.sh speed        there: updates and acting of every size, the smallest first
#   benches/gpu.sh tiles        there: every tile of products and convolutions, for the model that chooses among them
#   benches/gpu.sh races        there, with compute-sanitizer: accesses out of bounds, races over shared memory, and barriers that
#                               not all threads reach, which an emulated GPU cannot have; LIMIT=3000 has time for all
#   benches/gpu.sh              test, speed and tiles, as far as the time goes; builds first where Rust is
#
# LIMIT=SECONDS sets the time for everything, 540. Logs and figures go to $OUT, or to target/gpu.
set -euo pipefail
cd "$(dirname "$0")/.."
programs=target/gpu
out=${OUT:-$programs}
what=${1:-all}
limit=${LIMIT:-540}

# The path of the test program that cargo builds for the library of a package.
test_program() {
  cargo test --release -p "$1" --lib --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1
}

# What the programs are made of, which can be told without git.
sources() {
  find crates configs .cargo Cargo.toml Cargo.lock -type f -name '*.rs' -o -name '*.cu' -o -name '*.cuh' -o -name '*.h' \
    -o -name '*.toml' -o -name '*.yaml' -o -name '*.lock' | LC_ALL=C sort | xargs sha256sum | sha256sum
}

build() {
  mkdir -p "$programs"
  rm -f "$programs/SOURCES" # which is written last: nothing else says that the programs belong together
  local before
  before=$(sources)
  cargo build --release
  cp target/release/dreamer "$programs/dreamer"
  cp "$(test_program engine)" "$programs/engine-tests"
  cp "$(test_program dreamer-agent)" "$programs/agent-tests"
  XDG_CACHE_HOME=$PWD/$programs/cache "$programs/engine-tests" fill_the_cache --ignored --quiet >"$programs/kernels.log" 2>&1 ||
    echo "kernels were not compiled here ($programs/kernels.log says why); they will be where the GPU is" >&2
  echo "$before" >"$programs/SOURCES"
}

# Runs a command for at most so many seconds, or until the limit.
within() {
  local seconds=$1 left=$((limit - SECONDS))
  shift
  if [ "$left" -lt 15 ]; then
    echo "left out, as the time is up: $*" >&2
    return 1
  fi
  timeout -k 5 "$((seconds < left ? seconds : left))" "$@"
}

case "$*" in
"" | build | test | speed | tiles | races | all) ;;
*)
  echo "there is no '$*' here; there are build, test, speed, tiles and races, or nothing for test, speed and tiles" >&2
  exit 2
  ;;
esac
case $limit in
*[!0-9]*)
  echo "LIMIT is '$limit', but must be a number of seconds" >&2
  exit 2
  ;;
esac
limit=$((10#$limit))

wants() {
  [ "$what" = "$1" ] || { [ "$what" = all ] && [ "$1" != races ]; }
}

# The modules of the tests of a program, one a line.
modules() {
  "$1" --list --format terse | sed -n 's/::[^:]*: test$//p' | sort -u
}

if [ "$what" = build ]; then
  build
  ls -l "$programs"
  exit
fi
# Programs that were built elsewhere are taken only if they are of these sources.
if [ ! -x "$programs/dreamer" ] || [ "$(sources)" != "$(cat "$programs/SOURCES" 2>/dev/null)" ]; then
  if ! command -v cargo >/dev/null; then
    echo "$programs has no programs of these sources, and there is no cargo to build them; run benches/gpu.sh build where Rust is" >&2
    exit 1
  fi
  if ! find /dev -maxdepth 1 -name 'nvidia*' -o -name 'nvhost*' -o -name dxg | grep -q .; then # which saves building
    echo "there is no GPU here; nothing was tested or timed" >&2
    exit 1
  fi
  build
fi
if [ -z "${VIRTUAL_ENV:-}" ] && command -v python3 >/dev/null; then
  VIRTUAL_ENV=$(python3 -c 'import sys; print(sys.prefix)') # where a wheel of NVRTC may be
  export VIRTUAL_ENV
fi
export XDG_CACHE_HOME=$PWD/$programs/cache # kernels that were compiled while building
export DREAMER_REQUIRE_GPU=1 CXX=/bin/false # an emulated GPU will not do here

echo "== programs of the sources $(cut -c1-12 "$programs/SOURCES")"
"$programs/dreamer" devices
if ! "$programs/dreamer" devices | grep -q '^cuda:0'; then
  echo "there is no GPU here; nothing was tested or timed" >&2
  exit 1
fi
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv || true
failed=0

if wants test; then
  echo "== operations against float64"
  # Kernels of both precisions are compiled once, side by side; then each module has a process of its own, as a kernel
  # that fails takes everything with it that its process does on the GPU. Tests whose blocks of threads wait for each
  # other come last, so that a fault there does not look like one of everything else.
  within 120 "$programs/engine-tests" cuda::queue cuda::peak --test-threads 1 >"$out/engine.log" 2>&1 || failed=1
  export programs
  modules "$programs/engine-tests" | grep -v '^cpu::' |
    within 150 xargs -P 6 -I{} sh -c \
      'log=$(timeout --foreground -k 5 100 "$programs/engine-tests" "{}::" --skip every_kernel_compiles --skip one_launch \
        --skip members_have_the_same --test-threads 2 2>&1) ||
        log="$log FAILED in {}"; printf "%s\n" "$log"' >>"$out/engine.log" 2>&1 || failed=1
  within 100 "$programs/engine-tests" one_launch --test-threads 1 >>"$out/engine.log" 2>&1 ||
    { echo "FAILED in scans by one launch" >>"$out/engine.log"; failed=1; }
  grep -E 'FAILED|panicked|error|left out' "$out/engine.log" && failed=1
  echo "$(grep -c ' ok$' "$out/engine.log") tests passed"
  echo "== official numbers"
  within 90 "$programs/agent-tests" golden --include-ignored --nocapture >"$out/agent.log" 2>&1 || failed=1
  echo "== recorded updates and acting against those computed as they come"
  for module in update_tests acting_tests trial; do
    within 60 "$programs/agent-tests" "$module" --test-threads 1 >>"$out/agent.log" 2>&1 || failed=1
  done
  grep -E 'run on|worst|off by|panicked|left out|^test ' "$out/agent.log" || true
fi

if wants speed; then
  echo "== speed"
  # A process for each, so that what one holds is not counted for another.
  for case in size1m:100 size12m:50 size50m:20 size200m:10; do
    size=${case%:*}
    for obs in vector image; do
      within 100 "$programs/dreamer" bench --device cuda --configs "$size" --obs "$obs" --updates "${case#*:}" \
        --json "$out/$size-$obs.json" || { echo "$size $obs failed"; failed=1; }
    done
  done
  echo "== speed with all steps of the recurrence in one launch"
  for case in size1m:cluster size1m:grid size12m:grid size50m:grid; do
    size=${case%:*} scan=${case#*:}
    if DREAMER_SCAN=$scan within 60 "$programs/dreamer" bench --device cuda --configs "$size" --obs vector --updates 50 \
      --json "$out/$size-$scan.json"; then
      grep -Eq '"name": ?"forward' "$out/$size-$scan.json" || echo "$size has launches after all, as it does not fit"
    else
      echo "$size by $scan failed"
      failed=1
    fi
  done
fi

if wants tiles; then
  echo "== products and convolutions by tile; * is what is chosen"
  within 120 "$programs/engine-tests" time_of --ignored --nocapture --test-threads 1 >"$out/tiles.log" 2>&1 || failed=1
  grep -E ' \* |left out' "$out/tiles.log" || true
fi

if wants races; then
  echo "== races, accesses and barriers"
  for tool in memcheck racecheck synccheck; do
    for module in ops::scan ops::step ops::latent ops::norm_act cuda::gemm ops::conv; do
      log=$out/$tool-${module//::/-}.log
      within 200 compute-sanitizer --tool "$tool" --error-exitcode 9 "$programs/engine-tests" "$module" \
        --test-threads 1 >"$log" 2>&1 || { echo "$tool $module: see its log"; failed=1; }
      tail -n 1 "$log"
    done
  done
fi
exit $failed
