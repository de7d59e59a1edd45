#!/bin/sh
# Says what a missing nasm costs, and has libjpeg-turbo built again where nasm has come since, which cargo does
# not notice.
#
#   shardtool/nasm.sh TARGET_DIR
set -eu
[ "$(uname -m)" = x86_64 ] || exit 0 # other processors' vector code is built by the C compiler
if ! command -v nasm >/dev/null; then
    echo "setup: NOTE: nasm is not installed, so libjpeg-turbo is built WITHOUT ITS VECTOR CODE. Lossless shards, loading and" >&2
    echo "setup: training are as fast, but encoding (shards of bounded resolution) takes six times as long, and the JPEG rows" >&2
    echo "setup: of 'loader bench' half as long again, so that they do not show libjpeg-turbo at its best." >&2
    echo "setup: To have it: install nasm (Debian: apt-get install nasm), then make setup again." >&2
    exit 0
fi
for build in "$1"/*/build/mozjpeg-sys-*; do
    config=$build/out/include/jconfig.h
    if [ -f "$config" ] && ! grep -q WITH_SIMD "$config"; then
        echo "setup: nasm is there now: libjpeg-turbo will be built again, with its vector code" >&2
        rm -rf "$build" "${build%/build/*}/.fingerprint/${build##*/}"
    fi
done
