"""Networks in fewer bits: the conversions, and the localization gate that each has to pass."""
