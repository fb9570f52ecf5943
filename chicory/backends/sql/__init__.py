"""Results in a database, through SQLAlchemy Core.  The only room that imports sqlalchemy and the drivers."""

from chicory.backends.sql.backend import SqlBackend

__all__ = ["SqlBackend"]
