"""Scoring: maps and scores against labels, boxes and masks, with intervals, beside maps that know nothing."""
