"""Policies: lists of rules that say which dropout goes where, as records that files can hold."""

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

ACTIONS = ("insert after", "insert before", "replace", "set rate")
_KINDS = ("name", "class", "place", "call")


@dataclass(frozen=True)
class At:
    """One exact place, for a :class:`PolicyRule`: a module, a class, a place or a call.

    Args:
        kind: "name" (the whole qualified name of a module), "class" (a class, by its name or its
            qualified name), "place" ("input", "hidden", or for example "hidden 2 of 3", the second
            of three hidden activations), or "call" (a call of a function in a module's code).
        name: The name of the module, class or place; for a call, of the module; "" is the model.
        function: Of a call: the name of the function, such as "relu".
        number: Of a call: which of the places in the code that call the function, counted from 0
            in the order of their first calls.
        operand: Of a call: the index of the argument that is dropped, before the call; None drops
            the result.

    Raises:
        InputError: Where the kind is unknown, the name is not a string, or a function is given for
            another kind than "call", or missing for that.

    Example:
        >>> print(At("name", "encoder.0"))
        name encoder.0
        >>> print(At("call", "block", "relu"))
        relu 0 of block
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
                "a call, and nothing else, has a function; such as "
                "where={'call': 'relu', 'module': 'block.0'}"
            )

    def to_json(self) -> dict[str, Any]:
        """Return a dict that JSON can hold."""
        if self.kind != "call":
            return {self.kind: self.name}
        data: dict[str, Any] = {"call": self.function, "module": self.name, "number": self.number}
        return data if self.operand is None else data | {"operand": self.operand}

    def __str__(self) -> str:
        if self.kind == "call":
            return f"{self.function} {self.number} of {self.name or 'the model'}"
        return f"{self.kind} {self.name}" if self.name or self.kind != "name" else "the model"


RuleWhere: TypeAlias = "str | At | type[nn.Module] | Callable[[str, nn.Module], bool] | None"


@dataclass(frozen=True)
class PolicyRule:
    """One action at every place that ``where`` selects.

    Args:
        do: "insert after", "insert before", "replace" or "set rate". "replace" puts another kind of
            dropout layer in place of one, or :class:`thinned.nn.DropConnect` in place of a linear,
            convolutional or recurrent layer.
        where: A name, the end of one, or a regular expression; a class; an :class:`At`; a function
            of name and module, which no file can hold; or None, for every layer with a rate, and
            for "replace" every dropout layer.
        rate: The rate, in [0, 1]. None keeps the rate of a Drop, or of the layer that is replaced,
            and is otherwise the default of the preset.
        spec: What to insert: the name of a preset or a Drop; None is "dropout".

    Raises:
        InputError: Where the action is unknown, ``where`` is missing or of another type, the rate
            is outside [0, 1], the spec is unknown, or "set rate" has no rate or has a spec.

    Example:
        >>> print(PolicyRule("insert after", nn.ReLU, 0.5))
        insert after class torch.nn.modules.activation.ReLU: dropout at 0.5
        >>> print(PolicyRule("set rate", "head", 0.1))
        set rate head at 0.1
    """

    do: str
    where: RuleWhere
    rate: float | None = None
    spec: str | Drop | None = None

    def __post_init__(self) -> None:
        if self.do not in ACTIONS:
            raise unknown("action", self.do, ACTIONS)
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
            raise InputError(f"{self.do!r} needs a where; name a module, a class or a place")
        if self.rate is not None:
            object.__setattr__(self, "rate", probability(self.rate, f"the rate to {self.do}"))
        if self.spec is not None and not isinstance(self.spec, (str, Drop)):
            raise InputError(f"spec has to be a preset's name or a Drop, but got {self.spec!r}")
        if self.do == "set rate" and (self.rate is None or self.spec is not None):
            raise InputError("'set rate' needs a rate and takes no spec; 'replace' takes one")
        if self.do != "set rate":
            self.resolved_spec()  # raises here for an unknown preset

    def resolved_spec(self) -> Drop:
        """Return the dropout spec of the rule, at its rate."""
        if isinstance(self.spec, Drop):
            return self.spec if self.rate is None else self.spec.at(self.rate)
        name = self.spec or "dropout"
        return presets.make(
            name, **({} if self.rate is None else {presets.rate_name(name): self.rate})
        )

    def to_json(self) -> dict[str, Any]:
        """Return a dict that JSON can hold.

        Raises :class:`thinned.InputError` where ``where`` is a function.
        """
        if callable(self.where):
            raise InputError(
                "a rule with a function as where cannot be written to JSON; name modules by name, "
                "class or pattern"
            )
        where = self.where.to_json() if isinstance(self.where, At) else self.where
        data: dict[str, Any] = {"do": self.do, "where": where}
        if self.spec is not None:
            data["spec"] = self.spec if isinstance(self.spec, str) else self.spec.to_json()
        return data if self.rate is None else data | {"rate": self.rate}

    @classmethod
    def from_json(cls, data: Any) -> PolicyRule:
        """Return the rule of a dict that :meth:`to_json` returned."""
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
            else (self.spec.name or "a Drop")
            if self.spec
            else "dropout"
        )
        what = "" if self.do == "set rate" else f": {spec}"
        return f"{self.do} {'all layers' if self.where is None else self.where}{what}{rate}"


@dataclass(frozen=True)
class Policy:
    """Rules for :func:`thinned.apply`, carried out in order. Equal if the rules are equal.

    Printed, it is one line per rule and note. It can be saved to a JSON file and loaded from one.

    Args:
        rules: The rules.
        notes: Texts about the policy, such as its source, which ``apply`` passes on.

    Raises:
        InputError: Where ``rules`` holds something other than rules.

    Example:
        >>> rules = PolicyRule("insert after", "1", 0.5), PolicyRule("set rate", None, 0.2)
        >>> policy = Policy(rules)
        >>> print(policy)
        insert after 1: dropout at 0.5
        set rate all layers at 0.2
        >>> Policy.from_json(policy.to_json()) == policy
        True
    """

    rules: tuple[PolicyRule, ...]
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", tuple(self.rules))
        for rule in self.rules:
            if not isinstance(rule, PolicyRule):
                raise InputError(f"a policy holds rules, but got {rule!r}; use thinned.PolicyRule")

    def at(self, rate: float) -> Policy:
        """Return the same places, all at one rate in [0, 1]."""
        return replace(self, rules=tuple(replace(rule, rate=rate) for rule in self.rules))

    def to_json(self) -> dict[str, Any]:
        """Return a dict that JSON can hold, from which :meth:`from_json` builds an equal policy."""
        data: dict[str, Any] = {"format": 1, "rules": [rule.to_json() for rule in self.rules]}
        return data | ({"notes": list(self.notes)} if self.notes else {})

    @classmethod
    def from_json(cls, data: Any) -> Policy:
        """Return the policy of a dict that :meth:`to_json` returned, or of a study's policy.

        Raises :class:`thinned.InputError`, with the number of the rule, for unknown content.
        """
        if isinstance(data, Mapping) and "sites" in data:
            return _study_policy(data)
        data = _record(data, "a policy", {"format", "rules", "notes"}, {"format", "rules"})
        if data["format"] != 1:
            raise InputError(
                f"this policy has format {data['format']!r}, and only format 1 is known; "
                "update thinned"
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
        """Write the policy to a JSON file."""
        Path(path).write_text(json.dumps(self.to_json(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Policy:
        """Read a file that :meth:`save` or a study wrote.

        Raises :class:`thinned.InputError` where the file cannot be read or holds no policy.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read as a policy: {error}") from None
        return cls.from_json(data)

    def __str__(self) -> str:
        return "\n".join([*map(str, self.rules), *(f"note: {note}" for note in self.notes)])


def _record(data: Any, what: str, known: set[str], needed: set[str]) -> dict[str, Any]:
    """Return ``data`` as a dict, if it has the needed keys and no unknown ones."""
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
                f"number and operand of a call have to be whole numbers, but got {number!r} and "
                f"{operand!r}"
            )
        return At("call", data["module"], data["call"], number, operand)
    if len(data) != 1:
        raise InputError(f"where has to be one of name, class, place or call, but got {dict(data)}")
    ((kind, name),) = data.items()
    return At(kind, name)


def _study_policy(data: Mapping[str, Any]) -> Policy:
    """Return the policy that a study recommends.

    A study names the places of its own network: its input, and its hidden layers by number.
    """
    rules = []
    for site in data["sites"]:
        site = _record(site, "a site of a study's policy", {"where", "spec"}, {"where", "spec"})
        if site["where"] == "weights of hidden layers":
            place, rate = At("place", "hidden weights"), site["spec"]["law"]["bernoulli"]["p"]
            rules.append(PolicyRule("replace", place, rate, "drop_connect"))
            continue
        do = "insert before" if site["where"] == "input" else "insert after"
        rules.append(PolicyRule(do, At("place", site["where"]), None, Drop.from_json(site["spec"])))
    companions = data.get("companions") or {}
    notes = [f"chosen by a study: {data.get('method')}, {data.get('strength')}"]
    notes += [
        f"the study also used {name} = {value}, which surgery cannot add to a model"
        for name, value in companions.items()
    ]
    return Policy(tuple(rules), tuple(notes))
