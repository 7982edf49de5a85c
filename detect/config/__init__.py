"""From words to values: unknown keys, trusted classes, sections of a configuration."""
