"""How quick the console is on a large store: python -m tests.bench.console"""
