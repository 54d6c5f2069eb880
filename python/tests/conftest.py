"""What the tests share."""

import json
from pathlib import Path

import devices
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests/golden"
TOOLS = ROOT / "python/tools"
REAL = ROOT / "tests/data/minilm-layer0-bf16.safetensors"


@pytest.fixture
def weights():
    """Arrays of several types and shapes, one of them of several blocks."""
    random = np.random.default_rng(1)
    return {
        "big": random.normal(0, 0.02, (700, 1024)).astype(np.float32),
        "half": random.normal(0, 0.02, (33, 7)).astype(np.float16),
        "ids": np.arange(12, dtype=np.int64).reshape(3, 4),
        "flag": np.array(True),
        "none": np.empty((4, 0), np.float64),
        "complex": random.normal(size=(5, 2)).view(np.complex128).astype(np.complex64),
    }


def safetensors_file(path, arrays, metadata=None):
    """A safetensors file of numpy arrays."""
    names = {"float32": "F32", "float16": "F16", "int64": "I64", "bool": "BOOL", "float64": "F64", "complex64": "C64", "uint8": "U8"}
    header, data = ({"__metadata__": metadata} if metadata else {}), b""
    for name, array in arrays.items():
        start, data = len(data), data + array.tobytes()
        header[name] = {"dtype": names[array.dtype.name], "shape": list(array.shape), "data_offsets": [start, len(data)]}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


@pytest.fixture
def source(tmp_path, weights):
    """The arrays as a safetensors file."""
    return safetensors_file(tmp_path / "model.safetensors", weights, {"format": "np"})


@pytest.fixture(scope="session")
def found():
    found = devices.find()
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.fixture
def device(found, monkeypatch):
    """A CUDA device, a real one or the emulator."""
    found.install(monkeypatch)
    yield found
    found.restore()


@pytest.fixture
def emulator(device):
    """The emulator, for what cannot be seen on a real device."""
    if not isinstance(device, devices.Emulator):
        pytest.skip("there is a GPU: this needs the emulator")
    return device
