#!/bin/sh
# Puts PyTorch's C++ libraries (libtorch) where the build looks for them: .torch/torch under the repository root.
#
#   trainer/libtorch.sh cpu          CPU only: one 531 MB wheel and two small CUDA runtime ones it links against
#   trainer/libtorch.sh full         CUDA as well: every library the wheel depends on, about 4.7 GB on disk
#   trainer/libtorch.sh use DIR      an existing PyTorch 2.11 (site-packages/torch) or libtorch directory
#
# Everything comes from the Python package index through pip, into one fresh directory (a second
# `pip install --target` does not merge into an existing one), which is renamed into place when it is whole.
set -eu
version=2.11.0
series=2.11
cd "$(dirname "$0")/.."

die() { printf 'setup: %s\n' "$*" >&2; exit 2; }

# The version a PyTorch or libtorch directory says it has; nothing if it is neither.
version_of() {
    if [ -f "$1/version.py" ]; then
        sed -n "s/^__version__ *= *['\"]\([^'\"]*\)['\"].*/\1/p" "$1/version.py"
    elif [ -f "$1/build-version" ]; then
        cat "$1/build-version"
    fi
}

mode=${1:-cpu}
case $mode in
cpu | full) ;;
use)
    dir=${2:?setup: say which directory: make setup TORCH=DIR}
    [ -d "$dir" ] || die "$dir: no such directory"
    dir=$(cd "$dir" && pwd)
    [ -d "$dir/torch/lib" ] && dir=$dir/torch
    [ -d "$dir/lib" ] && [ -d "$dir/include" ] || die "$dir holds no lib/ and include/: give the torch directory of a PyTorch $series or an unpacked libtorch"
    found=$(version_of "$dir")
    case $found in
    "$series" | "$series".*) ;;
    *) die "$dir is PyTorch '${found:-unknown}', but PyTorch $series is needed" ;;
    esac
    rm -rf .torch
    mkdir .torch
    ln -s "$dir" .torch/torch
    echo "use $dir" >.torch/flavour
    echo "setup: .torch/torch -> $dir (PyTorch $found)" >&2
    exit 0
    ;;
*) die "unknown mode '$mode': cpu, full or use DIR" ;;
esac

if [ "$(version_of .torch/torch)" ]; then
    case "$(cat .torch/flavour 2>/dev/null || echo cpu) $mode" in
    "cpu full") ;; # the fuller set replaces the smaller one
    *)
        case $(version_of .torch/torch) in
        "$series".*) exit 0 ;;
        esac
        ;;
    esac
fi

python3 -m pip --version >/dev/null 2>&1 || die "python3 with pip is needed to fetch PyTorch $version (Debian: apt-get install python3-pip)"
rm -rf .torch.partial
echo "setup: fetching PyTorch $version ($mode) into .torch/" >&2
machine=$(uname -m)
# The wheel's own Python version does not matter for its C++ libraries: naming one makes the set-up the same everywhere.
set -- --target .torch.partial --only-binary=:all: --implementation cp --python-version 3.11 --abi cp311 --abi abi3 --abi none \
    --platform "manylinux_2_28_$machine" --platform "manylinux_2_27_$machine" --platform "manylinux_2_25_$machine" \
    --platform "manylinux_2_24_$machine" --platform "manylinux_2_17_$machine" --platform "manylinux2014_$machine" \
    --disable-pip-version-check --no-warn-conflicts --root-user-action=ignore -q
if [ "$mode" = cpu ]; then
    set -- "$@" --no-deps "torch==$version" "nvidia-cuda-runtime==13.0.*" "nvidia-cuda-cupti==13.0.*"
else
    set -- "$@" "torch==$version" "nvidia-cuda-crt==13.0.*" "nvidia-cuda-cccl==13.0.*"
fi
python3 -m pip install "$@" || die "pip could not fetch PyTorch $version; with an existing one use: make setup TORCH=DIR"
echo "$mode" >.torch.partial/flavour
rm -rf .torch
mv .torch.partial .torch
echo "setup: PyTorch $(version_of .torch/torch) is in .torch/ ($(du -sh .torch | cut -f1))" >&2
