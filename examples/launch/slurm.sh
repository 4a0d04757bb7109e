#!/bin/bash
# One run on several nodes of a SLURM cluster, with one process for each GPU:
#
#     sbatch examples/launch/slurm.sh configs/llama_7b.py --mesh.data 4 --mesh.fsdp 8 --data.path DIR
#
# JAX reads the processes and their coordinator from SLURM's variables. It gives each task of a node one of the node's
# GPUs, all of which each task has to see: no --gpus-per-task. The run directory and DIR lie where all nodes see them.
#SBATCH --job-name=jaxlm
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
# TERM comes 300 s before the time is over: all processes save and end with 143, and the job goes into the queue again,
# to resume. A job that was cancelled does not.
set -u

cancelled=
trap 'cancelled=yes' TERM

srun --kill-on-bad-exit=1 python train.py "$@"
status=$?
if [ "$status" -eq 143 ] && [ -z "$cancelled" ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
