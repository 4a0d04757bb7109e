#!/usr/bin/env bash
# One run on several hosts that ssh reaches without a password, with one process for each host:
#
#     examples/launch/ssh.sh "node1 node2" configs/llama_7b.py --mesh.fsdp 16 --data.path DIR
#
# All hosts have the repository and the data in the same places as this one, and the run directory where all see it. The
# first host is the coordinator; the others must reach it by that name. Environment: PORT (8476), DIRECTORY of the
# repository (this one), PYTHON (python). Ctrl-C or SIGTERM here sends SIGTERM to the first process: all save, and end
# with 143.
set -uo pipefail

read -ra hosts <<<"${1:?hosts want a list, as in: $0 \"node1 node2\" configs/names_gpt.py}"
shift
coordinator="${hosts[0]#*@}:${PORT:-8476}"
directory=${DIRECTORY:-$PWD}
pid_file="/tmp/jaxlm-$(id -un)-$$.pid"

run_on() { # host, process
    local words
    words=$(printf '%q ' "${PYTHON:-python}" train.py "${@:3}" --distributed.coordinator "$coordinator" \
        --distributed.processes "${#hosts[@]}" --distributed.process "$2")
    [ "$2" -eq 0 ] && words="echo \$\$ > $pid_file && exec $words"
    ssh -o BatchMode=yes "$1" "cd $(printf '%q' "$directory") && $words" </dev/null
}

# shellcheck disable=SC2329 # called by the trap
stop() {
    ssh -o BatchMode=yes "${hosts[0]}" "kill -TERM \$(cat $pid_file)" </dev/null
}

children=()
for process in "${!hosts[@]}"; do
    run_on "${hosts[$process]}" "$process" "$@" &
    children+=($!)
done
trap stop INT TERM

status=0
for child in "${children[@]}"; do
    ended=0
    wait "$child" || ended=$?
    while kill -0 "$child" 2>/dev/null; do # a signal ended the wait, not the child
        ended=0
        wait "$child" || ended=$?
    done
    [ "$status" -ne 0 ] || status=$ended
done
ssh -o BatchMode=yes "${hosts[0]}" "rm -f $pid_file" </dev/null
exit "$status"
