"""Mutants of a source: one small change each, as a hurried author makes them.

Changes are pieces of text, so that a mutant reads as its source does. Left alone is what no test has to notice: what is
logged, what messages say, annotations, assertions (they state what types cannot), and constants of text.
"""

from __future__ import annotations

import ast
import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import Final

__all__ = ["Mutant", "mutants_of"]

_COMPARISONS: Final[dict[type[ast.cmpop], tuple[str, str]]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.In: ("in", "not in"),
    ast.NotIn: (r"not\s+in", "in"),
    ast.Is: ("is", "is not"),
    ast.IsNot: (r"is\s+not", "is"),
}
_ORDERS: Final = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_NAMES: Final = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True, slots=True)
class Mutant:
    """The bytes from `start` to `end` of a file are `text` instead. `where`: the function or class; `line`: from 1 on.

    `old` and `new`: the lines that change, without what is around them. With `where` they name the mutant in the list
    of those that were judged: a line number would not live long.
    """

    what: str
    where: str
    start: int
    end: int
    text: str
    line: int
    old: str
    new: str

    @property
    def name(self) -> tuple[str, str, str]:
        """What it is known by in its file."""
        return self.where, self.old, self.new

    def of(self, source: str) -> str:
        """Return the source with the change. It is Python still."""
        encoded = source.encode()
        changed = (encoded[: self.start] + self.text.encode() + encoded[self.end :]).decode()
        ast.parse(changed)
        return changed


def mutants_of(source: str) -> list[Mutant]:
    """Return every mutant of a source, each once, in the order of the lines."""
    finder = _Finder(source)
    finder.visit(ast.parse(source))
    once = {(mutant.start, mutant.end, mutant.text): mutant for mutant in finder.found}
    return sorted(once.values(), key=lambda mutant: (mutant.line, mutant.start))


class _Finder(ast.NodeVisitor):
    def __init__(self, source: str) -> None:
        self.found: list[Mutant] = []
        self._encoded = source.encode()
        self._starts = [0]
        for text in self._encoded.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(text))
        self._where: list[str] = []

    # --- places in the text ------------------------------------------------------------------------------

    def _start(self, node: ast.expr | ast.stmt) -> int:
        return self._starts[node.lineno - 1] + node.col_offset

    def _end(self, node: ast.expr | ast.stmt) -> int:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._starts[node.end_lineno - 1] + node.end_col_offset

    def _text(self, node: ast.expr | ast.stmt) -> str:
        return self._encoded[self._start(node) : self._end(node)].decode()

    def _change(self, what: str, start: int, end: int, text: str) -> None:
        line = bisect_right(self._starts, start)
        begin, last = self._starts[line - 1], bisect_right(self._starts, max(start, end - 1))
        before, after = self._encoded[begin:start].decode(), self._encoded[end : self._starts[last]].decode()
        old, new = _stripped(self._encoded[begin : self._starts[last]].decode()), _stripped(before + text + after)
        self.found.append(Mutant(what, ".".join(self._where), start, end, text, line, old, new))

    def _replace(self, what: str, node: ast.expr | ast.stmt, text: str) -> None:
        self._change(what, self._start(node), self._end(node), text)

    # --- what is left alone, and where we are ------------------------------------------------------------

    def _inside(self, node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._where.append(node.name)
        if not isinstance(node, ast.ClassDef):
            self.visit(node.args)
        for statement in node.body:
            self.visit(statement)
        self._where.pop()

    visit_ClassDef = visit_FunctionDef = visit_AsyncFunctionDef = _inside  # noqa: N815

    def visit_arguments(self, node: ast.arguments) -> None:
        for default in (*node.defaults, *node.kw_defaults):
            if default is not None:
                self.visit(default)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Assert(self, node: ast.Assert) -> None:
        """Nothing of it."""

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Nothing of it: it is for people."""

    def visit_Raise(self, node: ast.Raise) -> None:
        self._replace("statement dropped", node, "pass")

    def visit_If(self, node: ast.If) -> None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        self._negate(node.test)
        if isinstance(node.body[-1], ast.Return | ast.Raise | ast.Continue | ast.Break):
            self._replace("guard dropped", node.test, "False")
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:
        if not isinstance(node.test, ast.Constant):
            self._negate(node.test)
        self.generic_visit(node)

    def visit_match_case(self, node: ast.match_case) -> None:
        if node.guard is not None:
            self._negate(node.guard)
            self._replace("guard dropped", node.guard, "True")
            self.visit(node.guard)
        for statement in node.body:
            self.visit(statement)

    def _negate(self, test: ast.expr) -> None:
        if isinstance(test, ast.Compare) and len(test.ops) == 1 and not isinstance(test.ops[0], _ORDERS):
            return  # another comparison is the same
        self._replace("condition negated", test, f"(not ({self._text(test)}))")

    # --- statements --------------------------------------------------------------------------------------

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant) or self._logs(node.value):
            return
        self._replace("statement dropped", node, "pass")
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._replace("statement dropped", node, "pass")
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        if self._where and all(isinstance(target, ast.Attribute | ast.Subscript) for target in node.targets):
            self._replace("statement dropped", node, "pass")
        if not any(isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets):
            self.visit(node.value)

    def visit_Delete(self, node: ast.Delete) -> None:
        self._replace("statement dropped", node, "pass")

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None and isinstance(node.value, ast.Compare | ast.BoolOp | ast.UnaryOp):
            self._negate(node.value)
        self.generic_visit(node)

    def visit_Break(self, node: ast.Break) -> None:
        self._replace("loop goes on", node, "continue")

    def visit_Continue(self, node: ast.Continue) -> None:
        self._replace("loop ends", node, "break")

    # --- expressions -------------------------------------------------------------------------------------

    def visit_Compare(self, node: ast.Compare) -> None:
        left = node.left
        for operator, right in zip(node.ops, node.comparators, strict=True):
            pattern, other = _COMPARISONS[type(operator)]
            start, end = self._end(left), self._start(right)
            between = self._encoded[start:end].decode()
            found = re.search(rf"(?<![\w<>=!]){pattern}(?![\w<>=])", between)
            assert found is not None, between
            at = start + len(between[: found.start()].encode())
            self._change("another comparison", at, at + len(found.group().encode()), other)
            left = right
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        words = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            between = self._encoded[self._end(left) : self._start(right)].decode()
            found = re.search(rf"\b{words[0]}\b", between)
            assert found is not None, between
            at = self._end(left) + len(between[: found.start()].encode())
            self._change("and, or", at, at + len(words[0]), words[1])
        for value in node.values:
            self._replace("condition left out", value, "True" if isinstance(node.op, ast.And) else "False")
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self._replace("not left out", node, f"({self._text(node.operand)})")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        swapped = {ast.Add: ("+", "-"), ast.Sub: ("-", "+")}.get(type(node.op))
        texts = any(isinstance(side, ast.JoinedStr) or _is_text(side) for side in (node.left, node.right))
        if swapped is not None and not texts:
            start = self._end(node.left)
            at = self._encoded.index(swapped[0].encode(), start, self._start(node.right))
            self._change("another sign", at, at + 1, swapped[1])
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self._replace("true, false", node, str(not node.value))
        elif isinstance(node.value, int):
            self._replace("one more", node, str(node.value + 1))
            if node.value:
                self._replace("one less", node, str(node.value - 1))

    def visit_Call(self, node: ast.Call) -> None:
        if self._logs(node):
            return
        if isinstance(node.func, ast.Name) and node.func.id in _NAMES:
            self._replace("another word", node.func, _NAMES[node.func.id])
        orderless = isinstance(node.func, ast.Name) and node.func.id in _NAMES
        if len(node.args) >= 2 and not orderless and not any(isinstance(arg, ast.Starred) for arg in node.args[:2]):
            first, second = node.args[:2]
            between = self._encoded[self._end(first) : self._start(second)].decode()
            texts = f"{self._text(second)}{between}{self._text(first)}"
            self._change("arguments swapped", self._start(first), self._end(second), texts)
        self.generic_visit(node)

    @staticmethod
    def _logs(node: ast.expr) -> bool:
        """Whether it tells people something, and nothing else."""
        return (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "log"
        )


def _stripped(text: str) -> str:
    return "\n".join(line.strip() for line in text.strip().splitlines())


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
