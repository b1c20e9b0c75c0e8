"""What `msloc-edge eval` is made of: where maps come from, and one evaluation of them."""
