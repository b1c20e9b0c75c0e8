"""A backbone for inference, whose convolutions take in the batch normalisation that follows them."""

from __future__ import annotations

from torch import nn
from torch.fx import GraphModule, Tracer
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batchnorm(backbone: nn.Module) -> GraphModule:
    """Trace a network in eval mode, and put each batch normalisation into the convolution before it.

    A normalisation stays where something else reads what its convolution gives. The result is the same function, up to
    rounding, with fewer kernels to run.
    """
    traced = GraphModule(backbone, _ConvolutionTracer().trace(backbone))
    for node in list(traced.graph.nodes):
        if node.op == "call_module" and isinstance(norm := traced.get_submodule(node.target), nn.BatchNorm2d):
            (before,) = node.args
            # Asked for anew: a convolution may have taken in another normalisation already.
            conv = traced.get_submodule(before.target) if before.op == "call_module" else None
            if isinstance(conv, nn.Conv2d) and len(before.users) == 1:
                traced.set_submodule(before.target, fuse_conv_bn_eval(conv, norm))
                node.replace_all_uses_with(before)
                traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


class _ConvolutionTracer(Tracer):
    """Traces a network down to its convolutions, also to those that pad by themselves."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.Conv2d) or super().is_leaf_module(m, module_qualified_name)
