"""A film file to a Frame, and a Frame to the model's input."""
