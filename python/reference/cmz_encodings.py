"""The encodings of the reference decoder: streams to the bytes of an array (SPEC.md §6.4 and the pages under codec/src/encoding)."""

from dataclasses import dataclass

import numpy as np

from cmz_quantized import QUANTIZED
from cmz_streams import CODECS, DECODERS, Corrupt, Unsupported, must

# §6.6
BITS = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip
REFERENCES = ("same_as", "xor", "subtract")


@dataclass
class Encoding:
    """An encoding object (§6.4); a component is a list of codec names or an encoding."""

    name: str
    params: dict
    components: dict


# The element of an array is the name of an element type, "?" for an unknown one, or the width of symbols in bits.

F8 = ("F8_E5M2", "F8_E5M2FNUZ", "F8_E4M3", "F8_E4M3FNUZ")
SIZE = {"BF16": 2, "F16": 2, "F32": 4, "C64": 4, "F64": 8}


def components_of(encoding, element, params=None):
    """Names and elements of an encoding's components, in the order of its page. None if it has no rule for the element."""
    if params:
        return params.components(element)
    if encoding == "byte_planes":
        return {f"byte_{i}": 8 for i in reversed(range(BITS[element] // 8))} if element in BYTE_PLANES else None
    if encoding == "plain":
        return {"data": element if isinstance(element, int) else 8}
    low = {f"mantissa_{i}": 8 for i in range(SIZE.get(element, 0) - 3, -1, -1)}
    if encoding == "float_planes":
        if element in ("F16", "F8_E5M2", "F8_E5M2FNUZ"):
            return {"exponent": 5, "sign_mantissa": 3} | ({"mantissa_0": 8} if element == "F16" else {})
        if element in ("F8_E4M3", "F8_E4M3FNUZ"):
            return {"exponent": 4, "sign_mantissa": 4}
        return {"exponent": 8, "sign_mantissa": 8} | low if element in SIZE else None
    if element in F8:
        return {"value": 8}
    return {"exponent_mantissa": 15 - JOINT[element], "sign_mantissa": JOINT[element] + 1} | low if element in SIZE else None


BYTE_PLANES = ("I16", "U16", "I32", "U32", "I64", "U64", "C64")
JOINT = {"BF16": 5, "F32": 5, "C64": 5, "F16": 7, "F64": 3}  # `r` of float_joint


def symbol_size(element):
    """Bytes that `plain` takes and gives at a time."""
    return 2 if isinstance(element, int) and element > 8 else 1


def element_size(element):
    """Bytes of an element of an array."""
    return symbol_size(element) if isinstance(element, int) or element == "?" else max(BITS[element] // 8, 1)


def join(encoding, element, parts):
    """The bytes of an array from its components' symbols, in the order of the page."""
    if encoding == "byte_planes":
        return np.stack([part.astype("u1") for part in parts[::-1]], axis=1).tobytes()
    if encoding == "plain":
        return parts[0].astype(f"<u{symbol_size(element)}").tobytes()
    if element in F8:
        if encoding == "float_joint":
            return parts[0].astype("u1").tobytes()
        mantissa = 2 if "E5M2" in element else 3
        exponent, sign = (part.astype("u1") for part in parts)
        return ((sign >> mantissa << 7) | (exponent << mantissa) | (sign & ((1 << mantissa) - 1))).tobytes()
    first, second = (part.astype("u2") for part in parts[:2])
    if encoding == "float_joint":
        r = JOINT[element]
        top = (second >> r << 15) | (first << r) | (second & ((1 << r) - 1))
        lower = parts[2:]
    elif element == "F16":
        top = (second >> 2 << 15) | (first << 10) | ((second & 3) << 8) | parts[2]
        lower = []
    else:
        top = ((second & 0x80 | first & 0x7F) << 8) | (first & 0x80 | second & 0x7F)
        lower = parts[2:]
    columns = [part.astype("u1") for part in lower[::-1]] + [(top & 0xFF).astype("u1"), (top >> 8).astype("u1")]
    return np.stack(columns, axis=1).tobytes()


@dataclass
class Plan:
    """An encoding, checked against its page: for each component a plan, or a width and the codecs that may store it."""

    encoding: str
    element: object
    components: list
    params: object
    names: list


def plan_of(encoding, element):
    if encoding.name not in ("plain", "byte_planes", "float_planes", "float_joint", *QUANTIZED):
        if encoding.name in REFERENCES:
            raise Corrupt("a reference inside an encoding")
        raise Unsupported(f"unknown encoding {encoding.name!r}")
    params = QUANTIZED[encoding.name](encoding.params) if encoding.name in QUANTIZED else None
    if encoding.params and params is None:
        raise Unsupported(f"unknown parameters of encoding {encoding.name}")
    defined = components_of(encoding.name, element, params)
    if defined is None and element == "?":
        raise Unsupported("an unknown element type in an encoding that must know it")
    must(defined and defined.keys() == encoding.components.keys(), f"not the components of {encoding.name}")
    components = []
    for name, width in defined.items():
        stored = encoding.components[name]
        components.append(plan_of(stored, width) if isinstance(stored, Encoding) else (width, codecs_of(stored, width)))
    return Plan(encoding.name, element, components, params, list(defined))


def codecs_of(names, width):
    must(isinstance(width, int), "a stream of something else than symbols")
    for name in names:
        if name not in CODECS:
            raise Unsupported(f"unknown stream codec {name!r}")
        must(width in CODECS[name].widths, f"stream codec {name} for symbols of {width} bits")
    return [CODECS[name].id for name in names]


def decode_streams(plan, streams, length, row):
    """Decodes a block of `length` bytes in rows of `row` elements from its streams, which must be exactly those of the plan (§4.5)."""
    streams = list(streams)
    decoded = decode_plan(plan, streams, length, row)
    must(not streams, "a block has more streams than its encoding")
    return decoded


def decode_plan(plan, streams, length, row):
    if plan.encoding == "plain":
        size = symbol_size(plan.element)
    else:
        # To float_planes and float_joint a C64 is two elements.
        size = SIZE.get(plan.element, 1) if plan.encoding.startswith("float") else element_size(plan.element)
    must(length % size == 0, "a block ends inside an element")
    elements, parts = length // size, []
    for name, component in zip(plan.names, plan.components, strict=True):
        count, rows = plan.params.extent(name, elements, row, parts) if plan.params else (elements, row)
        if isinstance(component, Plan):
            size = element_size(component.element)
            parts.append(np.frombuffer(decode_plan(component, streams, count * size, rows), f"<u{size}"))
            continue
        width, codecs = component
        must(streams, "a block has fewer streams than its encoding")
        codec, stream = streams.pop(0)
        if codec not in DECODERS:
            raise Unsupported(f"unknown stream codec {codec}")
        must(codec in codecs, "a stream of a codec that the manifest does not name")
        parts.append(DECODERS[codec](stream, count, width))
    if not plan.params:
        return join(plan.encoding, plan.element, parts)
    with np.errstate(all="ignore"):
        bits = plan.params.join(plan.element, elements, row, parts)
    return bits.astype(f"<u{element_size(plan.element)}").tobytes()
