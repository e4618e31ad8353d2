"""The store on one SQLite file: its tables, statements, locks and files. Nothing outside this folder knows SQLite."""
