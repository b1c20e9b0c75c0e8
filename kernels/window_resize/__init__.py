"""window_resize: stored pixels to the model's input, windowed, antialiased, letterboxed (README.md has the maths)."""
