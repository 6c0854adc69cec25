"""Versions of models over the API and at the console.

`app` alone imports it.
"""
