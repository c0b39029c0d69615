#!/bin/sh
# Serves a tiny model and asks it with OpenAI's Python library and with lm-evaluation-harness, both unmodified.
# Needs Python 3 and PyPI the first time; without them it says so and is skipped.
#   scripts/serve_clients.sh [FOLDER FOR THE CLIENTS]
set -eu
cd "$(dirname "$0")/.."
lolm=${LOLM:-target/debug/lolm}
folder=${1:-/tmp/lolm-clients}
mkdir -p "$folder"
if [ ! -x "$folder/venv/bin/lm_eval" ]; then
    python3 -m venv "$folder/venv" && "$folder/venv/bin/pip" install -q openai "lm_eval[api]" ||
        { echo "skipped: the clients cannot be installed"; exit 0; }
fi
small="--d_model 16 --n_heads 2 --n_layers 1 --d_ff 32 --max_seq_len 64 --training.seq 16 --training.batch 2
    --memory.slot_dim 8 --memory.n_slots 4 --regime.n_codes 4 --regime.d_regime 4 --ssm.d_state 4
    --loss.cpc_proj_dim 4 --training.warmup 2"
text="the quick brown "
yes "the quick brown fox jumps over the lazy dog." | head -60 > "$folder/text.txt"
printf '%s' "${text}f" > "$folder/eval.txt"
rm -rf "$folder/run"
# shellcheck disable=SC2086
"$lolm" train lolm-demo $small --data "$folder/text.txt" --steps 30 --interval 30 --out "$folder/run" --json > /dev/null
printf '%s' '{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>' > "$folder/run/chat_template.jinja"
loss=$("$lolm" eval "$folder/run" --data "$folder/eval.txt" --json |
    python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["loss"])')
"$lolm" serve "$folder/run" --port 0 > "$folder/serve.out" 2> "$folder/serve.log" &
server=$!
trap 'kill $server' EXIT
until grep -q listening "$folder/serve.out"; do sleep 0.1; done
url=$(sed 's/listening on //' "$folder/serve.out")
until python3 -c "import urllib.request as u; u.urlopen('$url/ready')" 2> /dev/null; do sleep 0.2; done
HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 "$folder/venv/bin/python" scripts/serve_clients.py "$url" "$loss" "${text}f"
