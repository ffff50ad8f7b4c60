"""Texts: tables of them, their tokens, and what the audit says about them."""
