"""The experiments: each returns a small dataclass of arrays that can be saved, loaded and drawn."""
