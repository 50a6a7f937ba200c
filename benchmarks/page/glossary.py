"""Glossary: the words of the page, a line each."""

from __future__ import annotations

GLOSSARY: tuple[tuple[str, str], ...] = (
    ("sparsity", "The share of the dense network's convolution and linear weights that are zero."),
    ("channel sparsity", "The share of the channels that may leave which have left."),
    (
        "masked, slim, dense",
        "The full-size network with zeros; the same function cut small; the original without zeros.",
    ),
    ("MAC", "One multiply and one add; counted per image, for the forward pass. FLOPs are twice as many."),
    ("theoretical MACs", "Every zero weight is credited, though no common runtime skips it."),
    ("GPU-supported MACs", "The dense arithmetic on the shapes that remain: what a processor really executes."),
    (
        "MACs of the training",
        "Three forward passes per image and step, and the gradients of all weights where zeros are to grow. "
        "GPU-supported counts channels until they are cut out, though they may be masked before.",
    ),
    ("latency", "The time from the call to finished work, for one batch. p50, p90 and p99 are its percentiles."),
    ("throughput", "Images per second in a loop of its own that does not wait between calls."),
    ("variation", "Standard deviation over mean of the timed calls; above 0.3 something disturbed them."),
    ("clock", "Host: the time that passes. CPU: processor time, which does not count what other programs do."),
    ("speed-up", "The median over rounds of dense time over slim time; both are timed in every round."),
    ("95 % interval", "Where that median would lie in 95 of 100 repetitions; from resampling the rounds."),
    ("no difference", "The interval comes within 2 % of 1, which two runs of one program differ by."),
    ("efficiency", "The speed-up over the MAC ratio: 1 where every multiplication saved is time saved."),
    ("agreement", "The share of test images that get the same top-1 answer as from the reference network."),
    ("flipped", "The number of test images that get another top-1 answer than from the reference network."),
    ("worst logit error", "The largest absolute difference of any output to the reference network."),
    ("enqueue time", "Until the call returns; where it nears the GPU's own time, the host is what limits."),
    ("aligned width", "A multiple of 8 channels; other widths make several runtimes leave their fast kernels."),
    ("compressed", "The size of the file after DEFLATE, as a download would have it."),
)
