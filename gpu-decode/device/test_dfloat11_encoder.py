"""The encoder of DFloat11's layout beside a slow decoder, and beside the importer of cmz where CMZ names the program.

CMZ=target/debug/cmz python3 -m pytest gpu-decode/device
"""

import json
import os
import subprocess

import dfloat11_encoder
import numpy as np
import peers
import pytest

BLOCK_BITS = 4096 * 8


def bits_of(array):
    return "".join(f"{byte:08b}" for byte in array)


def decode(group):
    """Bit by bit, every block from where its gap and its output position say."""
    bits = bits_of(group.encoded_exponent) + "0" * 64
    gaps = bits_of(group.gaps)
    positions = group.output_positions
    assert len(positions) == len(group.gaps) // 320 + 1 and positions[0] == 0 and positions[-1] == len(group.sign_mantissa)
    elements = []
    at, begun = 0, -1
    for block, (first, end) in enumerate(zip(positions, positions[1:])):
        if first < end:
            gap = int(gaps[5 * 512 * block : 5 * 512 * block + 5], 2)
            assert (first, at) == (len(elements), BLOCK_BITS * block + gap)
        while len(elements) < end:
            chunk = at // 64
            if chunk > begun:  # the first code in this chunk
                assert at % 64 == int(gaps[5 * chunk : 5 * chunk + 5], 2)
            table, byte = 0, 0
            while (value := group.luts[table][int(bits[at + byte : at + byte + 8], 2)]) >= 240:
                table, byte = 256 - int(value), byte + 8
            sign_mantissa = int(group.sign_mantissa[len(elements)])
            elements.append((sign_mantissa & 0x80) << 8 | int(value) << 7 | sign_mantissa & 0x7F)
            at, begun = at + int(group.luts[-1][value]), chunk
    assert (at + 7) // 8 == len(group.encoded_exponent)
    return np.array(elements, np.uint16)


def elements_of(exponents):
    rest = np.random.default_rng(1).integers(0, 0x10000, len(exponents), np.uint16)
    return rest & 0x807F | np.asarray(exponents, np.uint16) << 7


INPUTS = {
    "Gaussian": peers.gaussian(8, 4000),
    "a single exponent": elements_of([127] * 1000),
    "one element": elements_of([127]),
    "two equal exponents": elements_of([3, 239] * 4000),
    "all exponents that can be": elements_of(np.arange(20000) % 240),
    "codes of up to 17 bits": elements_of(np.repeat(np.arange(100, 117), 2 ** np.arange(17))[::-1]),
    **{f"{n} elements": elements_of(np.arange(n) % 4) for n in range(13100, 13140, 3)},  # at the end of a block
}


@pytest.mark.parametrize("part", [1000, dfloat11_encoder.PART])
@pytest.mark.parametrize("name", INPUTS)
def test_slow_decoder(name, part, monkeypatch):
    monkeypatch.setattr(dfloat11_encoder, "PART", part)
    group = dfloat11_encoder.encode(INPUTS[name], threads=2)
    assert np.array_equal(decode(group), INPUTS[name])


def test_long_codes_are_shortened():
    counts = [1 << symbol for symbol in range(40)]
    assert max(dfloat11_encoder.code_lengths(dict(enumerate(counts))).values()) > 32
    lengths = [length for length, _ in dfloat11_encoder.huffman_codes(np.array(counts)).values()]
    assert max(lengths) <= 32 and sum(2.0**-length for length in lengths) == 1


def test_refused():
    with pytest.raises(ValueError, match="exponents of 240"):
        dfloat11_encoder.encode(elements_of([127, 240]))


@pytest.mark.skipif("CMZ" not in os.environ, reason="CMZ names no program")
@pytest.mark.parametrize("name", INPUTS)
def test_importer(name, tmp_path):
    elements = INPUTS[name]
    original, checkpoint, imported = (tmp_path / name for name in ("original.safetensors", "model.safetensors", "out.cmz"))
    peers.write_safetensors(original, {"head.weight": ("BF16", [len(elements)], elements)})
    group = dfloat11_encoder.encode(elements)
    group.output_positions = group.output_positions.view(np.uint8)
    arrays = {f"head.{key}": ("U8", list(array.shape), array) for key, array in vars(group).items()}
    peers.write_safetensors(checkpoint, {**arrays, "head.split_positions": ("I64", [0], np.empty(0, np.int64))})
    layout = {"version": "0.5.0", "threads_per_block": [512], "bytes_per_thread": 8, "pattern_dict": {"head": []}}
    (tmp_path / "config.json").write_text(json.dumps({"dfloat11_config": layout}))
    subprocess.run([os.environ["CMZ"], "import", "dfloat11", checkpoint, "--like", original, "-o", imported], check=True)
    subprocess.run([os.environ["CMZ"], "verify", imported, "--against", original], check=True)
