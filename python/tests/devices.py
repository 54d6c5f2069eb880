"""A CUDA device for the tests: a real one where torch has one, or else the emulator of gpu-decode, whose device memory is memory of the
process, so that torch's tensors of the CPU can lie in it."""

import ctypes
import os
from ctypes import byref, c_size_t, c_uint64, c_void_p
from math import prod
from pathlib import Path

ROOT = Path(__file__).parents[2]


def emulator_path():
    """The emulator's library: what CMZ_EMULATOR names, or what cargo has built last."""
    if path := os.environ.get("CMZ_EMULATOR"):
        return path
    built = ROOT.glob("target/*/build/cmz-gpu-emulator-*/out/libcmz_fakecuda.so")
    return max(built, key=lambda path: path.stat().st_mtime, default=None)


class Emulator:
    """The stand-in for libcuda. Its name inside is libcuda.so, so that it is found when cmz looks for the driver."""

    def __init__(self, path):
        self.driver = ctypes.CDLL(str(path))
        self.stream = self.default = c_void_p()
        self._make_current()

    def _make_current(self):
        context = c_void_p()
        self("cuDevicePrimaryCtxRetain", byref(context), 0)
        self("cuCtxSetCurrent", context)

    def __call__(self, function, *arguments):
        status = getattr(self.driver, function)(*arguments)
        assert status == 0, f"{function}: {status}"

    def hidden(self):
        """Whether the driver that cmz finds is another one."""
        from cmz import _gpu

        return not _gpu.gpu(0).name.startswith("cuda_emu")

    def allocate(self, byte_len):
        """Memory of the device, which holds anything and is never freed."""
        self._make_current()
        address = c_uint64()
        self("cuMemAlloc_v2", byref(address), c_size_t(max(byte_len, 1)))
        return (ctypes.c_ubyte * byte_len).from_address(address.value)

    def empty(self, shape, dtype, ordinal):
        """A tensor of torch in memory of the device."""
        import torch

        assert ordinal == 0
        byte_len = prod(shape) * dtype.itemsize
        if byte_len == 0:
            return torch.empty(shape, dtype=dtype)
        return torch.frombuffer(self.allocate(byte_len), dtype=torch.uint8).view(dtype).view(shape)

    def install(self, monkeypatch):
        """Puts the device's tensors, and its streams, in the place of torch's."""
        import torch

        import cmz._gpu

        monkeypatch.setattr(cmz._gpu, "torch_has_devices", lambda: True)
        monkeypatch.setattr(cmz._gpu, "torch_device", lambda ordinal: torch.device("cpu"))
        monkeypatch.setattr(cmz._gpu, "current_stream", lambda ordinal: self.stream.value or 0)
        monkeypatch.setattr(cmz._gpu, "empty", self.empty)

    def run_at_once(self):
        """What is submitted is run when it is, since torch's work on the CPU does not wait for a stream."""
        self.driver.emu_override_settings(0, c_uint64(1), 2, 1, 0)

    def restore(self):
        self.driver.emu_override_settings(0, c_uint64(1), 2, 0, 0)

    def synchronize(self):
        self._make_current()
        self("cuCtxSynchronize")

    def new_stream(self):
        self._make_current()
        stream = c_void_p()
        self("cuStreamCreate", byref(stream), 1)
        return stream

    def capture(self, work):
        """Records what `work` submits to the current stream. Returns what runs it."""
        self._make_current()
        self.stream = self.new_stream()
        try:
            self("cuStreamBeginCapture_v2", self.stream, 0)
            work()
            graph, executable = c_void_p(), c_void_p()
            self("cuStreamEndCapture", self.stream, byref(graph))
            self("cuGraphInstantiateWithFlags", byref(executable), graph, c_uint64(0))
            stream = self.stream
        finally:
            self.stream = self.default
        return lambda: self("cuGraphLaunch", executable, stream)

    def capturing_stream(self):
        """A stream of which a capture has begun."""
        stream = self.new_stream()
        self("cuStreamBeginCapture_v2", stream, 2)
        return stream.value

    def end_capture(self, stream):
        graph = c_void_p()
        self("cuStreamEndCapture", c_void_p(stream), byref(graph))


class Array:
    """An array of another library: the device's memory behind the interface that they share."""

    def __init__(self, address, shape, typestr, strides=None, read_only=False):
        self.__cuda_array_interface__ = {
            "data": (address, read_only),
            "shape": shape,
            "typestr": typestr,
            "strides": strides,
            "version": 3,
        }


class Real:
    """A CUDA device of torch."""

    def install(self, monkeypatch):
        pass

    def run_at_once(self):
        pass

    def restore(self):
        pass

    def synchronize(self):
        import torch

        torch.cuda.synchronize()

    def capture(self, work):
        import torch

        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        return graph.replay


def find():
    """The device, or why there is none."""
    import torch

    if torch.cuda.is_available():
        return Real()
    path = emulator_path()
    if path is None:
        return "there is no GPU, and its emulator is not built (cargo build -p cmz-gpu-emulator)"
    return Emulator(path)
