#!/usr/bin/env python3
"""What PyTorch reaches on this GPU: products, attention, and a compiled decoder of the same shape as one of ours.

    bench/torch_gpu.py [--hidden 1024] [--layers 24] [--heads 16] [--ff 4096] [--vocab 50257] [--batch 32] [--seq 1024]
                       [--steps 10] [--device 0] [--json FILE]

Prints JSON: bf16 matmul at 4096^3 and on the decoder's shapes, attention forward and backward at head_dim 64 and 128, a
training step (torch.compile, bf16 autocast, fused AdamW, clip), and decoding one token after another with a static cache.
Times are medians by events, after warming up, on fresh random data. The counterpart is `lolm bench gpu`.
"""
import argparse
import json
import statistics
import sys


def timed(torch, run, rounds, warm=3):
    """Median seconds of a call; between calls the L2 is written over."""
    flush = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")
    for _ in range(warm):
        run()
    seconds = []
    for _ in range(rounds):
        flush.zero_()
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        end.synchronize()
        seconds.append(start.elapsed_time(end) / 1e3)
    return statistics.median(seconds)


def copy(torch, a):
    x = torch.randn(1 << 28, device="cuda")
    y = torch.empty_like(x)
    return {"bytes_per_second": 2 * x.nbytes / timed(torch, lambda: y.copy_(x), a.steps)}


def matmul(torch, a, m, n, k):
    x, w = (torch.randn(*s, device="cuda", dtype=torch.bfloat16) for s in ((m, k), (n, k)))
    seconds = timed(torch, lambda: torch.nn.functional.linear(x, w), a.steps)
    return {"m": m, "n": n, "k": k, "seconds": seconds, "flops_per_second": 2 * m * n * k / seconds}


def attention(torch, a, head_dim, t=2048, b=8, h=16):
    q, k, v = (torch.randn(b, h, t, head_dim, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    attend = torch.nn.functional.scaled_dot_product_attention
    flops = 4 * b * h * t * t * head_dim / 2
    with torch.no_grad():
        forward = timed(torch, lambda: attend(q, k, v, is_causal=True), a.steps)
    out = attend(q, k, v, is_causal=True)
    gradient = torch.randn_like(out)
    backward = timed(torch, lambda: torch.autograd.grad(out, (q, k, v), gradient, retain_graph=True), a.steps)
    return {
        "head_dim": head_dim, "t": t, "batch": b, "heads": h,
        "forward_seconds": forward, "forward_flops_per_second": flops / forward,
        "backward_seconds": backward, "backward_flops_per_second": 2.5 * flops / backward,
    }


def decoder(torch, a):
    nn, functional = torch.nn, torch.nn.functional

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.n1, self.n2 = nn.RMSNorm(a.hidden), nn.RMSNorm(a.hidden)
            self.qkv, self.o = nn.Linear(a.hidden, 3 * a.hidden, bias=False), nn.Linear(a.hidden, a.hidden, bias=False)
            self.up, self.down = nn.Linear(a.hidden, a.ff, bias=False), nn.Linear(a.ff, a.hidden, bias=False)

        def forward(self, x, cache=None, pos=None):
            b, t, d = x.shape
            q, k, v = (y.view(b, t, a.heads, -1).transpose(1, 2) for y in self.qkv(self.n1(x)).chunk(3, -1))
            if cache is None:
                y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            else:
                cache[0].index_copy_(2, pos, k)
                cache[1].index_copy_(2, pos, v)
                seen = (torch.arange(cache[0].shape[2], device=x.device) <= pos)[None, None, None]
                y = functional.scaled_dot_product_attention(q, cache[0], cache[1], attn_mask=seen)
            x = x + self.o(y.transpose(1, 2).reshape(b, t, d))
            return x + self.down(functional.gelu(self.up(self.n2(x))))

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb = nn.Embedding(a.vocab, a.hidden)
            self.blocks, self.norm = nn.ModuleList(Block() for _ in range(a.layers)), nn.RMSNorm(a.hidden)

        def forward(self, tokens, caches=None, pos=None):
            x = self.emb(tokens)
            for i, block in enumerate(self.blocks):
                x = block(x, caches[i] if caches else None, pos)
            return functional.linear(self.norm(x), self.emb.weight)

    return Decoder().cuda()


def training(torch, a):
    model = decoder(torch, a)
    size = sum(p.numel() for p in model.parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    compiled = torch.compile(model)

    def step():
        tokens = torch.randint(0, a.vocab, (a.batch, a.seq + 1), device="cuda")
        with torch.autocast("cuda", dtype=torch.bfloat16):
            logits = compiled(tokens[:, :-1])
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    seconds = timed(torch, step, a.steps)
    return {"parameters": size, "batch": a.batch, "seq": a.seq, "seconds": seconds,
            "tokens_per_second": a.batch * a.seq / seconds}


def decoding(torch, a):
    model = decoder(torch, a).to(torch.bfloat16).eval()
    shape = (1, a.heads, a.seq, a.hidden // a.heads)
    caches = [[torch.zeros(shape, device="cuda", dtype=torch.bfloat16) for _ in range(2)] for _ in range(a.layers)]
    compiled = torch.compile(model, mode="reduce-overhead", fullgraph=True)
    pos = torch.tensor([a.seq // 2], device="cuda")
    token = torch.zeros(1, 1, dtype=torch.long, device="cuda")
    with torch.no_grad():
        seconds = timed(torch, lambda: compiled(token, caches, pos), 10 * a.steps)
    size = sum(p.nbytes for p in model.parameters())
    return {"seconds": seconds, "tokens_per_second": 1 / seconds, "weight_bytes": size,
            "weight_bytes_per_second": size / seconds}


def tried(name, run):
    """The result, or what went wrong: one that fails, for want of memory or of a compiler, leaves the others."""
    print(f"{name} ...", file=sys.stderr)
    try:
        return run()
    except Exception as e:  # noqa: BLE001
        return {"error": f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}"}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in dict(hidden=1024, layers=24, heads=16, ff=4096, vocab=50257, batch=32, seq=1024, steps=10,
                            device=0).items():
        p.add_argument(f"--{name}", type=int, default=value)
    p.add_argument("--json")
    a = p.parse_args()
    try:
        import torch
    except ImportError:
        sys.exit("python3 has no torch")
    if not torch.cuda.is_available():
        sys.exit("torch finds no GPU")
    torch.cuda.set_device(a.device)
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    rows = a.batch * a.seq
    shapes = [(4096, 4096, 4096), (rows, 3 * a.hidden, a.hidden), (rows, a.ff, a.hidden), (rows, a.hidden, a.ff)]
    found = {
        "device": torch.cuda.get_device_name(), "torch": torch.__version__, "cuda": torch.version.cuda,
        "shape": {k: getattr(a, k) for k in ("hidden", "layers", "heads", "ff", "vocab")},
        "copy": tried("copy", lambda: copy(torch, a)),
        "matmul": [tried(f"matmul {s}", lambda s=s: matmul(torch, a, *s)) for s in shapes],
        "attention": [tried(f"attention {d}", lambda d=d: attention(torch, a, d)) for d in (64, 128)],
        "training": tried("training", lambda: training(torch, a)),
        "decoding": tried("decoding", lambda: decoding(torch, a)),
    }
    text = json.dumps(found, indent=2)
    print(text)
    if a.json:
        with open(a.json, "w") as f:
            f.write(text + "\n")


main()
