"""The reference decoder against the golden files: every good one to the same bytes, every other one refused."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

import blake3_numpy
import cmz_reference
from cmz_reference import CmzFile
from cmz_streams import CODECS

GOLDEN = Path(__file__).parents[2] / "tests/golden"
# The tensors' bytes in file order, as whoever made the files had them.
DIGESTS = dict(line.split()[::-1] for line in (GOLDEN / "tensors.sha256").read_text().splitlines())
PAGE = (GOLDEN / "README.md").read_text()
# The README names each bad file's error; the thousands digit says who must act.
CODES = dict(re.findall(r"^\| `([a-z0-9-]+)\.cmz` \| CMZ(\d{4}) ", PAGE, re.M))
# And what a file is read against, where it is.
BASES = dict(re.findall(r"^\| `([a-z0-9-]+)\.cmz` \|.* The base given is `([a-z0-9-]+)\.cmz`\. \|$", PAGE, re.M))
KINDS = {"2": cmz_reference.MissingBase, "3": cmz_reference.Corrupt, "4": cmz_reference.Unsupported, "5": cmz_reference.LimitExceeded}
# The container names the two codecs that these blocks may use, so another one is a broken rule too.
KINDS_OF = {"bad-manifest-codec": cmz_reference.Corrupt, "bad-literal-codec": cmz_reference.Corrupt}


def read_everything(data, bases=()):
    file = CmzFile(data, bases)
    file.verify()
    return file


def golden(name):
    return (GOLDEN / f"{name}.cmz").read_bytes()


def read_golden(name):
    return read_everything(golden(name), [CmzFile(golden(BASES[name]))] if name in BASES else ())


def test_every_golden_file_is_tested():
    assert {path.stem for path in GOLDEN.glob("*.cmz")} == DIGESTS.keys() | CODES.keys()
    assert len(DIGESTS) >= 50 and len(CODES) >= 200


@pytest.mark.parametrize("name", DIGESTS)
def test_good(name):
    file = read_golden(name)
    digest = hashlib.sha256()
    for tensor in file.tensors:
        digest.update(file.read(tensor))
    assert digest.hexdigest() == DIGESTS[name]


@pytest.mark.parametrize("name", CODES)
def test_refused(name):
    # To this decoder, which finds a base by its digest, a wrong base is a missing one.
    kind = cmz_reference.MissingBase if CODES[name] == "3012" else KINDS[CODES[name][0]]
    with pytest.raises(KINDS_OF.get(name, kind)):
        read_golden(name)


def test_every_changed_byte_is_noticed():
    good = golden("good-encoding-float_joint")
    read_everything(good)
    for at in range(0, len(good), 61):
        with pytest.raises(cmz_reference.CmzError):
            read_everything(good[:at] + bytes([good[at] ^ 0x10]) + good[at + 1 :])


@pytest.mark.parametrize("codec", CODECS)
def test_damaged_streams_are_read_or_refused(codec):
    """No checksum stands before a codec here: whatever the bytes are, there are symbols below the width, or an error."""
    file, random = CmzFile(golden(f"good-stream-{codec}")), np.random.default_rng(1)
    whole = ("t", 8, 4500)
    name, width, count = {"bitpack": ("h", 5, 2000)}.get(codec, ("by row", 2, 10_400) if CODECS[codec].widths == (2,) else whole)
    block = cmz_reference.read_block(file.data, file.blocks[name][cmz_reference.DATA][0].offset)
    stream, refused = block.streams[0][1], 0
    for _ in range(150):
        changed = bytearray(stream[: random.integers(len(stream))] if random.random() < 0.2 else stream)
        for _ in range(random.integers(1, 4)):
            if changed:
                changed[random.integers(min(len(changed), random.choice([24, 300, 1 << 30])))] = random.integers(256)
        try:
            symbols = CODECS[codec].decode(bytes(changed), count, width)
            assert len(symbols) == count and not (symbols >> width).any()
        except cmz_reference.CmzError:
            refused += 1
    assert refused > 20


def test_the_example_of_the_specification():
    text = (GOLDEN.parents[1] / "format-spec/SPEC.md").read_text()
    listings = re.findall(r"^```hex\n(.*?)^```", text, re.M | re.S)
    data = b"".join(bytes.fromhex(line[6:]) for listing in listings for line in listing.splitlines())
    file = read_everything(data)
    assert file.array("a").tolist() == [[0x3F80, 0xBF00], [0x4049, 0x8000]]
    assert file.read("b") == bytes([1, 2, 3, 4, 5])


def test_tensors_told_by_another_one():
    file = read_everything(golden("good-references"))
    assert file.read("same") == file.read("a") != file.read("xor") == file.read("subtract")


# From the test vectors of the BLAKE3 project: the input is 0, 1, …, 250, 0, 1, …
@pytest.mark.parametrize(
    ("length", "digest"),
    [
        (0, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"),
        (1024, "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7"),
        (3072, "b98cb0ff3623be03326b373de6b9095218513e64f1ee2edd2525c7ad1e5cffd2"),
        (102400, "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085"),
    ],
)
def test_blake3(length, digest):
    data = bytes(i % 251 for i in range(length))
    assert blake3_numpy.blake3(data).hex() == digest
