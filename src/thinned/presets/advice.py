"""When a method is worth trying, what it costs beside the network without it, and what to avoid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Advice:
    """``use``: where it is meant for. ``cost``: in time or memory. ``avoid``: where it fails, and
    its usual mistakes.
    """

    use: str
    cost: str
    avoid: str


ADVICE: Mapping[str, Advice] = MappingProxyType(
    {
        "dropout": Advice(
            "Large fully connected layers that fit their training data much better than new data.",
            "One fused pass; two to three times as many epochs until the best loss.",
            "Few data for few parameters, one pass over much data, the layer before batch normalisation, the output itself.",
        ),
        "gaussian_dropout": Advice(
            "Where noise is wanted but no exact zeros, such as before a layer that is sensitive to them.",
            "A fused pass, about twice dropout's while the tensor fits in cache.",
            "Hopes of sparsity or of saved computation: nothing is zeroed.",
        ),
        "uniform_dropout": Advice(
            "Noise before batch normalisation, whose variance it hardly shifts.",
            "As Gaussian dropout.",
            "Strong regularization: at the usual 0.1 it does little.",
        ),
        "alpha_dropout": Advice(
            "SELU networks with LeCun-normal weights.",
            "One fused pass.",
            "Any other activation: then its fill and its shift are only a bias.",
        ),
        "feature_alpha_dropout": Advice(
            "SELU networks of convolutions.",
            "One fused pass.",
            "Any other activation.",
        ),
        "standout": Advice(
            "Fully connected layers where the strength of a unit should say how likely it stays.",
            "A uniform number an element, a sigmoid, and autograd through it.",
            "A hurry: the rates move with the weights, so results depend more on the learning rate.",
        ),
        "jumpout": Advice(
            "ReLU networks whose layers differ much in how sparse they are.",
            "A mean over the layer and a mask in torch's operations.",
            "Activations other than ReLU; tiny batches, whose share of active units is noisy.",
        ),
        "fast_dropout": Advice(
            "Wide linear or shallow ReLU models where drawing is too noisy, such as text with many features.",
            "Two matrix products instead of one; nothing is drawn.",
            "Few inputs, where sums are not Gaussian; deep or convolutional networks.",
        ),
        "batchwise_dropout": Advice(
            "Wide layers where whole columns of a product could be left out.",
            "One coin a unit instead of one an element.",
            "High rates: examples no longer average over masks, so gradients are noisy.",
        ),
        "thinned": Advice(
            "Wide linear layers whose training time counts: thinned.thin(model) makes their products smaller.",
            "Less than no dropout where products dominate: a quarter of a hidden product at 0.5, and copies of what stays.",
            "Dropout's rates untuned (0.3 stands for about 0.5); narrow layers and small batches, where copies dominate.",
        ),
        "spatial_dropout": Advice(
            "Early and middle convolutions, and sequences of features.",
            "As dropout, with one coin a channel.",
            "Layers of few channels, and features on the last axis: Dropout1d to 3d drop axis 1.",
        ),
        "drop_block": Advice(
            "Convolutional networks with large maps, late stages first, with a ramp up from 0.",
            "2.5 times a ReLU; no mask is kept.",
            "Maps not much larger than the block; code that puts seeds anywhere, which drops far more than it says.",
        ),
        "disout": Advice(
            "As DropBlock, where zeros are too harsh.",
            "DropBlock and a normal number an element.",
            "A claim of theory: the strength is a free constant.",
        ),
        "cutout": Advice(
            "Images with one object, together with flips and crops.",
            "A few operations on the input.",
            "Small objects, dense labels, and audio or text without thought.",
        ),
        "max_pool_dropout": Advice(
            "Networks that pool by maximum and overfit in their convolutions.",
            "A mask in training; a sort of each window in evaluation.",
            "Inputs below 0, and plain maximum pooling in evaluation.",
        ),
        "weighted_channel_dropout": Advice(
            "Fine-tuning on small image sets.",
            "A mean of each channel and a sort of channels.",
            "Training from scratch, where the scores mean nothing yet.",
        ),
        "drop_connect": Advice(
            "Fully connected layers of ReLU networks, as a rival of dropout.",
            "A mask of batch x out x in (or two products with sampling='moments').",
            "Convolutions with a mask for each example; sigmoid networks, where dropout did better in the paper.",
        ),
        "mixout": Advice(
            "Fine-tuning a large pretrained model on few examples.",
            "A second copy of the weights and a mask of their size each step.",
            "Training from scratch: its anchor would be the random start.",
        ),
        "shakeout": Advice(
            "Fully connected layers whose weights should become sparse.",
            "A second product with the signs.",
            "Large c: the penalty then outweighs the loss.",
        ),
        "targeted_dropout": Advice(
            "Networks that will be pruned by magnitude afterwards.",
            "A search for the smallest weights each step.",
            "Networks that will not be pruned: evaluation drops the candidates.",
        ),
        "targeted_unit_dropout": Advice(
            "Networks whose whole units or filters will be pruned.",
            "A norm of each unit each step.",
            "Networks that will not be pruned.",
        ),
        "lora_dropout": Advice(
            "Fine-tuning by low-rank updates on few examples.",
            "One fused pass over the input of the small path.",
            "Long training on much data, where it slows learning.",
        ),
        "dare": Advice(
            "Merging several models that were fine-tuned from one.",
            "Once, a mask of the weights.",
            "Deltas that are large beside the weights: then 0.9 destroys what was learned.",
        ),
        "concrete_dropout": Advice(
            "Rates of many layers that cannot be searched, and uncertainty of regression.",
            "Logs and sigmoids an element; a mask that is kept for the gradient.",
            "Reading the learned rate as a probability of exact zeros; the 2/3 temperature without unbiased=True.",
        ),
        "variational_dropout": Advice(
            "Learning how much Gaussian noise each unit bears.",
            "A normal number an element.",
            "A Bayesian reading: the prior is improper.",
        ),
        "sparse_variational_dropout": Advice(
            "Finding most weights of a network unnecessary, in one training.",
            "Twice the products, twice the parameters, and a slow warm-up of its price.",
            "Adding the whole price from the first step: everything is pruned.",
        ),
        "information_dropout": Advice(
            "Representations that should forget what is irrelevant, such as clutter.",
            "A second convolution for the noise.",
            "Comparing losses between betas: the price is part of them.",
        ),
        "drop_path": Advice(
            "Residual networks and transformers, with rates that grow with depth.",
            "One coin an example.",
            "Networks without skip connections: the example is lost.",
        ),
        "stochastic_depth": Advice(
            "Very deep residual networks; one coin for the batch saves the branch's computation.",
            "One coin; evaluation multiplies by 1 - p.",
            "Shallow networks.",
        ),
        "layer_drop": Advice(
            "Deep transformers that will be pruned to several depths.",
            "Less than without it: skipped layers do not run in eager code.",
            "Layers without a skip connection; distributed training without find_unused_parameters.",
        ),
        "shake_drop": Advice(
            "Pyramidal and other residual networks of one branch, long training.",
            "Two uniform numbers an example.",
            "Short training: it needs many epochs.",
        ),
        "shake_shake": Advice(
            "Residual networks of two equal branches on small images, long training.",
            "Two uniform numbers an example, and twice the branches.",
            "Short training; gradient checks, which it fails on purpose.",
        ),
        "swapout": Advice(
            "Residual networks as an ensemble over depth and width at once.",
            "Two masks an element.",
            "One pass without sampling in evaluation, if the last tenth matters: the paper averages 30.",
        ),
        "locked_dropout": Advice(
            "Inputs and outputs of recurrent layers.",
            "One coin an example and feature.",
            "Very short sequences, where it is dropout.",
        ),
        "variational_rnn_dropout": Advice(
            "Recurrent networks on sequences of some length, with Monte Carlo estimates of uncertainty.",
            "A loop over steps: 1.3 to 1.9 times torch's fused LSTM.",
            "Speed; then use locked dropout and weight-drop.",
        ),
        "weight_drop": Advice(
            "LSTM language models; with locked dropout it is AWD-LSTM.",
            "1.06 times the plain LSTM's step.",
            "Recipes that set the attribute of torch's module: they lose the gradient or the weight.",
        ),
        "recurrent_dropout": Advice(
            "LSTM and GRU whose memory must last over many steps.",
            "A loop over steps.",
            "Classic weights without their evaluation: the scale is classic, as in the paper.",
        ),
        "rnn_drop": Advice(
            "Speech, as in the paper.",
            "A loop over steps.",
            "Long sequences: the memory fades by 1 - p at each step of evaluation.",
        ),
        "zoneout": Advice(
            "Recurrent networks on long sequences, character models.",
            "A loop over steps and a mask at each.",
            "High rates of the hidden state: 0.05 is usual there.",
        ),
        "embedding_dropout": Advice(
            "Language models with large vocabularies.",
            "One coin a word.",
            "Small vocabularies whose every word matters, such as nucleotides.",
        ),
        "word_dropout": Advice(
            "Bags of words, and decoders that should rely on the latent code.",
            "One coin a token.",
            "Tokens that carry structure; ids without a meaning for unknown.",
        ),
        "token_dropout": Advice(
            "Encoders of text or sets whose tokens are redundant.",
            "One coin a token.",
            "Short inputs, and class tokens: they fall too.",
        ),
        "patch_dropout": Advice(
            "Vision transformers on many patches.",
            "Less than without it: at 0.5 about half the computation.",
            "Few patches; dense prediction, where every patch has a label.",
        ),
        "hidden_cut": Advice(
            "Fine-tuning text encoders on few examples.",
            "One span an example.",
            "Padding-heavy batches: the span may fall on padding.",
        ),
        "attention_dropout": Advice(
            "Transformers trained over many epochs on little data.",
            "A mask of all scores: torch's fused attention cannot run.",
            "One pass over much data; dropout_p set in evaluation, which torch obeys.",
        ),
        "drop_key": Advice(
            "Vision transformers, as an attention dropout whose rows still sum to 1.",
            "As attention dropout.",
            "A mask applied before it whose only allowed key may fall in your own code.",
        ),
        "drop_head": Advice(
            "Transformers whose heads are redundant, and before pruning heads.",
            "One coin a head.",
            "Few heads.",
        ),
        "droq": Advice(
            "Off-policy control with many updates a step.",
            "Layer normalisation and two networks instead of ten.",
            "Rates above a few percent; forgetting that target networks draw too.",
        ),
        "consistent_dropout": Advice(
            "Policy gradients with dropout: the update sees the rollout's masks.",
            "A key a call, no mask.",
            "Off-policy replay, where old masks say nothing.",
        ),
        "drop_edge": Advice(
            "Deep graph networks on dense enough graphs.",
            "A coin an edge, and a new normalisation.",
            "Sparse graphs that fall apart; a normalisation made before the edges fall.",
        ),
        "drop_node": Advice(
            "Semi-supervised graphs with few labels, as in GRAND.",
            "One coin a node.",
            "Graphs whose nodes carry no redundant features.",
        ),
        "drop_message": Advice(
            "Graph networks in general, as the finest of the three.",
            "One coin an element of each message.",
            "Implementations that fuse messages and sums, where messages never exist.",
        ),
        "annealed": Advice(
            "Training that should end without noise.",
            "Nothing.",
            "Long schedules measured at their middle: compare at the end.",
        ),
        "curriculum": Advice(
            "Training that should start easy.",
            "Nothing.",
            "A gamma that is not tied to the number of steps.",
        ),
        "early": Advice(
            "Underfitting networks: small for their data.",
            "Nothing.",
            "Overfitting ones; later studies saw no gain in language models.",
        ),
        "late": Advice(
            "Overfitting networks whose start is slow under noise.",
            "Nothing.",
            "Short training, which may end before it starts.",
        ),
        "scheduled_drop_path": Advice(
            "Searched cells and deep residual networks.",
            "Nothing.",
            "A ramp that ends after training does.",
        ),
        "r_drop": Advice(
            "Fine-tuning and translation, with a second pass for consistency.",
            "Two passes a step.",
            "Rate 0, where it does nothing; a divergence summed over the batch instead of averaged.",
        ),
        "fraternal": Advice(
            "Recurrent language models.",
            "Two passes a step.",
            "A kappa from another scale of logits.",
        ),
        "multi_sample": Advice(
            "Heads on costly features.",
            "The head once more for each sample, the features once.",
            "A hope of more regularization: averaging masks takes some away.",
        ),
        "monte_carlo": Advice(
            "Uncertainty of a network that was trained with dropout.",
            "One pass a sample, 30 to 100 of them.",
            "model.train(), which moves batch normalisation too; networks without dropout, whose samples agree.",
        ),
    }
)
