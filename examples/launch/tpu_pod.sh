#!/usr/bin/env bash
# One run on all hosts of a slice of Cloud TPUs, with one process for each host; JAX finds the others by itself:
#
#     examples/launch/tpu_pod.sh NAME ZONE configs/llama_7b.py --mesh.fsdp 8 --data.path DIR --run-dir /mnt/runs/llama
#
# All hosts have the repository in ~/jaxlm, installed by the same --worker=all: pip install '.[tpu]'. The run directory
# and DIR lie on a disk that all of them mount (Filestore, or a bucket by gcsfuse). Environment: DIRECTORY of the
# repository (jaxlm), PYTHON (python3).
set -euo pipefail

name=${1:?the name of the slice, as in: $0 NAME ZONE configs/llama_7b.py}
zone=${2:?its zone, as in: $0 NAME ZONE configs/llama_7b.py}
shift 2
exec gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" --worker=all \
    --command "cd $(printf '%q' "${DIRECTORY:-jaxlm}") && $(printf '%q ' "${PYTHON:-python3}" train.py "$@")"
