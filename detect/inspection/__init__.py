"""Data and detector looked at together: data check, preview, anchor fit, counts of Table 6."""
