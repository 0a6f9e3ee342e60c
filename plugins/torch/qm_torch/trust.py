"""What a .pt2 file may hold so that loading it runs nothing of it.

PyTorch reads such files with care for their form, not for their author: it unpickles sample inputs and custom objects,
evaluates shape expressions and guards as Python, writes names into code that it then compiles, and looks up operations
as attributes of ``torch``. Each of these is held here against what ``torch.export.save`` writes.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from typing import Any, Protocol

import sympy
from torch.utils._sympy import functions

_FOLDERS = ("models/", "data/weights/", "data/constants/", "data/sample_inputs/", "extra/", ".data/")
_FILES = frozenset({"archive_format", "archive_version", "byteorder", "version", "module_info.json"})
_PAYLOADS = ("weight_", "tensor_")
_TARGET = re.compile(
    r"torch\.ops\.(?!_)\w+(\.(?!__)\w+){1,2}|torch\.sym_\w+|(torch\.)?_operator\.(?!_)\w+|math\.(?!_)\w+|"
    r"torch\._higher_order_ops\.[\w.]+|torch\.(amp|autograd)\.[\w.]+"
)
_LOADING = re.compile(r"load|library|import")
_NAME = re.compile(r"[\w.*]*")
_PATH = re.compile(r"[\w.+\-/ :$]*")
_PATHS = frozenset(
    {"fqn", "parameter_name", "buffer_name", "tensor_constant_name", "path_name", "torch_version", "type", "verifiers"}
)
_FREE = frozenset({"metadata", "as_string", "as_strings"})
"""Fields that are kept as text: descriptions, and string arguments, which are quoted wherever they are written."""
_ASKED = frozenset({"size", "stride", "storage_offset", "dim", "isnan", "item"})
_PLAIN = (
    ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.BinOp, ast.operator, ast.Compare,
    ast.cmpop, ast.Load, ast.Tuple, ast.Constant, ast.keyword,
)  # fmt: skip


class Reader(Protocol):
    """The archive as PyTorch itself reads it: another reader might see other files in it."""

    def get_file_names(self) -> list[str]: ...
    def read_bytes(self, file_name: str) -> bytes: ...


def suspicion(archive: Reader) -> str:
    """What in the archive would be run if it were loaded, as a clause; empty where nothing would be."""
    for name in archive.get_file_names():
        if not name.startswith(_FOLDERS) and name not in _FILES:
            return f"it holds {name!r}, which no exported program has"
        if name.startswith(("data/weights/", "data/constants/")) and name.endswith(".json"):
            config = json.loads(archive.read_bytes(name)).get("config", {})
            for key, entry in config.items():
                if entry["use_pickle"] or not entry["path_name"].startswith(_PAYLOADS):
                    return f"its {key!r} is a pickled object"
        if name.startswith("models/"):
            for path, text in _texts(json.loads(archive.read_bytes(name)), ()):
                if not _is_plain(path, text):
                    return f"its {_field(path)} {text[:60]!r} is nothing that torch.export writes"
    return ""


def _texts(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every string of the document with the keys that lead to it; keys are strings too, under ``key``."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one, path)
    elif isinstance(value, dict):
        for key, one in value.items():
            yield (*path, "key"), key
            yield from _texts(one, (*path, key))


def _field(path: tuple[str, ...]) -> str:
    return path[-1].replace("_", " ") if path else "text"


def _is_plain(path: tuple[str, ...], text: str) -> bool:
    field = path[-1] if path else ""
    if field != "key" and _FREE.intersection(path):
        return True
    if field in ("in_spec", "out_spec"):
        return _is_plain_structure(json.loads(text))
    if field == "expr_str" or path == ("range_constraints", "key"):
        return _is_expression(text)
    if field == "guards_code":
        return _is_guard(text)
    if field in ("target", "as_operator"):
        return _TARGET.fullmatch(text) is not None and _LOADING.search(text) is None
    return (_PATH if field in _PATHS or field == "key" else _NAME).fullmatch(text) is not None


def _is_plain_structure(value: Any) -> bool:
    """Whether a description of nested arguments or results names nothing that would be imported."""
    for path, text in _texts(value, ()):
        if path[-1:] == ("key",):
            if text in ("__enum__", "default_factory_module"):
                return False
        elif path[-1:] == ("context",) and text[:1] in "[{":
            if not _is_plain_structure(json.loads(text)):
                return False
        elif _PATH.fullmatch(text) is None:
            return False
    return True


def _is_expression(text: str) -> bool:
    """Whether a shape expression is arithmetic on symbols."""
    for node in _nodes(text):
        if isinstance(node, ast.Call):
            if not isinstance(node.func, ast.Name) or not _is_class(node.func.id):
                return False
        elif isinstance(node, ast.Name):
            if node.id.startswith("__"):
                return False
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if not node.value.isidentifier():
                return False
        elif not isinstance(node, _PLAIN):
            return False
    return True


def _is_guard(text: str) -> bool:
    """Whether a guard does no more than compare sizes."""
    for node in _nodes(text):
        if isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Name) and _is_class(called.id):
                continue
            if not isinstance(called, ast.Attribute):
                return False
        elif isinstance(node, ast.Attribute):
            if node.attr not in _ASKED:
                return False
        elif isinstance(node, ast.Name):
            if node.id.startswith("__"):
                return False
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if _PATH.fullmatch(node.value) is None:
                return False
        elif not isinstance(node, (*_PLAIN, ast.Subscript)):
            return False
    return True


def _is_class(name: str) -> bool:
    """Whether an expression's function is a class of expressions: making one computes, and does nothing else."""
    found = getattr(sympy, name, None) or getattr(functions, name, None)
    return isinstance(found, type) and issubclass(found, sympy.Basic)


def _nodes(text: str) -> Iterator[ast.AST]:
    try:
        yield from ast.walk(ast.parse(text.strip(), mode="eval"))
    except (SyntaxError, ValueError, RecursionError):
        yield ast.Await(value=ast.Constant(value=0))  # Stands for what is not known, and is refused.
