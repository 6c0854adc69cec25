"""Hunting stores: live queries by columns, for questions over months that rows of the database are too large for.

Closed days as Parquet files that DuckDB reads in place.
"""
