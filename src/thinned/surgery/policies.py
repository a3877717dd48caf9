"""Automatic policies: where papers put dropout, found in a model by what its parts compute.

Each function takes the model and its inputs, or the :class:`Trace` of a pass.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from .._errors import InputError, probability
from . import families
from .flow import heads
from .policy import Policy
from .rule_makers import depth_rules, hidden_rules, input_rule, rule_before, shared_place_notes
from .trace import Trace, trace_model


def hidden(model: nn.Module | Trace, *inputs: Any, rate: float = 0.5, **named: Any) -> Policy:
    """Return the policy "hidden": dropout after every hidden activation, module or function.

    Left out are gates (a sigmoid that another value is multiplied with), activations that no layer
    with weights reads, such as that of an output, and those that batch normalization reads directly
    (Li et al. 2019). A dropout layer that is there already has its rate set.

    Args:
        model: The model, or the trace of a pass.
        *inputs: The inputs of the model by position.
        rate: The probability of dropping, in [0, 1].
        **named: The inputs of the model by name.

    Returns:
        The rules, with notes on the places that are left out.

    Raises:
        InputError: Where no place is found, or inputs are missing.

    Reference:
        Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov 2014, "Dropout": 0.5 for hidden
        units.
    """
    trace = _trace(model, inputs, named)
    rules, notes = hidden_rules(trace, rate)
    if not rules:
        why = "; ".join(notes) or "no hidden activation was found in this model"
        raise InputError(f"{why}; name the places: thinned.insert(model, rate, after=...)")
    return Policy(tuple(rules), (*notes, "after hidden activations: Srivastava et al. 2014"))


def head(model: nn.Module | Trace, *inputs: Any, rate: float = 0.5, **named: Any) -> Policy:
    """Return the policy "head": dropout before the last layer with weights of each output.

    In EfficientNet and in the classifiers of BERT, this is the only such place.

    Args:
        model: The model, or the trace of a pass.
        *inputs: The inputs of the model by position.
        rate: The probability of dropping, in [0, 1].
        **named: The inputs of the model by name.

    Returns:
        The rules, one for each output.

    Raises:
        InputError: Where several layers compute the output together, as at the end of a residual
            stream, or inputs are missing.

    Reference:
        Hinton, Srivastava, Krizhevsky, Sutskever, Salakhutdinov 2012.
    """
    trace = _trace(model, inputs, named)
    placed = [rule_before(trace, name, rate) for name in heads(trace)]
    rules = [rule for found, _ in placed for rule in found]
    notes = [note for _, found in placed for note in found]
    if not rules and notes:
        raise InputError("; ".join(notes))
    if not rules:
        raise InputError(
            "the output of this model is not that of one last layer with weights; name the place: "
            "thinned.insert(model, rate, before=...)"
        )
    source = "before the layer that computes the output: Hinton et al. 2012"
    return Policy(tuple(rules), (*notes, source))


def depth(model: nn.Module | Trace, *inputs: Any, rate: float = 0.5, **named: Any) -> Policy:
    """Return the policy "depth": drop path on every residual branch, at rates that grow with depth.

    The branches of block l of L are dropped at the rate l / L * ``rate``. A residual branch is
    found at the addition that ends it: it is added to a value from which it was computed. Branches
    that the code of one module adds are one block; each turn of a loop is a block too. Drop path
    and stochastic depth layers that end a branch have their rates set; other branches get a layer
    just before the addition. ``notes`` say where one place serves several additions.

    Args:
        model: The model, or the trace of a pass.
        *inputs: The inputs of the model by position.
        rate: The rate of the deepest block, in [0, 1].
        **named: The inputs of the model by name.

    Returns:
        The rules, one for each branch.

    Raises:
        InputError: Where the model has no residual branch, or inputs are missing.

    Reference:
        Huang, Sun, Liu, Sedra, Weinberger 2016, "Deep networks with stochastic depth", equation 4.
        Here each example has its own Bernoulli draw, and kept branches are scaled while training,
        as in timm and torchvision.
    """
    trace = _trace(model, inputs, named)
    rules = depth_rules(trace, rate)
    if not rules:
        raise InputError(
            "no residual branch was found in this model: nothing is added to a value from which "
            "it was computed"
        )
    note = f"residual branches, from {rules[0].rate:g} to {rate:g}: Huang et al. 2016"
    return Policy(tuple(rules), (note, *shared_place_notes(trace)))


def input(model: nn.Module | Trace, *inputs: Any, rate: float = 0.2, **named: Any) -> Policy:
    """Return the policy "input": dropout on the first input of the model.

    Args:
        model: The model, or the trace of a pass.
        *inputs: The inputs of the model by position.
        rate: The probability of dropping, in [0, 1].
        **named: The inputs of the model by name.

    Returns:
        One rule.

    Raises:
        InputError: Where the first input holds whole numbers (drop their embedding instead), or
            inputs are missing.

    Reference:
        Srivastava et al. 2014: 0.2 for inputs of real numbers.
    """
    placed = input_rule(_trace(model, inputs, named), rate)
    if placed is None:
        raise InputError(
            "the first input of the model is not a tensor of real numbers; drop the result of its "
            "embedding: thinned.insert(model, rate, after=torch.nn.Embedding)"
        )
    rules, notes = placed
    if not rules:
        raise InputError("; ".join(notes))
    return Policy(tuple(rules), ("on the input: Srivastava et al. 2014",))


def paper(
    model: nn.Module | Trace, *inputs: Any, rate: float | None = None, **named: Any
) -> Policy:
    """Return the policy "paper": what the paper of this kind of network did.

    ``notes`` name the kind that was recognized, by what, and the source:

    * Graph convolutions: 0.5 before each (Kipf and Welling 2017).
    * Recurrent language models: 0.4 locked in time after the embedding and after the recurrent
      layers, 0.25 between them (Merity et al. 2018).
    * Attention on tokens: 0.1 on the ends of residual branches, on the sum of embeddings and on
      attention weights (Vaswani et al. 2017).
    * Attention on patches: drop path to 0.1 (Touvron et al. 2021).
    * Convolutions with residual branches: stochastic depth to 0.5 (Huang et al. 2016).
    * Convolutions without branches, and several linear layers: 0.5 after hidden linear layers
      (Krizhevsky et al. 2012).
    * Linear layers only: 0.2 on the input, 0.5 on hidden units (Srivastava et al. 2014).

    Args:
        model: The model, or the trace of a pass.
        *inputs: The inputs of the model by position.
        rate: None, because the papers give the rates.
        **named: The inputs of the model by name.

    Returns:
        The rules, with the source in ``notes``.

    Raises:
        InputError: Where the model is of none of these kinds, a rate is given, or inputs are
            missing.
    """
    if rate is not None:
        raise InputError(
            "the policy 'paper' has rates of its own; leave rate out, or use another policy"
        )
    return families.paper(_trace(model, inputs, named))


def _trace(model: nn.Module | Trace, inputs: Any, named: dict[str, Any]) -> Trace:
    if isinstance(model, Trace):
        return model
    if not inputs and not named:
        raise InputError(
            "an automatic policy runs the model; pass its inputs: "
            'thinned.apply(model, "hidden", x, rate=0.5)'
        )
    return trace_model(model, inputs, named)


AUTOMATIC = {"hidden": hidden, "head": head, "depth": depth, "input": input, "paper": paper}


def automatic(
    name: str, model: nn.Module | Trace, inputs: Any, named: dict[str, Any], rate: float | None
) -> Policy:
    """Return the automatic policy of a name, at ``rate`` or, where that is None, its own rate."""
    settings = {} if rate is None else {"rate": probability(rate, "rate")}
    return AUTOMATIC[name](model, *inputs, **settings, **named)
