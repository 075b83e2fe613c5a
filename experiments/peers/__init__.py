"""The recipes in other frameworks, to measure beside: each file runs where its framework is."""
