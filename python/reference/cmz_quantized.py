"""The encodings under quantized weights: each by its page under codec/src/encoding, with the groups of §6.8."""

import numpy as np

from cmz_streams import Unsupported, must

FLOATS = ("F16", "BF16", "F32")
VALUES = (*FLOATS, "F8_E4M3", "F8_E5M2")
BYTES = {"F16": 2, "BF16": 2, "F32": 4, "F8_E4M3": 1, "F8_E5M2": 1}
# Element types of whole bytes (§6.6).
WHOLE = (
    BYTES
    | dict.fromkeys(("BOOL", "U8", "I8", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 1)
    | {"I16": 2, "U16": 2}
    | dict.fromkeys(("I32", "U32"), 4)
    | dict.fromkeys(("C64", "F64", "I64", "U64"), 8)
)
NAN = {"F16": 0x7E00, "BF16": 0x7FC0, "F32": 0x7FC00000, "F8_E4M3": 0x7F, "F8_E5M2": 0x7E}


def small_floats(mantissa, bias, not_numbers):
    """The 256 numbers of an eight-bit type with a sign."""
    byte = np.arange(256)
    exponent, fraction = byte >> mantissa & (0x7F >> mantissa), (byte & ((1 << mantissa) - 1)) / (1 << mantissa)
    x = np.where(exponent > 0, (1 + fraction) * 2.0 ** (exponent - bias), fraction * 2.0 ** (1 - bias))
    x = np.where(byte & 0x7F >= not_numbers, np.nan, x) * np.where(byte < 128, 1.0, -1.0)
    return x.astype("f4")


SMALL = {
    "F8_E4M3": small_floats(3, 7, 0x7F),
    "F8_E5M2": small_floats(2, 15, 0x7D),
    "F8_E8M0": np.append(2.0 ** np.arange(-127.0, 128), np.nan).astype("f4"),
}
SMALL["F8_E5M2"][[0x7C, 0xFC]] = np.inf, -np.inf


def to_single(bits, element):
    """Elements of a floating-point type, given as integers, in single precision."""
    if element in SMALL:
        return SMALL[element][bits]
    if element == "F16":
        return bits.view("<f2").astype("f4")
    return (bits.astype("<u4") << 16).view("<f4") if element == "BF16" else bits.view("<f4")


def from_single(x, element):
    """The bits of the nearest elements, ties to even, with one pattern for what is not a number."""
    x = np.asarray(x, "f4")
    if element == "F32":
        bits = x.view("u4")
    elif element == "F16":
        bits = x.astype("f2").view("u2")
    elif element == "BF16":
        bits = x.view("u4").astype("u8")
        bits = (bits + 0x7FFF + (bits >> 16 & 1) >> 16).astype("u2")
    else:
        # Beyond the greatest number is one more step: not a number, or infinity.
        steps = SMALL[element][: 0x7F if element == "F8_E4M3" else 0x7C].astype("f8")
        steps = np.append(steps, 480.0 if element == "F8_E4M3" else 65536.0)
        magnitude = np.minimum(np.abs(x.astype("f8")), steps[-1])
        above = np.minimum(np.searchsorted(steps, magnitude), len(steps) - 1)
        below = np.maximum(above - 1, 0)
        up, down = steps[above] - magnitude, magnitude - steps[below]
        bits = np.where((up < down) | (up == down) & (above % 2 == 0), above, below).astype("u1")
        overflown = (bits == 0x7F) & (element == "F8_E4M3")
        bits = np.where(overflown, bits, bits | np.signbit(x).astype("u1") << 7).astype("u1")
    return np.where(np.isnan(x), bits.dtype.type(NAN[element]), bits)


class Params:
    """Parameters, checked: what is not on the page makes the encoding unknown, what is wrong makes the tensor corrupt (§6.4)."""

    def __init__(self, encoding, params, known):
        self.encoding, self.params = encoding, params
        if unknown := params.keys() - set(known):
            raise Unsupported(f"unknown parameters of {encoding}: {sorted(unknown)}")

    def integer(self, key, first, last):
        value = self.params.get(key)
        must(type(value) is int and first <= value <= last, f"{self.encoding}: {key} is not {first} to {last}")
        return value

    def one_of(self, key, names):
        value = self.params.get(key)
        must(type(value) is str, f"{self.encoding}: {key} is not a string")
        if value not in names:
            raise Unsupported(f"{self.encoding}: unknown {key} {value!r}")
        return value

    def group(self):
        pair = self.params.get("group")
        good = type(pair) is list and len(pair) == 2 and all(type(n) is int and 1 <= n <= 1 << 24 for n in pair)
        must(good, f"{self.encoding}: group is not two integers")
        return pair


class Grid:
    """The groups of an array (§6.8)."""

    def __init__(self, group, elements, row):
        self.elements, self.row = elements, max(min(row, elements), 1)
        self.rows, self.columns = group
        self.across = -(-self.row // self.columns)
        height = -(-elements // self.row)
        self.count = -(-height // self.rows) * self.across

    def of_elements(self):
        """The number of each element's group."""
        at = np.arange(self.elements)
        return at // self.row // self.rows * self.across + at % self.row // self.columns


class Affine:
    def __init__(self, params):
        params = Params("affine", params, ("bits", "form", "group", "scale", "arithmetic"))
        self.bits, self.group = params.integer("bits", 1, 8), params.group()
        self.form = params.one_of("form", ("symmetric", "zero_point", "zero", "bias"))
        self.scale, self.arithmetic = params.one_of("scale", FLOATS), params.one_of("arithmetic", ("F32", "F16"))

    def components(self, element):
        third = {"zero_point": {"zero_points": self.bits}, "zero": {"zeros": self.scale}, "bias": {"biases": self.scale}}
        return {"codes": self.bits, "scales": self.scale} | third.get(self.form, {}) if element in FLOATS else None

    def extent(self, name, elements, row, parts):
        """Elements of a component, and of its row."""
        grid = Grid(self.group, elements, row)
        return (elements, row) if name == "codes" else (grid.count, grid.across)

    def join(self, element, elements, row, parts):
        """The elements, as bits."""
        group, kind = Grid(self.group, elements, row).of_elements(), "f4" if self.arithmetic == "F32" else "f2"
        codes, scales = parts[0].astype(kind), to_single(parts[1], self.scale)[group].astype(kind)
        if self.form == "symmetric":
            x = (codes - kind_of(kind)(1 << (self.bits - 1))) * scales
        elif self.form == "zero_point":
            x = (codes - parts[2][group].astype(kind)) * scales
        else:
            third = to_single(parts[2], self.scale)[group].astype(kind)
            x = (codes - third) * scales if self.form == "zero" else codes * scales + third
        return from_single(x, element)


def kind_of(kind):
    return np.float32 if kind == "f4" else np.float16


class BlockScale:
    def __init__(self, params):
        params = Params("block_scale", params, ("values", "scale", "group", "sense"))
        self.values, self.group = params.one_of("values", VALUES), params.group()
        self.scale = params.one_of("scale", ("F8_E8M0", "F8_E4M3", *FLOATS))
        self.sense = params.one_of("sense", ("multiply", "divide"))

    def components(self, element):
        return {"values": self.values, "scales": self.scale} if element in FLOATS else None

    def extent(self, name, elements, row, parts):
        grid = Grid(self.group, elements, row)
        return (elements, row) if name == "values" else (grid.count, grid.across)

    def join(self, element, elements, row, parts):
        values = to_single(parts[0], self.values)
        scales = to_single(parts[1], self.scale)[Grid(self.group, elements, row).of_elements()]
        return from_single(values * scales if self.sense == "multiply" else values / scales, element)


class Ternary:
    def __init__(self, params):
        self.group = Params("ternary", params, ("group",)).group()

    def components(self, element):
        return {"symbols": 2, "minima": "BF16", "maxima": "BF16"} if element in FLOATS else None

    def extent(self, name, elements, row, parts):
        grid = Grid(self.group, elements, row)
        return (elements, row) if name == "symbols" else (grid.count, grid.across)

    def join(self, element, elements, row, parts):
        symbols, group = parts[0], Grid(self.group, elements, row).of_elements()
        must((symbols < 3).all(), "a symbol that is not ternary")
        numbers = parts[1:]
        if element == "F32":
            numbers = [part.astype("<u4") << 16 for part in numbers]
        elif element == "F16":
            numbers = [from_single(to_single(part, "BF16"), element) for part in numbers]
        low, high = (part[group] for part in numbers)
        return np.select([symbols == 1, symbols == 2], [low, high], low.dtype.type(0))


class Codebook:
    def __init__(self, params):
        params = Params("codebook", params, ("bits", "form", "dim", "table", "group"))
        self.form, self.bits = params.one_of("form", ("table", "binary")), params.integer("bits", 1, 8)
        self.dim = params.integer("dim", 1, 256 if self.form == "table" else 1)
        self.table, self.group = params.one_of("table", VALUES), params.group()

    def components(self, element):
        rest = {"table": self.table} if self.form == "table" else {"alphas": self.table, "biases": self.table}
        return {"indices": self.bits} | rest if element in VALUES else None

    def vectors(self, elements, row):
        """The number of each element's vector, and of its place in it; vectors, and those of a row."""
        row = max(min(row, elements), 1)
        at, width = np.arange(elements), -(-row // self.dim)
        count = elements // row * width + -(-(elements % row) // self.dim)
        return at // row * width + at % row // self.dim, at % row % self.dim, count, width

    def extent(self, name, elements, row, parts):
        *_, count, width = self.vectors(elements, row)
        if name == "indices":
            return count, width
        grid = Grid(self.group, count, width)
        if name == "biases":
            return grid.count, grid.across
        numbers = (1 << self.bits) * self.dim if name == "table" else self.bits
        must(grid.count * numbers * BYTES[self.table] <= 1 << 24, "codebooks of more than a block")
        return grid.count * numbers, numbers

    def join(self, element, elements, row, parts):
        vector, place, count, width = self.vectors(elements, row)
        group, index = Grid(self.group, count, width).of_elements()[vector], parts[0].astype(np.int64)[vector]
        numbers = to_single(parts[1], self.table)
        if self.form == "table":
            return from_single(numbers[(group * (1 << self.bits) + index) * self.dim + place], element)
        x = np.float32(0)
        for i in range(self.bits):
            alpha = np.where(index >> i & 1, numbers[group * self.bits + i], -numbers[group * self.bits + i])
            x = x + alpha if i else alpha
        return from_single(x + to_single(parts[2], self.table)[group], element)


class Sparse:
    PIECE = 32768

    def __init__(self, params):
        given = params
        params = Params("sparse", params, ("mode", "index", "values", "arithmetic", "n", "m"))
        self.mode, self.index = params.one_of("mode", ("add", "replace", "fill")), params.one_of("index", ("bitmap", "rows", "n_of_m"))
        self.values = params.one_of("values", VALUES)
        if self.mode == "add":
            self.arithmetic = params.one_of("arithmetic", ("F32", "F16"))
        must(self.mode == "add" or "arithmetic" not in given, "sparse: an arithmetic without a sum")
        if self.index == "n_of_m":
            self.m = params.integer("m", 2, 256)
            self.n = params.integer("n", 1, self.m - 1)
        must(self.index == "n_of_m" or not {"n", "m"} & given.keys(), "sparse: runs without n of m")

    def components(self, element):
        index = {"bitmap": {"bitmap": 8}, "rows": {"counts": 16, "deltas": 16}}.get(self.index)
        index = index or {"positions": (self.m - 1).bit_length()}
        base = {} if self.mode == "fill" else {"base": element}
        return base | index | {"values": self.values} if element in VALUES else None

    def runs(self, elements, row, length):
        """The rows, cut into runs: the first element of each, and how many it has."""
        row = max(min(row, elements), 1)
        for start in range(0, elements, row):
            end = min(start + row, elements)
            for first in range(start, end, length):
                yield first, min(length, end - first)

    def extent(self, name, elements, row, parts):
        if name == "base":
            return elements, row
        index = parts[self.mode != "fill" :]
        if name == "bitmap":
            return -(-elements // 8), 1
        if name == "counts":
            return sum(1 for _ in self.runs(elements, row, self.PIECE)), 1
        if self.index == "bitmap":
            bits = np.unpackbits(index[0].astype("u1"), bitorder="little")
            must(not bits[elements:].any(), "a bit is set behind the last element")
            return int(bits.sum()), 1 << 63
        if self.index == "rows":
            counts = [int(count) for count in index[0]]
            lengths = [length for _, length in self.runs(elements, row, self.PIECE)]
            must(all(count <= length for count, length in zip(counts, lengths, strict=True)), "more values than elements")
            return sum(counts), 1 << 63
        return sum(min(self.n, length) for _, length in self.runs(elements, row, self.m)), 1 << 63

    def places(self, elements, row, index):
        if self.index == "bitmap":
            return np.flatnonzero(np.unpackbits(index[0].astype("u1"), bitorder="little"))
        runs = self.runs(elements, row, self.PIECE if self.index == "rows" else self.m)
        numbers, places = iter(int(number) for number in index[-1]), []
        for i, (first, length) in enumerate(runs):
            following = 0
            for _ in range(int(index[0][i]) if self.index == "rows" else min(self.n, length)):
                place = next(numbers) + (following if self.index == "rows" else 0)
                must(following <= place < length, "a value is not within its run, or not behind the one before it")
                places.append(first + place)
                following = place + 1
        return np.array(places, np.int64)

    def join(self, element, elements, row, parts):
        fill = self.mode == "fill"
        bits = np.zeros(elements, f"<u{BYTES[element]}") if fill else parts[0].astype(f"<u{BYTES[element]}")
        places, values = self.places(elements, row, parts[not fill : -1]), to_single(parts[-1], self.values)
        if self.mode == "add":
            kind = "f4" if self.arithmetic == "F32" else "f2"
            values = (to_single(bits[places], element).astype(kind) + values.astype(kind)).astype("f4")
        bits[places] = from_single(values, element)
        return bits


class Permute:
    def __init__(self, params):
        Params("permute", params, ())

    def components(self, element):
        return {"array": element, "order": 16} if WHOLE.get(element) else None

    def extent(self, name, elements, row, parts):
        width = min(row, elements)
        must(width <= 65536 and (width == 0 or elements % width == 0), "permute: not whole rows of 65,536 elements or less")
        return (elements, row) if name == "array" else (width, width)

    def join(self, element, elements, row, parts):
        order = parts[1].astype(np.int64)
        must(np.array_equal(np.sort(order), np.arange(len(order))), "an order that is no permutation")
        out = np.empty_like(parts[0])
        out.reshape(-1, max(len(order), 1))[:, order] = parts[0].reshape(-1, max(len(order), 1))
        return out


class LowRank:
    def __init__(self, params):
        params = Params("low_rank", params, ("rank", "factors"))
        self.rank, self.factors = params.integer("rank", 1, 1024), params.one_of("factors", FLOATS)

    def components(self, element):
        return {"base": element, "left": self.factors, "right": self.factors} if element in FLOATS else None

    def extent(self, name, elements, row, parts):
        row = min(row, elements)
        if name == "base":
            return elements, row
        height = -(-elements // max(row, 1))
        count, width = (height * self.rank, self.rank) if name == "left" else (self.rank * row, row)
        must(count * BYTES[self.factors] <= 1 << 24, "a factor of more than a block")
        return count, width

    def join(self, element, elements, row, parts):
        row = max(min(row, elements), 1)
        x = to_single(parts[0], element)
        left, right = (to_single(part, self.factors).astype("f4") for part in parts[1:])
        at = np.arange(elements)
        for k in range(self.rank):
            x = x + left[at // row * self.rank + k] * right[k * row + at % row]
        return from_single(x, element)


QUANTIZED = {
    "affine": Affine, "block_scale": BlockScale, "codebook": Codebook, "low_rank": LowRank, "permute": Permute, "sparse": Sparse,
    "ternary": Ternary,
}  # fmt: skip
