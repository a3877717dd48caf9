"""Generators: recomputation without their state (L8), one seed on all ranks (L9), one mask for ever
(L18).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from ..finding import Finding
from .edits import removed
from .layers import imports, is_torch, maybe_torch, methods
from .module import Module, argument, is_false, number
from .names import dotted

_DROPS = re.compile(r"[dD]ropout|[dD]rop_?[pP]ath|drop_prob|drop_rate|layerdrop")


def l8(module: Module) -> Iterator[Finding]:
    """Signal: a call of, or with, something named checkpoint passes the literal
    preserve_rng_state=False, in a file whose code speaks of dropout. Let pass: expressions; files
    in which nothing is dropped, for the models they wrap are not to be seen.
    """
    if "preserve_rng_state" not in module.text or not _DROPS.search(_code(module)):
        return
    for call in module.calls:
        keyword = next(
            (k for k in call.keywords if k.arg == "preserve_rng_state" and is_false(k.value)), None
        )
        names = [dotted(e) or "" for e in [call.func, *call.args[:1]]]
        if keyword is not None and any(
            "checkpoint" in (n + (module.name(e) or "")).lower()
            for n, e in zip(names, [call.func, *call.args[:1]], strict=True)
        ):
            yield module.finding(
                "L8",
                call,
                "preserve_rng_state=False: the recomputed pass draws other masks",
                removed(module, call, keyword),
            )


def _code(module: Module) -> str:
    """The names that a file's code uses, without comments and docstrings."""
    names = []
    for node in module.children:
        if isinstance(node, ast.Name):
            names.append(node.id)
        elif isinstance(node, ast.Attribute):
            names.append(node.attr)
        elif isinstance(node, (ast.keyword, ast.arg)):
            names.append(node.arg or "")
    return " ".join(names)


_SEEDS = {
    "torch.manual_seed",
    "torch.cuda.manual_seed",
    "torch.cuda.manual_seed_all",
    "torch.random.manual_seed",
}
_SEEDS_ALL = re.compile(r"(^|\.)(set_seed|seed_everything|setup_seed|set_random_seed|fix_seed)$")
_RANK = re.compile(
    r"rank|process_index|device_specific|worker|get_node|local|gpu|world|\bidx\b", re.I
)
_PARALLEL = (
    "torch.distributed.init_process_group",
    "torch.nn.parallel.DistributedDataParallel",
    "accelerate.Accelerator",
)


def l9(module: Module) -> Iterator[Finding]:
    """Signal: a file sets up process groups, DistributedDataParallel or an Accelerator, trains by
    backward(), drops something, and every seed that it sets in its functions is without a rank. Let
    pass: files with any seed that speaks of a rank, process or device; seeds before processes start
    (outside functions, under ``if __name__``); Trainers, which seed by themselves. DDP needs equal
    parameters, which it sends at the start, not equal seeds.
    """
    names = {module.called(c) for c in module.calls}
    if not any(n in _PARALLEL for n in names) or not _DROPS.search(_code(module)):
        return
    if not any(
        isinstance(c.func, ast.Attribute) and c.func.attr == "backward" for c in module.calls
    ):
        return
    seeds = [
        c
        for c in module.calls
        if module.called(c) in _SEEDS or _SEEDS_ALL.search(dotted(c.func) or "")
    ]
    texts = [ast.unparse(c) for c in seeds]
    inside = [c for c in seeds if (c.args or c.keywords) and module.function_of(c) is not None]
    if (
        not inside
        or any(_RANK.search(t.partition("(")[2]) for t in texts)
        or re.search(r"seed\s*(\+=|=.*\+).*(rank|process_index)", module.text)
    ):
        return
    own = [
        c
        for c in inside
        if not any(
            f.name in ("set_seed", "seed_everything", "seed_all") for f in module.functions_of(c)
        )
    ]
    if own and not any("_rng_state" in (dotted(c.func) or "") for c in module.calls):
        last = own[-1]
        yield module.finding("L9", last, f"{module.source(last)} gives every rank the same masks")


_FORWARD = {"forward", "__call__", "call"}
_SEEDS_ANY = _SEEDS | {
    "numpy.random.seed",
    "random.seed",
    "tensorflow.random.set_seed",
    "keras.utils.set_random_seed",
}


def l18(module: Module) -> Iterator[Finding]:
    """Signal: (a) a torch module's forward seeds a global generator with a constant or an
    attribute, in a class or file with dropout, outside fork_rng; (b) a torch class that speaks of
    dropout makes a random 0/1 mask in __init__ and its forward multiplies by it; (c) in JAX a key
    from a literal seed, made inside a training step, a loss or a module's call, goes to dropout.
    Let pass: seeds elsewhere; fixed masks of weights and connections; init(); keys folded or split.
    """
    if imports(module, "torch"):
        yield from _seeded(module)
        yield from _kept(module)
    if imports(module, "jax"):
        yield from _literal_keys(module)


def _seeded(module: Module) -> Iterator[Finding]:
    for call in module.calls:
        if module.called(call) not in _SEEDS_ANY or not call.args or not _DROPS.search(module.text):
            continue
        fixed = isinstance(call.args[0], ast.Constant) or (dotted(call.args[0]) or "").startswith(
            "self."
        )
        around = [f.name for f in module.functions_of(call)]
        forked = any(
            "fork_rng" in ast.unparse(i.context_expr)
            for a in module.ancestors(call)
            if isinstance(a, ast.With)
            for i in a.items
        )
        if (
            fixed
            and not forked
            and any(n in _FORWARD for n in around)
            and maybe_torch(module, module.class_of(call))
        ):
            yield module.finding(
                "L18",
                call,
                f"{module.source(call)} in {around[0]} gives the same masks at every step",
            )


_COIN = re.compile(r"bernoulli|Bernoulli|binomial|rand\(.*\)\s*[<>]|[<>].*rand\(|rand_like\(.*[<>]")


def _kept(module: Module) -> Iterator[Finding]:
    for owner in module.classes:
        if not is_torch(module, owner):
            continue
        start = next((m for m in methods(owner) if m.name == "__init__"), None)
        forward = next((m for m in methods(owner) if m.name == "forward"), None)
        if start is None or forward is None:
            continue
        for name, value in _masks(module, start):
            draws = value if not isinstance(value, ast.Name) else (module.producer(value) or value)
            if not re.search(r"drop", owner.name + name, re.I) or not _COIN.search(
                ast.unparse(draws)
            ):
                continue
            by = any(
                isinstance(n.op, ast.Mult)
                and f"self.{name}" in (dotted(n.left), dotted(n.right))
                and "weight" not in ast.unparse(n)
                for n in module.own(forward, ast.BinOp)
            )
            if by and not any(
                module.assigned(m, f"self.{name}") for m in methods(owner) if m is not start
            ):
                yield module.finding("L18", value, f"the mask {name} is drawn once, in __init__")


def _masks(module: Module, start: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """(name, value) of each buffer and attribute that __init__ sets."""
    for call in module.own(start, ast.Call):
        if dotted(call.func) == "self.register_buffer":
            name, value = argument(call, "name", 0), argument(call, "tensor", 1)
            if isinstance(name, ast.Constant) and isinstance(name.value, str) and value is not None:
                yield name.value, value
    for statement in module.own(start, ast.Assign):
        for target in statement.targets:
            path = dotted(target) or ""
            if path.startswith("self.") and path.count(".") == 1:
                yield path.removeprefix("self."), statement.value


_STEP = re.compile(r"step|loss|forward|__call__|update", re.I)


def _literal_keys(module: Module) -> Iterator[Finding]:
    for call in module.calls:
        if (
            module.called(call) not in ("jax.random.PRNGKey", "jax.random.key")
            or not call.args
            or number(call.args[0]) is None
        ):
            continue
        around = module.functions_of(call)
        if not any(_STEP.search(f.name) for f in around) or any(
            "init" in f.name.strip("_") for f in around
        ):
            continue
        use = next((a for a in module.ancestors(call) if isinstance(a, ast.Call)), None)
        above = module.parents[call]
        in_dict = isinstance(above, ast.Dict) and any(
            isinstance(k, ast.Constant) and k.value == "dropout" and v is call
            for k, v in zip(above.keys, above.values, strict=True)
        )
        given = isinstance(above, ast.keyword) and above.arg == "dropout"
        name = module.called(use) if use is not None else ""
        drops = name in ("haiku.dropout", "jax.random.bernoulli") and is_first(use, call)
        if (in_dict or given or drops) and not (
            use is not None and (dotted(use.func) or "").endswith("init")
        ):
            yield module.finding(
                "L18",
                call,
                f"{module.source(call)} inside {around[0].name} gives the same masks at every step",
            )


def is_first(use: ast.Call | None, given: ast.expr) -> bool:
    """Whether an expression is a call's first argument."""
    return use is not None and bool(use.args) and use.args[0] is given
