"""landcover: from satellite scenes and a few hundred polygons to a land-cover map.

Importing this package imports nothing else, so that ``landcover --help`` answers at once.
"""

__version__ = "0.1.0"
