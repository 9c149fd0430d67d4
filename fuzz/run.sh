#!/bin/sh
# Fuzzes one target, as `cargo fuzz run` does, without needing cargo-fuzz:
#   fuzz/run.sh pprof_decode -max_total_time=120
# Seeds: fuzz/corpus/<target>/, and the files of $SEEDS if that is a folder.
set -eu
cd "$(dirname "$0")"
target=$1
shift
mkdir -p "corpus/$target" "artifacts/$target"
host=$(rustc +nightly -vV | sed -n 's/^host: //p')
export RUSTFLAGS="--cfg fuzzing -Zsanitizer=address -Ccodegen-units=1 -Cpasses=sancov-module \
-Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
cargo +nightly build --release --target "$host" --bin "$target"
exec "target/$host/release/$target" -artifact_prefix="artifacts/$target/" "$@" "corpus/$target" ${SEEDS:+"$SEEDS"}
