"""Networks: the graph, its two walks, cones and projections."""

from ..units import Unit
from .cones import Cone
from .freezing import unchanging
from .graph import Network
from .projection import Projections
from .tables import Memory, Row
from .walk import Backward, Forward, Node

__all__ = ["Backward", "Cone", "Forward", "Memory", "Network", "Node", "Projections", "Row", "Unit",
           "unchanging"]
