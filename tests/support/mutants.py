"""The mutants of a module: each is the module with one comparison, constant, `not`, `raise` or call changed.

A mutant is known by its function and by what its statement was and became, not by a line, so it is the same
one after code around it has moved. Not changed: annotations and types, docstrings, and the text of details,
which is for people to read.

A shell has more mutants: an awaited call that is left out, one of several flags that is missing, another
word of SQL, a file mode that lets others in, `min` for `max`. What it logs is for people, and left as it is.
"""

from __future__ import annotations

import ast
import copy
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .suites import SHELLS

PACKAGE = Path(__file__).resolve().parents[2] / "addon" / "presign_proxy"

# Calls whose text arguments are for people.
_TOLD = {"Denied", "Malformed", "_refused", "ValueError", "_why_expires"}
# The same in shells, wherever in the call the text stands.
_TOLD_BY_SHELLS = {
    "CommandError",
    "LookupError",
    "NoRoom",
    "OSError",
    "PrivateFileError",
    "Problem",
    "SecretError",
    "StoreError",
    "TimeoutError",
    "TooManyLookups",
    "VaultError",
    "_lost",
    "UsageError",
    "_wrong",
    "gaierror",
}
_SQL = re.compile(r"(?m)^ *(SELECT|INSERT|DELETE|BEGIN|PRAGMA|CREATE|COMMIT|ROLLBACK)\b|\b(FROM|WHERE)\b")
# What weakens a statement and leaves it one.
_WEAKER = (
    ("BEGIN IMMEDIATE", "BEGIN"),
    ("COMMIT", "ROLLBACK"),
    ("ROLLBACK", "COMMIT"),
    ("synchronous = FULL", "synchronous = OFF"),
    ("journal_mode = WAL", "journal_mode = DELETE"),
    (" PRIMARY KEY", ""),
    (", PRIMARY KEY (key, holder)", ""),
    (" AND ends > ?", " AND ends >= ?"),
    (" > 0", " >= 0"),
    (" <= ?", " < ?"),
    (" <= ?", " >= ?"),
    (" IN ", " NOT IN "),
)
_MODES = (0o600, 0o700)
_OTHERS = 0o066
_COMPARED: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
_COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}


class Mutant(NamedTuple):
    """One change: in which function, what the statement was and what it became.

    `again` counts those that read alike: the second `return False` of a function. `place` and `change` are
    its numbers in the tree, `lines` those of the statement without what stands in its body.
    """

    module: str
    where: str
    before: str
    after: str
    again: int
    place: int
    change: int
    lines: range

    def __str__(self) -> str:
        again = f" ({self.again})" if self.again > 1 else ""
        return f"{self.module} {self.where}: `{self.before}` → `{self.after}`{again}"


def path_of(module: str) -> Path:
    return PACKAGE / (module.replace(".", "/") + ".py")


def statements(module: str) -> set[str]:
    """How the names of a module's mutants begin: what is changed, and where."""
    places = _places(_parsed(module, None), module)
    changed = {id(statement): (where, statement) for where, statement, _ in places}
    return {f"{module} {where}: `{_short(statement)}`" for where, statement in changed.values()}


def mutants(module: str, source: str | None = None) -> Iterator[Mutant]:
    """Every mutant of a module, in the order of its text."""
    seen: Counter[tuple[str, str, str]] = Counter()
    for place, (where, statement, node) in enumerate(list(_places(_parsed(module, source), module))):
        before = _short(statement)
        for number, change in enumerate(_all_changes(node, module)):
            after = _changed(statement, statement, node, change)[1]
            seen[where, before, after] += 1
            again = seen[where, before, after]
            yield Mutant(module, where, before, after, again, place, number, _lines(statement))


def tree_of(mutant: Mutant) -> ast.Module:
    """The whole module with that change in it."""
    tree = _parsed(mutant.module)
    _, statement, node = list(_places(tree, mutant.module))[mutant.place]
    return _changed(tree, statement, node, list(_all_changes(node, mutant.module))[mutant.change])[0]


def _parsed(module: str, source: str | None = None) -> ast.Module:
    return ast.parse(path_of(module).read_text("utf-8") if source is None else source)


def _lines(statement: ast.stmt) -> range:
    body = getattr(statement, "body", None)
    end = body[0].lineno if body else statement.end_lineno
    return range(statement.lineno, (end or statement.lineno) + 1)


def _changed(
    tree: Any, statement: ast.stmt, node: ast.AST, change: Callable[[Any], ast.AST]
) -> tuple[Any, str]:
    """A changed copy of the tree, and the statement in it as text."""
    changed, twin, owner = _copied(tree, node, statement)
    replacement = change(twin)
    if replacement is not twin:
        _replace(changed, twin, replacement)
        owner = replacement if twin is owner else owner
    return ast.fix_missing_locations(changed), _short(owner)


def _places(tree: ast.Module, module: str) -> Iterator[tuple[str, ast.stmt, ast.AST]]:
    """Every node that may be changed, with the function and the statement it stands in."""
    is_shell = module in SHELLS

    def walk(node: ast.AST, where: str, statement: ast.stmt | None) -> Iterator[tuple[str, Any, ast.AST]]:
        if isinstance(node, ast.stmt):
            statement = node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            where = f"{where}.{node.name}".strip(".")
        if statement is not None:
            yield where or "module", statement, node
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "type_comment"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if (
                    isinstance(child, ast.AST)
                    and not _is_for_people(node, child)
                    and not (is_shell and _is_told_by_a_shell(node, child))
                ):
                    yield from walk(child, where, statement)

    yield from walk(tree, "", None)


def _is_for_people(parent: ast.AST, child: ast.AST) -> bool:
    if isinstance(parent, ast.JoinedStr):
        return False
    if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
        return True  # a docstring
    if isinstance(child, ast.Subscript) and isinstance(child.value, ast.Name) and child.value.id == "Literal":
        return True  # a type
    if isinstance(parent, ast.Call) and isinstance(parent.func, ast.Name) and parent.func.id in _TOLD:
        at = parent.args.index(child) if child in parent.args else -1
        return at == (1 if parent.func.id == "Denied" else 0)
    return False


def _is_told_by_a_shell(parent: ast.AST, child: ast.AST) -> bool:
    """What is logged or printed as help, the words of an error, names of threads, and what types check."""
    if isinstance(parent, ast.Assign) and child is parent.value:
        return _is_type(parent.targets[0])
    if isinstance(child, ast.keyword):
        return child.arg in ("name", "help", "metavar") and isinstance(
            child.value, ast.Constant | ast.JoinedStr
        )
    if isinstance(child, ast.Expr):
        return _called(child.value) == "logger"
    if isinstance(parent, ast.ClassDef) and isinstance(child, ast.Call):
        return _called(child) == "dataclass"
    if isinstance(parent, ast.Call) and isinstance(child, ast.JoinedStr | ast.Constant):
        is_text = isinstance(child, ast.JoinedStr) or isinstance(child.value, str)
        return is_text and _called(parent) in _TOLD_BY_SHELLS
    return False


def _is_type(target: ast.expr) -> bool:
    """Whether a name is that of a type, in capitals and small letters: `Opener = VaultKey | Passphrase`."""
    return isinstance(target, ast.Name) and target.id[0].isupper() and not target.id.isupper()


def _called(node: ast.AST) -> str:
    """The name of what is called: of a method its own, of one of the logger `logger`."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="logger"))):
            return "logger"
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            return name
    return ""


def _all_changes(node: ast.AST, module: str) -> Iterator[Callable[[Any], ast.AST]]:
    yield from _changes(node)
    if module in SHELLS:
        yield from _changes_of_shells(node)


def _changes_of_shells(node: ast.AST) -> Iterator[Callable[[Any], ast.AST]]:
    match node:
        case ast.Expr(value=ast.Await(value=ast.Call())):
            yield lambda _: ast.Pass()
        case ast.BinOp(op=ast.BitOr(), left=left, right=right):
            if not _is_idle(right):
                yield lambda twin: twin.left
            if not _is_idle(left) and not isinstance(left, ast.BinOp):
                yield lambda twin: twin.right
        case ast.Constant(value=str() as text) if _SQL.search(text):
            for was, becomes in _WEAKER:
                if was in text:
                    yield (
                        lambda twin, was=was, becomes=becomes: (
                            setattr(twin, "value", twin.value.replace(was, becomes, 1)) or twin
                        )
                    )
        case ast.Constant(value=int() as number) if number in _MODES:
            yield lambda twin: setattr(twin, "value", twin.value | _OTHERS) or twin
        case ast.Call(func=ast.Name(id="min" | "max" as name)):
            other = "max" if name == "min" else "min"
            yield lambda twin: setattr(twin.func, "id", other) or twin


def _is_idle(node: ast.AST) -> bool:
    """A flag that changes nothing: `O_RDONLY` is 0, and Python opens no descriptor to be inherited."""
    return isinstance(node, ast.Attribute) and node.attr in ("O_RDONLY", "O_CLOEXEC")


def _changes(node: ast.AST) -> Iterator[Callable[[Any], ast.AST]]:
    """Functions that change a node in place, or return what stands in its place."""
    match node:
        case ast.Compare():
            for index, operator in enumerate(node.ops):
                for other in _COMPARED.get(type(operator), ()):
                    yield lambda twin, index=index, other=other: _set(twin.ops, index, other()) or twin
        case ast.BoolOp():
            other = ast.Or if isinstance(node.op, ast.And) else ast.And
            yield lambda twin: setattr(twin, "op", other()) or twin
            for index in range(len(node.values)):
                yield lambda twin, index=index: _without(twin, index)
        case ast.UnaryOp(op=ast.Not()):
            yield lambda twin: twin.operand
        case ast.BinOp() if type(node.op) in _COMPUTED:
            yield lambda twin: setattr(twin, "op", _COMPUTED[type(twin.op)]()) or twin
        case ast.AugAssign() if type(node.op) in _COMPUTED:
            yield lambda twin: setattr(twin, "op", _COMPUTED[type(twin.op)]()) or twin
        case ast.Constant(value=bool()):
            yield lambda twin: setattr(twin, "value", not twin.value) or twin
        case ast.Constant(value=int()):
            yield lambda twin: setattr(twin, "value", twin.value + 1) or twin
            yield lambda twin: setattr(twin, "value", twin.value - 1) or twin
        case ast.Constant(value=str()):
            yield lambda twin: setattr(twin, "value", twin.value + "X") or twin
        case ast.Constant(value=bytes()):
            yield lambda twin: setattr(twin, "value", twin.value + b"X") or twin
        case ast.If() | ast.While() | ast.IfExp():
            yield lambda twin: setattr(twin, "test", ast.UnaryOp(ast.Not(), twin.test)) or twin
        case ast.Return(value=ast.AST() as value) if not _is_none(value):
            yield lambda twin: setattr(twin, "value", ast.Constant(None)) or twin
        case ast.Raise() | ast.Expr(value=ast.Call() | ast.Yield()) | ast.AugAssign():
            yield lambda _: ast.Pass()
        case ast.Continue():
            yield lambda _: ast.Break()
        case ast.Break():
            yield lambda _: ast.Continue()


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _set(values: list[Any], index: int, value: Any) -> None:
    values[index] = value


def _without(node: ast.BoolOp, index: int) -> ast.AST:
    rest = node.values[:index] + node.values[index + 1 :]
    return rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)


def _copied(tree: Any, node: ast.AST, statement: ast.stmt) -> tuple[Any, Any, Any]:
    numbers = {id(one): index for index, one in enumerate(ast.walk(tree))}
    changed = copy.deepcopy(tree)
    twins = list(ast.walk(changed))
    return changed, twins[numbers[id(node)]], twins[numbers[id(statement)]]


def _replace(tree: ast.AST, old: ast.AST, new: ast.AST) -> None:
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is old:
                setattr(parent, name, new)
            elif isinstance(value, list) and any(one is old for one in value):
                setattr(parent, name, [new if one is old else one for one in value])


def _short(node: ast.AST) -> str:
    """A statement on one line, a compound one without its body."""
    shown = copy.deepcopy(node)
    for name in ("body", "orelse", "handlers", "finalbody"):
        if isinstance(getattr(shown, name, None), list) and getattr(shown, name):
            setattr(shown, name, [ast.Pass()] if name == "body" else [])
    return " ".join(ast.unparse(ast.fix_missing_locations(shown)).split())
