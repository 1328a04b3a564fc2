#!/bin/bash
# Several processes on a SLURM cluster, one for each GPU:
#   sbatch scripts/slurm.sh train.py --config dr_diffuse --workdir /scratch/runs/dr_diffuse
#   sbatch --nodes=1 scripts/slurm.sh evaluate.py --workdir /scratch/runs/dr_diffuse --output /scratch/report
# Options of sbatch before the script's name replace those below. All paths have to be on storage that all nodes share.
# Five minutes before its time is over, or when another job takes its place, a training saves and ends; submitted again
# it goes on.
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -eu
if [ $# -lt 1 ]; then
  echo 'usage: sbatch scripts/slurm.sh train.py|evaluate.py OPTIONS' >&2
  exit 2
fi
cd "${SLURM_SUBMIT_DIR:-.}"
# --kill-on-bad-exit: a process that fails takes the others with it at once.
exec srun --kill-on-bad-exit=1 "${PYTHON:-.venv/bin/python}" "$1" --distributed "${@:2}"
