"""Writes tests/golden/smollm2_greedy.json: 64 tokens that transformers takes greedily, in f32, from a GGUF file's weights.

Usage: smollm2_reference.py MODEL.gguf OUT.json (needs torch, transformers, gguf and accelerate).
"""
import json
import os
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPT = "Explain in a few sentences why the sky is blue during the day and red in the evening."

gguf, out = sys.argv[1:]
folder, file = os.path.split(os.path.abspath(gguf))
tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32).eval()
text = tokenizer.apply_chat_template([{"role": "user", "content": PROMPT}], tokenize=False, add_generation_prompt=True)
prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
ids, now, cache, margin = list(prompt), prompt, None, float("inf")
with torch.no_grad():
    for _ in range(64):
        out_now = model(torch.tensor([now]), past_key_values=cache, use_cache=True)
        best, cache = out_now.logits[0, -1].topk(2), out_now.past_key_values
        margin = min(margin, float(best.values[0] - best.values[1]))
        now = [int(best.indices[0])]
        ids += now
print(repr(text), repr(tokenizer.decode(ids[len(prompt):])), f"least distance of the two greatest logits: {margin:.4f}", sep="\n")
with open(out, "w") as f:
    json.dump({"prompt": prompt, "greedy": ids[len(prompt):]}, f)
    f.write("\n")
