"""The commands, run as `python -m experiments.<name>`."""
