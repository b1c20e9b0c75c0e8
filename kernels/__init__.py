"""Operations with a plain reference and a kernel each."""

OPTIONS = {"enable_fp_fusion": True}
"""Options of Triton for every kernel: a product and a sum become one instruction, which 3.10 does only when asked."""
