"""zerohop: a service mesh with no proxy hop."""

__version__ = "0.1.0"
