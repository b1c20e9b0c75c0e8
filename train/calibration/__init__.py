"""From a trained network to decisions: film gate, thresholds, the rule of boxes, and their measured rates."""
