"""Turns the rows that come home into output."""
