"""When each method is worth trying, what it costs, and what to avoid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """Advice on one method, each in one line.

    Args:
        use: What the method is meant for.
        cost: What it costs in time or memory, compared with the same network without it.
        avoid: Where it fails, and its usual mistakes.

    Example:
        >>> ADVICE["early"].use
        'Underfitting networks: small for their data.'
    """

    use: str
    cost: str
    avoid: str


ADVICE: Mapping[str, Advice] = MappingProxyType(
    {
        "dropout": Advice(
            use=(
                "Large fully connected layers that fit their training data much better than new "
                "data."
            ),
            cost="One fused pass; two to three times as many epochs until the best loss.",
            avoid=(
                "Little data for few parameters, a single pass over much data, the layer before "
                "batch normalization, and the output itself."
            ),
        ),
        "gaussian_dropout": Advice(
            use="Noise without exact zeros, such as before a layer that is sensitive to them.",
            cost="One fused pass, about twice that of dropout while the tensor fits in cache.",
            avoid="Expecting sparsity or saved computation: nothing is zeroed.",
        ),
        "uniform_dropout": Advice(
            use="Noise before batch normalization: it hardly shifts the variance.",
            cost="The same as Gaussian dropout.",
            avoid="Strong regularization: at the usual 0.1 it does little.",
        ),
        "alpha_dropout": Advice(
            use="SELU networks with LeCun-normal weights.",
            cost="One fused pass.",
            avoid="Any other activation: its fill and its shift are then only a bias.",
        ),
        "feature_alpha_dropout": Advice(
            use="Convolutional SELU networks.",
            cost="One fused pass.",
            avoid="Any other activation.",
        ),
        "standout": Advice(
            use=(
                "Fully connected layers where the activation of a unit should set how likely it "
                "is kept."
            ),
            cost="A uniform number for each element, a sigmoid, and autograd through it.",
            avoid=(
                "A tight tuning budget: the rates move with the weights, so results depend more "
                "on the learning rate."
            ),
        ),
        "jumpout": Advice(
            use="ReLU networks with layers that differ much in sparsity.",
            cost="A mean over the layer and a mask in torch operations.",
            avoid=(
                "Activations other than ReLU; tiny batches, where the share of active units is "
                "noisy."
            ),
        ),
        "fast_dropout": Advice(
            use=(
                "Wide linear or shallow ReLU models where sampling is too noisy, such as text "
                "with many features."
            ),
            cost="Two matrix products instead of one; nothing is drawn.",
            avoid="Few inputs, where sums are not Gaussian; deep or convolutional networks.",
        ),
        "batchwise_dropout": Advice(
            use="Wide layers where whole columns of a product could be left out.",
            cost="One draw for each unit instead of one for each element.",
            avoid="High rates: examples no longer average over masks, so gradients are noisy.",
        ),
        "thinned": Advice(
            use=(
                "Wide linear layers where training time matters: thinned.thin(model) makes "
                "their products smaller."
            ),
            cost=(
                "Less than no dropout where products dominate: a quarter of a hidden product at "
                "0.5, and copies of the kept units."
            ),
            avoid=(
                "Reusing the rate of dropout untuned (0.3 corresponds to about 0.5); narrow "
                "layers and small batches, where copies dominate."
            ),
        ),
        "spatial_dropout": Advice(
            use="Early and middle convolutions, and sequences of features.",
            cost="The same as dropout, with one draw for each channel.",
            avoid=(
                "Layers with few channels, and features on the last axis: Dropout1d to Dropout3d "
                "drop axis 1."
            ),
        ),
        "drop_block": Advice(
            use="Convolutional networks with large maps, late stages first, with a ramp up from 0.",
            cost="2.5 times a ReLU; no mask is stored.",
            avoid=(
                "Maps not much larger than the block; code that puts seeds anywhere, which drops "
                "far more than its rate."
            ),
        ),
        "disout": Advice(
            use="The same uses as DropBlock, where zeros are too harsh.",
            cost="DropBlock and a normal number for each element.",
            avoid="Reading theory into its strength: that is a free constant.",
        ),
        "cutout": Advice(
            use="Images with one object, together with flips and crops.",
            cost="A few operations on the input.",
            avoid="Small objects, dense labels, and audio or text without adapting it.",
        ),
        "max_pool_dropout": Advice(
            use="Networks that pool by maximum and overfit in their convolutions.",
            cost="A mask in training; a sort of each window in evaluation.",
            avoid="Inputs below 0, and ordinary maximum pooling in evaluation.",
        ),
        "weighted_channel_dropout": Advice(
            use="Fine-tuning on small image sets.",
            cost="A mean of each channel and a sort of channels.",
            avoid="Training from scratch, where the scores mean nothing yet.",
        ),
        "drop_connect": Advice(
            use="Fully connected layers of ReLU networks, as an alternative to dropout.",
            cost="A mask of batch x out x in (or two products with sampling='moments').",
            avoid=(
                "Convolutions with a mask for each example; sigmoid networks, where dropout did "
                "better in the paper."
            ),
        ),
        "mixout": Advice(
            use="Fine-tuning a large pretrained model on few examples.",
            cost="A second copy of the weights, and a mask of their size in each step.",
            avoid="Training from scratch: its anchor would be the random initial weights.",
        ),
        "shakeout": Advice(
            use="Fully connected layers with weights that should become sparse.",
            cost="A second product with the signs.",
            avoid="A large c: its penalty then outweighs the loss.",
        ),
        "targeted_dropout": Advice(
            use="Networks that will be pruned by magnitude afterwards.",
            cost="A search for the smallest weights in each step.",
            avoid="Networks that will not be pruned: evaluation drops the candidates.",
        ),
        "targeted_unit_dropout": Advice(
            use="Networks from which whole units or filters will be pruned.",
            cost="A norm of each unit in each step.",
            avoid="Networks that will not be pruned.",
        ),
        "lora_dropout": Advice(
            use="Fine-tuning by low-rank updates on few examples.",
            cost="One fused pass over the input of the low-rank path.",
            avoid="Long training on much data, where it slows learning.",
        ),
        "dare": Advice(
            use="Merging several models that were fine-tuned from one.",
            cost="A mask of the weights, drawn once.",
            avoid=(
                "Deltas that are large compared with the weights: 0.9 then destroys what was "
                "learned."
            ),
        ),
        "concrete_dropout": Advice(
            use="Rates of many layers that cannot be searched, and uncertainty in regression.",
            cost=(
                "Logarithms and sigmoids for each element; a mask that is stored for the gradient."
            ),
            avoid=(
                "Reading the learned rate as a probability of exact zeros; the temperature of 2/3 "
                "without unbiased=True."
            ),
        ),
        "variational_dropout": Advice(
            use="Learning how much Gaussian noise each unit tolerates.",
            cost="A normal number for each element.",
            avoid="A Bayesian reading: the prior is improper.",
        ),
        "sparse_variational_dropout": Advice(
            use="Removing most weights of a network within one training run.",
            cost="Twice the products, twice the parameters, and a slow warm-up of its KL term.",
            avoid="Adding the whole KL term from the first step: everything is pruned.",
        ),
        "information_dropout": Advice(
            use="Representations that should forget what is irrelevant, such as clutter.",
            cost="A second convolution for the noise.",
            avoid="Comparing losses between betas: the KL term is part of them.",
        ),
        "drop_path": Advice(
            use="Residual networks and transformers, with rates that grow with depth.",
            cost="One draw for each example.",
            avoid="Networks without skip connections: a dropped example is lost.",
        ),
        "stochastic_depth": Advice(
            use=(
                "Very deep residual networks; one draw for the batch saves the computation of the "
                "branch."
            ),
            cost="One draw; evaluation multiplies by 1 - p.",
            avoid="Shallow networks.",
        ),
        "layer_drop": Advice(
            use="Deep transformers that will be pruned to several depths.",
            cost="Less than without it: skipped layers do not run in eager code.",
            avoid=(
                "Layers without a skip connection; distributed training without "
                "find_unused_parameters."
            ),
        ),
        "shake_drop": Advice(
            use="Pyramidal and other residual networks with one branch, and long training.",
            cost="Two uniform numbers for each example.",
            avoid="Short training: it needs many epochs.",
        ),
        "shake_shake": Advice(
            use="Residual networks with two equal branches on small images, and long training.",
            cost="Two uniform numbers for each example, and twice the branches.",
            avoid="Short training; gradient checks, which it fails on purpose.",
        ),
        "swapout": Advice(
            use="Residual networks as an ensemble over depth and width at once.",
            cost="Two masks for each element.",
            avoid=(
                "A single pass without sampling in evaluation, if the last tenth of a percent "
                "matters: the paper averages 30 passes."
            ),
        ),
        "locked_dropout": Advice(
            use="Inputs and outputs of recurrent layers.",
            cost="One draw for each example and feature.",
            avoid="Very short sequences, where it is dropout.",
        ),
        "variational_rnn_dropout": Advice(
            use=(
                "Recurrent networks on long enough sequences, with Monte Carlo estimates of "
                "uncertainty."
            ),
            cost="A loop over steps: 1.3 to 1.9 times the fused LSTM of torch.",
            avoid="Training speed as the first goal; use locked dropout and weight-drop there.",
        ),
        "weight_drop": Advice(
            use="LSTM language models; with locked dropout it is AWD-LSTM.",
            cost="1.06 times the step of an ordinary LSTM.",
            avoid=(
                "Recipes that set the attribute of the torch module: they lose the gradient or "
                "the weight."
            ),
        ),
        "recurrent_dropout": Advice(
            use="LSTM and GRU networks that have to remember over many steps.",
            cost="A loop over steps.",
            avoid=(
                "Using its weights without its evaluation: the scale is classic, as in the paper."
            ),
        ),
        "rnn_drop": Advice(
            use="Speech, as in the paper.",
            cost="A loop over steps.",
            avoid="Long sequences: the memory fades by 1 - p at each step of evaluation.",
        ),
        "zoneout": Advice(
            use="Recurrent networks on long sequences, and character models.",
            cost="A loop over steps and a mask at each.",
            avoid="High rates of the hidden state: 0.05 is usual there.",
        ),
        "embedding_dropout": Advice(
            use="Language models with large vocabularies.",
            cost="One draw for each word of the vocabulary.",
            avoid="Small vocabularies where every word matters, such as nucleotides.",
        ),
        "word_dropout": Advice(
            use="Bags of words, and decoders that should rely on the latent code.",
            cost="One draw for each token.",
            avoid="Tokens that carry structure; vocabularies without an id for unknown words.",
        ),
        "token_dropout": Advice(
            use="Encoders of text or sets with redundant tokens.",
            cost="One draw for each token.",
            avoid="Short inputs, and class tokens: they are dropped too.",
        ),
        "patch_dropout": Advice(
            use="Vision transformers on many patches.",
            cost="Less than without it: at 0.5 about half the computation.",
            avoid="Few patches; dense prediction, where every patch has a label.",
        ),
        "hidden_cut": Advice(
            use="Fine-tuning text encoders on few examples.",
            cost="One span for each example.",
            avoid="Batches with much padding: the span may cover only padding.",
        ),
        "attention_dropout": Advice(
            use="Transformers trained over many epochs on little data.",
            cost="A mask of all scores: the fused attention of torch cannot run.",
            avoid=(
                "A single pass over much data; dropout_p left on in evaluation, which torch obeys."
            ),
        ),
        "drop_key": Advice(
            use="Vision transformers, as an attention dropout with rows that still sum to 1.",
            cost="The same as attention dropout.",
            avoid=(
                "Your own masks with a single allowed key for a query, where that key may be "
                "dropped."
            ),
        ),
        "drop_head": Advice(
            use="Transformers with redundant heads, and before pruning heads.",
            cost="One draw for each head.",
            avoid="Few heads.",
        ),
        "droq": Advice(
            use="Off-policy control with many updates for each environment step.",
            cost="Layer normalization, and two networks instead of ten.",
            avoid="Rates above a few percent; forgetting that target networks draw too.",
        ),
        "consistent_dropout": Advice(
            use="Policy gradients with dropout: the update sees the masks of the rollout.",
            cost="One key for each call; no mask is stored.",
            avoid="Off-policy replay, where old masks carry no information.",
        ),
        "drop_edge": Advice(
            use="Deep graph networks on dense enough graphs.",
            cost="One draw for each edge, and a new normalization.",
            avoid=(
                "Sparse graphs that become disconnected; a normalization computed before edges "
                "are dropped."
            ),
        ),
        "drop_node": Advice(
            use="Semi-supervised graphs with few labels, as in GRAND.",
            cost="One draw for each node.",
            avoid="Graphs where nodes carry no redundant features.",
        ),
        "drop_message": Advice(
            use="Graph networks in general, as the finest of the three graph methods.",
            cost="One draw for each element of each message.",
            avoid="Implementations that fuse messages and sums, where messages never exist.",
        ),
        "annealed": Advice(
            use="Training that should end without noise.",
            cost="Nothing.",
            avoid="Comparing runs in the middle of a long schedule: compare them at the end.",
        ),
        "curriculum": Advice(
            use="Training that should start easy.",
            cost="Nothing.",
            avoid="A gamma that is not tied to the number of steps.",
        ),
        "early": Advice(
            use="Underfitting networks: small for their data.",
            cost="Nothing.",
            avoid="Overfitting networks; later studies saw no gain in language models.",
        ),
        "late": Advice(
            use="Overfitting networks that start slowly under noise.",
            cost="Nothing.",
            avoid="Short training, which may end before the dropout starts.",
        ),
        "scheduled_drop_path": Advice(
            use="Networks from architecture search and deep residual networks.",
            cost="Nothing.",
            avoid="A ramp that ends after training does.",
        ),
        "r_drop": Advice(
            use="Fine-tuning and translation, with a second pass for consistency.",
            cost="Two passes for each step.",
            avoid=(
                "Rate 0, where it does nothing; a divergence summed over the batch instead of "
                "averaged."
            ),
        ),
        "fraternal": Advice(
            use="Recurrent language models.",
            cost="Two passes for each step.",
            avoid="A kappa that was tuned for logits of another scale.",
        ),
        "multi_sample": Advice(
            use="Heads on costly features.",
            cost="The head runs once for each sample, the features once.",
            avoid="Expecting more regularization: averaging over masks takes some away.",
        ),
        "monte_carlo": Advice(
            use="Uncertainty of a network that was trained with dropout.",
            cost="One pass for each sample, 30 to 100 of them.",
            avoid=(
                "model.train(), which changes batch normalization too; networks without dropout, "
                "where all samples agree."
            ),
        ),
    }
)
