#!/bin/bash
# The same command on every host of a TPU pod slice:
#   scripts/tpu_pod.sh NAME ZONE setup
#   scripts/tpu_pod.sh NAME ZONE train.py --config dr_diffuse --workdir gs://BUCKET/runs/dr_diffuse
# The clone lies in ~/jax_diffse on every host; `setup` installs there. Paths have to be on storage that all hosts share,
# as has the folder of compiled programs: JAX_DIFFSE_CACHE=gs://BUCKET/cache scripts/tpu_pod.sh ...
set -eu
if [ $# -lt 3 ]; then
  echo 'usage: scripts/tpu_pod.sh NAME ZONE setup|train.py|evaluate.py OPTIONS' >&2
  exit 2
fi
name=$1 zone=$2
shift 2
if [ "$1" = setup ]; then
  command="python3 -m venv .venv && .venv/bin/pip install --quiet --constraint requirements.lock '.[tpu,gcs]'"
else
  cache=${JAX_DIFFSE_CACHE:+JAX_DIFFSE_CACHE=$(printf %q "$JAX_DIFFSE_CACHE") }
  command="$cache.venv/bin/python $1 --distributed$(printf ' %q' "${@:2}")"
fi
exec gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="cd jax_diffse && $command"
