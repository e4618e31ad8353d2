"""What keeps a process honest: word to the supervisor, watchdog, health, gauges, schedule, the loop's lag."""
