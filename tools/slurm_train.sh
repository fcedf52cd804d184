#!/usr/bin/env bash
# Trains under Slurm: tools/slurm_train.sh PARTITION JOB_NAME CONFIG [flags of tools/train.py]
# GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5) and SRUN_ARGS come from the environment.
set -euo pipefail
fail() { printf 'tools/slurm_train.sh: %s\n' "$*" >&2; exit 1; }

(( $# >= 3 )) || fail "needs a partition, a job name and a config: tools/slurm_train.sh PARTITION JOB_NAME CONFIG [flags of tools/train.py]"
partition="$1"
job="$2"
config="$3"
shift 3
[[ -f "$config" ]] || fail "there is no config file '$config'; the repository's own are under configs/."
command -v srun >/dev/null || fail "there is no srun here; run it on a Slurm login node, or use tools/dist_train.sh."

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="$(bash "$root/tools/find_python.sh")"
gpus="${GPUS:-8}"
gpus_per_node="${GPUS_PER_NODE:-8}"
# a job smaller than a node takes only what it uses
if (( gpus < gpus_per_node )); then gpus_per_node="$gpus"; fi
read -ra srun_args <<<"${SRUN_ARGS:-}"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec srun --partition "$partition" --job-name "$job" --gres "gpu:$gpus_per_node" --ntasks "$gpus" \
  --ntasks-per-node "$gpus_per_node" --cpus-per-task "${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 \
  ${srun_args[@]+"${srun_args[@]}"} \
  "$python" -u "$root/tools/train.py" "$config" --launcher slurm "$@"
