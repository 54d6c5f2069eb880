"""A reference decoder of .cmz files, in Python and numpy, written from the specification alone.

It reads a file whole, checks everything that the specification says a reader must check, and is as plain as possible. It is
slow. Section numbers are those of format-spec/SPEC.md; the page of each codec and encoding lies in its folder under codec/src.

    python cmz_reference.py model.cmz                    # lists the tensors and checks every byte
    python cmz_reference.py model.cmz model.safetensors  # restores the source file, byte for byte

Files with zstd streams need the package `zstandard`; all others need numpy alone.
"""

import functools
import hashlib
import json
import re
import sys
import zlib
from dataclasses import dataclass

import numpy as np

from blake3_numpy import blake3
from cmz_encodings import BITS, REFERENCES, Encoding, decode_streams, plan_of
from cmz_streams import RAW, ZSTD, CmzError, Corrupt, Unsupported, must, zstd_frame

MAGIC = b"\x89CMZ\r\n\x1a\n"
LITERAL, DESCRIPTOR, SHARED, DATA, MANIFEST, TABLE = range(1, 7)


class LimitExceeded(CmzError):
    """The file asks for more than this reader's limits (§11)."""


class MissingBase(CmzError):
    """A tensor refers to another file, which was not given."""


def within(value, limit, what):
    if value > limit:
        raise LimitExceeded(f"{what} is {value}, the limit is {limit}")


def align(x, a):
    return -(-x // a) * a


def u16(data, at):
    return int.from_bytes(data[at : at + 2], "little")


def u32(data, at):
    return int.from_bytes(data[at : at + 4], "little")


def u64(data, at):
    return int.from_bytes(data[at : at + 8], "little")


def crc_without(data, at):
    """The CRC-32 of a structure with its own field at `at` taken as zeros."""
    return zlib.crc32(data[:at] + bytes(4) + data[at + 4 :])


def zeros(data, what):
    must(not any(data), f"{what}: bytes that must be zero are not")


# --- §4 blocks ---------------------------------------------------------------------------------------------------------


@dataclass
class Record:
    """What the block table says of a block (§7)."""

    offset: int
    distance: int
    stored_len: int
    decoded_len: int
    stored_crc: int
    decoded_crc: int
    kind: int
    streams: int

    @property
    def payload(self):
        return self.offset + self.distance

    @property
    def end(self):
        return self.payload + self.stored_len

    @property
    def header_len(self):
        return align(48 + 8 * self.streams, 64)


@dataclass
class Block:
    """A block header (§4.1) with the streams of its payload: pairs of a codec and bytes."""

    record: Record
    ordinal: int
    owner: int
    streams: list


def read_block(data, offset):
    """Reads and checks the header and the stored bytes of the block at `offset`."""
    must(data[offset : offset + 4] == b"\xc5BLK", f"no block at byte {offset}")
    streams = data[offset + 5]
    must(streams <= 32, "more than 32 streams")
    head = data[offset : offset + align(48 + 8 * streams, 64)]
    must(len(head) % 64 == 0 and u32(head, 44) == crc_without(head, 44), f"block header at byte {offset}: wrong crc")
    zeros(head[6:8] + head[36:44] + head[48 + 8 * streams :], "block header")
    crcs = u32(head, 28), u32(head, 32)
    record = Record(offset, u32(head, 16), u32(head, 20), u32(head, 24), *crcs, head[4], streams)
    must(record.kind in range(LITERAL, TABLE + 1) and record.distance >= len(head), "block header: not valid")
    payload = data[record.payload : record.end]
    must(len(payload) == record.stored_len, "a payload ends behind the file")
    must(zlib.crc32(payload) == record.stored_crc, f"block at byte {offset}: the stored bytes do not match their crc")
    return Block(record, u32(head, 8), u32(head, 12), split_payload(head, payload, streams))


def split_payload(head, payload, streams):
    """The streams of a payload (§4.3, §4.4)."""
    found, end = [], 0
    for at in range(48, 48 + 8 * streams, 8):
        zeros(head[at + 2 : at + 4], "stream entry")
        start = align(end, 16)
        zeros(payload[end:start], "padding between streams")
        end = start + u32(head, at + 4)
        found.append((u16(head, at), payload[start:end]))
    must(end == len(payload), "the streams do not fill the payload")
    return found


def check_decoded(record, decoded):
    must(len(decoded) == record.decoded_len, "a block decodes to another length than it says")
    must(zlib.crc32(decoded) == record.decoded_crc, f"block at byte {record.offset}: wrong decoded bytes")
    return decoded


def decode_section(block):
    """What a literal, descriptor, manifest or table block decodes to (§4.2, §4.7)."""
    (codec, stream), length = block.streams[0], block.record.decoded_len
    must(codec == RAW or (codec == ZSTD and block.record.kind != TABLE), "a codec that this kind of block must not use")
    if codec == ZSTD:
        must(length <= len(stream) // 4 << 17, "a zstd frame that cannot be as long as it says")
        stream = zstd_frame(stream, length, max_window=1 << 24)
    return check_decoded(block.record, stream)


# --- §6 manifest -------------------------------------------------------------------------------------------------------


class JsonObject(dict):
    """A JSON object that remembers whether a key occurred twice."""

    def __init__(self, pairs):
        super().__init__(pairs)
        self.repeats = len(self) < len(pairs)


def parse_json(text):
    """JSON by the rules of §6.1. A number that is no integer of 64 bits becomes a float, which no member takes."""

    def integer(digits):
        return int(digits) if digits[0] != "-" and len(digits) <= 20 and int(digits) < 1 << 64 else 0.5

    def constant(name):
        raise Corrupt(f"{name} is not JSON")

    try:
        text = text.decode("utf-8")
        depth = deepest = 0
        for bracket in re.findall(r"[\[\]{}]", re.sub(r'"(?:[^"\\]|\\.)*"', "", text)):
            depth += 1 if bracket in "[{" else -1
            deepest = max(deepest, depth)
        must(deepest <= 127, "JSON nested too deep")
        return json.loads(text, object_pairs_hook=JsonObject, parse_int=integer, parse_constant=constant)
    except ValueError as error:
        raise Corrupt(f"not JSON: {error}") from None


def member(obj, key, kind, default=None):
    """A member of an object, which must be of type `kind`."""
    must(isinstance(obj, JsonObject) and not obj.repeats, "not an object, or a key occurs twice")
    must(key in obj or default is not None, f"{key} is missing")
    value = obj.get(key, default)
    must(type(value) is kind or (kind is dict and isinstance(value, JsonObject)), f"{key} is of the wrong type")
    return text_of(value) if kind is str else value


def text_of(value):
    must(type(value) is str and not re.search("[\ud800-\udfff]", value), "not a string of Unicode scalar values")
    return value


def without_repeats(value):
    """Parameters, in which no object may hold a key twice."""
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        without_repeats(inner)
    must(not isinstance(value, JsonObject) or not value.repeats, "a key occurs twice")
    return value


@dataclass
class Tensor:
    """A tensor object (§6.3)."""

    name: str
    dtype: str
    shape: list
    block_elements: int
    encoding: Encoding

    @property
    def contiguous(self):  # §6.5
        return self.encoding.name == "plain" and self.encoding.components == {"data": ["raw"]}

    @property
    def owner(self):
        return zlib.crc32(self.name.encode())


def parse_encoding(obj, depth=1):
    must(depth <= 8, "encodings nested more than 8 deep")
    name, params = member(obj, "name", str), without_repeats(member(obj, "params", dict, JsonObject(())))
    components = member(obj, "components", dict)
    must(not components.repeats, "a component occurs twice")
    parsed = {}
    for key, value in components.items():
        if isinstance(value, list):
            must(value, "a component without codecs")
            parsed[text_of(key)] = [text_of(codec) for codec in value]
        else:
            parsed[text_of(key)] = parse_encoding(value, depth + 1)
    return Encoding(name, params, parsed)


def count_leaves(encoding):
    return sum(1 if isinstance(c, list) else count_leaves(c) for c in encoding.components.values())


def parse_tensor(obj):
    name, dtype = member(obj, "name", str), member(obj, "dtype", str)
    shape, block_elements = member(obj, "shape", list), member(obj, "block_elements", int)
    tensor = Tensor(name, dtype, shape, block_elements, parse_encoding(member(obj, "encoding", dict)))
    within(len(name.encode()), 65536, "the length of a name")
    must(len(shape) <= 64 and all(type(n) is int for n in shape), "not a shape")
    elements, bits = product(shape), BITS.get(dtype, 8)
    must(elements < 1 << 63 and block_elements >= 1, "too many elements, or blocks of none")
    if dtype in BITS:
        must(elements * bits % 8 == 0 and elements * bits // 8 < 1 << 63, "the tensor does not end on a byte")
        must(block_elements * bits % 8 == 0 and block_elements * bits // 8 <= 1 << 24, "blocks of a wrong length")
    must(count_leaves(tensor.encoding) <= 32, "more than 32 streams")
    return tensor


def product(shape):
    return functools.reduce(lambda a, b: a * b, shape, 1)


# --- the file ----------------------------------------------------------------------------------------------------------


class CmzFile:
    """A .cmz file: `tensors` by name, `metadata`, `read(name)`, `source()` and `verify()`.

    `bases` are other files, already opened, that tensors of this one may refer to (§6.7)."""

    def __init__(self, data, bases=()):
        self.data, self.bases = bytes(data), {base.root: base for base in bases}
        self._check_header()
        manifest, table = self._check_trailer()
        self._read_manifest(manifest)
        self._read_table(table)
        self._check_layout()
        self._check_lengths()
        self._check_source()

    def _check_header(self):  # §3, §12
        head = self.data[:64]
        must(head[:8] == MAGIC, "not a .cmz file")
        must(len(self.data) % 64 == 0 and len(self.data) >= 128, "the file was cut, or something follows it")
        must(u32(head, 60) == crc_without(head, 60), "file header: wrong crc")
        version = u16(head, 8), u16(head, 10)
        if version != (0, 1):
            raise Unsupported(f"format version {version[0]}.{version[1]}: this reader knows 0.1")
        if required := u64(head, 16):
            raise Unsupported(f"required features {required:#x}")
        zeros(head[12:16] + head[48:60], "file header")

    def _check_trailer(self):  # §8
        tail, end = self.data[-64:], len(self.data) - 64
        must(tail[56:] == MAGIC, "no trailer: the file was cut, or something follows it")
        must(u32(tail, 16) == crc_without(tail, 16), "trailer: wrong crc")
        zeros(tail[20:24], "trailer")
        manifest_at, table_at = self.manifest_offset, _ = u64(tail, 0), u64(tail, 8)
        must(64 <= manifest_at < table_at < end, "trailer: wrong offsets")
        must(manifest_at % 64 == 0 and table_at % 64 == 0, "trailer: offsets that are not multiples of 64")
        self.root = tail[24:56].hex()
        digest = blake3(self.data[:64] + self.data[manifest_at:end] + tail[:16])
        must(digest.hex() == self.root, "the root digest does not match")
        return (self._index_block(*place) for place in ((MANIFEST, manifest_at, table_at), (TABLE, table_at, end)))

    def _index_block(self, kind, start, end):
        block = read_block(self.data, start)
        record = block.record
        must((record.kind, block.ordinal, block.owner, record.streams) == (kind, 0, 0, 1), "not manifest or table")
        limit = 256 << 20 if kind == MANIFEST else 32 << 24
        within(record.decoded_len, limit, "the length of manifest or table")
        must(record.stored_len <= record.decoded_len, "stored longer than decoded")
        must(record.distance == 64 and align(record.end, 64) == end, "manifest or table does not fill its place")
        zeros(self.data[record.end : end], "padding")
        return decode_section(block)

    def _read_manifest(self, text):  # §6.2
        manifest = parse_json(text)
        member(manifest, "generator", str)
        self.metadata = member(manifest, "metadata", dict, JsonObject(()))
        must(not self.metadata.repeats, "metadata: a key occurs twice")
        for key, value in self.metadata.items():
            text_of(key), text_of(value)
        descriptions = member(manifest, "tensors", list)
        within(len(descriptions), 1 << 22, "the number of tensors")
        self.tensors = {}
        for description in descriptions:
            tensor = parse_tensor(description)
            must(tensor.name not in self.tensors, "two tensors of one name")
            self.tensors[tensor.name] = tensor
        self._read_views(member(manifest, "views", list, []))
        self._read_lossy(member(manifest, "lossy", list, []))
        self.source_info = None
        if "source" in manifest:
            source = member(manifest, "source", dict)
            self.source_info = [member(source, *part) for part in (("kind", str), ("len", int), ("sha256", str))]

    def _read_views(self, views):  # §6.9: what concerns the file; cmz_views.py has the rest
        within(len(views), 1 << 22, "the number of views")
        self.views, names = {}, set(self.tensors)
        for view in views:
            name, dtype, shape, _ = (member(view, *part) for part in (("name", str), ("dtype", str), ("shape", list), ("layout", str)))
            within(len(name.encode()), 65536, "the length of a name")
            must(name not in names, "a view has the name of a tensor or of another view")
            names.add(name)
            self.views[name] = view
            must(len(shape) <= 64 and all(type(n) is int for n in shape), "not a shape")
            elements, bits = product(shape), BITS.get(dtype, 8)
            must(elements < 1 << 63 and elements * bits % 8 == 0 and elements * bits < 1 << 66, "not a whole number of bytes")
            without_repeats(member(view, "params", dict, JsonObject(())))
            parts = without_repeats(member(view, "parts", dict))
            must(1 <= len(parts) <= 65536 and all(text_of(part) in self.tensors for part in parts.values()), "a view of what is not there")

    def _read_lossy(self, lossy):  # §6.10
        names = iter(self.tensors)
        for entry in lossy:
            tensor, recipe = member(entry, "tensor", str), member(entry, "recipe", str)
            must(tensor in names, "lossy names what is no tensor, or not in the order of the tensors")
            must(recipe and type(member(entry, "error_ppb", int)) is int, "lossy without a recipe")
            must("output_error_ppb" not in entry or member(entry, "output_error_ppb", int) >= 0, "no error")

    def _read_table(self, table):  # §7
        must(len(table) % 32 == 0, "the block table ends inside a record")
        self.records = []
        for at in range(0, len(table), 32):
            fields = [u64(table, at)] + [u32(table, at + i) for i in range(8, 28, 4)]
            self.records.append(Record(*fields, table[at + 28], table[at + 29]))
            zeros(table[at + 30 : at + 32], "block table")

    def _check_layout(self):  # §5: every block has one possible place
        waiting, tensor, end = list(self.tensors.values())[::-1], None, 64
        self.literals, self.blocks, self.padding = [], {}, []
        records = iter(self.records)
        following = next(records, None)
        while record := following:
            group, following = [record], next(records, None)
            if record.kind == LITERAL:
                self.literals.append(record)
                tensor = None
            elif record.kind == DESCRIPTOR:
                must(waiting, "more descriptors than tensors")
                tensor = waiting.pop()
                self.blocks[tensor.name] = {DESCRIPTOR: record, SHARED: None, DATA: []}
                last_kind = DESCRIPTOR
            else:
                must(record.kind in (SHARED, DATA) and tensor, "a block that belongs to no tensor")
                must(last_kind in ((DESCRIPTOR,) if record.kind == SHARED else (DESCRIPTOR, SHARED)), "blocks out of order")
                while record.kind == DATA and following and following.kind == DATA:
                    group.append(following)
                    following = next(records, None)
                self.blocks[tensor.name][record.kind] = group if record.kind == DATA else record
                last_kind = record.kind
            end = self._check_run(group, end) if record.kind == DATA and tensor.contiguous else self._check_adjacent(group, end)
        must(not waiting, "fewer descriptors than tensors")
        must(align(end, 64) == self.manifest_offset, "the manifest does not follow the last block")
        self.padding.append((end, self.manifest_offset))

    def _check_adjacent(self, group, end):  # §5.2
        for record in group:
            self._check_block_lengths(record)
            must(record.offset == align(end, 64) and record.distance == record.header_len, "a block is not in its place")
            self.padding.append((end, record.offset))
            end = record.end
        return end

    def _check_run(self, group, end):  # §5.3
        length = sum(record.stored_len for record in group)
        must(len(group) <= 65536 and length <= 0xF0000000, "a contiguous run is too long")
        start, headers = align(end, 64), align(end, 64) + 64 * len(group)
        payload = align(headers, 4096 if length >= 65536 else 64)
        self.padding += [(end, start), (headers, payload)]
        for i, record in enumerate(group):
            self._check_block_lengths(record)
            must(record.offset == start + 64 * i and record.payload == payload, "a contiguous block is not in its place")
            as_it_is = (record.stored_len, record.stored_crc) == (record.decoded_len, record.decoded_crc)
            must(as_it_is and record.streams == 1, "a contiguous block is not stored as it is")
            payload = record.end
        return payload

    @staticmethod
    def _check_block_lengths(record):  # §4.2
        one_stream = record.kind in (LITERAL, DESCRIPTOR)
        must(record.streams == 1 if one_stream else record.streams <= 32, "a block has too many streams or none")
        must(record.stored_len <= (record.decoded_len if one_stream else 1 << 25), "a block is too long")
        must((record.kind != SHARED) <= record.decoded_len <= 1 << 24, "a block decodes to too much, or to nothing")

    def _check_lengths(self):  # §6.3, §6.6
        self.lengths = {}
        for tensor in self.tensors.values():
            lengths = [record.decoded_len for record in self.blocks[tensor.name][DATA]]
            total = self.lengths[tensor.name] = sum(lengths)
            block = lengths[0] if lengths else 0
            if bits := BITS.get(tensor.dtype):
                block = tensor.block_elements * bits // 8
                must(total == product(tensor.shape) * bits // 8, "the blocks do not decode to the tensor's length")
            must(all(n == block for n in lengths[:-1]) and lengths[-1:] <= [block], "a block of the wrong length")

    def _check_source(self):  # §9
        literals = sum(record.decoded_len for record in self.literals)
        within(literals, 1 << 30, "the literal bytes")
        if self.source_info is None:
            return must(not self.literals, "literal blocks of no source")
        _, length, sha256 = self.source_info
        must(re.fullmatch("[0-9a-f]{64}", sha256), "the source's SHA-256 is not 64 lower-case digits")
        must(literals + sum(self.lengths.values()) == length, "the source's length is not that of its parts")

    def _block(self, record, ordinal, owner):
        """The block of a record. Header and record must agree (§10.2)."""
        block = read_block(self.data, record.offset)
        must(block.record == record, "a block header and the block table disagree")
        must((block.ordinal, block.owner) == (ordinal, owner), "a block is not the one that the table implies")
        return block

    def read(self, name):
        """The bytes of a tensor, as in the source's memory (§4.6)."""
        return b"".join(self._data(self.tensors[name]))

    def array(self, name):
        """A tensor as an array: of its elements' bit patterns, as unsigned integers, where they have whole bytes."""
        tensor, data = self.tensors[name], self.read(name)
        size = BITS.get(tensor.dtype, 0) // 8
        return np.frombuffer(data, f"<u{size}").reshape(tensor.shape) if size else np.frombuffer(data, np.uint8)

    def _data(self, tensor):
        """What the tensor's blocks decode to, one after the other."""
        element = tensor.dtype if tensor.dtype in BITS else "?"
        reference = self._reference(tensor)
        plan = reference.difference if reference else plan_of(tensor.encoding, element)
        must(not self.blocks[tensor.name][SHARED], "a shared block, but no encoding of this version shares components")
        row = tensor.shape[-1] if len(tensor.shape) > 1 else 1 << 63
        start = 0
        for ordinal, record in enumerate(self.blocks[tensor.name][DATA]):
            block = self._block(record, ordinal, tensor.owner)
            decoded = decode_streams(plan, block.streams, record.decoded_len, row) if plan else bytes(record.decoded_len)
            must(plan or not block.streams, "a block has streams where its encoding has none")
            if reference:
                run = reference.data[start : start + record.decoded_len]
                decoded = run if plan is None else reference.apply(decoded, run)
            start += record.decoded_len
            yield check_decoded(record, decoded)

    def _reference(self, tensor):  # §6.7
        encoding = tensor.encoding
        if encoding.name not in REFERENCES:
            return None
        if unknown := encoding.params.keys() - {"tensor", "base_root", "base_sha256"}:
            raise Unsupported(f"unknown parameters {sorted(unknown)} of encoding {encoding.name}")
        return Reference(self, tensor)

    def literal(self, ordinal):
        return decode_section(self._block(self.literals[ordinal], ordinal, 0))

    def source(self):
        """The file that the tensors came from, byte for byte (§9)."""
        must(self.source_info, "the file has no source")
        parts = [(record.offset, self.literal(i)) for i, record in enumerate(self.literals)]
        parts += [(self.blocks[name][DESCRIPTOR].offset, self.read(name)) for name in self.tensors]
        source = b"".join(data for _, data in sorted(parts))
        must(hashlib.sha256(source).hexdigest() == self.source_info[2], "the SHA-256 is not that of the source")
        return source

    def verify(self):
        """Looks at every byte of the file (§10)."""
        for start, end in self.padding:
            zeros(self.data[start:end], "padding")
        for tensor in self.tensors.values():
            descriptor = decode_section(self._block(self.blocks[tensor.name][DESCRIPTOR], 0, tensor.owner))
            must(parse_tensor(parse_json(descriptor)) == tensor, "a descriptor and the manifest disagree")
            self.read(tensor.name)
        if self.source_info:
            self.source()


# --- §6.7 references -------------------------------------------------------------------------------------------------


class Reference:
    """The tensor that another one is told by (codec/src/encoding/reference)."""

    def __init__(self, file, tensor):
        encoding, length = tensor.encoding, file.lengths[tensor.name]
        params = JsonObject(encoding.params.items())
        name = member(params, "tensor", str)
        digests = [member(params, key, str) for key in ("base_root", "base_sha256") if key in params]
        must(all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests), "a base's digest is not 64 lower-case digits")
        must("base_root" in params or not digests, "base_sha256 without base_root")
        if digests:
            if digests[0] not in file.bases:
                raise MissingBase(f"the base {digests[0]} is needed")
            file = file.bases[digests[0]]
        else:
            order = list(file.tensors)
            must(name in order and order.index(name) < order.index(tensor.name), "a reference to no earlier tensor")
            other = file.tensors[name].encoding
            must(other.name not in REFERENCES or "base_root" in other.params, "a reference to a reference")
        must(name in file.tensors, "a reference to no tensor")
        must(set(encoding.components) == (set() if encoding.name == "same_as" else {"difference"}), "not the components")
        self.difference = None
        if difference := encoding.components.get("difference"):
            must(isinstance(difference, Encoding), "a difference that is no encoding")
            self.difference = plan_of(difference, tensor.dtype if tensor.dtype in BITS else "?")
        must(file.lengths[name] == length, "a reference of another length")
        self.data = file.read(name)
        self.operation = encoding.name
        bits = BITS.get(tensor.dtype, 8)
        self.unit = {16: "<u2", 32: "<u4", 64: "<u8"}.get(32 if tensor.dtype == "C64" else bits, "u1")

    def apply(self, difference, run):
        if self.operation == "xor":
            return (np.frombuffer(difference, "u1") ^ np.frombuffer(run, "u1")).tobytes()
        must(len(run) % np.dtype(self.unit).itemsize == 0, "a run that is not whole units")
        step, base = np.frombuffer(difference, self.unit), np.frombuffer(run, self.unit)
        one = base.dtype.type(1)
        # An odd step d is -(d + 1) / 2, which is NOT (d >> 1) modulo 2^w.
        return (base + np.where(step & one, ~(step >> one), step >> one)).astype(self.unit).tobytes()


def main(arguments):
    if len(arguments) not in (1, 2):
        sys.exit(__doc__)
    with open(arguments[0], "rb") as stream:
        file = CmzFile(stream.read())
    if len(arguments) == 2:
        source = file.source()
        with open(arguments[1], "xb") as target:
            target.write(source)
        return
    for tensor in file.tensors.values():
        print(f"{tensor.name!r}  {tensor.dtype}  {tensor.shape}  {tensor.encoding.name}")
    file.verify()
    print(f"every byte is right; root digest {file.root}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except CmzError as error:
        sys.exit(f"error: {error}")
