#!/usr/bin/env bash
# slurm_up.sh DIR: starts a SLURM of two nodes, node1 and node2, on this machine, for tests.
#
# DIR gets its configuration, logs and state; `. DIR/env` makes its commands those of a shell. Nothing is installed,
# nothing outside DIR and ROOT is written, no systemd is needed. ROOT (by default DIR/root) holds the distribution's own
# packages, unpacked; they are fetched once. Given again, it starts what has died. slurm_down.sh ends all of it.
#
# Ends with 77, and says why, where that cannot be: without root, or without packages.
set -euo pipefail

cannot() {
    echo "slurm_up.sh: $*" >&2
    exit 77
}

[ $# -eq 1 ] || { echo "usage: slurm_up.sh DIR" >&2; exit 2; }
[ "$(id -u)" -eq 0 ] || cannot "SLURM's daemons start jobs as their users, which takes root"
for program in apt-get dpkg; do
    command -v $program >/dev/null || cannot "no $program: packages of Debian or Ubuntu are needed"
done
mkdir -p "$1"
dir=$(cd "$1" && pwd)
root=${ROOT:-$dir/root}
cpus=8          # of each node, whatever the machine has
names=(node1 node2)

# --- packages ---------------------------------------------------------------------------------------------------------

mkdir -p "$root/packages"
(
    flock 9 # tests beside each other may share ROOT
    [ ! -e "$root/complete" ] || exit 0
    wanted=(slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge)
    # What these need and this system lacks comes with them.
    needed=$(apt-get install --simulate --no-install-recommends "${wanted[@]}" 2>/dev/null |
        sed -n 's/^Inst \([^ ]*\).*/\1/p')
    cd "$root/packages"
    apt-get download -qq "${wanted[@]}" $needed >/dev/null 2>&1 ||
        cannot "the packages ${wanted[*]} cannot be fetched (apt-get update may help)"
    for package in *.deb; do
        dpkg --extract "$package" "$root"
    done
    touch "$root/complete"
) 9>"$root/lock"
plugins=$(find "$root/usr/lib" -type d -name slurm-wlm | head -n 1)
[ -n "$plugins" ] || cannot "no plugins of SLURM in $root"

# --- configuration ----------------------------------------------------------------------------------------------------

mkdir -p "$dir"/{run,log,state,spool,bin}
# Debian's names end in -wlm where two packages could have the same.
for program in slurmctld slurmd slurmstepd; do
    found=$root/usr/sbin/$program-wlm
    [ -x "$found" ] || found=$root/usr/sbin/$program
    ln -sfn "$found" "$dir/bin/$program"
done
if [ ! -s "$dir/key" ]; then
    (umask 277 && head -c 1024 /dev/urandom >"$dir/key")
fi

is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Three ports in a row where nobody listens: the controller's and the nodes'. They are kept from one start to the next.
if [ ! -s "$dir/port" ]; then
    for ((port = 21000 + $$ % 700 * 10; port < 30000; port += 10)); do
        if is_free $port && is_free $((port + 1)) && is_free $((port + 2)); then
            echo $port >"$dir/port"
            break
        fi
    done
    [ -s "$dir/port" ] || { echo "slurm_up.sh: no free ports" >&2; exit 1; }
fi
port=$(<"$dir/port")
host=$(hostname -s)

# Without cgroups, accounting and authentication by the system's munge: these need what a test machine may lack.
cat >"$dir/slurm.conf" <<END
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
AuthInfo=socket=$dir/run/munge
PluginDir=$plugins
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
SlurmctldPidFile=$dir/run/slurmctld.pid
SlurmdPidFile=$dir/run/%n.pid
SlurmctldLogFile=$dir/log/slurmctld
SlurmdLogFile=$dir/log/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
SchedulerParameters=sched_min_interval=0,bf_interval=1
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=60
KillWait=30
END
printf 'CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n' >"$dir/cgroup.conf"
for i in "${!names[@]}"; do
    mkdir -p "$dir/spool/${names[i]}"
    echo "NodeName=${names[i]} NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 1 + i)) CPUs=$cpus" >>"$dir/slurm.conf"
done
echo "PartitionName=test Nodes=node1,node2 Default=YES MaxTime=INFINITE State=UP" >>"$dir/slurm.conf"

libraries=$(dirname "$plugins"):$plugins
cat >"$dir/env" <<END
export SLURM_CONF='$dir/slurm.conf'
export PATH='$root/usr/bin:$dir/bin':"\$PATH"
export LD_LIBRARY_PATH='$libraries'"\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
END
. "$dir/env"

# --- daemons: each goes into the background by itself and leaves its number -------------------------------------------

is_alive() {
    [ -s "$dir/run/$1.pid" ] && grep -qaF "$dir" "/proc/$(<"$dir/run/$1.pid")/cmdline" 2>/dev/null
}

is_alive munged || "$root/usr/sbin/munged" --force --socket="$dir/run/munge" --key-file="$dir/key" \
    --pid-file="$dir/run/munged.pid" --log-file="$dir/log/munged" --seed-file="$dir/run/seed" 2>>"$dir/log/munged"
is_alive slurmctld || slurmctld -f "$dir/slurm.conf"
for name in "${names[@]}"; do
    is_alive "$name" || slurmd -f "$dir/slurm.conf" -N "$name" -d "$dir/bin/slurmstepd"
done

for ((tries = 0; tries < 600; tries++)); do
    ready=$(sinfo --noheader --Node --states=idle,mixed,allocated --format=%N 2>/dev/null | wc -l)
    [ "$ready" -ne ${#names[@]} ] || exit 0
    sleep 0.2
done
echo "slurm_up.sh: the nodes do not come up:" >&2
tail -n 5 "$dir"/log/* >&2
exit 1
