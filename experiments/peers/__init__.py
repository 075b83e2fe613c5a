"""Measurements in processes of their own: of sizes, and of the recipes in other frameworks.

`keras_peer.py` and `torch_peer.py` run where their framework is, without this library.
"""
