"""Where a kernel has its features and its inputs, in each framework's layout.

torch:  linear (features, inputs); convolution (features, inputs / groups, *kernel), transposed
        (inputs, features / groups, *kernel).
keras:  linear (inputs, features); convolution (*kernel, inputs / groups, features), transposed
        (*kernel, features, inputs); depthwise (*kernel, inputs, multiplier).
flax:   as keras, but transposed (*kernel, inputs, features), and depthwise by groups.
"""

import numpy as np

from bncore import arguments as check

LAYOUTS = ("torch", "keras", "flax", "keras-depthwise")


class Kernel:
    """A checked kernel, with the axes of its features and its inputs and the number of groups.

    With more than one group, either of the two axes holds those of one group only.
    """

    def __init__(self, weight, layout, groups=1, transposed=False, linear=False):
        known = LAYOUTS[:3] if linear else LAYOUTS
        if layout not in known:
            raise ValueError(f"layout is {layout!r}, expected one of {', '.join(map(repr, known))}")
        self.weight = weight = check.array("weight", weight)
        axes, self.features_axis, self.inputs_axis = _axes(layout, transposed, linear)
        if weight.ndim != 2 if linear else weight.ndim < 3:
            raise ValueError(f"weight has shape {weight.shape}, expected ({axes})")
        check.positive_integer("groups", groups)
        self.features_grouped = transposed or layout == "keras-depthwise"
        if self.features_grouped and layout != "torch" and groups != 1:
            raise ValueError(f"groups is {groups}, expected 1: such a kernel has no groups")
        whole = self.inputs_axis if self.features_grouped else self.features_axis
        if weight.shape[whole] % groups:
            channels = "inputs" if self.features_grouped else "features"
            raise ValueError(
                f"groups is {groups}, expected a divisor of the {weight.shape[whole]} {channels} of "
                "weight"
            )
        self.groups = weight.shape[whole] if layout == "keras-depthwise" else groups
        self.features = weight.shape[self.features_axis]
        self.inputs = weight.shape[self.inputs_axis]
        if self.features_grouped:
            self.features *= self.groups
        else:
            self.inputs *= self.groups

    def by_feature(self, values):
        """One value for each feature, shaped to multiply the weight."""
        if not self.features_grouped:
            return self._placed(values[:, np.newaxis])
        shared = self.inputs // self.groups
        return self._placed(np.repeat(values.reshape(self.groups, -1), shared, axis=0).T)

    def by_input(self, values):
        """One value for each input, shaped to multiply the weight of a layer not transposed."""
        if self.features_grouped:
            return self._placed(values[np.newaxis])
        shared = self.features // self.groups
        return self._placed(np.repeat(values.reshape(self.groups, -1), shared, axis=0))

    def sums(self, values):
        """For each feature of a layer not transposed the sum over its entries, given like weight."""
        kept = {self.features_axis % values.ndim}
        if self.features_grouped:
            kept.add(self.inputs_axis % values.ndim)
        axes = tuple(axis for axis in range(values.ndim) if axis not in kept)
        return values.sum(axis=axes).ravel()

    def _placed(self, table):
        """A table of features and inputs, on their axes."""
        shape = [1] * self.weight.ndim
        shape[self.features_axis], shape[self.inputs_axis] = table.shape
        turned = self.features_axis % len(shape) > self.inputs_axis % len(shape)
        return (table.T if turned else table).reshape(shape)


def _axes(layout, transposed, linear):
    """The layout in words, and the axes of features and inputs."""
    if linear:
        return ("features, inputs", 0, 1) if layout == "torch" else ("inputs, features", 1, 0)
    if layout == "torch" and transposed:
        return "inputs, features / groups, *kernel", 1, 0
    if layout == "torch":
        return "features, inputs / groups, *kernel", 0, 1
    if layout == "keras-depthwise":
        if transposed:
            raise ValueError(
                "transposed is True, expected False: Keras has no transposed depthwise"
            )
        return "*kernel, inputs, multiplier", -1, -2
    if not transposed:
        return "*kernel, inputs / groups, features", -1, -2
    return ("*kernel, features, inputs", -2, -1) if layout == "keras" else (
        "*kernel, inputs, features", -1, -2,
    )  # fmt: skip
