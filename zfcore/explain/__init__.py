"""Why a network answered, and what its units want to see: attribution, synthesis, feature space.

Functions return arrays with their settings (`Attribution`, `Synthesis`), never pictures.
"""

from __future__ import annotations

from .cam import cam, gradcam, guided_gradcam
from .resize import resize_maps
from .result import Attribution, Synthesis
from .saliency import deconvnet, gradient, gradient_times_input, guided, saliency, smoothgrad
from .segment import grabcut
from .targets import Targets, resolve

__all__ = ["Attribution", "Synthesis", "Targets", "cam", "deconvnet", "grabcut", "gradcam", "gradient",
           "gradient_times_input", "guided", "guided_gradcam", "resize_maps", "resolve", "saliency", "smoothgrad"]
