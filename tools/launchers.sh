# What the launchers of tools/train.py and tools/test.py share; sourced by them.
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

fail() { printf 'tools/%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

need_config() {
  [[ -f "$1" ]] || fail "there is no config file '$1'; the repository's own are under configs/."
}

# run_distributed TOOL PROCESSES [arguments of the tool]: one process a GPU, by torchrun
run_distributed() {
  local tool="$1" gpus="$2" python nodes rendezvous
  shift 2
  [[ "$gpus" =~ ^[1-9][0-9]*$ ]] || fail "GPUS is the number of processes on this machine, 1 or more, not '$gpus'."
  python="$(bash "$root/tools/find_python.sh")"
  nodes="${NNODES:-1}"
  if [[ "$nodes" == 1 && -z "${PORT:-}" ]]; then
    # a free port, so that several runs fit on one machine
    rendezvous=(--standalone)
  else
    rendezvous=(--node_rank "${NODE_RANK:-0}" --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${PORT:-29500}")
  fi
  export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
  exec "$python" -m torch.distributed.run --nnodes "$nodes" --nproc_per_node "$gpus" "${rendezvous[@]}" \
    "$root/tools/$tool" --launcher pytorch "$@"
}

# run_slurm TOOL PARTITION JOB_NAME [arguments of the tool]: one task a GPU, by srun
run_slurm() {
  local tool="$1" partition="$2" job="$3" python gpus gpus_per_node srun_args
  shift 3
  command -v srun >/dev/null || fail "there is no srun here; run it on a Slurm login node, or use tools/dist_${tool%.py}.sh."
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
    "$python" -u "$root/tools/$tool" --launcher slurm "$@"
}
