"""A dropout as a point: law, coins, layout, fill, scale."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from .._errors import InputError, unknown
from . import per as _per
from .fill import Constant, Fill, Zero
from .law import Bernoulli, Gaussian, Law, Uniform, at, strength
from .per import Block
from .scale import Classic, Inverted, KeptFraction, MomentMatch, Scale, Unscaled

_PARTS: dict[str, dict[str, type]] = {
    "law": {"bernoulli": Bernoulli, "gaussian": Gaussian, "uniform": Uniform},
    "fill": {"zero": Zero, "constant": Constant},
    "scale": {
        "inverted": Inverted,
        "classic": Classic,
        "kept-fraction": KeptFraction,
        "moment-match": MomentMatch,
        "unscaled": Unscaled,
    },
    "per": {"block": Block},
}


@dataclass(frozen=True)
class Drop:
    """One dropout: an affine noise map ``y = a * x + b`` with (a, b) drawn from a law, independent
    of x.

    ``law``: what is drawn for a cell. ``per``: the axes that have a coin of their own, or a
    :class:`Block`. ``of``: the layout of the tensor, such as ``"b c *"``. ``fill``: what replaces
    the dropped. ``scale``: how training and evaluation agree. ``name`` is for people and takes no
    part in equality.

    >>> Drop(Bernoulli(0.2), per="b c", of="b c *").to_json()["per"]
    'b c'
    """

    law: Law
    per: str | Block = "b *"
    of: str = "b *"
    fill: Fill = Zero()
    scale: Scale = Inverted()
    name: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        _per.check(self.per, self.of)
        binary = isinstance(self.law, Bernoulli)
        if not binary and not isinstance(self.fill, Zero):
            raise InputError(f"a fill needs a law that drops (Bernoulli), but got {self.law}")
        if isinstance(self.fill, Constant) and isinstance(self.scale, (Inverted, KeptFraction)):
            raise InputError(
                f"a Constant fill needs the scale Classic() or MomentMatch(), but got {self.scale}: scaling survivors up "
                "keeps a mean only where what falls is 0"
            )
        if not binary and isinstance(self.scale, (KeptFraction, MomentMatch)):
            raise InputError(
                f"scale {type(self.scale).__name__} needs the Bernoulli law, but got {self.law}"
            )
        if isinstance(self.per, Block) and not (binary and isinstance(self.scale, KeptFraction)):
            raise InputError(
                "a Block needs the Bernoulli law and the scale Realised(), because its kept fraction varies"
            )
        if (
            isinstance(self.per, Block)
            and self.per.per
            and not set(_per.axes(self.per.over)) <= set(_per.axes(self.per.per))
        ):
            raise InputError(
                f"a Block needs seeds of its own along the axes {self.per.over!r} that it covers, but got {self.per}"
            )

    @property
    def rate(self) -> float:
        """The law's strength: p, or beta. 0 means that nothing happens."""
        return strength(self.law)

    def at(self, rate: float) -> Drop:
        """The same point at another rate."""
        return replace(self, law=at(self.law, rate))

    def to_json(self) -> dict[str, Any]:
        """A plain dict that :meth:`from_json` reads back to an equal point."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        if not self.name:
            del parts["name"]
        return {k: v if isinstance(v, str) else _encode(k, v) for k, v in parts.items()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Drop:
        """Read what :meth:`to_json` wrote. Raises :class:`InputError` on unknown parts."""
        known = {f.name for f in fields(cls)}
        for key in data:
            if key not in known:
                raise unknown("part of a dropout", key, known)
        if "law" not in data:
            raise InputError('a dropout needs a law, such as {"law": {"bernoulli": {"p": 0.5}}}')
        plain = ("of", "name")
        return cls(**{k: v if k in plain else _decode(k, v) for k, v in data.items()})


def _encode(part: str, value: Any) -> Any:
    name = next(n for n, cls in _PARTS[part].items() if type(value) is cls)
    arguments = {
        k: list(v) if isinstance(v, tuple) else v for k, v in asdict(value).items() if v != ""
    }
    return {name: arguments} if arguments else name


def _decode(part: str, value: Any) -> Any:
    if part == "per" and isinstance(value, str):
        return value
    name, arguments = (
        (value, {}) if isinstance(value, str) else next(iter(dict(value).items()), ("", {}))
    )
    if name not in _PARTS[part]:
        raise unknown(part, name, _PARTS[part])
    arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()}
    try:
        return _PARTS[part][name](**arguments)
    except TypeError as error:
        raise InputError(f"{part} {name!r} cannot take {arguments}: {error}") from None
