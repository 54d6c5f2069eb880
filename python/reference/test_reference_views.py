"""The views of the reference decoder against the golden files and the examples of the layouts' pages."""

import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pytest

from cmz_streams import CmzError, Corrupt, Unsupported
from cmz_views import LAYOUTS, dense, read_view
from test_reference import DIGESTS, GOLDEN, read_golden

# The bytes of every view that can be read, as whoever made the files had them.
VIEWS = [line.split(maxsplit=2) for line in (GOLDEN / "views.sha256").read_text().splitlines()]
KINDS = {"BF16": "<u2", "F16": "<f2", "F32": "<f4", "F8_E4M3": "u1", "I16": "<i2", "I32": "<i4", "I64": "<i8", "I8": "i1", "U8": "u1"}


@pytest.mark.parametrize(("digest", "name", "view"), VIEWS, ids=[f"{name} {view}" for _, name, view in VIEWS])
def test_a_view(digest, name, view):
    assert hashlib.sha256(read_view(read_golden(name), view)).hexdigest() == digest


def test_views_that_cannot_be_read():
    """Those that are not in the list, wherever they are: of a later version, and not as their layout's page has it."""
    listed, kinds = {(name, view) for _, name, view in VIEWS}, []
    for name in DIGESTS:
        file = read_golden(name)
        for view in file.views.keys() - {view for of, view in listed if of == name}:
            with pytest.raises((Corrupt, Unsupported)) as caught:
                read_view(file, view)
            kinds.append(caught.type)
    assert set(kinds) == {Corrupt, Unsupported}


def test_a_dense_file():
    file = read_golden("good-views")
    whole = dense(file)
    end = 8 + int.from_bytes(whole[:8], "little")
    header, data = json.loads(whole[8:end]), whole[end:]
    # Every tensor of this file is part of a view.
    assert header.keys() == file.views.keys()
    for name, tensor in header.items():
        assert tensor["shape"] == file.views[name]["shape"]
        assert data[slice(*tensor["data_offsets"])] == read_view(file, name)


def of_parts(layout, params, shape, **parts):
    """What is read of a file, with one view and its parts: of each the type, the shape, and what is in it."""
    view = {"dtype": "F16", "shape": shape, "layout": layout, "params": params, "parts": {role: role for role in parts}}
    data = {role: np.array(value, KINDS[kind]).tobytes() for role, (kind, _, value) in parts.items()}
    tensors = {role: SimpleNamespace(dtype=kind, shape=shape) for role, (kind, shape, _) in parts.items()}
    return SimpleNamespace(views={"view": view}, tensors=tensors, read=data.get)


SCALE = {"scales": ("F16", [1, 1], 1)}
QMOE = {"codewords": ("I16", [2], [12, 0]), "row_offsets": ("I32", [2], [0, 2]), "extremes": ("BF16", [2], [0xBF80, 0x4000])}
SAVED = {
    "codes": ("I8", [1, 1], 7),
    "order": ("I32", [1], 0),
    "scales.0": ("I8", [1, 1], 3),
    "scale_scales.0": ("F16", [1, 1], 0.25),
    "scale_zero_points.0": ("F16", [1, 1], -1),
    "zero_points.0": ("I8", [1, 1], 2),
    "zero_point_scales.0": ("F16", [1, 1], 1.5),
    "zero_point_zero_points.0": ("F16", [1, 1], 0),
}
TILE = np.zeros(16, "u8")
TILE[::2] = np.frombuffer(bytes.fromhex("451fe73866b87bbd"), "u1").astype("u8") << np.uint64(54)
TILE[0] = 0x116AF0E62AF0E611

EXAMPLES = [
    (
        [0, 4, 1, 5, 2, 6, 3, 7],
        of_parts(
            "awq",
            {"bits": 4, "group_size": 1},
            [8, 1],
            codes=("I32", [1, 1], 0x76543210),
            zero_points=("I32", [1, 1], 0),
            scales=("F16", [1, 8], [1] * 8),
        ),
    ),
    (
        [2, 30],
        of_parts(
            "bitsandbytes_4bit",
            {"block_size": 2},
            [1, 2],
            codes=("U8", [1], 0x1F),
            table=("F32", [16], range(16)),
            magnitudes=("F32", [1], 2),
        ),
    ),
    ([1], of_parts("bitsandbytes_8bit", {}, [1, 1], codes=("I8", [1, 1], 127), magnitudes=("F32", [1], 1))),
    (
        [0.5, -1],
        of_parts(
            "block_scaled", {"block_rows": 1, "block_columns": 2}, [1, 2], codes=("F8_E4M3", [2], [0x38, 0xC0]), scales=("F32", [1], 0.5)
        ),
    ),
    *(
        (
            [-4, -3, -2, -1, 0, 1, 2, 3, -4, -3, -2],
            of_parts(
                "compressed_tensors_int",
                {"bits": 3, "packing": packing, "group_size": 11},
                [1, 11],
                codes=("I32", [1, 2], np.array(words, "<u4").view("<i4")),
                **SCALE,
            ),
        )
        for packing, words in (("padded", [0x08FAC688, 2]), ("dense", [0x88FAC688, 0]))
    ),
    (
        [-2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5],
        of_parts(
            "gptq",
            {"bits": 4, "group_size": 8, "zero_points": "minus_one"},
            [1, 8],
            codes=("I32", [1, 1], 0x76543210),
            zero_points=("I32", [1, 1], 3),
            scales=("F16", [1, 1], 0.5),
        ),
    ),
    ([12, -2], of_parts("mxfp4", {"group_size": 32, "order": "rows"}, [1, 2], codes=("U8", [1], 0xA7), scales=("U8", [1], 0x80))),
    (
        [3, -0.5],
        of_parts(
            "nvfp4",
            {"group_size": 16, "global_scale": "divisor"},
            [1, 2],
            codes=("U8", [1], 0xA7),
            scales=("F8_E4M3", [1], 0x38),
            global_scale=("F32", [], 2),
        ),
    ),
    ([-1, 0, 0], of_parts("qmoe", {}, [1, 3], **QMOE)),
    ([-1, 0, 0, 0], of_parts("qmoe", {}, [1, 4], **QMOE)),
    *(
        (
            [expected],
            of_parts(
                "spqr_groups",
                {"group_size": 1},
                [1, 1],
                outlier_places=("I64", [2, len(outliers)], np.zeros((2, len(outliers)))),
                outliers=("F16", [len(outliers)], outliers),
                **SAVED,
            ),
        )
        for expected, outliers in ((4, []), (0.5, [0.5]), (4, [0]))
    ),
    (
        np.array([0xA5D2], "<u2").view("<f2").tolist(),
        of_parts(
            "spqr_tiles",
            {"outliers": "csr"},
            [1, 1],
            codes=("I64", [16], TILE.view("i8")),
            outlier_offsets=("I32", [2], [0, 0]),
            outliers=("I32", [0], []),
        ),
    ),
]


@pytest.mark.parametrize(("expected", "file"), EXAMPLES, ids=[file.views["view"]["layout"] for _, file in EXAMPLES])
def test_the_example_of_a_layout(expected, file):
    assert np.frombuffer(read_view(file, "view"), "<f2").tolist() == expected


def test_every_layout_is_tested():
    assert {file.views["view"]["layout"] for _, file in EXAMPLES} == LAYOUTS.keys()


@pytest.mark.parametrize(("_", "file"), EXAMPLES, ids=[file.views["view"]["layout"] for _, file in EXAMPLES])
def test_what_a_page_does_not_allow_is_refused(_, file):
    """A part less, a part more, another shape of the view, another type of each part, one more parameter."""
    good = file.views["view"]
    role = next(iter(good["parts"]))
    rest = {key: value for key, value in good["parts"].items() if key != role}
    others = [
        good | {"parts": rest},
        good | {"parts": good["parts"] | {"another": role}},
        good | {"shape": [16, 16]},
        good | {"shape": [1]},
        good | {"dtype": "I8"},
        good | {"params": good["params"] | {"another": 1}},
        *(good | {"params": good["params"] | {key: "another"}} for key in good["params"]),
    ]
    for other in others:
        with pytest.raises((Corrupt, Unsupported)):
            read_view(SimpleNamespace(views={"view": other}, tensors=file.tensors, read=file.read), "view")
    for part, tensor in file.tensors.items():
        tensors = file.tensors | {part: SimpleNamespace(dtype="F64", shape=tensor.shape)}
        with pytest.raises(CmzError):
            read_view(SimpleNamespace(views=file.views, tensors=tensors, read=file.read), "view")
