"""Encodes BF16 elements in the layout of DFloat11 0.2 to 0.5, with NumPy and on several threads.

The exponents are one stream of Huffman codes, highest bit first. It is cut into chunks of 8 bytes, one for each thread of the
kernel, and blocks of 512 chunks, one for each CTA. For every chunk there is the bit at which the first code in it starts (its
gap, 5 bits), for every block the number of the first element that starts in it.
"""

import concurrent.futures
import dataclasses
import heapq

import numpy as np

CHUNK_BITS = 64
BLOCK_CHUNKS = 512
LONGEST_CODE = 32
# Bytes from here on are numbers of tables, so that no exponent may be one of them.
FIRST_POINTER = 240
END = 256  # the symbol behind the last exponent
PART = 1 << 18  # elements a thread encodes at a time, so that they stay in the cache


@dataclasses.dataclass
class Encoded:
    """The arrays of a group, as a checkpoint holds them."""

    luts: np.ndarray  # u8 [tables + 1, 256]; the last row are the lengths of the codes in bits
    encoded_exponent: np.ndarray  # u8
    sign_mantissa: np.ndarray  # u8, one an element
    gaps: np.ndarray  # u8, 320 a block
    output_positions: np.ndarray  # u32, one a block and one more

    @property
    def nbytes(self):
        return sum(getattr(self, field.name).nbytes for field in dataclasses.fields(self))


def encode(elements, threads=1):
    """The group of these elements, an array of u16; ValueError if the layout cannot hold them."""
    parts = [slice(start, min(start + PART, len(elements))) for start in range(0, len(elements), PART)]
    exponents, sign_mantissa = (np.empty(len(elements), np.uint8) for _ in range(2))

    def take_apart(part):
        exponents[part] = elements[part] >> 7
        sign_mantissa[part] = elements[part] >> 8 & 0x80 | elements[part] & 0x7F
        return np.bincount(exponents[part], minlength=256)

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        counts = list(pool.map(take_apart, parts))
        codes = huffman_codes(np.sum(counts, axis=0))
        lengths, aligned = np.zeros(256, np.uint8), np.zeros(256, np.uint64)
        for symbol, (length, code) in codes.items():
            if symbol != END:
                lengths[symbol], aligned[symbol] = length, code << CHUNK_BITS - length
        starts = np.concatenate([[0], np.cumsum([int(count @ lengths.astype(np.int64)) for count in counts])])
        bits = int(starts[-1])

        stream = np.zeros(bits // CHUNK_BITS + 2, np.uint64)
        n_bytes = (bits + 7) // 8
        n_blocks = -(-n_bytes // (BLOCK_CHUNKS * 8))
        gaps = np.zeros(n_blocks * BLOCK_CHUNKS, np.uint8)
        positions = np.full(n_blocks + 1, len(elements), np.uint32)

        def write(part, start):
            return part.start, *encode_part(exponents[part], start, lengths, aligned)

        begun = -1  # the last chunk in which a code starts
        # One part after the other: the chunk between two of them has codes of both.
        for first_element, chunk, words, part_gaps, firsts in pool.map(write, parts, starts):
            stream[chunk : chunk + len(words)] |= words
            new = int(chunk == begun)  # leaves out a chunk in which codes of the part before start
            begun = chunk + len(part_gaps) - 1
            gaps[chunk + new : begun + 1] = part_gaps[new:]
            blocks = np.arange(-(-(chunk + new) // BLOCK_CHUNKS), begun // BLOCK_CHUNKS + 1)
            positions[blocks] = first_element + firsts[blocks * BLOCK_CHUNKS - chunk]

    if bits % 8:  # the last byte is filled up with the first bits of the end symbol
        length, code = codes[END]
        chunk, offset = divmod(bits, CHUNK_BITS)
        room = 8 - bits % 8
        padding = code >> length - room if length >= room else code << room - length
        stream[chunk] |= np.uint64(padding << CHUNK_BITS - offset - room)
        if chunk > begun:
            gaps[chunk] = offset
    return Encoded(
        luts=tables(codes, lengths),
        encoded_exponent=stream.byteswap().view(np.uint8)[:n_bytes],
        sign_mantissa=sign_mantissa,
        gaps=pack_gaps(gaps),
        output_positions=positions,
    )


def encode_part(exponents, start, lengths, aligned):
    """Codes from bit `start` of the stream on: the first chunk, the chunks with one for what is behind the last,
    the gaps of the chunks, and their first elements, counted in the part."""
    code_lengths = lengths[exponents]
    ends = np.cumsum(code_lengths, dtype=np.int64)
    ends += start
    ends -= code_lengths
    chunks, offsets = ends >> 6, (ends & 63).astype(np.uint64)
    # A code starts in every chunk of the part: none is longer than half a chunk.
    firsts = np.concatenate([[0], np.flatnonzero(chunks[1:] != chunks[:-1]) + 1])
    codes = aligned[exponents]
    words = np.zeros(len(firsts) + 1, np.uint64)
    words[:-1] = np.bitwise_or.reduceat(codes >> offsets, firsts)
    # What of the last code in a chunk belongs to the next one. By 64 bits in two steps, which C leaves undefined in one.
    last = np.concatenate([firsts[1:] - 1, [len(exponents) - 1]])
    words[1:] |= codes[last] << (np.uint64(63) - offsets[last]) << np.uint64(1)
    return int(chunks[0]), words, offsets[firsts].astype(np.uint8), firsts


def pack_gaps(gaps):
    """Five bits each, highest bit first."""
    packed = np.zeros(len(gaps) // 8, np.uint64)
    for column in gaps.reshape(-1, 8).T:
        packed = packed << np.uint64(5) | column
    return (packed << np.uint64(24)).byteswap().view(np.uint8).reshape(-1, 8)[:, :5].flatten()


def huffman_codes(counts):
    """{symbol: (length, code)} of the exponents that occur and of END; canonical codes of at most 32 bits."""
    counts = {symbol: int(count) for symbol, count in enumerate(counts) if count}
    if max(counts, default=0) >= FIRST_POINTER:
        raise ValueError(f"DFloat11 cannot represent exponents of {FIRST_POINTER} and more")
    rarest = sorted(counts, key=counts.get)
    for made_equal in range(len(rarest) + 1):  # as few of the rarest as needed, as DFloat11 does
        lengths = code_lengths({**counts, **dict.fromkeys(rarest[:made_equal], 1)})
        if max(lengths.values()) <= LONGEST_CODE:
            break
    codes, code, length = {}, 0, 0
    for symbol in sorted(lengths, key=lambda symbol: (lengths[symbol], symbol)):
        code <<= lengths[symbol] - length
        length = lengths[symbol]
        codes[symbol] = (length, code)
        code += 1
    return codes


def code_lengths(counts):
    """The lengths of Huffman codes for these symbols and END, which occurs once."""
    heap = [(1, -1, [END])] + [(count, symbol, [symbol]) for symbol, count in counts.items()]
    heapq.heapify(heap)
    lengths = dict.fromkeys([END, *counts], 0)
    for number in range(END, END + len(heap) - 1):
        (a, _, left), (b, _, right) = heapq.heappop(heap), heapq.heappop(heap)
        for symbol in left + right:
            lengths[symbol] += 1
        heapq.heappush(heap, (a + b, number, left + right))
    return lengths


def tables(codes, lengths):
    """Tables that decode a byte each: to an exponent, or to 256 less the number of the table for the next byte."""
    codes = {symbol: code for symbol, code in codes.items() if symbol != END}

    def prefix(length, code, depth):  # the first `depth` bytes of a code
        return depth, code >> length - 8 * depth

    prefixes = {prefix(*code, depth) for code in codes.values() for depth in range(1, (code[0] - 1) // 8 + 1)}
    numbers = {key: number for number, key in enumerate(sorted({(0, 0), *prefixes}))}
    if len(numbers) > 256 - FIRST_POINTER + 1:
        raise ValueError(f"DFloat11 has room for {257 - FIRST_POINTER} tables, and these codes need {len(numbers)}")
    rows = np.full((len(numbers) + 1, 256), -1, np.int16)
    for symbol, (length, code) in codes.items():
        depth = (length - 1) // 8
        free = 8 * (depth + 1) - length
        entry = (code << free) & 0xFF
        rows[numbers[prefix(length, code, depth)], entry : entry + (1 << free)] = symbol
    for depth, code in prefixes:
        rows[numbers[depth - 1, code >> 8], code & 0xFF] = 256 - numbers[depth, code]
    rows[-1] = lengths
    for row in rows[:-1]:  # no code leads to the rest; bits behind the last one may
        known = np.flatnonzero(row >= 0)
        behind = np.searchsorted(known, np.arange(256), side="right") - 1
        row[:] = row[known[np.maximum(behind, 0)]]
    return rows.astype(np.uint8)
