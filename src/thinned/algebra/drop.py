"""``Drop``, the spec of a dropout: noise distribution, shared axes, layout, fill and scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from .._errors import InputError, check_keywords, unknown
from . import per as _per
from .fill import FILLS, Constant, Fill, Zero
from .law import LAWS, Bernoulli, Gaussian, Law, Uniform, at_rate, rate_of
from .per import Block, Per
from .scale import SCALES, Inverted, KeptFraction, MomentMatch, Scale
from .schedule import SCHEDULES

# the names of the parts in JSON
_PARTS: dict[str, Mapping[str, type]] = {
    "law": {"bernoulli": Bernoulli, "gaussian": Gaussian, "uniform": Uniform},
    "fill": {"zero": Zero, "constant": Constant},
    "scale": SCALES,
    "per": {"block": Block},
}


@dataclass(frozen=True)
class Drop:
    """The spec of one dropout: an affine noise map y = a x + b, drawn independently of x.

    A spec is an immutable, hashable value. :class:`thinned.nn.SpecDropout` makes a layer of it,
    :func:`thinned.functional.drop` applies it, and the functions of :mod:`thinned.presets` return
    the specs of published methods.

    Args:
        law: The noise distribution of a mask element: :class:`Bernoulli`, :class:`Gaussian` or
            :class:`Uniform`. It holds the rate.
        per: The names of the axes along which mask elements are drawn separately; along every
            other axis one draw is shared. Or a :class:`Block`.
        of: The layout of the input: the names of its axes in order, such as ``"b c *"``. ``b`` is
            the axis of the examples, and ``*`` stands for any number of axes.
        fill: What replaces the dropped elements: :class:`Zero` or :class:`Constant`.
        scale: How training and evaluation agree: :class:`Inverted`, :class:`Classic`,
            :class:`KeptFraction`, :class:`MomentMatch` or :class:`Unscaled`.
        name: The name of the method, for people. Specs that differ only in it are equal.

    Raises:
        InputError: Where an argument has the wrong type, or the parts do not go together.

    Example:
        >>> spec = Drop(Bernoulli(0.2), per="b c", of="b c *")
        >>> spec.rate, spec.at(0.5).rate
        (0.2, 0.5)
    """

    law: Law
    per: Per = "b *"
    of: str = "b *"
    fill: Fill = Zero()
    scale: Scale = Inverted()
    name: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        _check_law("law", self.law)
        _check_axes("per", self.per)
        _check_axes("of", self.of)
        _check_fill("fill", self.fill)
        _check_scale("scale", self.scale)
        if not isinstance(self.name, str):
            raise InputError(f"name has to be a string, but got {self.name!r}")
        _per.check(self.per, self.of)
        self._check_combination()

    def _check_combination(self) -> None:
        binary = isinstance(self.law, Bernoulli)
        if not binary and not isinstance(self.fill, Zero):
            raise InputError(
                f"fill needs the noise distribution Bernoulli, because {self.law} drops nothing; "
                "leave fill out"
            )
        if isinstance(self.fill, Constant) and isinstance(self.scale, (Inverted, KeptFraction)):
            raise InputError(
                f"a Constant fill needs the scale Classic() or MomentMatch(), but got {self.scale}:"
                " dividing the kept elements preserves a mean only where dropped elements are 0"
            )
        if not binary and isinstance(self.scale, (KeptFraction, MomentMatch)):
            raise InputError(
                f"the scale {type(self.scale).__name__} needs the noise distribution Bernoulli, "
                f"but got {self.law}"
            )
        if not isinstance(self.per, Block):
            return
        if not (binary and isinstance(self.scale, KeptFraction)):
            raise InputError(
                "per=Block(...) needs the noise distribution Bernoulli and the scale "
                f"KeptFraction(), because its kept fraction varies, but got {self.law} and "
                f"{self.scale}"
            )
        seeds, covered = set(_per.axes(self.per.per)), set(_per.axes(self.per.over))
        if self.per.per and not covered <= seeds:
            raise InputError(
                f"a Block needs separate seeds along the axes {self.per.over!r} that it covers, "
                f"but got {self.per}; name them in the per of the Block, or leave it empty"
            )

    @property
    def rate(self) -> float:
        """The p or beta of the noise distribution. At 0 the output is the input."""
        return rate_of(self.law)

    def at(self, rate: float) -> Drop:
        """Return the same spec at another rate.

        Args:
            rate: The new p, or the new beta of uniform noise.

        Returns:
            A new spec that differs only in its rate.

        Raises:
            InputError: Where the rate is out of range.
        """
        return replace(self, law=at_rate(self.law, rate))

    def to_json(self) -> dict[str, Any]:
        """Return a dict of numbers, strings and lists from which :meth:`from_json` restores it."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        if not self.name:
            del parts["name"]
        return {k: v if isinstance(v, str) else _encode(k, v) for k, v in parts.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Drop:
        """Return the spec that :meth:`to_json` wrote.

        Args:
            data: The dict that :meth:`to_json` returned.

        Returns:
            An equal spec.

        Raises:
            InputError: Where a part is missing, unknown or malformed.
        """
        if not isinstance(data, Mapping):
            raise InputError(f"a dropout has to be a dict of its parts, but got {data!r}")
        known = {f.name for f in fields(cls)}
        for key in data:
            if key not in known:
                raise unknown("part of a dropout", key, known)
        if "law" not in data:
            raise InputError(
                'a dropout needs a noise distribution, such as `{"law": {"bernoulli": {"p": 0.5}}}`'
            )
        strings = ("of", "name")
        return cls(**{k: v if k in strings else _decode(k, v) for k, v in data.items()})


def _check_law(name: str, law: object) -> None:
    if isinstance(law, LAWS):
        return
    rule = f"{name} has to be a noise distribution, such as Bernoulli(0.3), but got {law!r}"
    if isinstance(law, type) and law in LAWS:
        raise InputError(f"{rule}; write {law.__name__}(0.3)")
    if isinstance(law, SCHEDULES):
        raise InputError(
            f"{rule}; a schedule is the argument of the layer: "
            "nn.SpecDropout(spec, schedule=...) or nn.Dropout(schedule)"
        )
    if isinstance(law, Drop):
        raise InputError(f"{rule}, which is a spec already; another rate of it is spec.at(0.3)")
    rate = law if isinstance(law, (int, float)) and not isinstance(law, bool) else 0.3
    raise InputError(f"{rule}; for ordinary dropout write thinned.presets.dropout({rate})")


def _check_axes(name: str, axes: object) -> None:
    """Raise unless ``axes`` is a string of axis names or, for per, a Block."""
    if isinstance(axes, str) or (name == "per" and isinstance(axes, Block)):
        return
    remedy = "write the names with spaces between them"
    if axes is None:
        remedy = "leave it out for the default"
        if name == "per":
            remedy += ', or write "" for one draw that all elements share'
    elif isinstance(axes, (list, tuple)) and all(isinstance(axis, str) for axis in axes):
        remedy = f'write "{" ".join(axes)}"'
    kinds = "a string of axis names" + (' such as "b c", or a Block' if name == "per" else "")
    if name == "of":
        kinds += ' such as "b c *"'
    raise InputError(f"{name} has to be {kinds}, but got {axes!r}; {remedy}")


def _check_fill(name: str, fill: object) -> None:
    if isinstance(fill, FILLS):
        return
    remedy = "write Zero()"
    if isinstance(fill, (int, float)) and not isinstance(fill, bool) and fill != 0:
        remedy = f"write Constant({fill})"
    elif isinstance(fill, type) and fill is Constant:
        remedy = "write Constant(1.0)"
    raise InputError(f"{name} has to be Zero() or Constant(value), but got {fill!r}; {remedy}")


def _check_scale(name: str, scale: object) -> None:
    if isinstance(scale, tuple(SCALES.values())):
        return
    known = [f"{kind.__name__}()" for kind in SCALES.values()]
    remedy = "the default is Inverted()"
    if isinstance(scale, str) and scale in SCALES:
        remedy = f"write {SCALES[scale].__name__}()"
    elif isinstance(scale, type) and scale in SCALES.values():
        remedy = f"write {scale.__name__}()"
    raise InputError(
        f"{name} has to be {', '.join(known[:-1])} or {known[-1]}, but got {scale!r}; {remedy}"
    )


def _encode(part: str, value: Law | Fill | Scale | Block) -> Any:
    name = next(n for n, kind in _PARTS[part].items() if type(value) is kind)
    arguments = {
        k: list(v) if isinstance(v, tuple) else v for k, v in asdict(value).items() if v != ""
    }
    return {name: arguments} if arguments else name


def _decode(part: str, value: Any) -> Any:
    if part == "per" and isinstance(value, str):
        return value
    if isinstance(value, str):
        value = {value: {}}
    arguments = next(iter(value.values())) if isinstance(value, Mapping) and value else None
    if not isinstance(arguments, Mapping) or len(value) != 1:
        raise InputError(
            f"{part} has to be a name or a dict from one name to its arguments, but got {value!r}"
        )
    name = next(iter(value))
    if name not in _PARTS[part]:
        raise unknown(part, name, _PARTS[part])
    arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()}
    check_keywords(_PARTS[part][name], arguments, f"{part} {name!r}")
    try:
        return _PARTS[part][name](**arguments)
    except TypeError as error:
        raise InputError(f"{part} {name!r} cannot take {arguments}: {error}") from None
