#!/usr/bin/env bash
# A Slurm of one node on this machine, to rehearse and test hydra/launcher=submitit_slurm:
#
#   apt-get install slurm-wlm munge
#   eval "$(scripts/local_slurm.sh start)"    # prints the variables that Slurm's commands need
#   scripts/local_slurm.sh stop               # leaves no process behind
#
# As root, also inside a container: no cgroups, no systemd. Everything is in $RDX_SLURM (default
# /tmp/rdx_slurm). Accounting needs a database, which is left out; Submitit asks sacct how jobs
# ended, so a sacct that asks slurmctld stands first on the printed PATH.
set -euo pipefail

home=${RDX_SLURM:-/tmp/rdx_slurm}
daemons="slurmd slurmctld munged"

start() {
    for program in slurmctld slurmd munged sbatch; do
        command -v "$program" >/dev/null || {
            echo "local_slurm: no $program; install it: apt-get install slurm-wlm munge" >&2
            exit 1
        }
    done
    [ "$(id -u)" = 0 ] || { echo "local_slurm: slurmd starts jobs as root only" >&2; exit 1; }
    [ ! -e "$home" ] || { echo "local_slurm: $home exists; stop it first" >&2; exit 1; }
    # munged and slurmctld want folders that nobody else can write to
    mkdir -p -m 0755 "$home"/{state,spool,log,bin}
    head -c 1024 /dev/urandom >"$home/munge.key"
    chmod 0400 "$home/munge.key"
    write_conf
    write_sacct
    munged --force --socket="$home/munge.socket" --key-file="$home/munge.key" \
        --pid-file="$home/munged.pid" --log-file="$home/log/munged.log" \
        --seed-file="$home/munge.seed"
    export SLURM_CONF="$home/slurm.conf"
    slurmctld -c
    slurmd -N node0
    for _ in $(seq 60); do
        if sinfo -h -o %T 2>/dev/null | grep -q idle; then
            echo "export SLURM_CONF=$home/slurm.conf PATH=$home/bin:\$PATH"
            return
        fi
        sleep 0.5
    done
    echo "local_slurm: the node did not come up; see $home/log" >&2
    tail -n 5 "$home"/log/*.log >&2
    stop
    exit 1
}

write_conf() {
    cat >"$home/slurm.conf" <<CONF
ClusterName=local
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=${RDX_SLURM_PORT:-16817}
SlurmdPort=$((${RDX_SLURM_PORT:-16817} + 1))
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$home/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait=2
MinJobAge=86400
SchedulerParameters=sched_interval=1,batch_sched_delay=0
StateSaveLocation=$home/state
SlurmdSpoolDir=$home/spool
SlurmctldPidFile=$home/slurmctld.pid
SlurmdPidFile=$home/slurmd.pid
SlurmctldLogFile=$home/log/slurmctld.log
SlurmdLogFile=$home/log/slurmd.log
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName=node0 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=all Nodes=node0 Default=YES MaxTime=INFINITE State=UP
CONF
}

write_sacct() {
    cat >"$home/bin/sacct" <<'SACCT'
#!/usr/bin/env bash
# `sacct -o JobID,State,NodeList --parsable2 -j ID [-j ID ...]`, from slurmctld's memory.
echo "JobID|State|NodeList"
while [ $# -gt 0 ]; do
    if [ "$1" = -j ]; then
        scontrol -o show job "$2" 2>/dev/null | awk '{
            split("", v)
            for (i = 1; i <= NF; i++) { at = index($i, "=")
                if (at && !(substr($i, 1, at - 1) in v)) v[substr($i, 1, at - 1)] = substr($i, at + 1) }
            id = ("ArrayJobId" in v) ? v["ArrayJobId"] "_" v["ArrayTaskId"] : v["JobId"]
            print id "|" v["JobState"] "|" v["NodeList"] }'
        shift
    fi
    shift
done
SACCT
    chmod +x "$home/bin/sacct"
}

stop() {
    export SLURM_CONF="$home/slurm.conf"
    scancel --full --signal=KILL --state=RUNNING >/dev/null 2>&1 || true
    scancel --user=root >/dev/null 2>&1 || true
    for _ in $(seq 20); do
        [ -n "$(squeue -h 2>/dev/null)" ] || break
        sleep 0.5
    done
    for name in $daemons; do
        [ -e "$home/$name.pid" ] || continue
        pid=$(cat "$home/$name.pid")
        kill "$pid" 2>/dev/null || continue
        for _ in $(seq 40); do kill -0 "$pid" 2>/dev/null || break; sleep 0.25; done
        kill -9 "$pid" 2>/dev/null || true
    done
    rm -rf "$home"
}

case "${1:-}" in
start) start ;;
stop) stop ;;
*) echo "usage: scripts/local_slurm.sh start|stop" >&2; exit 2 ;;
esac
