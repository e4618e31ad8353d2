"""The store in a PostgreSQL database: its tables, statements and connections. Nothing else knows psycopg."""
