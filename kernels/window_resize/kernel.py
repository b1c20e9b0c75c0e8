"""The Triton kernel of window_resize: stored pixels to the model's input in one pass."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def window(place, image_size, size, enlarge: tl.constexpr):
    """First and last + 1 of the source pixels that an output pixel is made of, along one axis."""
    if enlarge:
        first = tl.maximum((2 * place + 1) * image_size - size, 0) // (2 * size)
        last = tl.minimum(first + 2, image_size)
    else:
        first = place * image_size // size
        last = ((place + 1) * image_size + size - 1) // size
    return first, last


@triton.jit
def weight(source, place, image_size, size, enlarge: tl.constexpr):
    """Weight of a source pixel in an output pixel, along one axis: a whole number, so exact."""
    if enlarge:
        centre = (2 * place + 1) * image_size - size  # both clamped and counted in 1 / (2 size) source pixels
        centre = tl.minimum(tl.maximum(centre, 0), 2 * size * (image_size - 1))
        part = 2 * size - tl.abs(centre - 2 * size * source)
    else:  # the overlap of [source, source + 1) and the output pixel, in 1 / size source pixels
        end = tl.minimum((source + 1) * size, (place + 1) * image_size)
        part = end - tl.maximum(source * size, place * image_size)
    return tl.maximum(part, 0).to(tl.float32)


SIZES = ("last", "image_width", "image_height", "input_width", "input_height", "left", "top", "width", "height")
"""Arguments that differ from film to film: Triton would compile anew where one is 1, or a multiple of 16."""


@triton.jit(do_not_specialize=SIZES)
def window_resize_kernel(
    pixels,  # [image_height, image_width] uint8, uint16, or int16 with the bits of uint16
    table,  # [last + 1] fp32, a power of two
    last,
    image_width,
    image_height,
    input_width,
    input_height,
    left,
    top,
    width,
    height,
    output,  # [input_height, input_width] fp32, fp16 or bf16
    enlarge: tl.constexpr,  # bilinear; else area averages
    taps: tl.constexpr,  # source columns at a time of one output pixel; any power of two is right
    BLOCK_W: tl.constexpr,  # output pixels of a program, neighbours in one row
):
    """BLOCK_W pixels of a row of the windowed, letterboxed film; grid: ceil(input_width / BLOCK_W), input_height."""
    column = tl.program_id(0) * BLOCK_W + tl.arange(0, BLOCK_W)[:, None]
    row = tl.program_id(1)
    tap = tl.arange(0, taps)[None, :]
    x, y = column - left, row - top
    inside = (x >= 0) & (x < width)
    first_x, last_x = window(x, image_width, width, enlarge)
    first_y, last_y = window(y, image_height, height, enlarge)
    last_y = tl.where((y >= 0) & (y < height), last_y, first_y)  # no source row, no light: the letterbox

    widest = (image_width + width - 1) // width + (image_width % width > 0).to(tl.int32)  # of the windows along x
    total = tl.zeros((BLOCK_W, taps), tl.float32)
    for skipped in range(0, widest, taps):
        source_x = first_x + skipped + tap
        wanted = inside & (source_x < last_x)
        column_sum = tl.zeros((BLOCK_W, taps), tl.float32)
        for source_y in range(first_y, last_y, 2):
            # two rows a turn, so that twice as many loads are under way; past the last row the weight is 0
            below_y = tl.minimum(source_y + 1, last_y - 1)
            above = tl.load(pixels + (source_y * image_width + source_x), wanted, 0, eviction_policy="evict_first")
            below = tl.load(pixels + (below_y * image_width + source_x), wanted, 0, eviction_policy="evict_first")
            above = tl.load(table + (above.to(tl.int32) & last), wanted, 0.0, eviction_policy="evict_last")
            below = tl.load(table + (below.to(tl.int32) & last), wanted, 0.0, eviction_policy="evict_last")
            column_sum += above * weight(source_y, y, image_height, height, enlarge)
            column_sum += below * weight(source_y + 1, y, image_height, height, enlarge)
        total += column_sum * weight(source_x, x, image_width, width, enlarge)

    # what the weights add up to
    whole_x = 2 * width if enlarge else image_width
    whole_y = 2 * height if enlarge else image_height
    mean = tl.sum(total, axis=1, keep_dims=True) / (whole_x.to(tl.float32) * whole_y)
    # Stored by the first lane of its taps, in the layout of the sum. Did the compiler see that the columns are
    # neighbours, it would rearrange them for the store, and that through shared memory; the minimum hides it.
    place = row * input_width + tl.minimum(column, input_width - 1) + 0 * tap
    tl.store(output + place, mean.to(output.dtype.element_ty), (column < input_width) & (tap == 0))
