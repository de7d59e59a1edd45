#!/usr/bin/env bash
# slurm_down.sh DIR: ends the SLURM that slurm_up.sh started there, its jobs first.
set -u
[ $# -eq 1 ] || { echo "usage: slurm_down.sh DIR" >&2; exit 2; }
dir=$(cd "$1" && pwd) || exit 1
[ -e "$dir/env" ] || exit 0
. "$dir/env"

timeout 10 scancel --user=root 2>/dev/null
timeout 10 scancel --user=root --signal=KILL --full 2>/dev/null
for ((tries = 0; tries < 100; tries++)); do
    [ -n "$(timeout 5 squeue --noheader 2>/dev/null)" ] || break
    sleep 0.2
done

# The nodes before the controller, which they tell of their end; by their own numbers, if these are still theirs.
for file in "$dir"/run/node*.pid "$dir"/run/slurmctld.pid "$dir"/run/munged.pid; do
    [ -s "$file" ] || continue
    process=$(<"$file")
    for signal in TERM KILL; do
        for ((tries = 0; tries < 100; tries++)); do
            grep -qaF "$dir" "/proc/$process/cmdline" 2>/dev/null || break 2
            [ $tries -ne 0 ] || kill -$signal "$process" 2>/dev/null
            sleep 0.1
        done
    done
    rm -f "$file"
done
rm -f "$dir/env"
