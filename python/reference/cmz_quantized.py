"""The encodings under quantized weights: integers, codebooks, outliers, each by its page under codec/src/encoding, and the numbers of §6.8."""

import numpy as np

from cmz_streams import Unsupported, must

FLOATS = ("F16", "BF16", "F32")
VALUES = (*FLOATS, "F8_E4M3", "F8_E5M2")
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
        self.count = -(-(-(-elements // self.row)) // self.rows) * self.across

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


QUANTIZED = {"affine": Affine, "block_scale": BlockScale, "ternary": Ternary}
