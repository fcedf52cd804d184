"""Experiments on Scenes: the quickstart, the transfer table, ablations, and the small teachers."""
