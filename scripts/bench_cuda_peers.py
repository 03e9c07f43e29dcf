#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Softmax attention on the device beside PyTorch's backends, cuDNN's and FlashAttention's, over the same shapes.

bench_cuda_peers.py DIR [--filter REGEX] [--min-time SECONDS]

DIR has bench_cuda_attention and bench_cuda_decode. Prints one table: TFLOP/s of prefill (of visible pairs) and
TB/s of decode (of keys and values), each the median of the runs by the device's events, then what the device
is and how fast its products and copies were in our process. PyTorch has neither a window nor packed sequences in
these backends: a batch of equal sequences stands for the latter.
"""
import argparse
import json
import pathlib
import re
import statistics
import subprocess
import sys

ROUNDS = 15


def ours(directory, program, arguments):
    """Results of one of our programs by name, and what it prints of the device."""
    path = (pathlib.Path(directory) / program).resolve()
    if not path.exists():
        print(f"{path} is not there: skipped", file=sys.stderr)
        return {}, ""
    done = subprocess.run([path, "--benchmark_format=json", *arguments], capture_output=True, text=True)
    start = done.stdout.find("{")
    if start < 0 or done.returncode != 0:  # skipped, no case of that name, or it broke off
        print(done.stdout + done.stderr, file=sys.stderr)
        return {}, ""
    results = {}
    for run in json.JSONDecoder().raw_decode(done.stdout[start:])[0]["benchmarks"]:
        name = run["name"].removesuffix("/manual_time")
        if run.get("error_occurred"):
            print(f"{name}: {run['error_message']}", file=sys.stderr)
        else:
            results[name] = run
    return results, done.stderr.strip().splitlines()[-1:]


def numbers(name, key):
    found = re.search(rf"{key}:([\d:]+)", name)
    return [int(n) for n in found.group(1).split(":")] if found else None


def pair(values):
    return values if len(values) == 2 else values * 2


def seconds_of(torch, f):
    """The median by events; None where the backend has no kernel."""
    try:
        for _ in range(3):
            f()
        times = []
        for _ in range(ROUNDS):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            f()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) / 1e3)
        return statistics.median(times)
    except RuntimeError:
        return None


def peers(torch, name):
    """Seconds by backend."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    decode = name.startswith("decode/")
    if not decode and not re.match(r"prefill/(causal|full)/", name):
        return {}
    d, dv = pair(numbers(name, "d") or [128])
    heads, kv_heads = pair(numbers(name, "heads"))
    n = (numbers(name, "N") or [1])[0]
    keys = (numbers(name, "T") or numbers(name, "S"))[0]
    rows = 1 if decode else keys

    def random(*shape):
        return torch.randn(n, *shape, device="cuda", dtype=torch.bfloat16)

    # As ours: [N, T, heads, d] in memory; of decode/heads [N, heads, T, d].
    def inputs():
        shapes = ((heads, rows, d), (kv_heads, keys, d), (kv_heads, keys, dv))
        if name.startswith("decode/heads/"):
            return [random(*shape) for shape in shapes]
        return [random(t, h, x).transpose(1, 2) for h, t, x in shapes]

    # Decode reads other caches each time, more than the second level's cache holds.
    bytes_of_one = 2 * n * keys * kv_heads * (d + dv)
    sets = [inputs() for _ in range(max(1, min(8, (1 << 28) // bytes_of_one + 1)) if decode else 1)]
    turn = 0

    def call():
        nonlocal turn
        turn += 1
        q, k, v = sets[turn % len(sets)]
        return torch.nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal="/causal/" in name, enable_gqa=kv_heads != heads)

    found = {}
    for label, backend in (("cuDNN", SDPBackend.CUDNN_ATTENTION), ("flash", SDPBackend.FLASH_ATTENTION)):
        with sdpa_kernel(backend):
            found[label] = seconds_of(torch, call)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory")
    parser.add_argument("--filter", default=".*")
    parser.add_argument("--min-time", default="0.1")
    options = parser.parse_args()
    import torch

    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    arguments = [f"--benchmark_filter={options.filter}", f"--benchmark_min_time={options.min_time}"]
    device = []
    print(f"{'case':58} {'ours':>8} {'cuDNN':>8} {'flash':>8} {'of peak':>8}")
    for program in ("bench_cuda_attention", "bench_cuda_decode"):
        results, said = ours(options.directory, program, arguments)
        device += said
        for name, run in results.items():
            seconds = run["real_time"] / {"ns": 1e9, "us": 1e6, "ms": 1e3, "s": 1}[run["time_unit"]]
            work = run.get("flops", 0) or run.get("bytes", 0)  # a second
            cells = [work / 1e12]
            there = peers(torch, name)
            torch.cuda.empty_cache()
            for label in ("cuDNN", "flash"):
                cells.append(work * seconds / there[label] / 1e12 if there.get(label) else None)
            texts = [f"{x:8.2f}" if x is not None else f"{'-':>8}" for x in cells]
            print(f"{name:58} {' '.join(texts)} {run.get('peak_fraction', 0):8.3f}", flush=True)
    print("\n".join(device))
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}")


if __name__ == "__main__":
    main()
