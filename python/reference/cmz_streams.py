"""The stream codecs of the reference decoder: bytes to arrays of `n` symbols of `width` bits.

Each function is the page of its codec, codec/src/stream/<name>/SPEC.md, in numpy. The entropy coders take one symbol of every lane of
every tile at a time: a step is an operation on arrays, so that a megabyte takes seconds.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np


class CmzError(Exception):
    """Anything that keeps a file from being read."""


class Corrupt(CmzError):
    """The file breaks a rule of the format."""


class Unsupported(CmzError):
    """The file, or one tensor of it, needs a newer reader."""


def must(holds, why):
    if not holds:
        raise Corrupt(why)


def raw(stream, n, width):
    symbols = np.frombuffer(stream, "u1" if width <= 8 or len(stream) % 2 else "<u2")
    must(len(stream) == n * (1 if width <= 8 else 2), "a stream of another length than its symbols")
    must(not (symbols >> (width - 1) >> 1).any(), "bits above the width")
    return symbols


def zstd(stream, n, width):
    return raw(zstd_frame(stream, n * width // 8), n, width)


def zstd_frame(stream, length, max_window=1 << 31):
    """One zstd frame that decodes to `length` bytes."""
    try:
        import zstandard
    except ImportError:
        raise CmzError("this file has zstd streams: install the Python package zstandard") from None
    must(stream[:4] == b"\x28\xb5\x2f\xfd", "not a zstd frame")
    try:
        frame = zstandard.get_frame_parameters(stream)
        must(frame.content_size == length and frame.dict_id == 0, "a zstd frame of another length or with a dictionary")
        must(frame.window_size <= max_window, "a zstd frame with too large a window")
        decoder = zstandard.ZstdDecompressor(max_window_size=max_window).decompressobj()
        decoded = decoder.decompress(stream)
    except zstandard.ZstdError as error:
        raise Corrupt(f"zstd: {error}") from None
    must(decoder.eof and not decoder.unused_data, "not exactly one zstd frame")
    return decoded


def bitpack(stream, n, width):
    must(len(stream) == -(-n * width // 8), "a stream of another length than its symbols")
    bits = np.unpackbits(np.frombuffer(stream, "u1"), bitorder="little")
    must(not bits[n * width :].any(), "spare bits that are not zero")
    symbols = np.zeros(n, "u2")
    for j in range(width):
        symbols |= bits[j : n * width : width].astype("u2") << j
    return symbols


def tiered(stream, n, width):
    tiles = -(-n // 4096)
    must(len(stream) >= 16 + 4 * (tiles + 1), "the stream ends in its header")
    symbols = np.frombuffer(stream, "u1", 12)
    must(len(set(stream[:12])) == 12 and not any(stream[12:16]), "symbols that repeat, or reserved bytes that are not zero")
    ends, payload = tile_ends(stream, 16, tiles)
    must(len(payload) == 4 * ends[-1], "the stream does not end with its payload")
    out = np.empty(n, "u1")
    for t in range(tiles):
        tile = payload[4 * ends[t] : 4 * ends[t + 1]]
        out[4096 * t : 4096 * (t + 1)] = tiered_tile(tile, min(4096, n - 4096 * t), symbols)
    must(not (out >> (width - 1) >> 1).any(), "a symbol above the width")
    return out


def tiered_tile(tile, count, symbols):
    """The elements of one tile. Those that escape from tier to tier are `escaped`, by their place."""
    out, escaped, at = np.empty(count, "u1"), np.arange(count), 0
    for tier in range(4):
        size = -(-len(escaped) // 8)
        must(at + 2 * size <= len(tile), "a tile ends early")
        planes = np.unpackbits(np.frombuffer(tile, "u1", 2 * size, at), bitorder="little").reshape(2, -1)
        must(not planes[:, len(escaped) :].any(), "bits behind the last element of a plane")
        code = planes[0, : len(escaped)] + 2 * planes[1, : len(escaped)]
        named = code < 3
        out[escaped[named]] = symbols[3 * tier + code[named]]
        escaped, at = escaped[~named], at + 2 * size
    end = at + len(escaped)
    must(len(tile) == -(-end // 4) * 4 and not any(tile[end:]), "a tile of another length than its parts")
    out[escaped] = np.frombuffer(tile, "u1", len(escaped), at)
    return out


def tile_ends(stream, at, tiles):
    """The ends of the tiles in words of 32 bits, from 0, and the bytes behind them."""
    must(len(stream) >= at + 4 * (tiles + 1), "the stream ends in the ends of its tiles")
    ends = np.frombuffer(stream, "<u4", tiles + 1, at).astype("i8")
    must(ends[0] == 0 and (np.diff(ends) >= 0).all(), "ends of tiles that do not ascend from 0")
    return ends, stream[at + 4 * (tiles + 1) :]


def table_of(stream, at, length, width, numbers):
    """The used symbols, and for each what `numbers(bytes, count)` reads behind them; then the offset behind the table."""
    table, end = stream[at : at + length], -(-(at + length) // 4) * 4
    must(len(table) == length and len(stream) >= end and not any(stream[at + length : end]), "no whole table")
    bytes_left = iter(table)
    symbols, following = [], 0
    for run in range(varint(bytes_left)):
        gap = varint(bytes_left)
        must(gap > 0 or run == 0, "runs of symbols that are one")
        first = following + gap
        following = first + varint(bytes_left) + 1
        must(following <= 1 << width, "symbols above the width")
        symbols += range(first, following)
    values = numbers(bytes_left, len(symbols)) if len(symbols) >= 2 else []
    must(next(bytes_left, None) is None, "a table that is longer than its contents")
    return symbols, values, end


def varint(bytes_left):
    b = next_byte(bytes_left)
    return b if b < 192 else 192 + 256 * (b - 192) + next_byte(bytes_left)


def next_byte(bytes_left):
    b = next(bytes_left, None)
    must(b is not None, "a table that ends early")
    return b


def lanes_of(step, tiles, tile_len, n):
    """Places of the elements that step number `step` decodes, by tile and lane, and which of them there are."""
    group, j = divmod(step, 8)
    place = np.arange(tiles)[:, None] * tile_len + 256 * group + 8 * np.arange(32) + j
    return place, place < n


def huffman(stream, n, width):
    must(len(stream) >= 4 and not any(stream[2:4]), "no header")
    symbols, lengths, at = table_of(stream, 4, int.from_bytes(stream[:2], "little"), width, code_lengths)
    must((n == 0) == (not symbols), "symbols of nothing, or none")
    tiles = -(-n // 16384) if len(symbols) != 1 else 0
    ends, payload = tile_ends(stream, at, tiles)
    must(len(payload) == 4 * ends[-1] + 8 and not any(payload[-8:]), "the stream does not end with its payload and 8 zeros")
    if len(symbols) <= 1:
        return np.full(n, symbols[0] if symbols else 0, "u1")
    symbol_of, length_of = huffman_table(symbols, lengths)
    starts, stops = lane_bounds(payload, ends)
    position, bits = starts * 8, np.frombuffer(payload, "u1").astype("u4")
    out = np.empty(n, "u1")
    for step in range(min(16384, -(-n // 256) * 256) // 32):
        place, there = lanes_of(step, tiles, 16384, n)
        at = np.minimum(position >> 3, len(bits) - 3)
        window = (bits[at] | bits[at + 1] << 8 | bits[at + 2] << 16) >> (position & 7) & 2047
        out[place[there]] = symbol_of[window[there]]
        position += np.where(there, length_of[window], 0)
    must((-(-position // 8) == stops).all(), "a lane of another length than its elements")
    last = bits[np.maximum(stops - 1, 0)] >> (position & 7)
    must(not last[position & 7 > 0].any(), "spare bits of a lane")
    return out


def code_lengths(bytes_left, count):
    halves = [half for _ in range(-(-count // 2)) for byte in [next_byte(bytes_left)] for half in (byte & 15, byte >> 4)]
    must(not any(halves[count:]), "a spare half byte that is not zero")
    lengths = halves[:count]
    must(all(1 <= length <= 11 for length in lengths), "a code of no length or of more than 11 bits")
    must(sum(2048 >> length for length in lengths) == 2048, "a code that is not complete")
    return lengths


def huffman_table(symbols, lengths):
    """Symbol and length of the code at the low end of 11 bits. A code's highest bit comes first, so it is looked up reversed."""
    symbol_of, length_of = np.zeros(2048, "u1"), np.zeros(2048, "i8")
    code = before = 0
    for length, symbol in sorted(zip(lengths, symbols)):
        code <<= length - before
        reversed_code = int(f"{code:0{length}b}"[::-1], 2)
        symbol_of[reversed_code :: 1 << length], length_of[reversed_code :: 1 << length] = symbol, length
        code, before = code + 1, length
    return symbol_of, length_of


def lane_bounds(payload, ends):
    """Where the lanes of each tile start and end in the payload, in bytes."""
    starts, stops = np.empty((2, len(ends) - 1, 32), "i8")
    for t, (start, end) in enumerate(zip(4 * ends[:-1], 4 * ends[1:])):
        must(end - start >= 40, "a tile ends in its lane lengths")
        bits = int.from_bytes(payload[start : start + 40], "little")
        stops[t] = start + 40 + np.cumsum([bits >> 10 * lane & 1023 for lane in range(32)])
        starts[t] = np.concatenate([[start + 40], stops[t, :-1]])
        last = int(stops[t, -1])
        must(-(-last // 4) * 4 == end and not any(payload[last:end]), "a tile of another length than its lanes")
    return starts, stops


def rans(stream, n, width):
    must(len(stream) >= 4 and 12 <= stream[0] <= 20 and stream[1] <= 1, "no header")
    if stream[1] == 0:
        return rans_letters(stream, n, width)
    must(width in (1, 2, 4), "packed symbols of another width")
    letters = rans_letters(stream, -(-n * width // 8), 8, least=2)
    return bitpack(letters.astype("u1").tobytes(), n, width)


def rans_letters(stream, n, width, least=0):
    symbols, frequencies, at = table_of(stream, 4, int.from_bytes(stream[2:4], "little"), width, rans_frequencies)
    must(len(symbols) >= least, "packed symbols that are all alike")
    must((n == 0) == (not symbols), "symbols of nothing, or none")
    tile_len = 1 << stream[0]
    tiles = -(-n // tile_len) if len(symbols) != 1 else 0
    ends, payload = tile_ends(stream, at, tiles)
    must(len(payload) == 4 * ends[-1], "the stream does not end with its payload")
    if len(symbols) <= 1:
        return np.full(n, symbols[0] if symbols else 0, "u2")
    slots = np.repeat(np.arange(len(symbols)), frequencies)
    symbols, frequency = np.array(symbols, "u2"), np.array(frequencies, "u8")
    start = np.cumsum(frequency) - frequency
    must((np.diff(ends) >= 32).all(), "a tile ends in its states")
    words, next_word, last_word = np.frombuffer(payload, "<u2"), 2 * ends[:-1] + 64, 2 * ends[1:]
    x = np.stack([np.frombuffer(payload, "<u4", 32, 4 * end) for end in ends[:-1]]).astype("u8")
    must((x >= 1 << 16).all(), "a state below 2^16")
    out = np.empty(n, "u2")
    for step in range(min(tile_len, -(-n // 256) * 256) // 32):
        place, there = lanes_of(step, tiles, tile_len, n)
        slot = x % 4096
        rank = slots[slot]
        out[place[there]] = symbols[rank[there]]
        x = np.where(there, frequency[rank] * (x // 4096) + slot - start[rank], x)
        short = x < 1 << 16
        # A tile's words go to its lanes in ascending order.
        at = np.minimum(next_word[:, None] + np.cumsum(short, axis=1) - short, len(words) - 1)
        x = np.where(short, x << 16 | words[at], x)
        next_word += short.sum(axis=1)
    must((x == 1 << 16).all(), "states that do not end at 2^16")
    padding = last_word - next_word
    must(((padding == 0) | (padding == 1)).all() and not words[next_word[padding == 1]].any(), "words that are left over")
    return out


def rans_frequencies(bytes_left, count):
    frequencies = [varint(bytes_left) + 1 for _ in range(count)]
    must(sum(frequencies) == 4096, "frequencies that do not add up to 4096")
    return frequencies


def ternary(stream, n):
    """The parameters and the code of a codec of ternary symbols; None and the symbols, if they are packed."""
    must(len(stream) >= 4 and stream[0] <= 1 and stream[3] == 0, "no header")
    if stream[0] == 1:
        must(not any(stream[1:3]), "reserved bytes that are not zero")
        return None, bitpack(stream[4:], n, 2)
    return stream[1:3], stream[4:]


def tunstall(stream, n, width):
    frequencies, code = ternary(stream, n)
    if frequencies is None:
        return code
    must(min(frequencies) >= 1 and sum(frequencies) <= 255, "not the frequencies of three symbols")
    words = tunstall_words([256 - sum(frequencies), *frequencies])
    return by_codewords(code, n, words, 10)


def tunstall_words(frequencies):
    words, weights = [b""], [1 << 32]
    for _ in range(511):
        place = max((p for p in range(len(words)) if len(words[p]) < 32), key=lambda p: (weights[p], -p))
        word, weight = words[place], weights[place]
        words[place], weights[place] = word + b"\0", weight * frequencies[0] // 256
        words += [word + b"\1", word + b"\2"]
        weights += [weight * frequency // 256 for frequency in frequencies[1:]]
    return words


def dictionary(stream, n, width):
    params, code = ternary(stream, n)
    if params is None:
        return code
    must(not any(params), "reserved bytes that are not zero")
    return by_codewords(code, n, dictionary_words(), 16)


@cache
def dictionary_words():
    """The symbols of each codeword. Products of negative numbers are as those of positive ones, and heaps have the least in front."""
    p = [0.885, (1 - 0.885) / 2, (1 - 0.885) / 2]
    pairs = [p[r // 3] * p[r % 3] for r in range(9)]
    candidates, sequences = [(-1.0, ())], []
    while len(sequences) < 65536:
        probability, sequence = heapq.heappop(candidates)
        if sequence:
            sequences.append(sequence)
        if len(sequence) < 14:
            for r in range(9):
                heapq.heappush(candidates, (probability * pairs[r], (*sequence, r)))
    return [bytes(symbol for r in sequence for symbol in (r % 3, r // 3)) for sequence in sequences]


def by_codewords(code, n, words, bits):
    """Tiles of codewords that stand for `words`."""
    ends, payload = tile_ends(code, 0, -(-n // 8192))
    must(len(payload) == 4 * ends[-1], "the stream does not end with its payload")
    out = b""
    for t, (start, end) in enumerate(zip(4 * ends[:-1], 4 * ends[1:])):
        tile, count = payload[start:end], min(8192, n - 8192 * t)
        all_bits, used, symbols = int.from_bytes(tile, "little"), 0, b""
        while len(symbols) < count:
            codeword = all_bits >> used & (1 << bits) - 1
            used += bits
            must(used <= 8 * len(tile) and codeword < len(words), "a tile that ends early, or a codeword that stands for nothing")
            symbols += words[codeword]
        must(not any(symbols[count:]), "symbols behind the end that are not zero")
        must(len(tile) == -(-used // 32) * 4 and all_bits >> used == 0, "a tile of another length than its codewords")
        out += symbols[:count]
    return np.frombuffer(out, "u1")


def trits(stream, n, width):
    params, code = ternary(stream, n)
    if params is None:
        return code
    must(not any(params), "reserved bytes that are not zero")
    values = np.frombuffer(code, "u1")
    must(len(values) == -(-n // 5) and (values < 243).all(), "not five ternary symbols to a byte")
    symbols = (values[:, None] // np.array([1, 3, 9, 27, 81], "u1") % 3).reshape(-1)
    must(not symbols[n:].any(), "symbols behind the end that are not zero")
    return symbols[:n]


@dataclass
class Codec:
    """A stream codec: its id, the widths of symbols that it is for, and its decoder."""

    id: int
    widths: range | tuple
    decode: Callable


# SPEC.md §13.
RAW, ZSTD = 0, 1
CODECS = {
    "raw": Codec(RAW, range(1, 17), raw),
    "zstd": Codec(ZSTD, (8, 16), zstd),
    "tiered": Codec(2, range(1, 9), tiered),
    "bitpack": Codec(3, range(1, 17), bitpack),
    "huffman": Codec(4, range(1, 9), huffman),
    "rans": Codec(5, range(1, 13), rans),
    "tunstall": Codec(6, (2,), tunstall),
    "dictionary": Codec(7, (2,), dictionary),
    "trits": Codec(8, (2,), trits),
}
DECODERS = {codec.id: codec.decode for codec in CODECS.values()}
