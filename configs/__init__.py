"""The recipes: each file's `get_config()` gives a config for `experiments.main`."""
