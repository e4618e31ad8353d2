"""A PostgreSQL server of a simulation, by what the keeper asks of one."""
