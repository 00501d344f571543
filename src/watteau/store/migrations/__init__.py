"""The steps that make the tables and bring old ones up to date (Alembic)."""
