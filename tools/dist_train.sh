#!/usr/bin/env bash
# Trains with one process a GPU (with several processes on the CPU where there is none):
#   tools/dist_train.sh CONFIG GPUS [flags of tools/train.py]
# On several machines, on each of them: NNODES=2 NODE_RANK=0 MASTER_ADDR=10.0.0.1 [PORT=29500] tools/dist_train.sh ...
set -euo pipefail
fail() { printf 'tools/dist_train.sh: %s\n' "$*" >&2; exit 1; }

(( $# >= 2 )) || fail "needs a config and a number of processes: tools/dist_train.sh CONFIG GPUS [flags of tools/train.py]"
config="$1"
gpus="$2"
shift 2
[[ -f "$config" ]] || fail "there is no config file '$config'; the repository's own are under configs/."
[[ "$gpus" =~ ^[1-9][0-9]*$ ]] || fail "GPUS is the number of processes on this machine, 1 or more, not '$gpus'."

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="$(bash "$root/tools/find_python.sh")"
nodes="${NNODES:-1}"
if [[ "$nodes" == 1 && -z "${PORT:-}" ]]; then
  # a free port, so that several trainings fit on one machine
  rendezvous=(--standalone)
else
  rendezvous=(--node_rank "${NODE_RANK:-0}" --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${PORT:-29500}")
fi
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -m torch.distributed.run --nnodes "$nodes" --nproc_per_node "$gpus" "${rendezvous[@]}" \
  "$root/tools/train.py" "$config" --launcher pytorch "$@"
