"""The engine that replicates with PySyncObj. Only this package imports ``pysyncobj``."""

from consensus.engines.pysyncobj.engine import PySyncObjEngine

__all__ = ["PySyncObjEngine"]
