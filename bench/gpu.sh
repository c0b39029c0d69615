#!/usr/bin/env bash
# Measures this machine's GPU and what artifacts reach of it. Needs the built binary, artifacts compiled with
# `--target cuda`, and NVIDIA's driver; nothing else. Where python3 has torch with CUDA, PyTorch is measured beside it.
#
#   bench/gpu.sh [--out DIR] ARTIFACT...
#
# LOLM is the binary (target/release/lolm unless set), DEVICE the GPU (cuda unless set). DIR (bench/results unless given)
# receives <date>-<gpu>.json with our numbers, <date>-<gpu>-doctor.json and, if there is PyTorch, <date>-<gpu>-torch.json.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
lolm="${LOLM:-$here/../target/release/lolm}"
device="${DEVICE:-cuda}"
out="$here/results"
if [ "${1:-}" = "--out" ]; then
    out="$2"
    shift 2
fi
if [ $# -eq 0 ]; then
    sed -n '2,9p' "$0" | sed 's/^# \{0,1\}//' >&2
    exit 2
fi
if [ ! -x "$lolm" ]; then
    echo "there is no binary $lolm: build it with \`cargo build --release\`, or say with LOLM where it is" >&2
    exit 2
fi

mkdir -p "$out"
unfinished="$(mktemp -d)"
trap 'rm -rf "$unfinished"' EXIT
"$lolm" doctor --json >"$unfinished/doctor.json"
"$lolm" doctor
"$lolm" bench gpu --device "$device" --json "$unfinished/gpu.json" "$@"
gpu="$(sed -n 's/^ *"device": "\(.*\) (cuda.*/\1/p' "$unfinished/gpu.json" | head -1 | tr 'A-Z /' 'a-z--')"
name="$(date -u +%Y-%m-%d)-${gpu:-gpu}"
cp "$unfinished/gpu.json" "$out/$name.json"
cp "$unfinished/doctor.json" "$out/$name-doctor.json"
if python3 -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
    python3 "$here/torch_gpu.py" --json "$out/$name-torch.json"
else
    echo "python3 has no torch with CUDA: PyTorch is not measured"
fi
echo "in $out: $name*.json"
