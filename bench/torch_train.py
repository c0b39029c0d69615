#!/usr/bin/env python3
"""Seconds of one training step in PyTorch eager: forward, backward, AdamW, of a Hugging Face model with random weights.

    bench/torch_train.py FAMILY BATCH SEQ [--hidden 512] [--layers 4] [--vocab 4096] [--steps 3] [--threads 2]

FAMILY is mamba (its slow path, which is what runs on a CPU), griffin (recurrent_gemma) or transformer (llama). The counterpart is
`lolm bench train --spec FILE --batch BATCH --seq SEQ` on a spec of the same shape.
"""
import argparse
import statistics
import time


def mamba(a):
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(
        vocab_size=a.vocab, hidden_size=a.hidden, num_hidden_layers=a.layers, state_size=16, expand=2, conv_kernel=4,
        time_step_rank=a.hidden // 16, use_mambapy=False, use_cache=False,
    )
    return MambaForCausalLM(config)


def griffin(a):
    from transformers import RecurrentGemmaConfig, RecurrentGemmaForCausalLM

    config = RecurrentGemmaConfig(
        vocab_size=a.vocab, hidden_size=a.hidden, lru_width=a.hidden, num_hidden_layers=a.layers,
        intermediate_size=6 * a.hidden, num_attention_heads=a.hidden // 64, num_key_value_heads=1,
        attention_window_size=256, block_types=["recurrent", "recurrent", "attention"], use_cache=False,
    )
    return RecurrentGemmaForCausalLM(config)


def transformer(a):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=a.vocab, hidden_size=a.hidden, num_hidden_layers=a.layers, intermediate_size=3 * a.hidden,
        num_attention_heads=a.hidden // 64, num_key_value_heads=a.hidden // 64, use_cache=False,
    )
    return LlamaForCausalLM(config)


def main():
    families = {"mamba": mamba, "griffin": griffin, "transformer": transformer}
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("family", choices=sorted(families))
    p.add_argument("batch", type=int)
    p.add_argument("seq", type=int)
    p.add_argument("--hidden", type=int, default=512)
    p.add_argument("--layers", type=int, default=4)
    p.add_argument("--vocab", type=int, default=4096)
    p.add_argument("--steps", type=int, default=3)
    p.add_argument("--threads", type=int, default=2)
    a = p.parse_args()

    import torch

    torch.manual_seed(0)
    torch.set_num_threads(a.threads)
    model = families[a.family](a).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1)
    tokens = torch.randint(0, a.vocab, (a.batch, a.seq + 1))

    def step():
        logits = model(input_ids=tokens[:, :-1]).logits.float()
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    step()
    seconds = []
    for _ in range(a.steps):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    size = sum(x.numel() for x in model.parameters())
    median = statistics.median(seconds)
    print(f"{a.family}: {size / 1e6:.1f} M parameters, batch {a.batch}, seq {a.seq}, vocab {a.vocab}, {a.layers} layers, "
          f"d {a.hidden}, {a.threads} threads, torch {torch.__version__}")
    print(f"step {median:.3f} s (median of {a.steps}: {', '.join(f'{s:.3f}' for s in seconds)}), "
          f"{a.batch * a.seq / median:.0f} tokens/s")


main()
