"""Theory You Can Run: kernels, paper modules and the press of an executable book."""

__version__ = "0.1.0"
