#!/usr/bin/env python3
"""Measures cmz on a GPU beside DFloat11's kernel and nvCOMP's ANS, on the same bytes in one run. See README.md."""

import argparse
import concurrent.futures
import datetime
import importlib.metadata
import importlib.util
import itertools
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time

import dfloat11_encoder
import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
COLUMNS = 4000
SIZES = "4,32,256,1000,4000"
COPY = "copy inside the device"
DEFAULT = "cmz, default level"
PLAIN = "cmz, raw (the plain bytes)"
FILES = {  # row: options of compress
    DEFAULT: [],
    "cmz, `huffman`": ["--codec", "huffman"],
    "cmz, `rans`": ["--codec", "rans"],
    "cmz, level `max`": ["--level", "max"],
    PLAIN: ["--codec", "raw"],
}
LAUNCHES = 8  # decodes of a peer between two events, so that Python's time for a launch does not count


class Failed(Exception):
    """Something decoded to other bytes than were encoded, or cmz failed."""


class Skipped(Exception):
    """A peer cannot be measured, and why."""


def gaussian(rows, columns, threads=1):
    """BF16 weights, as u16, with a scale per row; the same for every number of threads."""
    weights = np.empty((rows, columns), np.uint16)
    step = 1000

    def fill(start):
        random = np.random.default_rng([1, start])
        part = weights[start : start + step]
        scales = 0.02 * (1 + random.random((len(part), 1), np.float32))
        bits = (random.standard_normal(part.shape, np.float32) * scales).view(np.uint32)
        part[:] = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16  # to nearest even

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        list(pool.map(fill, range(0, rows, step)))
    return weights.reshape(-1)


def write_safetensors(path, tensors):
    """{name: (type, shape, array)}."""
    header, at = {}, 0
    for name, (dtype, shape, array) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, _, array in tensors.values():
            array.tofile(file)


def bf16_tensors(path):
    """The BF16 tensors of a safetensors file."""
    with open(path, "rb") as file:
        header_len = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(header_len))
    data = np.memmap(path, np.uint8, "r", 8 + header_len)
    header.pop("__metadata__", None)
    return {
        name: ("BF16", entry["shape"], data[slice(*entry["data_offsets"])].view(np.uint16))
        for name, entry in header.items()
        if entry["dtype"] == "BF16"
    }


class Cmz:
    """The program."""

    def __init__(self, program, threads):
        self.command = [str(program), "--json", "--quiet", f"--threads={threads}"]

    def run(self, *arguments):
        try:
            done = subprocess.run([*self.command, *map(str, arguments)], stdout=subprocess.PIPE)
            answer = json.loads(done.stdout)
        except OSError as error:
            sys.exit(f"{error}; --cmz names the program")
        except ValueError:
            raise Failed(f"cmz {arguments[0]}: exit status {done.returncode}") from None
        if not answer["ok"]:
            raise Failed(f"cmz {arguments[0]}: {answer['errors'][0]['message']}")
        return answer

    def measure(self, source, options, runs):
        """What `bench` measures, with the file's length over its source's and the rate of making it."""
        file = source.with_suffix(".cmz")
        file.unlink(missing_ok=True)
        start = time.perf_counter()
        stored = self.run("compress", "--no-verify", *options, source, "-o", file)["files"][0]
        seconds = time.perf_counter() - start
        # Decodes on the CPU and on the GPU, compares the two, and the SHA-256 of the whole with that of the source.
        self.run("verify", "--device", "cuda", file)
        measured = self.run("bench", "--device", "cuda", "--runs", runs, file)["measured"]
        return {**measured, "stored": stored["ratio"], "encode": stored["source_len"] / seconds}


class Device:
    """The GPU, through CuPy."""

    def __init__(self):
        try:
            import cupy
        except ImportError as error:
            raise Skipped(f"CuPy cannot be imported: {error}") from error
        self.cupy = cupy
        cupy.get_default_memory_pool().free_all_blocks()  # what the peer before has used
        self.stream = cupy.cuda.Stream(non_blocking=True)

    def upload(self, array):
        target = self.cupy.empty(array.shape, array.dtype)
        target.set(np.ascontiguousarray(array), self.stream)
        self.stream.synchronize()
        return target

    def output(self, len):
        """Bytes that a decode must change."""
        target = self.cupy.empty(len, np.uint8)
        target.data.memset(0xA5, len)
        self.cupy.cuda.runtime.deviceSynchronize()
        return target

    def seconds(self, run, runs, launches=LAUNCHES):
        """The least time of a run, after one that does not count."""
        start, end = self.cupy.cuda.Event(), self.cupy.cuda.Event()
        best = float("inf")
        with self.stream:
            run()
            self.stream.synchronize()
            for _ in range(runs):
                start.record(self.stream)
                for _ in range(launches):
                    run()
                end.record(self.stream)
                end.synchronize()
                best = min(best, self.cupy.cuda.get_elapsed_time(start, end) / 1e3 / launches)
        return best

    def check(self, output, elements):
        self.stream.synchronize()
        if not np.array_equal(output.get().view(np.uint16), elements):
            raise Failed("the decoded bytes differ")


def dfloat11(elements, runs, threads):
    """DFloat11's kernel, from the PTX of its package, launched as the package does."""
    device = Device()
    package = importlib.util.find_spec("dfloat11")  # not imported: it would load transformers
    if package is None:
        raise Skipped("the package dfloat11 is not installed")
    kernel = device.cupy.RawModule(path=str(pathlib.Path(package.origin).parent / "decode.ptx")).get_function("decode")
    if len(elements) >= 1 << 31:
        raise Skipped("DFloat11's kernel counts elements with 31 bits")
    try:
        start = time.perf_counter()
        group = dfloat11_encoder.encode(elements, threads)
        note(f"  DFloat11 (encoded here in {time.perf_counter() - start:.1f} s)")
    except ValueError as error:
        raise Skipped(str(error)) from error
    inputs = [group.luts, group.encoded_exponent, group.sign_mantissa, group.output_positions, group.gaps]
    inputs = [device.upload(array) for array in inputs]
    output = device.output(2 * len(elements))
    n_bytes = len(group.encoded_exponent)
    sizes = [np.int32(n) for n in (len(group.luts), n_bytes, len(elements))]
    block_elements = int(np.diff(group.output_positions.astype(np.int64)).max())
    shared_memory = 4 * dfloat11_encoder.BLOCK_CHUNKS + 4 + 2 * block_elements
    arguments = (*inputs, output, *sizes)

    blocks = -(-n_bytes // (8 * dfloat11_encoder.BLOCK_CHUNKS))

    def decode():
        kernel((blocks,), (dfloat11_encoder.BLOCK_CHUNKS,), arguments, shared_mem=shared_memory)

    seconds = device.seconds(decode, runs)
    device.check(output, elements)
    return {"DFloat11's kernel": {"stored": group.nbytes / elements.nbytes, "decode": elements.nbytes / seconds}}


def nvcomp_ans(elements, runs, _threads):
    """nvCOMP's ANS over the bytes and over 16-bit floats, by either of its policies."""
    device = Device()
    try:
        from nvidia import nvcomp
    except ImportError as error:
        raise Skipped(f"nvCOMP cannot be imported: {error}") from error
    note("  nvCOMP ANS")
    source = nvcomp.as_array(device.upload(elements.view(np.uint8)))
    rows, errors = {}, []
    for data_type, policy in itertools.product(("|u1", "<f2"), ("LATENCY", "CONCURRENCY")):
        name = f"nvCOMP ANS, `{data_type}`, for {policy.lower()}".replace("|", "\\|")
        try:
            options = {"data_type": data_type, "execution_policy": getattr(nvcomp.ExecutionPolicy, policy)}
            codec = nvcomp.Codec(algorithm="ANS", cuda_stream=device.stream.ptr, **options)
            rows[name] = measure_nvcomp(device, codec, source, elements, runs)
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            errors.append(f"{name}: {error}")
            note(f"    {errors[-1]}")
    if not rows:
        raise Skipped("; ".join(errors))
    return rows


def measure_nvcomp(device, codec, source, elements, runs):
    encoded = codec.encode(source)
    device.stream.synchronize()
    output = device.output(elements.nbytes)
    config = codec.decompression_config(encoded)  # with it, a decode does not wait for the device
    seconds = device.seconds(lambda: codec.decode(encoded, out=output, decompression_config=config), runs)
    device.check(output, elements)
    return {
        "stored": encoded.buffer_size / elements.nbytes,
        "decode": elements.nbytes / seconds,
        "encode": elements.nbytes / device.seconds(lambda: codec.encode(source), min(runs, 5), 1),
    }


def safetensors_load(path, runs, _threads):
    """What most programs do: safetensors to tensors of PyTorch on the GPU."""
    try:
        import torch
        from safetensors.torch import load_file
    except ImportError as error:
        raise Skipped(f"safetensors cannot be loaded to PyTorch: {error}") from error
    best = float("inf")
    for _ in range(runs + 1):
        start = time.perf_counter()
        tensors = load_file(path, device="cuda")
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
        decoded = sum(tensor.nbytes for tensor in tensors.values())
        del tensors
    torch.cuda.empty_cache()
    return {"safetensors to PyTorch": {"load": decoded / best}}


def cmz_rows(cmz, source, runs, failed):
    """A row for each way to store the file, and before them the copies of the same run."""
    rows = {}
    for name, options in FILES.items():
        note(f"  {name}")
        try:
            measured = cmz.measure(source, options, runs)
        except Failed as error:
            failed[name] = str(error)
            continue
        decoded = measured["decoded"]
        rows.setdefault(COPY, {"decode": decoded / measured["copy_seconds"]})
        rows.setdefault("copy from pinned memory", {"load": measured["host_copy_rate"]})
        rows[name] = {
            "stored": measured["stored"],
            "decode": decoded / measured["decode_seconds"],
            "load": decoded / measured["load_seconds"],
            "encode": measured["encode"],
            "bench": measured,
        }
    return rows


def measure(label, tensors, cmz, folder, arguments):
    """{"label", "bytes", "rows", "skipped", "failed"} of these BF16 tensors."""
    elements = np.concatenate([array for _, _, array in tensors.values()])
    note(f"{label}: {elements.nbytes / 1e6:.0f} MB")
    runs = arguments.runs or int(np.clip(10e9 / elements.nbytes, 10, 200))
    source = folder / "weights.safetensors"
    write_safetensors(source, tensors)
    skipped, failed = {}, {}
    rows = cmz_rows(cmz, source, runs, failed)
    peers = {"DFloat11": (dfloat11, elements), "nvCOMP": (nvcomp_ans, elements), "safetensors": (safetensors_load, source)}
    for peer, (run, data) in peers.items():
        try:
            rows.update(run(data, runs, arguments.threads))
        except Skipped as reason:
            skipped[peer] = str(reason)
        except Failed as error:
            failed[peer] = str(error)
        except Exception as error:  # whatever a peer raises: the others are measured all the same
            skipped[peer] = f"{type(error).__name__}: {error}"
    return {"label": label, "bytes": elements.nbytes, "rows": rows, "skipped": skipped, "failed": failed}


def print_table(measured):
    copy = measured["rows"].get(COPY, {"decode": float("nan")})["decode"]
    print(f"\n### {measured['label']}, {measured['bytes'] / 1e6:.0f} MB\n")
    print("| | stored | decode, GB/s | beside the copy | load, GB/s | encode, GB/s |\n|---|---|---|---|---|---|")
    for name, row in measured["rows"].items():
        cells = [f"{row['stored']:.4f}".replace("0.", ".", 1) if "stored" in row else ""]
        cells.append(f"{row['decode'] / 1e9:.0f}" if "decode" in row else "")
        cells.append(f"{row['decode'] / copy:.2f}" if "decode" in row else "")
        cells += [f"{row[what] / 1e9:.1f}" if what in row else "" for what in ("load", "encode")]
        print(f"| {name} | " + " | ".join(cells) + " |")
    for peer, reason in measured["skipped"].items():
        print(f"\n{peer} is skipped: {reason}")
    for name, reason in measured["failed"].items():
        print(f"\n**{name} failed**: {reason}")
    sys.stdout.flush()


def bars(measured):
    """(what, figure or None, bar, unit) of everything that a bar is set for."""
    made = []
    for one in measured:
        rows, label = one["rows"], f"{one['label']}, {one['bytes'] / 1e6:.0f} MB"

        def rate(start, what, rows=rows):  # of the fastest row whose name starts like this
            return max((row[what] for name, row in rows.items() if name.startswith(start)), default=None)

        def add(what, rate, other, bar, unit="", label=label):
            made.append((f"{label}: {what}", rate / other if rate and other else None, bar, unit))

        decode, load = rate(DEFAULT, "decode"), rate(DEFAULT, "load")
        if one["bytes"] == 32_000_000:
            add("decode, default level", decode, 1e12, 1.0, " TB/s")
        if one["bytes"] >= 256_000_000:
            add("decode, default level", decode, 1e12, 2.0, " TB/s")
            add("decode, times DFloat11's kernel", decode, rate("DFloat11", "decode"), 4.0)
            add("decode, times nvCOMP ANS", decode, rate("nvCOMP", "decode"), 4.0)
            add("load, times the plain bytes", load, rate(PLAIN, "load"), 1.3)
    return made


def print_bars(measured):
    lines = bars(measured)
    if lines:
        print("\n| bar | figure | wanted | |\n|---|---|---|---|")
    for what, figure, bar, unit in lines:
        text = "–" if figure is None else f"{figure:.2f}{unit}"
        verdict = "**not measured**" if figure is None else "reached"
        if figure is not None and figure < bar:
            verdict = f"**not reached**, by {1 - figure / bar:.1%}"
        print(f"| {what} | {text} | ≥ {bar}{unit} | {verdict} |")


def version(*packages):
    for package in packages:
        try:
            return f"{package} {importlib.metadata.version(package)}"
        except importlib.metadata.PackageNotFoundError:
            pass
    return f"no {packages[0]}"


def print_heading(doctor):
    gpu = doctor["gpu"]
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        driver = "unknown"
    commit = HERE / "commit"
    commit = f" at {commit.read_text().strip()[:12]}" if commit.exists() else ""
    print(f"- {datetime.date.today()}, cmz {doctor['version']}{commit}")
    memory = f"{gpu['memory'] / 1e9:.0f} GB"
    print(f"- {gpu['name']}, {memory}, driver {driver}, CUDA {'.'.join(map(str, gpu['cuda']))}")
    cores = f"{len(os.sched_getaffinity(0))} processors, Python {platform.python_version()}, NumPy {np.__version__}"
    peers = [version("dfloat11"), version("cupy-cuda13x", "cupy-cuda12x")]
    peers += [version("nvidia-nvcomp-cu13", "nvidia-nvcomp-cu12"), version("safetensors")]
    print(f"- {cores}, {', '.join(peers)}", flush=True)


def note(text):
    print(text, file=sys.stderr, flush=True)


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="*", help="safetensors files whose BF16 tensors are measured, too")
    parser.add_argument("--sizes", default=SIZES, help=f"MB of the synthetic matrices (default: {SIZES}); may be empty")
    parser.add_argument("--cmz", default=HERE / "cmz", help="the program (default: the one beside this file)")
    parser.add_argument("--folder", help="for the files, of up to 8 GB at a time (default: TMPDIR)")
    parser.add_argument("--runs", type=int, help="runs, of which the best counts (default: 10 GB, at least 10, at most 200)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads of everything")
    parser.add_argument("--json", type=pathlib.Path, help="write all figures, in bytes a second, to this file")
    parsed = parser.parse_args(arguments)
    try:
        parsed.sizes = [int(size) for size in parsed.sizes.split(",") if size]
    except ValueError:
        parser.error(f"--sizes: numbers of MB, as in {SIZES}, not {parsed.sizes}")
    return parsed


def sources(arguments):
    """(label, tensors) of everything to measure, made one after the other."""
    for size in arguments.sizes:
        rows = size * 1_000_000 // (2 * COLUMNS)
        weights = gaussian(rows, COLUMNS, arguments.threads)
        yield "Gaussian BF16", {"weight": ("BF16", [rows, COLUMNS], weights)}
    for path in arguments.model:
        tensors = bf16_tensors(path)
        if tensors:
            yield pathlib.Path(path).name, tensors
        else:
            note(f"{path}: no BF16 tensors")


def main():
    arguments = parse(None)
    cmz = Cmz(arguments.cmz, arguments.threads)
    doctor = cmz.run("doctor")
    if "name" not in doctor["gpu"]:
        sys.exit(f"no GPU: {doctor['gpu']['reason']}")
    print_heading(doctor)
    measured = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for label, tensors in sources(arguments):
            measured.append(measure(label, tensors, cmz, pathlib.Path(folder), arguments))
            print_table(measured[-1])
            if arguments.json:  # each time: a run that is cut short keeps what it has
                arguments.json.write_text(json.dumps({"doctor": doctor, "measured": measured}, indent=1))
    print_bars(measured)
    sys.exit(any(one["failed"] for one in measured))


if __name__ == "__main__":
    main()
