"""Training text: the docstrings of the Python that runs the demo.

A pair is a signature ("textwrap.wrap(text, width=70)") and the first paragraph of its docstring.
Sources are parsed, never imported, so that nothing runs.
"""

import ast
import pathlib
import sysconfig

SKIPPED_FOLDERS = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3",
                   "turtledemo", "ensurepip", "__pycache__"}
MIN_WORDS = 5


def first_paragraph(docstring):
    return " ".join(docstring.strip().split("\n\n")[0].split())


def describe(node, prefix):
    """What a reader would type to name this class or function."""
    if isinstance(node, ast.ClassDef):
        return prefix + node.name
    return f"{prefix}{node.name}({ast.unparse(node.args)})"


def pairs_of(node, prefix):
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        docstring = ast.get_docstring(child)
        if docstring:
            summary = first_paragraph(docstring)
            if len(summary.split()) >= MIN_WORDS:
                yield describe(child, prefix), summary
        if isinstance(child, ast.ClassDef):
            yield from pairs_of(child, f"{prefix}{child.name}.")


def standard_library_pairs():
    """All pairs, in a fixed order, no summary twice (a batch must not hold two right answers)."""
    root = pathlib.Path(sysconfig.get_paths()["stdlib"])
    pairs, seen = [], set()
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if SKIPPED_FOLDERS.intersection(relative.parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        module = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
        for signature, summary in pairs_of(tree, f"{module}."):
            if summary not in seen:
                seen.add(summary)
                pairs.append((signature, summary))
    return pairs
