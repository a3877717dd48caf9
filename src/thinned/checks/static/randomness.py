"""Random generators: recomputation without their state (L8), one seed on all ranks (L9), the same
mask at every step (L18).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from ..finding import Finding
from .edits import removed
from .functional import MODES, rate_of
from .layers import (
    calls_thinned,
    draws,
    imports,
    is_torch,
    layer,
    maybe_torch,
    methods,
    rate,
)
from .module import Module, argument, is_false, number
from .names import dotted

_DROPS = re.compile(r"[dD]ropout|[dD]rop_?[pP]ath|drop_prob|drop_rate|layerdrop")


def recomputed_with_other_masks(module: Module) -> Iterator[Finding]:
    """Signal: a call of, or with, a function named checkpoint passes the literal
    preserve_rng_state=False, in a file with dropout in its code. Let pass: expressions; files
    without dropout, which do not show what the models that they wrap do; files that key their masks
    with thinned.key.
    """
    if "preserve_rng_state" not in module.text or not _drops(module):
        return
    if calls_thinned(module, None, "key"):
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


def _drops(module: Module) -> bool:
    """Whether the code of a file has dropout: by a name, or by a layer under another name."""
    return bool(_DROPS.search(_code(module))) or draws(module)


def _code(module: Module) -> str:
    """The names in the code of a file, without comments and docstrings."""
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


def same_seed_on_all_ranks(module: Module) -> Iterator[Finding]:
    """Signal: a file sets up process groups, DistributedDataParallel or an Accelerator, trains by
    backward(), shows a rate of dropout above 0 (a literal, a default, an argument of the command
    line), and no seed that it sets in its functions depends on a rank. Let pass: files in which
    every rate is 0 or unknown; files with any seed that names a rank, process or device; seeds
    before processes start (outside functions, under ``if __name__``); Trainers, which seed by
    themselves; files that key their masks with thinned.key. DDP needs equal parameters, which it
    broadcasts at the start, not equal seeds.
    """
    names = {module.called(c) for c in module.calls}
    if not any(n in _PARALLEL for n in names) or not _shows_rate(module):
        return
    if calls_thinned(module, None, "key"):
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


_RATE = re.compile(r"drop_?(out|path|prob|rate|_p$)|^p_drop|attn_pdrop|[a-z]_pdrop", re.I)


def _shows_rate(module: Module) -> bool:
    """Whether a file shows a rate of dropout above 0."""
    for call in module.calls:
        known, mode = layer(module, call), MODES.get(module.called(call))
        if mode is not None and (number(rate_of(call, mode)) or 0) > 0:
            return True
        if known is not None and known.draws:
            value = rate(known)
            if value is None or (number(value) or 0) > 0:
                return True
        flags = [a.value for a in call.args if isinstance(a, ast.Constant)]
        if any(isinstance(f, str) and _RATE.search(f) for f in flags):
            default_value = number(argument(call, "default", None))
            if (default_value or 0) > 0:
                return True
    for node in module.children:
        pairs: list[tuple[str, ast.AST | None]] = []
        if isinstance(node, ast.keyword):
            pairs = [(node.arg or "", node.value)]
        elif isinstance(node, ast.arguments):
            named = [*node.posonlyargs, *node.args][::-1]
            pairs = [(a.arg, d) for a, d in zip(named, node.defaults[::-1], strict=False)]
            pairs += [(a.arg, d) for a, d in zip(node.kwonlyargs, node.kw_defaults, strict=True)]
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            pairs = [((dotted(t) or "").rpartition(".")[2], node.value) for t in targets]
        elif isinstance(node, ast.Dict):
            pairs = [
                (k.value, v)
                for k, v in zip(node.keys, node.values, strict=True)
                if isinstance(k, ast.Constant) and isinstance(k.value, str)
            ]
        if any(_RATE.search(name) and (number(value) or 0) > 0 for name, value in pairs):
            return True
    return False


_FORWARD = {"forward", "__call__", "call"}
_SEEDS_ANY = _SEEDS | {
    "numpy.random.seed",
    "random.seed",
    "tensorflow.random.set_seed",
    "keras.utils.set_random_seed",
}


def mask_reused(module: Module) -> Iterator[Finding]:
    """Signal: (a) the forward of a torch module seeds a global generator with a constant or an
    attribute, in a class or file with dropout, outside fork_rng; (b) a torch class named for
    dropout draws a random 0/1 mask in __init__ and multiplies by it in forward; (c) in JAX a key
    from a literal seed, created inside a training step, a loss or the call of a module, goes to
    dropout. Let pass: seeds elsewhere; fixed masks of weights and connections; init(); keys that
    are folded or split.
    """
    if imports(module, "torch"):
        yield from _seeded(module)
        yield from _kept(module)
    if imports(module, "jax"):
        yield from _literal_keys(module)


def _seeded(module: Module) -> Iterator[Finding]:
    for call in module.calls:
        if module.called(call) not in _SEEDS_ANY or not call.args:
            continue
        if not (_DROPS.search(module.text) or draws(module)):
            continue
        fixed = isinstance(call.args[0], ast.Constant) or (dotted(call.args[0]) or "").startswith(
            "self."
        )
        names_around = [f.name for f in module.functions_of(call)]
        forked = any(
            "fork_rng" in ast.unparse(i.context_expr)
            for a in module.ancestors(call)
            if isinstance(a, ast.With)
            for i in a.items
        )
        if (
            fixed
            and not forked
            and any(n in _FORWARD for n in names_around)
            and maybe_torch(module, module.class_of(call))
        ):
            text, where = module.source(call), names_around[0]
            message = f"{text} in {where} gives the same masks at every step"
            yield module.finding("L18", call, message)


_DRAWN = re.compile(
    r"bernoulli|Bernoulli|binomial|rand\(.*\)\s*[<>]|[<>].*rand\(|rand_like\(.*[<>]"
)


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
            if not re.search(r"drop", owner.name + name, re.I) or not _DRAWN.search(
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
        functions = module.functions_of(call)
        if not any(_STEP.search(f.name) for f in functions) or any(
            "init" in f.name.strip("_") for f in functions
        ):
            continue
        use = next((a for a in module.ancestors(call) if isinstance(a, ast.Call)), None)
        above = module.parents[call]
        in_dict = isinstance(above, ast.Dict) and any(
            isinstance(k, ast.Constant) and k.value == "dropout" and v is call
            for k, v in zip(above.keys, above.values, strict=True)
        )
        is_keyword = isinstance(above, ast.keyword) and above.arg == "dropout"
        name = module.called(use) if use is not None else ""
        drops = name in ("haiku.dropout", "jax.random.bernoulli") and is_first(use, call)
        if (in_dict or is_keyword or drops) and not (
            use is not None and (dotted(use.func) or "").endswith("init")
        ):
            text, where = module.source(call), functions[0].name
            message = f"{text} inside {where} gives the same masks at every step"
            yield module.finding("L18", call, message)


def is_first(use: ast.Call | None, node: ast.expr) -> bool:
    """Whether an expression is the first argument of a call."""
    return use is not None and bool(use.args) and use.args[0] is node
