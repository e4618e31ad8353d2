"""The life of one attempt, and the retry policy's cases."""
