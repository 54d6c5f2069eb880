"""The package itself: its stubs, and what importing it does not import."""

import ast
import subprocess
import sys
from pathlib import Path

from conftest import GOLDEN, REAL

import cmz


def test_the_stubs_name_what_there_is():
    stubs = ast.parse((Path(cmz.__file__).parent / "_native.pyi").read_text())
    listed = set()
    for node in stubs.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            listed.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = {method.name for method in node.body if isinstance(method, ast.FunctionDef)}
            public = {name for name in vars(getattr(cmz._native, node.name)) if not name.startswith("__")}
            assert methods - {"__init__", "__contains__"} == public
    assert listed == {name for name in dir(cmz._native) if not name.startswith("__")}
    assert (Path(cmz.__file__).parent / "py.typed").exists()


def test_everything_listed_is_there():
    assert all(hasattr(cmz, name) for name in cmz.__all__)


def test_a_typed_program_runs(tmp_path):
    """mypy checks it, too."""
    program = Path(__file__).parent / "typed/conversions.py"
    done = subprocess.run([sys.executable, program, REAL, GOLDEN / "good-views.cmz", tmp_path], capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 16


def test_frameworks_are_imported_when_needed():
    script = "import sys, cmz; print([name for name in ('torch', 'numpy', 'jax', 'transformers', 'tqdm') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_modules_of_frameworks_need_no_import_of_their_own():
    script = "import cmz; print(cmz.numpy.load_file.__module__, hasattr(cmz, 'tensorflow'))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "cmz.numpy False\n"


def test_what_follows_an_import(tmp_path):
    """It comes after the import, once, and when it fails that import does not."""
    (tmp_path / "host.py").write_text("print('host')")
    (tmp_path / "good.py").write_text("import host; print('good', host.__spec__.loader.get_filename() == host.__file__)")
    (tmp_path / "bad.py").write_text("import nothing_of_this_name")
    script = """
import warnings
from cmz._when_imported import import_with
import_with("host", "good")
import host, host
import_with("host", "good")
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import_with("host", "bad")
print(caught[0].message)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    expected = "host\ngood True\nbad does not work with this version of host: No module named 'nothing_of_this_name'\n"
    assert done.stdout == expected
