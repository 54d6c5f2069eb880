"""BLAKE3 in numpy: the unkeyed hash with 32 bytes of output, all chunks side by side (section 2 of the BLAKE3 paper)."""

import numpy as np

IV = np.array([0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19], np.uint32)
PERMUTATION = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8]
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8
# The columns, then the diagonals, of the state.
MIXES = [(0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15), (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)]


def rotate(x, n):
    return x >> n | x << (32 - n)


def compress(cv, words, counter, length, flags):
    """One compression of each column: `cv` is 8 × columns, `words` 16 × columns. Returns the new 8 × columns."""
    columns = cv.shape[1]
    row = lambda value: np.full(columns, value, np.uint32)  # noqa: E731
    tail = [counter.astype(np.uint32), (counter >> 32).astype(np.uint32), row(length), row(flags)]
    v = list(cv) + [row(iv) for iv in IV[:4]] + tail
    for _ in range(7):
        for (a, b, c, d), x, y in zip(MIXES, words[::2], words[1::2]):
            for word, first, second in ((x, 16, 12), (y, 8, 7)):
                v[a] = v[a] + v[b] + word
                v[d] = rotate(v[d] ^ v[a], first)
                v[c] = v[c] + v[d]
                v[b] = rotate(v[b] ^ v[c], second)
        words = words[PERMUTATION]
    return np.stack([v[i] ^ v[i + 8] for i in range(8)])


def chunks(data, first, root):
    """Chaining values of whole chunks, or of one chunk of 0 to 1024 bytes: 8 × chunks."""
    count, length = max(1, len(data) // 1024), min(len(data), 1024)
    counter, cv = first + np.arange(count, dtype=np.uint64), np.repeat(IV[:, None], count, axis=1)
    blocks = max(1, -(-length // 64))
    for i in range(blocks):
        size = min(64, length - 64 * i)
        parts = np.zeros((count, 64), np.uint8)
        parts[:, :size] = np.frombuffer(data, np.uint8).reshape(count, length)[:, 64 * i : 64 * i + size]
        flags = CHUNK_START * (i == 0) | (CHUNK_END | ROOT * root) * (i == blocks - 1)
        cv = compress(cv, parts.view("<u4").T, counter, size, flags)
    return cv


def blake3(data):
    """The 32 bytes of the hash of `data`."""
    whole = max(0, len(data) - 1) // 1024
    last = chunks(data[1024 * whole :], whole, root=whole == 0)
    cvs = np.concatenate([chunks(data[: 1024 * whole], 0, root=False), last], axis=1) if whole else last
    while cvs.shape[1] > 1:
        pairs = cvs.shape[1] // 2
        words = np.concatenate([cvs[:, : 2 * pairs : 2], cvs[:, 1 : 2 * pairs : 2]])
        flags = PARENT | ROOT * (cvs.shape[1] == 2)
        parents = compress(np.repeat(IV[:, None], pairs, axis=1), words, np.zeros(pairs, np.uint64), 64, flags)
        # The one without a partner rises as it is: left subtrees are full.
        cvs = np.concatenate([parents, cvs[:, 2 * pairs :]], axis=1)
    return cvs[:, 0].astype("<u4").tobytes()
