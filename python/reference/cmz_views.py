"""Views of the reference decoder: the weights that quantized tensors stand for (SPEC.md §6.9 and the pages under codec/src/view).

    python cmz_views.py model.cmz dense.safetensors

writes the weights that the views of a file stand for, and the tensors that no view is made of.
"""

import json
import sys

import numpy as np

from cmz_quantized import FLOATS, SMALL, Params, from_single, to_single
from cmz_reference import CmzFile, product
from cmz_streams import CmzError, Unsupported, dictionary_words, must

COUNT = 1, (1 << 31) - 1
UNSIGNED = {"I8": "u1", "U8": "u1", "I16": "<u2", "U16": "<u2", "I32": "<u4", "I64": "<u8", "F16": "<u2", "BF16": "<u2", "F32": "<u4"}
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], "f4")


def read_view(file, name):
    """The bytes of a view's elements."""
    view = View(file, name, file.views[name])
    must(view.dtype in FLOATS, f"view {name!r}: elements of type {view.dtype}")
    with np.errstate(all="ignore"):
        values = view.decode(view)
    must(not view.parts, f"view {name!r}: parts that its layout does not have")
    return from_single(values, view.dtype).tobytes()


class View:
    """A view object. Its parts are taken one by one: none may be left."""

    def __init__(self, file, name, view):
        if view["layout"] not in LAYOUTS:
            raise Unsupported(f"view {name!r}: unknown layout {view['layout']!r}")
        self.decode, known = LAYOUTS[view["layout"]]
        self.file, self.dtype, self.shape, self.parts = file, view["dtype"], view["shape"], dict(view["parts"])
        self.elements, self.given = product(self.shape), view.get("params", {})
        self.params = Params(view["layout"], self.given, known)

    def matrix(self):
        must(len(self.shape) == 2, "a view that is no matrix")
        return self.shape

    def stack(self):
        must(len(self.shape) >= 2, "a view that is no stack of matrices")
        return product(self.shape[:-2]), *self.shape[-2:]

    def tensor(self, role):
        must(role in self.parts, f"a view without the part {role}")
        return self.file.tensors[self.parts[role]]

    def bits(self, role, types, shape=None, elements=None):
        """The bit patterns of a part, which has one of these types, and a shape or a number of elements."""
        tensor = self.tensor(role)
        must(tensor.dtype in types and shape in (None, tensor.shape), f"the part {role} is of another type or shape")
        must(elements in (None, product(tensor.shape)), f"the part {role} has another number of elements")
        return np.frombuffer(self.file.read(self.parts.pop(role)), UNSIGNED.get(tensor.dtype, "u1")).reshape(tensor.shape)

    def integers(self, role, kind, **place):
        """The signed integers of a part."""
        return self.bits(role, (kind,), **place).view(UNSIGNED[kind].replace("u", "i")).astype("i8")

    def numbers(self, role, types, **place):
        """The numbers of a part in single precision."""
        dtype = self.tensor(role).dtype
        bits = self.bits(role, types, **place)
        return bits.view("i1").astype("f4") if dtype == "I8" else to_single(bits, dtype)

    def groups(self, columns, axis):
        """The group of each column, by a size or by a part, and how many there are: as many as the scales have along `axis`."""
        must(("group_size" in self.given) != ("groups" in self.parts), "groups told twice, or not at all")
        if "group_size" in self.given:
            size = self.params.integer("group_size", *COUNT)
            return np.arange(columns) // size, -(-columns // size)
        shape, groups = self.tensor("scales").shape, self.integers("groups", "I32", shape=[columns])
        must(len(shape) == 2 and ((0 <= groups) & (groups < shape[axis])).all(), "a column of no group")
        return groups, shape[axis]


def fields(words, bits, count, per_word=32):
    """`count` fields of so many bits from each row of words, of which each has `per_word` bits in use."""
    bit = np.unpackbits(np.ascontiguousarray(words).view("u1"), bitorder="little").reshape(*words.shape, 32)[..., :per_word]
    bit = bit.reshape(*words.shape[:-1], words.shape[-1] * per_word)[..., : count * bits]
    return (bit.reshape(*words.shape[:-1], count, bits).astype("i8") << np.arange(bits)).sum(-1)


def nibbles(codes, low_first):
    low, high = codes & 15, codes >> 4
    return np.stack([low, high] if low_first else [high, low], axis=-1).reshape(-1)


def permutation(order):
    must(np.array_equal(np.sort(order), np.arange(len(order))), "an order that is no permutation")
    return order


def integers(codes, zeros, scales, group):
    """What layouts of packed integers share: codes by row and column, zero points and scales by row and group."""
    return (codes - zeros[:, group]).astype("f4") * scales[:, group]


def gptq(view):
    rows, columns = view.matrix()
    bits = view.params.integer("bits", 2, 8)
    less = view.params.one_of("zero_points", ("minus_one", "stored")) == "minus_one"
    group, count = view.groups(columns, axis=0)
    codes = fields(view.bits("codes", ("I32",), shape=[-(-columns * bits // 32), rows]).T, bits, columns)
    zeros = fields(view.bits("zero_points", ("I32",), shape=[count, -(-rows * bits // 32)]), bits, rows)
    scales = view.numbers("scales", FLOATS, shape=[count, rows])
    return integers(codes, ((zeros + less) % (1 << bits)).T, scales.T, group)


def awq(view):
    rows, columns = view.matrix()
    must(rows % 8 == 0, "awq: not a multiple of 8 rows")
    view.params.integer("bits", 4, 4)
    size = view.params.integer("group_size", *COUNT)
    group, count = np.arange(columns) // size, -(-columns // size)
    places = (np.arange(0, rows, 8)[:, None] + [0, 2, 4, 6, 1, 3, 5, 7]).reshape(-1)

    def by_row(role, height):
        out = np.empty((rows, height), "i8")
        out[places] = fields(view.bits(role, ("I32",), shape=[height, rows // 8]), 4, rows).T
        return out

    scales = view.numbers("scales", FLOATS, shape=[count, rows])
    return integers(by_row("codes", columns), by_row("zero_points", count), scales.T, group)


def compressed_tensors_int(view):
    rows, columns = view.matrix()
    bits = view.params.integer("bits", 1, 8)
    used = 32 if view.params.one_of("packing", ("dense", "padded")) == "dense" else 32 // bits * bits
    group, count = view.groups(columns, axis=1)
    codes = fields(view.bits("codes", ("I32",), shape=[rows, -(-columns * bits // used)]), bits, columns, used)
    scales, zeros = view.numbers("scales", FLOATS, shape=[rows, count]), np.full((rows, count), 1 << (bits - 1))
    if "zero_points" in view.parts:
        zeros = fields(view.bits("zero_points", ("I32",), shape=[-(-rows * bits // used), count]).T, bits, rows, used).T
    return integers(codes, zeros, scales, group)


def block_scaled(view):
    count, rows, columns = view.stack()
    height, width = view.params.integer("block_rows", *COUNT), view.params.integer("block_columns", *COUNT)
    grid = count, -(-rows // height), -(-columns // width)
    codes = view.numbers("codes", ("F8_E4M3", "F8_E5M2", "I8"), elements=view.elements).reshape(count, rows, columns)
    scales = view.numbers("scales", (*FLOATS, "F8_E8M0"), elements=product(grid)).reshape(grid)
    return codes * scales[:, np.arange(rows) // height][:, :, np.arange(columns) // width]


def bitsandbytes_4bit(view):
    must(len(view.shape) >= 2, "a view of less than two dimensions")
    n, size = view.elements, view.params.integer("block_size", *COUNT)
    blocks, nested = -(-n // size), "nested_magnitudes" in view.parts
    must(nested == ("nested_block_size" in view.given) == ("nested_offset_bits" in view.given), "magnitudes that are nested by half")
    codes = view.bits("codes", ("U8", "F16", "BF16", "F32")).reshape(-1).view("u1")
    must(len(codes) == -(-n // 2), "codes of another length")
    codes = nibbles(codes, low_first=False)[:n]
    table = view.numbers("table", ("F32",), elements=16).reshape(-1)
    if nested:
        size_of = view.params.integer("nested_block_size", *COUNT)
        offset = np.uint32(view.params.integer("nested_offset_bits", 0, (1 << 32) - 1)).view("f4")
        of_blocks = view.numbers("nested_magnitudes", ("F32",), elements=-(-blocks // size_of)).reshape(-1)
        places = view.bits("magnitudes", ("U8",), elements=blocks).reshape(-1)
        magnitudes = view.numbers("nested_table", ("F32",), elements=256).reshape(-1)[places]
        magnitudes = magnitudes * of_blocks[np.arange(blocks) // size_of] + offset
    else:
        magnitudes = view.numbers("magnitudes", ("F32",), elements=blocks).reshape(-1)
    return table[codes] * magnitudes[np.arange(n) // size]


def bitsandbytes_8bit(view):
    rows, _ = view.matrix()
    codes, magnitudes = view.numbers("codes", ("I8",), shape=view.shape), view.numbers("magnitudes", ("F32",), elements=rows)
    return codes * magnitudes.reshape(rows, 1) * np.uint32(0x3C010204).view("f4")


def mxfp4(view):
    count, rows, columns = view.stack()
    size, transposed = view.params.integer("group_size", *COUNT), view.params.one_of("order", ("rows", "transposed")) == "transposed"
    if transposed:
        rows, columns = columns, rows
    must(columns % 2 == 0, "mxfp4: an odd number of codes in a row")
    codes = nibbles(view.bits("codes", ("U8", "I8"), elements=view.elements // 2), low_first=True).reshape(count, rows, columns)
    groups = -(-columns // size)
    scales = SMALL["F8_E8M0"][view.bits("scales", ("U8", "F8_E8M0"), elements=count * rows * groups)].reshape(count, rows, groups)
    x = E2M1[codes] * scales[..., np.arange(columns) // size]
    return x.swapaxes(1, 2) if transposed else x


def nvfp4(view):
    must(len(view.shape) >= 2 and view.shape[-1] % 2 == 0, "nvfp4: no rows of even size")
    rows, columns, size = product(view.shape[:-1]), view.shape[-1], view.params.integer("group_size", *COUNT)
    divisor = view.params.one_of("global_scale", ("divisor", "multiplier")) == "divisor"
    codes = nibbles(view.bits("codes", ("U8",), elements=view.elements // 2), low_first=True).reshape(rows, columns)
    scales = view.numbers("scales", ("F8_E4M3",), elements=rows * -(-columns // size)).reshape(rows, -(-columns // size))
    whole = view.numbers("global_scale", ("F32",), elements=1).reshape(())
    return E2M1[codes] * (scales / whole if divisor else scales * whole)[:, np.arange(columns) // size]


def qmoe(view):
    rows, columns = view.matrix()
    codewords = view.bits("codewords", ("I16", "U16"))
    offsets = view.integers("row_offsets", "I32", shape=[rows + 1])
    must(codewords.ndim == 1 and offsets[0] == 0 and offsets[-1] == len(codewords) and (np.diff(offsets) >= 0).all(), "qmoe: wrong offsets")
    extremes = view.numbers("extremes", ("BF16",), shape=[2 * rows]).reshape(rows, 2)
    out, words = np.zeros((rows, columns), "f4"), dictionary_words()
    for row, (start, end) in enumerate(zip(offsets, offsets[1:])):
        sequences = [words[codeword] for codeword in codewords[start:end]]
        symbols = np.frombuffer(b"".join(sequences), "u1")
        enough = len(symbols) >= columns and (not sequences or len(symbols) - len(sequences[-1]) < columns)
        must(enough, "qmoe: a row of too few or too many codewords")
        out[row] = np.array([0, *extremes[row]], "f4")[symbols[:columns]]
    return out


def spqr_groups(view):
    rows, columns = view.matrix()
    size, kind = view.params.integer("group_size", 1, (1 << 64) - 1), view.tensor("outliers").dtype
    codes = view.numbers("codes", ("I8",), shape=[rows, columns])
    order = permutation(view.integers("order", "I32", shape=[columns]))
    outliers = view.numbers("outliers", FLOATS)
    must(outliers.ndim == 1, "spqr_groups: outliers of a wrong shape")
    row, column = places = view.integers("outlier_places", "I64", shape=[2, len(outliers)])
    inside = (0 <= places).all() and (row < rows).all() and (column < columns).all()
    must(inside and (np.diff(row * columns + column) > 0).all(), "spqr_groups: outliers out of order, or outside")
    two_levels = "scale_scales.0" in view.parts

    def rounded(x):
        return to_single(from_single(x, kind), kind)

    def of_group(name, prefix, group):
        """The scale or the zero point of each row."""
        if not two_levels:
            return view.numbers(f"{name}.{group}", (kind,), shape=[rows, 1])
        must(len(shape) == 2 and shape[1] > 0 and rows % shape[1] == 0, "spqr_groups: a second level that does not divide the rows")
        first = view.numbers(f"{name}.{group}", ("I8",), shape=shape)
        second = [rows // shape[1], 1]
        scales, zeros = (view.numbers(f"{prefix}_{what}.{group}", (kind,), shape=second) for what in ("scales", "zero_points"))
        return rounded(scales * rounded(first - zeros)).reshape(rows, 1)

    shape = view.tensor("scales.0").shape if two_levels else None
    w = np.empty((rows, columns), "f4")
    for group in range(-(-columns // size)):
        scale, zero = of_group("scales", "scale", group), of_group("zero_points", "zero_point", group)
        part = slice(group * size, (group + 1) * size)
        w[:, part] = rounded(scale * rounded(codes[:, part] - zero))
    x = w + np.float32(0)
    row, column, outliers = row[outliers != 0], column[outliers != 0], outliers[outliers != 0]
    x[row, column] = w[row, column] * np.float32(0) + outliers
    out = np.empty_like(x)
    out[:, order] = x
    return out


def spqr_tiles(view):
    rows, columns = view.matrix()
    by_tiles = view.params.one_of("outliers", ("csr", "ptcsr")) == "ptcsr"
    must(columns <= 65536 and not (by_tiles and rows % 16), "spqr_tiles: too many columns, or rows that are no tiles")
    down, across = -(-rows // 16), -(-columns // 16)
    words = view.bits("codes", ("I64",), shape=[down * across * 16]).reshape(down, across, 16)
    numbers = (words >> np.uint64(54)).astype("u1").reshape(down, across, 8, 2)
    numbers = (numbers[..., 0] | numbers[..., 1]).view("<f2")
    scale_scale, zero_scale, scale_zero, zero_zero = (numbers[..., i, None] for i in range(4))

    def code(at):
        return (words >> np.uint64(at) & np.uint64(7)).astype("f2")

    scale, zero = scale_scale * (code(0) - scale_zero), zero_scale * (code(3) - zero_zero)
    w = np.stack([scale * (code(6 + 3 * j) - zero) for j in range(16)], axis=-1)
    x = w.swapaxes(1, 2).reshape(16 * down, 16 * across)[:rows, :columns].astype("f4")

    outliers, runs = view.bits("outliers", ("I32",)).reshape(-1), down if by_tiles else rows
    offsets = view.integers("outlier_offsets", "I32", shape=[runs + 1])
    must(offsets[0] == 0 and (np.diff(offsets) >= 0).all() and offsets[-1] <= len(outliers), "spqr_tiles: wrong offsets")
    outliers, run = outliers[: offsets[-1]], np.repeat(np.arange(runs), np.diff(offsets))
    row = 16 * run + (np.arange(len(outliers)) - offsets[run]) % 16 if by_tiles else run
    column = outliers & 0xFFFF
    must((column < columns).all(), "spqr_tiles: an outlier outside")
    # One after the other, also where several are in one place.
    np.add.at(x, (row, column), (outliers >> 16).astype("<u2").view("<f2").astype("f4"))
    if "order" not in view.parts:
        return x
    must(columns % 2 == 0, "spqr_tiles: an order of an odd number of columns")
    out = np.empty_like(x)
    out[:, permutation(view.bits("order", ("I32",), shape=[columns // 2]).view("<u2"))] = x
    return out


#: The layouts, and the parameters of each.
LAYOUTS = {
    "awq": (awq, ("bits", "group_size")),
    "bitsandbytes_4bit": (bitsandbytes_4bit, ("block_size", "nested_block_size", "nested_offset_bits")),
    "bitsandbytes_8bit": (bitsandbytes_8bit, ()),
    "block_scaled": (block_scaled, ("block_rows", "block_columns")),
    "compressed_tensors_int": (compressed_tensors_int, ("bits", "packing", "group_size")),
    "gptq": (gptq, ("bits", "group_size", "zero_points")),
    "mxfp4": (mxfp4, ("group_size", "order")),
    "nvfp4": (nvfp4, ("group_size", "global_scale")),
    "qmoe": (qmoe, ()),
    "spqr_groups": (spqr_groups, ("group_size",)),
    "spqr_tiles": (spqr_tiles, ("outliers",)),
}


def dense(file):
    """A safetensors file of the weights that the views stand for, and of the tensors that no view is made of."""
    parts = {part for view in file.views.values() for part in view["parts"].values()}
    tensors = [(name, tensor.dtype, tensor.shape, file.read(name)) for name, tensor in file.tensors.items() if name not in parts]
    tensors += [(name, view["dtype"], view["shape"], read_view(file, name)) for name, view in file.views.items()]
    header, end = {}, 0
    for name, dtype, shape, data in tensors:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + len(data)]}
        end += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(data for *_, data in tensors)


def main(arguments):
    if len(arguments) != 2:
        sys.exit(__doc__)
    with open(arguments[0], "rb") as stream:
        file = CmzFile(stream.read())
    whole = dense(file)
    with open(arguments[1], "xb") as target:
        target.write(whole)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except CmzError as error:
        sys.exit(f"error: {error}")
