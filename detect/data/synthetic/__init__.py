"""Data sets that are drawn: shapes on textures."""
