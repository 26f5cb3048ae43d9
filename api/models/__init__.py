"""The catalogue of base models."""
