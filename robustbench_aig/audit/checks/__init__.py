"""The checks, a file for each family: every function with a ``@check`` above it is one."""
