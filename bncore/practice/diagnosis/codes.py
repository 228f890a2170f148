"""What can be found in a network with batch norm: each code in one line, with why and what to do."""

from typing import Literal, NamedTuple

Severity = Literal["error", "warning", "note"]
SEVERITIES = ("error", "warning", "note")


class Code(NamedTuple):
    """One kind of finding.

    Attributes
    ----------
    code : str
    severity : {"error", "warning", "note"}
        That of most findings of the kind; a note is no fault, and torch's defaults bring it about.
    definition : str
    why, remedy : str
    link : str
        The section of the book that shows it, from the front page.
    """

    code: str
    severity: Severity
    definition: str
    why: str
    remedy: str

    @property
    def link(self) -> str:
        return f"practice/symptoms.html#{self.code}"


CODES = {
    one.code: one
    for one in (
        Code(
            "not-finite",
            "error",
            "A parameter, a running statistic, an input of a batch norm or an output is NaN or "
            "infinite, or a running variance is negative.",
            "One such value makes the statistics of its whole batch not finite, and a running average "
            "never forgets it.",
            "Restore a checkpoint from before, or reset the statistics and estimate them again; then "
            "look for what overflowed first.",
        ),
        Code(
            "wrong-axis",
            "error",
            "The axis that a batch norm normalises is not the one on which the layer before it puts "
            "its features.",
            "Batch norm takes axis 1 for the features; a linear layer puts them on the last axis. So "
            "positions get statistics, and features share them.",
            "Move the features to axis 1 before the batch norm, x.transpose(1, 2), and back after it.",
        ),
        Code(
            "few-values",
            "warning",
            "A batch has fewer than 8 values of a feature: its mean is off by more than "
            "1 / sqrt(8) = 0.35 deviations.",
            "The mean of m values is off by 1 / sqrt(m) deviations. Of two values the gradient "
            "comes in rare bursts, from pairs that nearly agree; one is normalised to 0 whatever it is.",
            "Make batches larger or synchronise devices; from 4 values on batch renormalization closes the "
            "gap to evaluation. Of 1 or 2 normalise over something else, or freeze the statistics.",
        ),
        Code(
            "half-frozen",
            "warning",
            "Of a batch norm's two parts, statistics and affine map, one is frozen while the other "
            "moves.",
            "model.train() and requires_grad are two switches: with one alone the layer changes under "
            "weights that rely on it.",
            "Freeze both parts or neither: bncore.practice.freezing.freeze does it so that "
            "model.train() does not undo it. Statistics frozen on purpose may stay so.",
        ),
        Code(
            "stale-statistics",
            "warning",
            "What is left of the initial mean 0 and variance 1 moves the running statistics by over "
            "half a deviation, or by less that harms the outputs.",
            "After n updates with momentum a the initial values still weigh (1 - a)^n.",
            "Take a larger momentum, train for more steps, or estimate the statistics again: "
            "bncore.practice.recalibration.",
        ),
        Code(
            "shifted-input",
            "warning",
            "The first batch norms meet other data than their running statistics describe; those "
            "behind them agree better.",
            "The first running statistics are those of the training data. What is prepared otherwise, "
            "pixels up to 255 instead of 1, say, is normalised by the wrong numbers.",
            "Prepare the data as in training. If they are meant to differ, estimate the statistics on "
            "them: bncore.practice.recalibration. If the data are the same, the weights before these "
            "layers have changed since.",
        ),
        Code(
            "train-eval-gap",
            "warning",
            "Beyond what sampling explains running statistics are off by half a deviation, at the layer "
            "or the outputs, or lose 2 % of the answers.",
            "In evaluation the layer then computes something else than in training, and what follows "
            "meets inputs that it was not trained on.",
            "Estimate the statistics again with the weights as they are: "
            "bncore.practice.recalibration. Let the learning rate fall before the end, and shuffle.",
        ),
        Code(
            "dropout-before",
            "warning",
            "Dropout reaches a batch norm with no normalisation between, and changes the variance that "
            "it meets by 5 % or more.",
            "Dropout adds variance in training, which the running variance keeps, and none in use, so "
            "that values come out too small.",
            "Put dropout behind the last batch norm.",
        ),
        Code(
            "reused-layer",
            "warning",
            "One batch norm is called more than once in a forward pass, on inputs over a quarter of a "
            "deviation apart.",
            "In training each call has its own statistics; in evaluation both share one running "
            "average, which fits neither.",
            "Give each place a batch norm of its own.",
        ),
        Code(
            "dead-feature",
            "warning",
            "More than a tenth of a layer's features are constant over all batches, or have gamma 0 to "
            "rounding.",
            "A constant feature is normalised to 0, and what gamma multiplies by 0 is gone: beta is all "
            "that is left of it.",
            "Look for units that never fire in front, too high a rate or too strong a decay of gamma; "
            "make the layer narrower if they are not needed.",
        ),
        Code(
            "epsilon-rules",
            "warning",
            "More than a tenth of a layer's features vary, but with a variance of at most eps.",
            "The layer divides by sqrt(variance + eps): such features come out small, and their scale "
            "is eps's, so that the weights' scale matters again.",
            "Make eps smaller, or keep the weights in front from shrinking.",
        ),
        Code(
            "low-precision",
            "warning",
            "Running statistics or parameters of a batch norm are kept in half precision.",
            "An update smaller than half a unit in the last place is lost, and float16 overflows at "
            "65504.",
            "Keep batch norms in float32: autocast does; after model.half() call .float() on them.",
        ),
        Code(
            "unsynchronised",
            "warning",
            "Several devices divide the batch, and a batch norm takes statistics on each of them alone.",
            "Each device sees its part of the batch only, and keeps running statistics of its own.",
            "Use torch.nn.SyncBatchNorm.convert_sync_batchnorm under DistributedDataParallel, or give "
            "each device enough examples.",
        ),
        Code(
            "redundant-bias",
            "note",
            "The layer in front adds a bias, and nothing else takes its output.",
            "The batch norm subtracts the mean, and the bias with it.",
            "bias=False in the layer in front; beta is the bias.",
        ),
        Code(
            "decayed-affine",
            "note",
            "The optimiser decays gamma or beta.",
            "Decay of the weights in front of a batch norm only sets the rate; that of gamma and beta "
            "shrinks what the layer computes.",
            "Give gamma and beta a parameter group with weight_decay=0.",
        ),
    )
}
"""By code, in the order in which causes come before what follows from them."""
