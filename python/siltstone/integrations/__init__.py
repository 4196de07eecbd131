"""Hooks for training and inference frameworks, one module each; each imports its framework."""
