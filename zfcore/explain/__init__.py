"""Why a network answered, and what its units want to see: attribution, synthesis, feature space.

Functions return arrays with their settings (`Attribution`, `Synthesis`), never pictures.
"""

from __future__ import annotations

from .adversarial import Adversarial, adversarial
from .adversarial_training import AdversarialFeed, fast_gradient
from .ascent import PRESETS, Settings, ascent, presets
from .cam import cam, gradcam, guided_gradcam
from .dream import dream
from .facets import Facets, facets
from .features import extract, maps_of, nearest, pca, tsne
from .invariances import Invariances, invariances
from .inversion import inversion
from .layout import grid_layout
from .occlusion import occlusion
from .resize import resize_maps
from .result import Activations, Attribution, Synthesis
from .saliency import deconvnet, gradient, gradient_times_input, guided, saliency, smoothgrad
from .segment import grabcut
from .starts import class_means, strongest
from .targets import Targets, resolve

__all__ = ["PRESETS", "Activations", "Adversarial", "AdversarialFeed", "Attribution", "Facets", "Invariances",
           "Settings", "Synthesis", "Targets", "adversarial", "ascent", "cam", "class_means", "deconvnet", "dream",
           "extract", "facets", "fast_gradient", "grabcut", "gradcam", "gradient", "gradient_times_input",
           "grid_layout", "guided", "guided_gradcam", "invariances", "inversion", "maps_of", "nearest", "occlusion",
           "pca", "presets", "resize_maps", "resolve", "saliency", "smoothgrad", "strongest", "tsne"]
