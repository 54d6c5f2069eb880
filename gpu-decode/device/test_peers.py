"""The tables of peers.py from made-up figures, and its end without a GPU."""

import pathlib
import stat
import subprocess
import sys

import numpy as np
import peers


def measured(size, decode, **others):
    rows = {
        peers.COPY: {"decode": 2e12},
        peers.DEFAULT: {"stored": 0.6675, "decode": decode, "load": 8e10, "encode": 3e9},
        peers.PLAIN: {"stored": 1.0, "decode": 2e12, "load": 5e10, "encode": 5e9},
    }
    rows.update((name, {"decode": rate}) for name, rate in others.items())
    return {"label": "made up", "bytes": size, "rows": rows, "skipped": {"nvCOMP": "not here"}, "failed": {}}


def test_tables(capsys):
    one = measured(256_000_000, 1.5e12, **{"DFloat11's kernel": 3e11})
    peers.print_table(one)
    peers.print_bars([measured(32_000_000, 1.1e12), one])
    lines = capsys.readouterr().out.splitlines()
    assert "| cmz, default level | .6675 | 1500 | 0.75 | 80.0 | 3.0 |" in lines
    assert "nvCOMP is skipped: not here" in lines
    assert lines[-5:] == [
        "| made up, 32 MB: decode, default level | 1.10 TB/s | ≥ 1.0 TB/s | reached |",
        "| made up, 256 MB: decode, default level | 1.50 TB/s | ≥ 2.0 TB/s | **not reached**, by 25.0% |",
        "| made up, 256 MB: decode, times DFloat11's kernel | 5.00 | ≥ 4.0 | reached |",
        "| made up, 256 MB: decode, times nvCOMP ANS | – | ≥ 4.0 | **not measured** |",
        "| made up, 256 MB: load, times the plain bytes | 1.60 | ≥ 1.3 | reached |",
    ]


def test_safetensors(tmp_path):
    path = tmp_path / "weights.safetensors"
    weights = peers.gaussian(3, 5)
    other = np.zeros(4, np.float32)
    peers.write_safetensors(path, {"a": ("F32", [4], other), "b": ("BF16", [3, 5], weights), "c": ("BF16", [15], weights)})
    assert list(peers.bf16_tensors(path)) == ["b", "c"]
    assert all(np.array_equal(array, weights) for _, _, array in peers.bf16_tensors(path).values())


def test_no_gpu(tmp_path):
    cmz = tmp_path / "cmz"
    cmz.write_text("""#!/bin/sh\necho '{"ok": true, "gpu": {"reason": "no driver"}}'\n""")
    cmz.chmod(cmz.stat().st_mode | stat.S_IXUSR)
    program = pathlib.Path(peers.__file__)
    done = subprocess.run([sys.executable, program, "--cmz", cmz], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "no GPU: no driver\n")
