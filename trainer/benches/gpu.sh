#!/bin/sh
# Everything that waits for a GPU, in one go of about ten minutes, with a dated record of it.
#
#   trainer/benches/gpu.sh [OUT]      OUT: where the record goes [trainer/benches/records]
#
# TRAINER   the program, built with `--features trainer/cuda,trainer/compare` [target/release/trainer]. One that was
#           built elsewhere does: it finds libtorch in .torch/, else in the PyTorch 2.11 of `python3`.
# DEVICE    [cuda:0]
# SECONDS_EACH  after so long a part is given up [150]
# IJEPA     a checkout of facebookresearch/ijepa: its step is measured beside ours by PYTHON [python3], which needs
#           PyTorch
#           with CUDA, numpy and, for torch.compile, a C compiler. That takes its own time, most of it compiling
# SECONDS_COMPARING  after so long a preset's comparison is given up [900]
# DATA      a data set of shards: the ViT-B/16 bench is also fed from it, by the loader beside TRAINER
#
# A part that fails does not keep the others from running. Exit code 1 if one did.
set -u
cd "$(dirname "$0")/../.."
trainer=${TRAINER:-target/release/trainer}
device=${DEVICE:-cuda:0}
seconds=${SECONDS_EACH:-150}
python=${PYTHON:-python3}
out=${1:-trainer/benches/records}
[ -x "$trainer" ] || { echo "gpu: no $trainer: make build CUDA=1, or say TRAINER=FILE" >&2; exit 2; }

case $(cat .torch/flavour 2>/dev/null) in
full | use*) ;;
*)
    torch=$(python3 -c 'import importlib.util as u; print(u.find_spec("torch").submodule_search_locations[0])' 2>/dev/null) ||
        { echo "gpu: no libtorch in .torch/ and no PyTorch in python3: make setup FULL=1" >&2; exit 2; }
    LD_LIBRARY_PATH=$torch/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    export LD_LIBRARY_PATH
    ;;
esac

mkdir -p "$out"
name=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1 | tr -cs 'A-Za-z0-9\n' - | tr 'A-Z' 'a-z')
record=$out/gpu-${name:-unknown}-$(date -u +%Y-%m-%d).md
failed=0

# part TITLE COMMAND...: runs it, shows and records what it says and how it ended.
part() {
    title=$1
    shift
    echo "== $title" >&2
    {
        printf '\n## %s\n\n```\n$ %s\n' "$title" "$*"
        timeout "$seconds" "$@" 2>&1
        code=$?
        printf '```\n\nExit code %s.\n' "$code"
        echo "$code" >"$record.code"
    } | tee -a "$record"
    [ "$(cat "$record.code")" = 0 ] || failed=1
    rm -f "$record.code"
}

{
    echo "# A GPU, $(date -u '+%Y-%m-%d %H:%M') UTC"
    echo
    echo "Commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown). \`trainer/benches/gpu.sh\`; $(nproc) CPUs."
    echo
    echo '```'
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv 2>&1
    echo '```'
} >"$record"

part "Does everything work" "$trainer" smoke --device "$device"
for set in trainer/tests/reference/*/; do
    part "As the official code: $set" "$trainer" check-reference "$set" --device "$device"
done
for preset in vit_b16 vit_l16 vit_h14; do
    part "Speed: $preset" "$trainer" bench --preset $preset --device "$device" --steps 20 --warmup 5
done
if [ -n "${DATA:-}" ]; then
    part "Speed: ViT-B/16 fed from shards" "$trainer" bench --config configs/in1k_vitb16_ep600.yaml --shards "$DATA" \
        --set optimization.global_batch=128 --set data.batch_size=128 --set meta.use_bfloat16=true \
        --device "$device" --steps 50 --warmup 10
fi
if [ -n "${IJEPA:-}" ]; then
    seconds=${SECONDS_COMPARING:-900}
    for preset in vit_b16 vit_l16 vit_h14; do
        part "Beside the official code: $preset" "$trainer" bench --preset $preset --device "$device" --steps 10 --warmup 5 \
            --rounds 2 --compare-python "$IJEPA" --python "$python"
    done
fi
echo "recorded: $record" >&2
exit $failed
