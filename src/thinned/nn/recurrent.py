"""Dropout in recurrent networks: one layer for all methods, and one named after each method."""

from __future__ import annotations

from typing import Literal

from torch import nn

from ..algebra.schedule import Schedule
from .state_layer import StateLayer


class DropState(StateLayer):
    """Dropout in all places of torch's LSTM, GRU or RNN: inputs, outputs, weights and states.

    Input, initial state and result are those of torch: ``layer(input, state)`` returns ``(output,
    state)``, for [t, b, d], or [b, t, d] with ``batch_first``, or a packed sequence. The parameters
    keep their names, so checkpoints load both ways. Masks of activations are keyed by sample ids,
    those of weights by the call. A packed sequence has the masks of the padded batch, in the
    original order of its examples; so the backward direction counts steps from the end of the
    padded batch. The classes named after the methods, such as :class:`VariationalRNNDropout`, set
    one of them up.

    x_t is the input, h_t the state, c_t the memory of an LSTM, and m a mask. What ``states`` drops
    depends on ``method``:

    - "variational": m h_{t-1} where it meets W_hh, with one m for all steps.
    - "recurrent": c_t = f_t c_{t-1} + m i_t g_t; in a GRU h_t = z_t h_{t-1} + (1 - z_t) m n_t.
      What is remembered is never dropped.
    - "rnndrop": c_t = m (f_t c_{t-1} + i_t g_t), with one m for all steps.
    - "zoneout": h_t = h_{t-1} + m_t (h'_t - h_{t-1}), with h' the new state and m drawn at every
      step; the same for c_t at the rate ``cells``. h'_t is computed from the new c_t before its own
      zoneout.
    - "thinned": m h_t as output and where it meets W_hh, with one m for all steps and examples,
      which keeps a fixed number of units. No dropped unit is computed: torch's kernel runs on the
      kept ones, so a step costs about the square of the kept share. The returned states are 0 at
      dropped units. ``outputs`` and ``between`` add to it.

    Each rate is in [0, 1] or a schedule; 0 drops nothing. ``p`` reads the largest rate, and setting
    it sets the rate of every place that drops.

    Args:
        module: A ``torch.nn.LSTM``, ``GRU`` or ``RNN``; its parameters are shared. With
            ``proj_size`` of an LSTM, h is the projected state: what drops h drops that.
        inputs: The rate of locked dropout on the input: one mask [b, d] for all steps.
        between: The rate of locked dropout between the layers of ``module``. None takes the
            ``dropout`` of the module, which drops elements in torch and is locked here.
        outputs: The rate of locked dropout on the output, not on the returned state.
        weights: The rate of weight-drop: W_hh m / (1 - p) in each layer and direction, with one m
            for the whole call. The parameters are never written to.
        states: The rate of ``method``.
        cells: The zoneout rate of the cells of an LSTM; None is that of the states. The paper uses
            0.05 for states and 0.5 for cells.
        method: What ``states`` drops.
        tied: For "variational": False draws a mask for each gate as well.
        per: For "recurrent": "step" (None) draws a mask at every step, "sequence" keeps it.
        scale: For "variational" and "recurrent": "inverted" divides m by 1 - p, and evaluation is
            the network itself; "classic" has 1 - p for m in evaluation. None is that of the paper:
            inverted for variational, classic for recurrent.
        locked: Whether ``between`` has one mask for all steps. False draws every element, as the
            ``dropout`` of torch's module does.

    Raises:
        InputError: Where ``module`` is another module, or the arguments do not fit together; in the
            forward pass for wrong shapes.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import thinned.nn as tnn
        >>> layer = tnn.DropState(nn.LSTM(6, 4), inputs=0.4, weights=0.5)
        >>> layer
        DropState(lstm, 6, 4, num_layers=1, inputs=0.4, weights=0.5)
        >>> output, (h, c) = layer(torch.ones(5, 2, 6))
        >>> output.shape
        torch.Size([5, 2, 4])

    Reference:
        Gal and Ghahramani 2016, "A theoretically grounded application of dropout in recurrent
        neural networks" (variational, inputs, between, outputs); Merity, Keskar, Socher 2018,
        "Regularizing and optimizing LSTM language models" (weights); and the papers of
        :class:`RecurrentDropout`, :class:`RNNDrop` and :class:`Zoneout`.
    """


class VariationalRNNDropout(StateLayer):
    """Variational recurrent dropout: one mask of the states for all steps of a sequence.

    Input, initial state and result are those of torch: ``layer(input, state)`` returns ``(output,
    state)``, for [t, b, d], or [b, t, d] with ``batch_first``, or a packed sequence. The parameters
    keep their names, so checkpoints load both ways. While training the state enters the recurrent
    weights as m h_{t-1} / (1 - p), with one mask m for each example and unit. The state that is
    returned and kept is not dropped.

    Args:
        module: A ``torch.nn.LSTM``, ``GRU`` or ``RNN``; its parameters are shared.
        p: The probability of dropping a unit of the state, in [0, 1], or a schedule of it.
        inputs: The rate of locked dropout on the input: one mask [b, d] for all steps.
        between: The rate of locked dropout between the layers of ``module``. None takes the
            ``dropout`` of the module, which drops elements in torch and is locked here.
        outputs: The rate of locked dropout on the output, not on the returned state.
        tied: Whether the gates share the mask; False draws one for each gate as well.
        scale: "inverted"; or "classic", which has 1 - p for m in evaluation.

    Raises:
        InputError: Where an argument breaks a rule.

    Example:
        >>> from torch import nn
        >>> import thinned.nn as tnn
        >>> tnn.VariationalRNNDropout(nn.LSTM(6, 4), 0.3, inputs=0.3)
        VariationalRNNDropout(lstm, 6, 4, num_layers=1, inputs=0.3, states=0.3, method=variational)

    Reference:
        Gal and Ghahramani 2016, "A theoretically grounded application of dropout in recurrent
        neural networks".
    """

    def __init__(
        self,
        module: nn.RNNBase,
        p: float | Schedule = 0.5,
        *,
        inputs: float | Schedule = 0.0,
        between: float | Schedule | None = None,
        outputs: float | Schedule = 0.0,
        tied: bool = True,
        scale: Literal["inverted", "classic"] = "inverted",
    ) -> None:
        super().__init__(
            module,
            inputs=inputs,
            between=between,
            outputs=outputs,
            states=p,
            method="variational",
            tied=tied,
            scale=scale,
        )


class WeightDrop(StateLayer):
    """Weight-drop (AWD-LSTM): drops recurrent weights, with one mask for the whole call.

    Input, initial state and result are those of torch: ``layer(input, state)`` returns ``(output,
    state)``, for [t, b, d], or [b, t, d] with ``batch_first``, or a packed sequence. The parameters
    keep their names, so checkpoints load both ways. While training W_hh is m W_hh / (1 - p) in each
    layer and direction. The draws depend on the call, not on sample ids. The parameters are never
    written to, so each keeps its gradient.

    Args:
        module: A ``torch.nn.LSTM``, ``GRU`` or ``RNN``; its parameters are shared.
        p: The probability of dropping a recurrent weight, in [0, 1], or a schedule of it; 0.5 in
            the paper.
        inputs: The rate of locked dropout on the input: one mask [b, d] for all steps.
        between: The rate of locked dropout between the layers of ``module``. None takes the
            ``dropout`` of the module, which drops elements in torch and is locked here.
        outputs: The rate of locked dropout on the output, not on the returned state.

    Raises:
        InputError: Where an argument breaks a rule.

    Example:
        >>> from torch import nn
        >>> import thinned.nn as tnn
        >>> tnn.WeightDrop(nn.LSTM(6, 4, 2), 0.5, between=0.25)
        WeightDrop(lstm, 6, 4, num_layers=2, between=0.25, weights=0.5)

    Reference:
        Merity, Keskar, Socher 2018, "Regularizing and optimizing LSTM language models";
        :func:`thinned.functional.weight_drop`.
    """

    def __init__(
        self,
        module: nn.RNNBase,
        p: float | Schedule = 0.5,
        *,
        inputs: float | Schedule = 0.0,
        between: float | Schedule | None = None,
        outputs: float | Schedule = 0.0,
    ) -> None:
        super().__init__(module, inputs=inputs, between=between, outputs=outputs, weights=p)


class RecurrentDropout(StateLayer):
    """Recurrent dropout without memory loss: drops what an LSTM or GRU adds to its memory.

    Input, initial state and result are those of torch: ``layer(input, state)`` returns ``(output,
    state)``, for [t, b, d], or [b, t, d] with ``batch_first``, or a packed sequence. The parameters
    keep their names, so checkpoints load both ways. While training an LSTM computes c_t = f_t
    c_{t-1} + m i_t g_t, and a GRU h_t = z_t h_{t-1} + (1 - z_t) m n_t. What is remembered is never
    dropped.

    Args:
        module: A ``torch.nn.LSTM`` or ``GRU``; its parameters are shared.
        p: The probability of dropping, in [0, 1], or a schedule of it; in the paper 0.25 per step
            and 0.5 per sequence.
        per: "step" draws a mask at every step, "sequence" keeps one for all steps.
        inputs: The rate of locked dropout on the input: one mask [b, d] for all steps.
        between: The rate of locked dropout between the layers of ``module``. None takes the
            ``dropout`` of the module, which drops elements in torch and is locked here.
        outputs: The rate of locked dropout on the output, not on the returned state.
        scale: "classic", the paper's, has 1 - p for m in evaluation; "inverted" divides m by 1 - p
            while training.

    Raises:
        InputError: Where an argument breaks a rule.

    Example:
        >>> from torch import nn
        >>> import thinned.nn as tnn
        >>> tnn.RecurrentDropout(nn.GRU(6, 4), 0.25)
        RecurrentDropout(gru, 6, 4, num_layers=1, states=0.25, method=recurrent)

    Reference:
        Semeniuta, Severyn, Barth 2016, "Recurrent dropout without memory loss".
    """

    def __init__(
        self,
        module: nn.RNNBase,
        p: float | Schedule = 0.25,
        *,
        per: Literal["step", "sequence"] = "step",
        inputs: float | Schedule = 0.0,
        between: float | Schedule | None = None,
        outputs: float | Schedule = 0.0,
        scale: Literal["inverted", "classic"] = "classic",
    ) -> None:
        super().__init__(
            module,
            inputs=inputs,
            between=between,
            outputs=outputs,
            states=p,
            method="recurrent",
            per=per,
            scale=scale,
        )


class RNNDrop(StateLayer):
    """RNNDrop: drops units of the memory of an LSTM, with one mask for all steps.

    Input, initial state and result are those of torch: ``layer(input, state)`` returns ``(output,
    state)``, for [t, b, d], or [b, t, d] with ``batch_first``, or a packed sequence. The parameters
    keep their names, so checkpoints load both ways. While training c_t = m (f_t c_{t-1} + i_t g_t).
    In evaluation 1 - p replaces m, so memory there fades by this factor at every step. Dividing by
    1 - p while training, as ports of the method do, makes it grow instead.

    Args:
        module: A ``torch.nn.LSTM``; its parameters are shared.
        p: The probability of dropping a cell, in [0, 1], or a schedule of it.
        inputs: The rate of locked dropout on the input: one mask [b, d] for all steps.
        between: The rate of locked dropout between the layers of ``module``. None takes the
            ``dropout`` of the module, which drops elements in torch and is locked here.
        outputs: The rate of locked dropout on the output, not on the returned state.

    Raises:
        InputError: Where an argument breaks a rule.

    Example:
        >>> from torch import nn
        >>> import thinned.nn as tnn
        >>> tnn.RNNDrop(nn.LSTM(6, 4), 0.2)
        RNNDrop(lstm, 6, 4, num_layers=1, states=0.2, method=rnndrop)

    Reference:
        Moon, Choi, Lee, Song 2015, "RNNDROP: a novel dropout for RNNs in ASR".
    """

    def __init__(
        self,
        module: nn.LSTM,
        p: float | Schedule = 0.2,
        *,
        inputs: float | Schedule = 0.0,
        between: float | Schedule | None = None,
        outputs: float | Schedule = 0.0,
    ) -> None:
        super().__init__(
            module, inputs=inputs, between=between, outputs=outputs, states=p, method="rnndrop"
        )


class Zoneout(StateLayer):
    """Zoneout: units of the state keep their previous value with probability ``p``.

    Input, initial state and result are those of torch: ``layer(input, state)`` returns ``(output,
    state)``, for [t, b, d], or [b, t, d] with ``batch_first``, or a packed sequence. The parameters
    keep their names, so checkpoints load both ways. While training h_t = h_{t-1} + m_t (h'_t -
    h_{t-1}), where h' is the new state and m is drawn at every step; the cells of an LSTM likewise.
    In evaluation 1 - p replaces m.

    Args:
        module: A ``torch.nn.LSTM``, ``GRU`` or ``RNN``; its parameters are shared.
        p: The probability that a unit of the state keeps its value, in [0, 1], or a schedule of it.
        cell_p: That of the cells of an LSTM; None is ``p``. The paper uses 0.05 and 0.5.
        inputs: The rate of locked dropout on the input: one mask [b, d] for all steps.
        between: The rate of locked dropout between the layers of ``module``. None takes the
            ``dropout`` of the module, which drops elements in torch and is locked here.
        outputs: The rate of locked dropout on the output, not on the returned state.

    Raises:
        InputError: Where an argument breaks a rule.

    Example:
        >>> from torch import nn
        >>> import thinned.nn as tnn
        >>> tnn.Zoneout(nn.LSTM(6, 4), 0.05, cell_p=0.5)
        Zoneout(lstm, 6, 4, num_layers=1, states=0.05, cells=0.5, method=zoneout)

    Reference:
        Krueger et al. 2017, "Zoneout: regularizing RNNs by randomly preserving hidden activations";
        :func:`thinned.functional.zoneout`.
    """

    def __init__(
        self,
        module: nn.RNNBase,
        p: float | Schedule = 0.05,
        *,
        cell_p: float | Schedule | None = None,
        inputs: float | Schedule = 0.0,
        between: float | Schedule | None = None,
        outputs: float | Schedule = 0.0,
    ) -> None:
        super().__init__(
            module,
            inputs=inputs,
            between=between,
            outputs=outputs,
            states=p,
            cells=cell_p,
            method="zoneout",
        )
