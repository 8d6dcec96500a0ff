"""Whose API the bytes speak. Dialects never import each other."""
