#!/usr/bin/env python3
"""Fills PyTorch tensors on a GPU from a .cmz file, through the C interface: torch_load.py MODEL.cmz [OPTIONS]

On a GPU, with torch:

    cargo build --release -p cmz-gpu-c
    python3 gpu-decode/examples/torch_load.py model.cmz --original model.safetensors

Without GPU and torch, on the emulator, whose device memory is memory of the process:

    cargo build -p cmz-gpu-c -p cmz-gpu-emulator
    cmz compress tests/data/minilm-layer0-bf16.safetensors -o target/layer0.cmz
    python3 gpu-decode/examples/torch_load.py target/layer0.cmz --original tests/data/minilm-layer0-bf16.safetensors \\
        --library target/debug/libcmz_gpu.so \\
        --emulator "$(ls -t target/debug/build/cmz-gpu-emulator-*/out/libcmz_fakecuda.so | head -n 1)"
"""
import argparse
import ctypes
import json
import os
import sys
import time
from ctypes import POINTER, byref, c_char_p, c_int32, c_size_t, c_uint32, c_uint64, c_void_p

CHECK_DECODED = 1  # CMZ_CHECK_DECODED
ALL_ROWS = 2**64 - 1  # CMZ_ALL_ROWS


class Tensor(ctypes.Structure):  # CmzTensor
    _fields_ = [('name', c_void_p), ('name_len', c_size_t), ('dtype', c_char_p), ('shape', POINTER(c_uint64)),
                ('rank', c_size_t), ('byte_len', c_uint64)]


class Request(ctypes.Structure):  # CmzRequest
    _fields_ = [('tensor', c_size_t), ('row_begin', c_uint64), ('row_end', c_uint64), ('address', c_uint64)]


class LoadOptions(ctypes.Structure):  # CmzLoadOptions
    _fields_ = [('threads', c_size_t), ('slots', c_size_t), ('slot_len', c_size_t), ('flags', c_uint32)]


class Library:
    """The functions of cmz_gpu.h; those that return a status raise its text."""

    def __init__(self, path):
        library = ctypes.CDLL(path)
        library.cmz_last_error.restype = c_char_p

        def check(status, function, _arguments):
            if status:
                raise RuntimeError(f'{function.__name__}: {library.cmz_last_error().decode()}')

        for name, arguments in {
                'cmz_archive_open': [c_char_p, c_void_p, POINTER(c_void_p)],
                'cmz_archive_tensor': [c_void_p, c_size_t, POINTER(Tensor)],
                'cmz_gpu_open': [c_size_t, POINTER(c_void_p)],
                'cmz_gpu_load': [c_void_p, c_void_p, POINTER(Request), c_size_t, c_void_p, POINTER(LoadOptions), c_void_p],
                'cmz_plan_open': [c_void_p, c_void_p, POINTER(Request), c_size_t, c_uint32, c_size_t, POINTER(c_void_p)],
                'cmz_plan_decode': [c_void_p, c_uint64, c_void_p],
                'cmz_plan_check': [c_void_p, c_void_p],
        }.items():
            function = getattr(library, name)
            function.argtypes, function.restype, function.errcheck = arguments, c_int32, check
            setattr(self, name, function)
        for name, result in {
                'cmz_archive_tensors': c_size_t,
                'cmz_plan_device_len': c_uint64,
                'cmz_archive_close': None,
                'cmz_gpu_close': None,
                'cmz_plan_close': None,
        }.items():
            function = getattr(library, name)
            function.argtypes, function.restype = [c_void_p], result
            setattr(self, name, function)


class Torch:
    """Tensors of torch, and its current stream."""

    DTYPES = {'BOOL': 'bool', 'U8': 'uint8', 'I8': 'int8', 'F8_E5M2': 'float8_e5m2', 'F8_E4M3': 'float8_e4m3fn',
              'I16': 'int16', 'U16': 'uint16', 'F16': 'float16', 'BF16': 'bfloat16', 'I32': 'int32', 'U32': 'uint32',
              'F32': 'float32', 'C64': 'complex64', 'F64': 'float64', 'I64': 'int64', 'U64': 'uint64'}

    def __init__(self):
        import torch
        self.torch = torch
        self.stream = torch.cuda.current_stream().cuda_stream

    def empty(self, dtype, shape, byte_len):
        dtype = getattr(self.torch, self.DTYPES.get(dtype, ''), None)
        if dtype is None:  # torch has no such type: its bytes
            dtype, shape = self.torch.uint8, [byte_len]
        return self.torch.empty(shape, dtype=dtype, device='cuda')

    def address(self, tensor):
        return tensor.data_ptr()

    def to_bytes(self, tensor):
        return tensor.reshape(-1).view(self.torch.uint8).cpu().numpy().tobytes()


class Emulator:
    """Arrays of bytes in the memory of the emulator's device."""

    stream = None  # the default stream

    def __init__(self, path):
        # Its name inside is libcuda.so, so that it is found when libcmz_gpu looks for the driver.
        self.driver = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        context = c_void_p()
        assert self.driver.cuDevicePrimaryCtxRetain(byref(context), 0) == 0
        assert self.driver.cuCtxSetCurrent(context) == 0

    def empty(self, _dtype, _shape, byte_len):
        address = c_uint64()
        assert self.driver.cuMemAlloc_v2(byref(address), c_size_t(max(byte_len, 1))) == 0
        return (ctypes.c_uint8 * byte_len).from_address(address.value)

    def address(self, tensor):
        return ctypes.addressof(tensor)

    def to_bytes(self, tensor):
        return bytes(tensor)


def fill(cmz, device, path, load):
    """Tensors by name, filled on the device."""
    archive, gpu, plan = c_void_p(), c_void_p(), c_void_p()
    try:
        cmz.cmz_archive_open(os.fsencode(path), None, byref(archive))
        cmz.cmz_gpu_open(0, byref(gpu))
        tensors, requests = {}, []
        for number in range(cmz.cmz_archive_tensors(archive)):
            info = Tensor()
            cmz.cmz_archive_tensor(archive, number, byref(info))
            name = ctypes.string_at(info.name, info.name_len).decode()
            tensors[name] = device.empty(info.dtype.decode(), info.shape[:info.rank], info.byte_len)
            requests.append(Request(number, 0, ALL_ROWS, device.address(tensors[name])))
        requests = (Request * len(requests))(*requests)

        begin = time.perf_counter()
        if load:  # once: reading, copying and decoding overlap
            options = LoadOptions(flags=CHECK_DECODED)
            cmz.cmz_gpu_load(gpu, archive, requests, len(requests), device.stream, byref(options), None)
            print(f'loaded in {time.perf_counter() - begin:.3f} s')
        else:  # compressed on the device, to be decoded as often as needed
            cmz.cmz_plan_open(gpu, archive, requests, len(requests), CHECK_DECODED, 0, byref(plan))
            print(f'{cmz.cmz_plan_device_len(plan)} bytes on the device in {time.perf_counter() - begin:.3f} s')
            begin = time.perf_counter()
            cmz.cmz_plan_decode(plan, 0, device.stream)
            cmz.cmz_plan_check(plan, device.stream)
            print(f'decoded in {time.perf_counter() - begin:.3f} s')
        return tensors
    finally:
        cmz.cmz_plan_close(plan)
        cmz.cmz_gpu_close(gpu)
        cmz.cmz_archive_close(archive)


def safetensors(path):
    """Name and bytes of each tensor of a safetensors file."""
    with open(path, 'rb') as file:
        header_len = int.from_bytes(file.read(8), 'little')
        header = json.loads(file.read(header_len))
        header.pop('__metadata__', None)
        for name, entry in header.items():
            begin, end = entry['data_offsets']
            file.seek(8 + header_len + begin)
            yield name, file.read(end - begin)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('model', help='the .cmz file')
    parser.add_argument('--original', help='the safetensors file that it was made of, to compare with')
    parser.add_argument('--load', action='store_true', help='without a plan, each tensor once')
    parser.add_argument('--library', default='target/release/libcmz_gpu.so', help='libcmz_gpu (%(default)s)')
    parser.add_argument('--emulator', help='the library that stands in for libcuda, instead of GPU and torch')
    arguments = parser.parse_args()

    device = Emulator(arguments.emulator) if arguments.emulator else Torch()
    tensors = fill(Library(arguments.library), device, arguments.model, arguments.load)
    print(f'{len(tensors)} tensors')
    if arguments.original:
        expected = dict(safetensors(arguments.original))
        wrong = [name for name in expected.keys() | tensors.keys()
                 if name not in tensors or device.to_bytes(tensors[name]) != expected.get(name)]
        if wrong:
            sys.exit(f'not as in the original: {", ".join(sorted(wrong))}')
        print('identical to the original, byte for byte')


if __name__ == '__main__':
    main()
