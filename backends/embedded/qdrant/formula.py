"""Score formulas: protobuf expressions to the engine's."""

from __future__ import annotations

from typing import Any

from qdrant_client import grpc as pb

from .engine import edge
from .errors import WrongInput
from .filters import read_condition, read_point
from .values import given, read_payload

_UNARY = {"neg": "Neg", "abs": "Abs", "sqrt": "Sqrt", "exp": "Exp", "log10": "Log10", "ln": "Ln", "acosh": "Acosh"}
_MANY = {"mult": "Mult", "sum": "Sum", "max": "Max", "min": "Min"}
_PLAIN = {"constant": "Constant", "variable": "Variable", "datetime": "Datetime", "datetime_key": "DatetimeKey"}
_DECAY = {"exp_decay": "Exp", "gauss_decay": "Gauss", "lin_decay": "Lin"}


def read_formula(formula: pb.Formula) -> Any:
    """The engine's formula with its defaults."""
    return edge.Formula(read_expression(formula.expression), read_payload(formula.defaults))


def read_expression(expression: pb.Expression) -> Any:
    """The engine's form of one expression; raises WrongInput for an empty one."""
    kind = expression.WhichOneof("variant")
    if kind is None:
        raise WrongInput("Malformed Expression: none of its kinds is set")
    value = getattr(expression, kind)
    if kind in _PLAIN:
        return getattr(edge.Expression, _PLAIN[kind])(value)
    if kind in _UNARY:
        return getattr(edge.Expression, _UNARY[kind])(read_expression(value))
    if kind in _MANY:
        return getattr(edge.Expression, _MANY[kind])([read_expression(item) for item in getattr(value, kind)])
    if kind in _DECAY:
        return _read_decay(getattr(edge.DecayKind, _DECAY[kind]), value)
    if kind == "condition":
        return edge.Expression.Condition(read_condition(value))
    if kind == "geo_distance":
        return edge.Expression.GeoDistance(read_point(value.origin), value.to)
    if kind == "div":
        left, right = read_expression(value.left), read_expression(value.right)
        return edge.Expression.Div(left, right, given(value, "by_zero_default"))
    return edge.Expression.Pow(read_expression(value.base), read_expression(value.exponent))


def _read_decay(kind: Any, decay: pb.DecayParamsExpression) -> Any:
    target = read_expression(decay.target) if decay.HasField("target") else None
    return edge.Expression.Decay(
        kind, read_expression(decay.x), target, midpoint=given(decay, "midpoint"), scale=given(decay, "scale")
    )
