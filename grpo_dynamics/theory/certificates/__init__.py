"""Proofs by interval arithmetic: how many fixed points and cycles there are, where, and whether they attract."""
