"""Real text that is on every machine: the documentation in Python's standard library, or files given by name."""

import ast
import inspect
import re
import sysconfig
from pathlib import Path


def paragraphs(files=()):
    """Paragraphs of 8 words and more, each once, in a stated order: of text files, or of the standard library's docstrings."""
    texts = (Path(file).read_text(encoding="utf-8") for file in files) if files else docstrings()
    found = {}
    for text in texts:
        for paragraph in re.split(r"\n\s*\n", text):
            words = paragraph.split()
            if len(words) >= 8 and not any(mark in paragraph for mark in (">>>", "->>", "+--")):
                found[" ".join(words)] = None
    return list(found)


def docstrings():
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        if "site-packages" in path.parts or "test" in path.parts or "tests" in path.parts:
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                text = ast.get_docstring(node)
                if text:
                    yield inspect.cleandoc(text)


def split(found):
    """Four of five paragraphs to calibrate with, and the fifth of each five, held out to judge by."""
    return [p for i, p in enumerate(found) if i % 5 != 4], found[4::5]
