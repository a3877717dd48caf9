"""What goes where, as a plain record: a list of rules."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from torch import nn

from .. import presets
from .._errors import InputError, probability, unknown
from ..algebra.drop import Drop

DO = ("insert after", "insert before", "replace", "set rate")
_KINDS = ("name", "class", "place", "call")


@dataclass(frozen=True)
class At:
    """One exact meaning of where. ``kind``: "name" (the whole name of a module), "class" (a class,
    by its name or its whole name), "place" ("input", "hidden", or "hidden 2 of 3" for the second of
    three hidden activations), or "call": the ``number``-th place in the code of module ``name``
    that calls ``function``, counted from 0 in the order of the first calls; ``operand`` says which
    of its arguments is dropped, before the call, and without it its result is.
    """

    kind: str
    name: str
    function: str = ""
    number: int = 0
    operand: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise unknown("kind of where", self.kind, _KINDS)
        if not isinstance(self.name, str):
            raise InputError(f"where {self.kind} has to be a string, but got {self.name!r}")
        if (self.kind == "call") != bool(self.function):
            raise InputError(
                "a call, and nothing else, has a function; such as where={'call': 'relu', 'module': 'block.0'}"
            )

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        if self.kind != "call":
            return {self.kind: self.name}
        data: dict[str, Any] = {"call": self.function, "module": self.name, "number": self.number}
        return data if self.operand is None else data | {"operand": self.operand}

    def __str__(self) -> str:
        if self.kind == "call":
            return f"{self.function} {self.number} of {self.name or 'the model'}"
        return f"{self.kind} {self.name}" if self.name or self.kind != "name" else "the model"


Wherever: TypeAlias = "str | At | type[nn.Module] | Callable[[str, nn.Module], bool] | None"


@dataclass(frozen=True)
class PolicyRule:
    """One thing to do, at every place that is meant.

    ``do``: "insert after", "insert before", "replace" (a dropout layer by another kind; a linear,
    convolutional or recurrent layer by one that drops its weights, :class:`thinned.nn.DropConnect`),
    or "set rate". ``where``: a name, the end of one, or a regular expression; a class; an
    :class:`At`; a function of name and module, which no file can hold; None for every layer with a
    rate, or to replace every dropout layer. ``spec``: a preset's name or a point; None is dropout.
    ``rate``: in [0, 1]; None leaves a point's own and that of a layer that is replaced, and else is
    the preset's.
    """

    do: str
    where: Wherever
    rate: float | None = None
    spec: str | Drop | None = None

    def __post_init__(self) -> None:
        if self.do not in DO:
            raise unknown("thing to do", self.do, DO)
        if isinstance(self.where, type):
            object.__setattr__(
                self, "where", At("class", f"{self.where.__module__}.{self.where.__qualname__}")
            )
        if (
            self.where is not None
            and not isinstance(self.where, (str, At))
            and not callable(self.where)
        ):
            raise InputError(
                f"where has to be a name, a class or a function, but got {self.where!r}"
            )
        if self.where is None and self.do not in ("set rate", "replace"):
            raise InputError(f"{self.do!r} needs a where")
        if self.rate is not None:
            object.__setattr__(self, "rate", probability(self.rate, f"the rate to {self.do}"))
        if self.spec is not None and not isinstance(self.spec, (str, Drop)):
            raise InputError(f"spec has to be a preset's name or a Drop, but got {self.spec!r}")
        if self.do == "set rate" and (self.rate is None or self.spec is not None):
            raise InputError("'set rate' needs a rate and takes no spec")
        if self.do != "set rate":
            self.resolved_spec()

    def resolved_spec(self) -> Drop:
        """The dropout that goes there."""
        if isinstance(self.spec, Drop):
            return self.spec if self.rate is None else self.spec.at(self.rate)
        name = self.spec or "dropout"
        return presets.make(
            name, **({} if self.rate is None else {presets.strength(name): self.rate})
        )

    def to_json(self) -> dict[str, Any]:
        """A plain dict. Raises :class:`thinned.InputError` where ``where`` is a function."""
        if callable(self.where):
            raise InputError(
                "a rule whose where is a function cannot be written down; name modules by name, class or pattern"
            )
        where = self.where.to_json() if isinstance(self.where, At) else self.where
        data: dict[str, Any] = {"do": self.do, "where": where}
        if self.spec is not None:
            data["spec"] = self.spec if isinstance(self.spec, str) else self.spec.to_json()
        return data if self.rate is None else data | {"rate": self.rate}

    @classmethod
    def from_json(cls, data: Any) -> PolicyRule:
        """Read what :meth:`to_json` wrote."""
        data = _record(data, "a rule", {"do", "where", "spec", "rate"}, {"do", "where"})
        where, spec = data["where"], data.get("spec")
        if isinstance(where, Mapping):
            where = _at(where)
        elif where is not None and not isinstance(where, str):
            raise InputError(f"where has to be a string or an object, but got {where!r}")
        if isinstance(spec, Mapping):
            spec = Drop.from_json(dict(spec))
        return cls(data["do"], where, data.get("rate"), spec)

    def __str__(self) -> str:
        rate = "" if self.rate is None else f" at {self.rate:g}"
        spec = (
            self.spec
            if isinstance(self.spec, str)
            else (self.spec.name or "a point")
            if self.spec
            else "dropout"
        )
        what = "" if self.do == "set rate" else f": {spec}"
        return f"{self.do} {'all layers' if self.where is None else self.where}{what}{rate}"


@dataclass(frozen=True)
class Policy:
    """What to drop where in a model: rules, done in order by :func:`thinned.apply`. ``notes``: why,
    for people.

    >>> policy = Policy((PolicyRule("insert after", nn.ReLU, 0.5), PolicyRule("set rate", "head.drop", 0.1)))
    >>> Policy.from_json(policy.to_json()) == policy
    True
    """

    rules: tuple[PolicyRule, ...]
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", tuple(self.rules))
        for rule in self.rules:
            if not isinstance(rule, PolicyRule):
                raise InputError(f"a policy holds rules, but got {rule!r}")

    def at(self, rate: float) -> Policy:
        """The same places, all at one rate."""
        return replace(self, rules=tuple(replace(rule, rate=rate) for rule in self.rules))

    def to_json(self) -> dict[str, Any]:
        """A plain dict that :meth:`from_json` reads back to an equal policy."""
        data: dict[str, Any] = {"format": 1, "rules": [rule.to_json() for rule in self.rules]}
        return data | ({"notes": list(self.notes)} if self.notes else {})

    @classmethod
    def from_json(cls, data: Any) -> Policy:
        """Read what :meth:`to_json` wrote, or a study's ``policy.json``.

        Raises :class:`thinned.InputError`, which names the rule, for anything that is not known.
        """
        if isinstance(data, Mapping) and "sites" in data:
            return _of_a_study(data)
        data = _record(data, "a policy", {"format", "rules", "notes"}, {"format", "rules"})
        if data["format"] != 1:
            raise InputError(
                f"this policy has format {data['format']!r}, and only format 1 is known; update thinned"
            )
        if not isinstance(data["rules"], list) or not isinstance(data.get("notes", []), list):
            raise InputError("rules and notes of a policy have to be lists")
        rules = []
        for number, rule in enumerate(data["rules"], 1):
            try:
                rules.append(PolicyRule.from_json(rule))
            except InputError as error:
                raise InputError(f"rule {number}: {error}") from None
        return cls(tuple(rules), tuple(map(str, data.get("notes", []))))

    def save(self, path: str | Path) -> None:
        """Write it as JSON."""
        Path(path).write_text(json.dumps(self.to_json(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Policy:
        """Read a file that :meth:`save` or a study wrote. Raises :class:`thinned.InputError` where
        it holds no policy.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read as a policy: {error}") from None
        return cls.from_json(data)

    def __str__(self) -> str:
        return "\n".join([*map(str, self.rules), *(f"note: {note}" for note in self.notes)])


def _record(data: Any, what: str, known: set[str], needed: set[str]) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise InputError(f"{what} has to be an object, but got {data!r}")
    for name in data:
        if name not in known:
            raise unknown(f"part of {what}", name, known)
    for name in sorted(needed - data.keys()):
        raise InputError(f"{what} lacks {name!r}")
    return dict(data)


def _at(data: Mapping[str, Any]) -> At:
    if "call" in data:
        data = _record(data, "where", {"call", "module", "number", "operand"}, {"call", "module"})
        number, operand = data.get("number", 0), data.get("operand")
        if not all(
            isinstance(n, int) and not isinstance(n, bool) and n >= 0
            for n in (number, operand or 0)
        ):
            raise InputError(
                f"number and operand of a call have to be whole numbers, but got {number!r} and {operand!r}"
            )
        return At("call", data["module"], data["call"], number, operand)
    if len(data) != 1:
        raise InputError(f"where has to be one of name, class, place or call, but got {dict(data)}")
    ((kind, name),) = data.items()
    return At(kind, name)


def _of_a_study(data: Mapping[str, Any]) -> Policy:
    """A study names the places of its own network: its input, and its hidden layers by number."""
    rules = []
    for site in data["sites"]:
        site = _record(site, "a site of a study's policy", {"where", "spec"}, {"where", "spec"})
        if site["where"] == "weights of hidden layers":
            rules.append(
                PolicyRule(
                    "replace",
                    At("place", "hidden weights"),
                    site["spec"]["law"]["bernoulli"]["p"],
                    "drop_connect",
                )
            )
            continue
        do = "insert before" if site["where"] == "input" else "insert after"
        rules.append(PolicyRule(do, At("place", site["where"]), None, Drop.from_json(site["spec"])))
    others = data.get("companions") or {}
    notes = [f"chosen by a study: {data.get('arm')}, {data.get('strength')}"]
    notes += [
        f"the study also used {name} = {value}, which no change of a model brings"
        for name, value in others.items()
    ]
    return Policy(tuple(rules), tuple(notes))
