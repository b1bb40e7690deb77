"""What a ReLU and a normalisation do to the signal on its way down; everything else is linear.

=========== ============================ ==================================
rule        ReLU                         normalisation (response, contrast)
=========== ============================ ==================================
gradient    s where x > 0                gradient
deconvnet   max(s, 0)                    identity
guided      max(s, 0) where x > 0        gradient
=========== ============================ ==================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rule:
    """One way of walking down a network.

    Attributes
    ----------
    name : what users type
    relu : how `ops.relu_backward` treats the signal: "gradient", "deconvnet" or "guided"
    normalization : "gradient" or "identity"
    overlap : what a cell gets that several pooling windows chose: their "sum", or the "last" one's
        value (torch's `max_unpool2d`), which loses part of the signal
    """

    name: str
    relu: str
    normalization: str
    overlap: str = "sum"

    @property
    def is_gradient(self) -> bool:
        """Whether the walk gives true derivatives, so that every layer has this rule."""
        return (self.relu, self.normalization, self.overlap) == ("gradient", "gradient", "sum")


GRADIENT = Rule("gradient", "gradient", "gradient")
DECONVNET = Rule("deconvnet", "deconvnet", "identity")
GUIDED = Rule("guided", "guided", "gradient")
RULES = {rule.name: rule for rule in (GRADIENT, DECONVNET, GUIDED)}


def get(rule: str | Rule) -> Rule:
    """Return the rule of this name, or the rule itself."""
    if isinstance(rule, Rule):
        return rule
    if rule not in RULES:
        raise ValueError(f"rule is {rule!r}; allowed: one of {', '.join(map(repr, RULES))}")
    return RULES[rule]


def only_gradient(rule: Rule, layer: Any, why: str) -> None:
    """Refuse every other rule: a layer without one must not pass a silent gradient off as it."""
    if not rule.is_gradient:
        raise ValueError(f"{type(layer).__name__}: rule is {rule.name!r}; allowed: 'gradient' ({why})")
