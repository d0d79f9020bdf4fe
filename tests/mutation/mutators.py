"""The faults that `mutate.py` puts into a module, each a change of a few characters.

    for mutant in mutants(source): ...

Text of messages, annotations and decorators stays as it is: no test should hang on them.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from typing import NamedTuple

COMPARISONS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
ARITHMETIC = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
}
NAMES = {
    "min": "max",
    "max": "min",
    "any": "all",
    "all": "any",
    "sum": "max",
    "mean": "sum",
    "argmin": "argmax",
    "argmax": "argmin",
    "floor": "ceil",
    "ceil": "floor",
    "zeros": "ones",
}
SPLITS = {"train": "validation", "validation": "test", "test": "train"}
DROPPED = (ast.Expr, ast.AugAssign, ast.Raise, ast.Continue, ast.Break, ast.Delete)


class Mutant(NamedTuple):
    """A module with one fault in it."""

    kind: str
    lines: tuple[int, ...]
    """of the faulty statement, from 1"""
    at_import: bool
    """whether the statement runs as the module is imported"""
    source: str


def mutants(source: str) -> list[Mutant]:
    """Every mutant of the module, in no particular order."""
    tree = ast.parse(source)
    found = []
    for node, statement, inside in _places(tree):
        for kind, part, text in _changes(node):
            changed = _replaced(source, part, text)
            if _parses(changed):
                found.append(Mutant(kind, _lines(statement), not inside, changed))
    return found


def _places(tree: ast.Module) -> Iterator[tuple[ast.AST, ast.stmt, bool]]:
    """Each node that may change, its statement, and whether that is part of a function."""

    def walk(
        node: ast.AST, statement: ast.stmt | None, inside: bool
    ) -> Iterator[tuple[ast.AST, ast.stmt, bool]]:
        if isinstance(node, ast.stmt):
            statement = node
        if statement is not None:
            yield node, statement, inside
        body_is_inside = inside or isinstance(node, ast.FunctionDef | ast.Lambda)
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "type_params"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and not _stays(child):
                    yield from walk(child, statement, (body_is_inside and name != "args") or inside)

    yield from walk(tree, None, False)


def _stays(node: ast.AST) -> bool:
    """Whether the node is text, or says what the module imports and exports."""
    if isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom):
        return True
    if isinstance(node, ast.Assign):
        return any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets)
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _lines(statement: ast.stmt) -> tuple[int, ...]:
    body = getattr(statement, "body", None)
    end = body[0].lineno - 1 if body else statement.end_lineno
    return tuple(range(statement.lineno, max(statement.lineno, end or 0) + 1))


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST, str]]:
    """Kinds of fault that the node admits, each with what is replaced and by which text."""
    match node:
        case ast.Compare():
            for place, operator in enumerate(node.ops):
                if type(operator) in COMPARISONS:
                    other = copy.deepcopy(node)
                    other.ops[place] = COMPARISONS[type(operator)]()
                    yield "comparison", node, f"({ast.unparse(other)})"
        case ast.BinOp() if type(node.op) in ARITHMETIC:
            sign = ARITHMETIC[type(node.op)]()
            yield "arithmetic", node, f"({ast.unparse(ast.BinOp(node.left, sign, node.right))})"
        case ast.BoolOp():
            sign = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield "and/or", node, f"({ast.unparse(ast.BoolOp(sign, node.values))})"
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield "negation", node, f"({ast.unparse(node.operand)})"
        case ast.Constant(value=bool()):
            yield "constant", node, str(not node.value)
        case ast.Constant(value=int() | float()):
            yield "constant", node, f"({node.value} + 1)"
        case ast.Constant(value=str()) if node.value in SPLITS:
            yield "split", node, repr(SPLITS[node.value])
        case ast.Call(func=ast.Name(id=name) as called) if name in NAMES:
            yield "name", called, NAMES[name]
        case ast.Call(func=ast.Attribute(attr=name) as called) if name in NAMES:
            yield "name", called, f"({ast.unparse(called.value)}).{NAMES[name]}"
        case ast.If() | ast.While() | ast.IfExp():
            yield "condition", node.test, f"(not ({ast.unparse(node.test)}))"
        case ast.comprehension():
            for test in node.ifs:
                yield "condition", test, f"(not ({ast.unparse(test)}))"
        case ast.Return(value=ast.expr()) if ast.unparse(node.value) != "None":
            yield "return", node, "return None"
        case ast.Slice(step=None):
            for bound in (node.lower, node.upper):
                if bound is not None:
                    yield "slice", bound, f"({ast.unparse(bound)}) + 1"
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "statement", node, "pass"
        case _ if isinstance(node, DROPPED):
            yield "statement", node, "pass"


def _replaced(source: str, node: ast.AST, text: str) -> str:
    """The source with the node's characters replaced; columns count UTF-8 bytes."""
    lines = source.encode().splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    first = starts[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
    end = starts[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]
    content = source.encode()
    return (content[:first] + text.encode() + content[end:]).decode()


def _parses(source: str) -> bool:
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True
