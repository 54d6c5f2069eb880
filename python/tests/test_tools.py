"""The scripts in tools/."""

import sys

from conftest import TOOLS

sys.path.append(str(TOOLS))

import text  # noqa: E402


def test_paragraphs_are_split_for_good(tmp_path):
    sentences = [f"this is paragraph number {i} of a text with enough words" for i in range(11)]
    file = tmp_path / "text.txt"
    file.write_text("\n\n".join([*sentences, "too short", sentences[0]]))
    found = text.paragraphs([file])
    assert found == sentences
    calibration, held_out = text.split(found)
    assert held_out == [sentences[4], sentences[9]]
    assert sorted(calibration + held_out) == sorted(sentences)


def test_the_standard_library_has_enough_text():
    found = text.paragraphs()
    assert len(found) > 3000
    assert len(set(found)) == len(found)
