"""Networks: the graph, its two walks, cones and projections."""

from ..units import Unit
from .cones import Cone
from .graph import Network
from .projection import Projections
from .tables import Memory, Row
from .unchanging import unchanging
from .walk import Backward, Forward, Node

__all__ = ["Backward", "Cone", "Forward", "Memory", "Network", "Node", "Projections", "Row", "Unit",
           "unchanging"]
