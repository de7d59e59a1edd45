#!/bin/sh
# Builds the fuzz targets with AddressSanitizer and runs each for a while:
#
#   fuzz/run.sh SECONDS TARGET...
#   fuzz/run.sh build                 builds them only
#
# What cargo-fuzz would do, without it; C libraries are instrumented too. New inputs go to target/fuzz/corpus/TARGET and
# are used again by the next run, inputs that fail to target/fuzz/artifacts/.
set -eu
cd "$(dirname "$0")/.."
seconds=$1
shift
targets=${*:-shard dct streams rans jpeg raw turbo official sources convert}
out=${CARGO_TARGET_DIR:-target}/fuzz
host=x86_64-unknown-linux-gnu

export RUSTFLAGS="--cfg fuzzing -Zsanitizer=address -Ccodegen-units=1 -Cpasses=sancov-module \
-Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
# gcc knows other words than clang for the same; src/coverage.c counts what it calls.
if ${CC:-cc} --version | grep -q clang; then
	coverage=-fsanitize-coverage=inline-8bit-counters,pc-table,trace-cmp
else
	coverage=-fsanitize-coverage=trace-pc,trace-cmp
fi
export CFLAGS="-g1 -fno-omit-frame-pointer -fsanitize=address $coverage"
${CARGO:-cargo} +nightly build --release --manifest-path fuzz/Cargo.toml --target $host --target-dir "$out"
[ "$seconds" != build ] || exit 0

# Targets that need files keep them in memory, where that is.
[ ! -w /dev/shm ] || export TMPDIR=/dev/shm
TMPDIR=$(mktemp -d)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT

status=0
for target in $targets; do
	seeds=fuzz/corpus/$target
	# JPEG files there are already.
	case $target in jpeg | turbo) seeds=shardtool/tests/fixtures/jpeg ;; esac
	# A build's threads may still be ending when it is done, with memory that only they know of.
	case $target in convert) leaks=0 ;; *) leaks=1 ;; esac
	mkdir -p "$out/corpus/$target" "$out/artifacts"
	echo "fuzz: $target for $seconds s"
	"$out/$host/release/$target" -max_total_time="$seconds" -timeout=25 -print_final_stats=1 -verbosity=${VERBOSITY:-0} \
		-detect_leaks=$leaks -artifact_prefix="$out/artifacts/$target-" "$out/corpus/$target" "$seeds" || status=1
done
exit $status
