"""The shipped kernels in the interpreter: each form with the inputs of a case, held to its reference."""

from .forms import Outcome, Shipped, of_compiled, of_variant

__all__ = ["Outcome", "Shipped", "of_compiled", "of_variant"]
