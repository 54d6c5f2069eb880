#!/usr/bin/env python3
"""Dense BF16 products by PyTorch (cuBLAS) with matrices as those of the example `products`: microseconds, the best of 20."""

import torch

SHAPES = [(3072, 768), (768, 3072), (4096, 1024), (1024, 4096), (6144, 2080), (2080, 6144)]
BYTES, RUNS = 512 << 20, 20


def best(run):
    run()
    times = []
    for _ in range(RUNS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(1e3 * start.elapsed_time(end))
    return min(times)


print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}\n")
print("| matrix | x 1 | x 4 | x 16 |\n|---|---|---|---|")
for rows, columns in SHAPES:
    experts = BYTES // 2 // (rows * columns)
    weights = torch.randn(experts * rows, columns, dtype=torch.bfloat16, device="cuda")
    times = []
    for batch in (1, 4, 16):
        x = torch.randn(columns, batch, dtype=torch.bfloat16, device="cuda")
        times.append(f"{best(lambda: weights @ x):.1f}")
    print(f"| {experts} x {rows} x {columns} | {' | '.join(times)} |")
